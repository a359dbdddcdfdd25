"""Queues in look-up tables whose wires stay short: every 64 bits have pointers of their own."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib.memory import Memory

from board.overlay.hardware.component import Elaboratable, data

SLICE_BITS = 64


class Fifo(Elaboratable):
    """First in, first out; what is written can be read two cycles later. `depth`: a power of two."""

    def __init__(self, width: int, depth: int) -> None:
        self.width, self.depth = width, depth
        self.w_data, self.w_en, self.w_rdy = Signal(width), Signal(), Signal()
        self.r_data, self.r_en, self.r_rdy = Signal(width), Signal(), Signal()
        self.level = Signal(range(depth + 1))

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        slices = [_Slice(min(SLICE_BITS, self.width - place), self.depth) for place in range(0, self.width, SLICE_BITS)]
        for number, part in enumerate(slices):
            m.submodules[f"slice{number}"] = part
            here = slice(number * SLICE_BITS, number * SLICE_BITS + part.width)
            m.d.comb += [part.w_data.eq(self.w_data[here]), part.w_en.eq(self.w_en), part.r_en.eq(self.r_en)]
        first = slices[0]
        m.d.comb += [
            self.r_data.eq(Cat(part.r_data for part in slices)),
            self.w_rdy.eq(first.w_rdy),
            self.r_rdy.eq(first.r_rdy),
            self.level.eq(first.stored + first.r_rdy),
        ]
        return m


class _Slice(Elaboratable):
    """All slices hold the same in these registers, and `keep` keeps each its own."""

    def __init__(self, width: int, depth: int) -> None:
        self.width, self.depth = width, depth
        self.w_data, self.w_en = Signal(width), Signal()
        self.r_data, self.r_en = data(width), Signal()
        self.w_rdy = Signal(init=1, attrs={"keep": "true"})
        self.r_rdy = Signal(attrs={"keep": "true"})
        self.stored = Signal(range(depth), attrs={"keep": "true"})  # beside the one at the way out

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=self.width, depth=self.depth, init=[])
        write, read = memory.write_port(), memory.read_port(domain="comb")
        produce, consume = (Signal(range(self.depth), attrs={"keep": "true"}, name=n) for n in ("produce", "consume"))
        some = Signal(attrs={"keep": "true"})  # stored != 0
        enters, moves = Signal(), Signal()
        stored = Signal.like(self.stored)
        m.d.comb += [
            enters.eq(self.w_en & self.w_rdy),
            moves.eq(some & (~self.r_rdy | self.r_en)),
            stored.eq(self.stored + enters - moves),
            write.addr.eq(produce),
            write.data.eq(self.w_data),
            write.en.eq(enters),
            read.addr.eq(consume),
        ]
        m.d.sync += [
            self.stored.eq(stored),
            some.eq(stored != 0),
            self.w_rdy.eq(stored != self.depth - 1),
            self.r_rdy.eq(Mux(self.r_rdy & ~self.r_en, 1, some)),
            produce.eq(produce + enters),
            consume.eq(consume + moves),
        ]
        with m.If(moves):
            m.d.sync += self.r_data.eq(read.data)
        return m
