"""The weight memory: 1024 words of 192 bytes, written 16 bytes (one output channel) at a time, read a word a cycle."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib.memory import Memory

from board.overlay.hardware.component import SPREAD_CYCLES, Elaboratable, copied, data, delayed, spread
from board.overlay.isa import CHANNELS_IN, CHANNELS_OUT, WEIGHT_WORD_BYTES, WEIGHT_WORDS

ROW_BITS = 8 * CHANNELS_IN
COLUMN_BITS = 32  # of a block RAM with 1024 words
COLUMNS = ROW_BITS // COLUMN_BITS
HALVES = 2  # of the rows: each has addresses of its own, on the way to its block RAMs


class WeightMemory(Elaboratable):
    READ_CYCLES = 3
    ONE_CYCLES = SPREAD_CYCLES + 1  # from `one` to `data`

    def __init__(self) -> None:
        self.write = Signal()
        self.write_word = Signal(range(WEIGHT_WORDS))
        self.write_row = Signal(range(CHANNELS_OUT))
        self.write_data = Signal(ROW_BITS)
        self.address = Signal(range(WEIGHT_WORDS))
        self.data = data(8 * WEIGHT_WORD_BYTES)  # the block RAM's register
        self.one = Signal()  # in place of what is read: each lane's first weight 1, every other byte 0

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        words, addresses = (copied(m, signal, HALVES) for signal in (self.write_word, self.address))
        content = delayed(m, self.write_data, 1)
        ones = spread(m, self.one, CHANNELS_OUT * COLUMNS)
        for row in range(CHANNELS_OUT):
            half = row * HALVES // CHANNELS_OUT
            enable = delayed(m, self.write & (self.write_row == row), 1)
            for column in range(COLUMNS):
                here = slice(column * COLUMN_BITS, (column + 1) * COLUMN_BITS)
                m.submodules[f"row{row}_{column}"] = memory = Memory(shape=COLUMN_BITS, depth=WEIGHT_WORDS, init=[])
                write, read = memory.write_port(), memory.read_port()
                m.d.comb += [
                    write.addr.eq(words[half]),
                    write.data.eq(content[here]),
                    write.en.eq(enable),
                    read.addr.eq(addresses[half]),
                    read.en.eq(1),
                ]
                self._register(m, row * COLUMNS + column, read.data, ones)
        return m

    def _register(self, m: Module, number: int, word: Any, ones: list[Any]) -> None:
        """The block RAM's own. A constant costs nothing: it is the set and reset of the register."""
        register = self.data.word_select(number, COLUMN_BITS)
        all_ones = sum(1 << 8 * (CHANNELS_IN * (lane % 2) + lane) for lane in range(CHANNELS_IN))
        with m.If(ones[number]):
            m.d.sync += register.eq(all_ones >> number * COLUMN_BITS & 0xFFFFFFFF)
        with m.Else():
            m.d.sync += register.eq(word)
