"""The queue of what the gate will do, in order: the oldest in a register, the others in a memory."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.memory import Memory

from board.overlay.hardware.component import Elaboratable

WINDOWS = 8


class Windows(Elaboratable):
    """`add` must wait for `room`; `take` drops the oldest, and may wait for nothing."""

    def __init__(self, bits: int) -> None:
        self.new, self.add, self.room = Signal(bits), Signal(), Signal(init=1)
        self.oldest = Signal(bits)
        self.any, self.take = Signal(), Signal()
        self.drop = Signal()  # everything
        self.stored, self.first = Signal(range(WINDOWS + 1)), Signal(range(WINDOWS))  # those in the memory
        self.level = Signal(range(WINDOWS + 1))
        self.memory: Any = Memory(shape=bits, depth=WINDOWS, init=[])

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.memory = self.memory
        write, read = self.memory.write_port(), self.memory.read_port(domain="comb")
        moves = Signal()
        m.d.comb += [
            write.addr.eq((self.first + self.stored)[: len(self.first)]),
            write.data.eq(self.new),
            write.en.eq(self.add),
            read.addr.eq(self.first),
            moves.eq((self.stored != 0) & (~self.any | self.take)),
            self.level.eq(self.stored + self.any),
        ]
        m.d.sync += [
            # a register: the gate's refusals hang on it
            self.room.eq(self.level + self.add < WINDOWS),
            self.first.eq(self.first + moves),
            self.stored.eq(Mux(self.drop, 0, self.stored + self.add - moves)),
            self.any.eq((moves | self.any & ~self.take) & ~self.drop),
        ]
        with m.If(moves):
            m.d.sync += self.oldest.eq(read.data)
        return m
