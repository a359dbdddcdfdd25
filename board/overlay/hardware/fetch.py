"""Instruction fetch: beats of the program in, whole instructions to the queues of their units."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Signal

from board.overlay.hardware.component import Elaboratable, Stream, copied, data, delayed
from board.overlay.hardware.decode import unit_opcodes
from board.overlay.hardware.fifo import Fifo
from board.overlay.hardware.segments import ACCESS
from board.overlay.isa import BEAT_BYTES, INSTRUCTION_BYTES, OPCODE_BITS, End, Segment, Unit

BEATS = INSTRUCTION_BYTES // BEAT_BYTES
QUEUE = 8


class Fetch(Elaboratable):
    """After `start`, hands out `instructions` instructions until one is End (`ended`) or wrong."""

    def __init__(self) -> None:
        self.start = Signal()
        self.program = Signal(29)  # first beat in segment MODEL
        self.instructions = Signal(20)
        self.access = Stream(ACCESS, "fetch_access")
        self.beats = Stream(64, "fetch_beats")
        self.queues = [Stream(8 * INSTRUCTION_BYTES, f"queue_{unit.name.lower()}") for unit in Unit]
        self.count = Signal(20)  # instructions handed out
        self.ended = Signal()
        self.empty = Signal()  # no instruction waits in a queue
        self.bad_opcode = Signal()
        self.no_end = Signal()
        self.moved = Signal()

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        word, part = data(8 * INSTRUCTION_BYTES), Signal(range(BEATS))
        opcode = word[:OPCODE_BITS]
        nothing = data()
        self._shift(m, word)
        m.d.sync += nothing.eq(self.instructions == 0)
        fifos = []
        for unit in Unit:
            name = f"queue_{unit.name.lower()}"
            m.submodules[name] = fifo = Fifo(8 * INSTRUCTION_BYTES, QUEUE)
            m.d.comb += [
                fifo.w_data.eq(word),
                self.queues[unit].valid.eq(fifo.r_rdy),
                self.queues[unit].payload.eq(fifo.r_data),
                fifo.r_en.eq(self.queues[unit].ready),
            ]
            fifos.append(fifo)
        m.d.comb += [
            self.empty.eq(~Cat(fifo.level != 0 for fifo in fifos).any()),
            self.access.payload.segment.eq(Segment.MODEL),
            self.access.payload.offset.eq(self.program),
            self.access.payload.beats.eq(self.instructions * BEATS),
        ]
        with m.FSM():
            with m.State("IDLE"), m.If(self.start):
                m.next = "ASK"
            with m.State("ASK"):
                m.d.comb += self.access.valid.eq(~nothing)
                with m.If(self.access.ready | nothing):
                    m.next = "COUNT"
            with m.State("COUNT"):
                m.next = "READ"
                with m.If(self.count == self.instructions):
                    m.next = "NO_END"
            with m.State("READ"):
                m.d.comb += self.beats.ready.eq(1)
                with m.If(self.beats.valid):
                    m.d.comb += self.moved.eq(1)
                    m.d.sync += part.eq(part + 1)
                    with m.If(part == BEATS - 1):
                        m.next = "SHIFT"
            with m.State("SHIFT"):
                m.next = "DISPATCH"
            with m.State("DISPATCH"), m.Switch(opcode):
                for unit in Unit:
                    with m.Case(*unit_opcodes(unit)):
                        m.d.comb += fifos[unit].w_en.eq(1)
                        with m.If(fifos[unit].w_rdy):
                            m.d.sync += self.count.eq(self.count + 1)
                            m.next = "COUNT"
                with m.Case(End.OPCODE):
                    m.next = "END"
                with m.Default():
                    m.next = "BAD"
            with m.State("END"):
                m.d.comb += self.ended.eq(1)
            with m.State("BAD"):
                m.d.comb += self.bad_opcode.eq(1)
            with m.State("NO_END"):
                m.d.comb += self.no_end.eq(1)
        return m

    def _shift(self, m: Module, word: Any) -> None:
        """Beats into the word, a cycle after they came."""
        beat = delayed(m, self.beats.payload, 1)
        parts = [word.word_select(i, 8 * BEAT_BYTES) for i in range(BEATS)]
        for shift, part, above in zip(copied(m, self.moved, BEATS), parts, (*parts[1:], beat), strict=True):
            with m.If(shift):
                m.d.sync += part.eq(above)
