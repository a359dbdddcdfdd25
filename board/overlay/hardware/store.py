"""The store unit: tiles of the activation memory into DDR."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal

from board.overlay.hardware.activation import ADDRESS_BITS, ActivationMemory
from board.overlay.hardware.component import Elaboratable, Stream, data, delayed, kept
from board.overlay.hardware.decode import split_fields
from board.overlay.hardware.fifo import Fifo
from board.overlay.hardware.tile import TileRows, TileWords, count_beats
from board.overlay.isa import INSTRUCTION_BYTES, WORD_BYTES, StoreTile


class StoreUnit(Elaboratable):
    """`finished` for one cycle when the memory has answered the instruction's last burst."""

    ROOM = 8  # words read and not yet handed on

    def __init__(self) -> None:
        self.instruction = Stream(8 * INSTRUCTION_BYTES, "store_instruction")
        self.finished = Signal()
        self.idle = Signal(init=1)
        self.rows = TileRows()
        self.beats = Stream(64, "store_beats")
        self.written = Signal()  # in: nothing is left to be written or answered behind this unit
        self.read = Signal()
        self.read_grant = Signal()
        self.read_address = Signal(ADDRESS_BITS)
        self.read_data = Signal(8 * WORD_BYTES)

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        current = data(8 * INSTRUCTION_BYTES)
        f = split_fields(current, StoreTile)
        m.submodules.rows = rows = self.rows
        m.submodules.words = words = TileWords()
        m.submodules.buffer = buffer = Fifo(8 * WORD_BYTES, self.ROOM)
        m.d.comb += [
            rows.segment.eq(f.segment),
            rows.address.eq(f.address),
            rows.pitch.eq(f.pitch),
            rows.rows_last.eq(f.rows),
            rows.beats.eq(count_beats(m, f.cols, f.words)),
            words.base.eq(f.base),
            words.base_row.eq(f.base_row),
            words.base_col.eq(f.base_col),
            words.rows_last.eq(f.rows),
            words.cols_last.eq(f.cols),
            words.words_last.eq(f.words),
        ]

        taken, leaves, half, next_half = Signal(), Signal(), Signal(), Signal()
        halves = kept(2, "half")  # the same as `half`, for the bits of a beat
        free = Signal(range(self.ROOM + 1), init=self.ROOM)
        room = Signal()  # of what is free now, one word may be taken before this is seen
        m.d.sync += [free.eq(free - taken + leaves), room.eq(free > 1)]
        m.d.comb += [
            self.read.eq(words.valid & room),
            self.read_address.eq(words.address),
            taken.eq(self.read & self.read_grant),
            words.next.eq(taken),
            buffer.w_en.eq(delayed(m, taken, ActivationMemory.PORT_CYCLES)),
            buffer.w_data.eq(self.read_data),
            self.beats.valid.eq(buffer.r_rdy),
            next_half.eq(half ^ (self.beats.valid & self.beats.ready)),
            leaves.eq(self.beats.valid & self.beats.ready & half),
            buffer.r_en.eq(leaves),
        ]
        # subtle: no reset reaches the copies, but it lasts, and they follow `half`
        m.d.sync += [half.eq(next_half), *(copy.eq(next_half) for copy in halves)]
        for part, copy in enumerate(halves):
            low, high = (buffer.r_data[place : place + 32] for place in (32 * part, 64 + 32 * part))
            m.d.comb += self.beats.payload[32 * part : 32 * (part + 1)].eq(Mux(copy, high, low))

        m.d.comb += self.instruction.ready.eq(self.idle)
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += current.eq(self.instruction.payload)
                with m.If(self.instruction.valid):
                    m.d.sync += self.idle.eq(0)
                    m.next = "START"
            with m.State("START"):
                m.next = "GO"
            with m.State("GO"):
                m.d.comb += [rows.start.eq(1), words.start.eq(1)]
                m.next = "RUN"
            finished = ~words.valid & (free == self.ROOM) & ~rows.access.valid & self.written
            with m.State("RUN"), m.If(finished):
                m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.finished.eq(1)
                m.d.sync += self.idle.eq(1)
                m.next = "IDLE"
        return m
