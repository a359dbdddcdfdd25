"""From an offset in a segment to a bus address; nothing leaves a segment."""

from __future__ import annotations

from amaranth.hdl import Array, Module, Signal
from amaranth.lib.data import StructLayout

from board.overlay.hardware.component import Elaboratable, Stream, data, kept
from board.overlay.hardware.reader import BEATS_BITS, REQUEST
from board.overlay.isa import Segment

ACCESS = StructLayout({"segment": 2, "offset": 29, "beats": BEATS_BITS})


class SegmentTable:
    """The registers SEGMENTn and SIZEn, in beats."""

    def __init__(self) -> None:
        self.base = Array(Signal(29, name=f"segment{i}_base") for i in Segment)
        self.size = Array(Signal(29, name=f"segment{i}_size") for i in Segment)


class Translator(Elaboratable):
    """`access` in, `request` out three cycles later; `fault` stays 1 from the first access outside its segment."""

    def __init__(self, table: SegmentTable) -> None:
        self.table = table
        self.access = Stream(ACCESS, "access")
        self.request = Stream(REQUEST, "translated")
        self.fault = Signal()

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        access = data(ACCESS)
        of_base, of_size = kept(2, "segment", 2)
        base, size, end = data(29), data(29), data(30)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.access.ready.eq(~self.fault)
                m.d.sync += access.eq(self.access.payload)
                m.d.sync += [copy.eq(self.access.payload.segment) for copy in (of_base, of_size)]
                with m.If(self.access.valid & ~self.fault):
                    m.next = "ADD"
            with m.State("ADD"):
                m.d.sync += [
                    base.eq(self.table.base[of_base] + access.offset),
                    size.eq(self.table.size[of_size]),
                    end.eq(access.offset + access.beats),
                ]
                m.next = "CHECK"
            with m.State("CHECK"):
                with m.If(end > size):
                    m.d.sync += self.fault.eq(1)
                    m.next = "IDLE"
                with m.Else():
                    m.next = "ASK"
            with m.State("ASK"):
                m.d.comb += self.request.valid.eq(1)
                with m.If(self.request.ready):
                    m.next = "IDLE"
        m.d.comb += [self.request.payload.address.eq(base), self.request.payload.beats.eq(access.beats)]
        return m
