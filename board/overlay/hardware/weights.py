"""The weight memory: 1024 words of 192 bytes, written 16 bytes (one output channel) at a time, read a word a cycle."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib.memory import Memory

from board.overlay.hardware.component import Elaboratable
from board.overlay.isa import CHANNELS_IN, CHANNELS_OUT, WEIGHT_WORD_BYTES, WEIGHT_WORDS

ROW_BITS = 8 * CHANNELS_IN


class WeightMemory(Elaboratable):
    READ_CYCLES = 2

    def __init__(self) -> None:
        self.write = Signal()
        self.write_word = Signal(range(WEIGHT_WORDS))
        self.write_row = Signal(range(CHANNELS_OUT))
        self.write_data = Signal(ROW_BITS)
        self.address = Signal(range(WEIGHT_WORDS))
        self.data = Signal(8 * WEIGHT_WORD_BYTES, reset_less=True)  # the block RAM's register
        self.one = Signal()  # in place of what is read: each lane's first weight 1, every other byte 0

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        for row in range(CHANNELS_OUT):
            m.submodules[f"row{row}"] = memory = Memory(shape=ROW_BITS, depth=WEIGHT_WORDS, init=[])
            write, read = memory.write_port(), memory.read_port()
            m.d.comb += [
                write.addr.eq(self.write_word),
                write.data.eq(self.write_data),
                write.en.eq(self.write & (self.write_row == row)),
                read.addr.eq(self.address),
                read.en.eq(1),
            ]
            # subtle: a constant here costs nothing, it is the set and reset of the register
            ones = sum(1 << 8 * lane for lane in range(CHANNELS_IN) if lane % 2 == row)
            with m.If(self.one):
                m.d.sync += self.data.word_select(row, ROW_BITS).eq(ones)
            with m.Else():
                m.d.sync += self.data.word_select(row, ROW_BITS).eq(read.data)
        return m
