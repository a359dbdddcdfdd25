"""The activation memory: 4 banks of 4096 words of 16 bytes, two ports a bank.

Port A serves the write of a result, else pixel 0 of a step; port B serves a load or store, else pixel 1. Results, loads
and stores are always served; a step is granted only when neither of its banks' ports is taken.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from amaranth.hdl import Array, Cat, Module, Mux, Signal

from board.overlay.hardware.component import Elaboratable, copied, data, delayed
from board.overlay.hardware.two_port import TwoPort
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
        self.step_data = [data(8 * WORD_BYTES, name=f"step_data{p}") for p in range(2)]
        self.write = Signal(LANES)  # a bit for each quad
        self.write_address = [Signal(ADDRESS_BITS, name=f"write_address{lane}") for lane in range(LANES)]
        self.write_data = Signal(8 * WORD_BYTES)
        self.port = Signal()  # a load or store uses port B
        self.port_write = Signal()
        self.port_address = Signal(ADDRESS_BITS)
        self.port_write_data = Signal(8 * WORD_BYTES)
        self.port_data = data(8 * WORD_BYTES)

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        # Results, loads and stores come a cycle ahead, so that a grant depends on registers alone.
        port_bank = self.port_address[INDEX_BITS:]
        written = data(BANKS)  # banks whose port A a result takes
        used = data(BANKS)  # banks whose port B a load or store takes
        hits, uses = [], []  # the same for each bank and lane: `uses` in registers that lie near their block RAMs
        for bank in range(BANKS):
            hit = [self.write[lane] & (self.write_address[lane][INDEX_BITS:] == bank) for lane in range(LANES)]
            use = self.port & (port_bank == bank)
            hits.append(delayed(m, Cat(hit), 1))
            uses.append(copied(m, use, LANES))
            m.d.sync += [written[bank].eq(Cat(hit).any()), used[bank].eq(use)]
        late = _Late(
            [delayed(m, address[:INDEX_BITS], 1) for address in self.write_address],
            delayed(m, self.write_data, 1),
            delayed(m, self.port_write, 1),
            delayed(m, self.port_address[:INDEX_BITS], 1),
            delayed(m, self.port_write_data, 1),
        )
        words = [self._bank(m, bank, hits[bank], uses[bank], late) for bank in range(BANKS)]
        bank0, bank1 = (address[INDEX_BITS:] for address in self.step_address)
        taken = Cat(written.bit_select(bank0, 1), used.bit_select(bank1, 1))
        m.d.comb += self.step_grant.eq(~(self.step & taken).any())
        selects = (bank0, bank1, delayed(m, port_bank, self.PORT_CYCLES - self.READ_CYCLES))
        for word, select, port in zip((*self.step_data, self.port_data), selects, (0, 1, 1), strict=True):
            chosen = copied(m, delayed(m, select, self.READ_CYCLES - 2), LANES)
            for lane in range(LANES):
                banks = Array(words[bank][lane][port] for bank in range(BANKS))
                m.d.sync += word.word_select(lane, QUAD_BITS).eq(banks[chosen[lane]])
        return m

    def _bank(self, m: Module, bank: int, hits: Any, uses: list[Any], late: _Late) -> list[tuple[Any, Any]]:
        """Of each lane, the quads that ports A and B read two cycles ago."""
        words = []
        for lane in range(LANES):
            quad = slice(lane * QUAD_BITS, (lane + 1) * QUAD_BITS)
            m.submodules[f"bank{bank}_{lane}"] = memory = TwoPort(QUAD_BITS, self.bank_words)
            a, b = memory.ports
            # subtle: what is read while writing is never used; a block RAM reads it anyway
            m.d.comb += [
                a.address.eq(Mux(hits[lane], late.write_index[lane], self.step_address[0])),
                a.enable.eq(hits[lane]),
                a.write.eq(late.write_data[quad]),
                b.address.eq(Mux(uses[lane], late.port_index, self.step_address[1])),
                b.enable.eq(uses[lane] & late.port_write),
                b.write.eq(late.port_write_data[quad]),
            ]
            words.append((a.word, b.word))
        return words


class _Late(NamedTuple):
    """What results, loads and stores asked for in the cycle before."""

    write_index: list[Any]
    write_data: Any
    port_write: Any
    port_index: Any
    port_write_data: Any
