"""The activation memory: 4 banks of 4096 words of 16 bytes, two ports a bank.

Port A serves the write of a result, else pixel 0 of a step; port B serves a load or store, else pixel 1. Results, loads
and stores are always served; a step is granted only when neither of its banks' ports is taken.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib.memory import Memory

from board.overlay.hardware.component import Elaboratable, delayed
from board.overlay.isa import BANK_WORDS, BANKS, WORD_BYTES

LANES = 4  # quads of a word, each with an address of its own when written
QUAD_BITS = 8 * WORD_BYTES // LANES
ADDRESS_BITS = (BANKS * BANK_WORDS - 1).bit_length()
INDEX_BITS = (BANK_WORDS - 1).bit_length()


class ActivationMemory(Elaboratable):
    READ_CYCLES = 3  # from a granted address to its word
    PORT_CYCLES = 4  # from the port's address to its word

    def __init__(self, bank_words: int = BANK_WORDS) -> None:
        self.bank_words = bank_words
        self.step = Signal(2)  # which of its two pixels a step wants to read
        self.step_address = [Signal(ADDRESS_BITS, name=f"step_address{p}") for p in range(2)]
        self.step_grant = Signal()  # may it: combinational
        self.step_data = [Signal(8 * WORD_BYTES, name=f"step_data{p}") for p in range(2)]
        self.write = Signal(LANES)  # a bit for each quad
        self.write_address = [Signal(ADDRESS_BITS, name=f"write_address{lane}") for lane in range(LANES)]
        self.write_data = Signal(8 * WORD_BYTES)
        self.port = Signal()  # a load or store uses port B
        self.port_write = Signal()
        self.port_address = Signal(ADDRESS_BITS)
        self.port_write_data = Signal(8 * WORD_BYTES)
        self.port_data = Signal(8 * WORD_BYTES)

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        # Results, loads and stores come a cycle ahead, so that a grant depends on registers alone.
        port_bank = self.port_address[INDEX_BITS:]
        written = Signal(BANKS)  # banks whose port A a result takes
        used = Signal(BANKS)  # banks whose port B a load or store takes
        hits = [Signal(LANES, name=f"bank{bank}_hits") for bank in range(BANKS)]
        for bank in range(BANKS):
            hit = [self.write[lane] & (self.write_address[lane][INDEX_BITS:] == bank) for lane in range(LANES)]
            m.d.sync += [hits[bank].eq(Cat(hit)), written[bank].eq(Cat(hit).any())]
            m.d.sync += used[bank].eq(self.port & (port_bank == bank))
        late = _Late(
            [delayed(m, address[:INDEX_BITS], 1) for address in self.write_address],
            delayed(m, self.write_data, 1),
            delayed(m, self.port_write, 1),
            delayed(m, self.port_address[:INDEX_BITS], 1),
            delayed(m, self.port_write_data, 1),
        )
        words: list[tuple[Any, Any]] = [self._bank(m, bank, hits[bank], used[bank], late) for bank in range(BANKS)]
        bank0, bank1 = (address[INDEX_BITS:] for address in self.step_address)
        taken = Cat(written.bit_select(bank0, 1), used.bit_select(bank1, 1))
        m.d.comb += self.step_grant.eq(~(self.step & taken).any())
        selects = (bank0, bank1, delayed(m, port_bank, self.PORT_CYCLES - self.READ_CYCLES))
        for data, select, port in zip((*self.step_data, self.port_data), selects, (0, 1, 1), strict=True):
            chosen = delayed(m, select, self.READ_CYCLES - 1)
            m.d.sync += data.eq(Array(word[port] for word in words)[chosen])
        return m

    def _bank(self, m: Module, bank: int, hits: Any, used: Any, late: _Late) -> tuple[Any, Any]:
        """The words that ports A and B read two cycles ago."""
        words = (Signal(8 * WORD_BYTES, name=f"bank{bank}_a"), Signal(8 * WORD_BYTES, name=f"bank{bank}_b"))
        for lane in range(LANES):
            quad = slice(lane * QUAD_BITS, (lane + 1) * QUAD_BITS)
            m.submodules[f"bank{bank}_{lane}"] = memory = Memory(shape=QUAD_BITS, depth=self.bank_words, init=[])
            address_a, address_b = Signal(INDEX_BITS), Signal(INDEX_BITS)
            m.d.comb += address_a.eq(Mux(hits[lane], late.write_index[lane], self.step_address[0]))
            m.d.comb += address_b.eq(Mux(used, late.port_index, self.step_address[1]))
            sides = (
                (address_a, hits[lane], late.write_data, words[0]),
                (address_b, used & late.port_write, late.port_write_data, words[1]),
            )
            for address, enable, data, word in sides:
                write, read = memory.write_port(), memory.read_port()
                # subtle: what is read while writing is never used; a block RAM reads it anyway, the old word
                m.d.comb += [write.addr.eq(address), write.en.eq(enable), write.data.eq(data[quad])]
                m.d.comb += [read.addr.eq(address), read.en.eq(1)]
                m.d.sync += word[quad].eq(read.data)
        return words


class _Late(NamedTuple):
    """What results, loads and stores asked for in the cycle before."""

    write_index: list[Any]
    write_data: Any
    port_write: Any
    port_index: Any
    port_write_data: Any
