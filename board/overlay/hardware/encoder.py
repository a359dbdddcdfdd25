"""The belt's encoder: filtered pulses, counted up and down; and when its count is not to be believed."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Signal, signed

from board.overlay.hardware.component import Elaboratable

POSITION_BITS = 64
FILTER_BITS = 16
BACK_BITS = 16
STEP_PARTS = 3  # of 1 or −1, each with a register for its pins: one in each look-up table, one in each carry


class Encoder(Elaboratable):
    """`a` and `b` are synchronous. With `quadrature` each of their edges counts, and A leads while the belt goes
    forward; without, each rising edge of A, and B, where it `directs`, is 1 while the belt goes back.
    """

    def __init__(self) -> None:
        self.a, self.b = Signal(), Signal()
        self.quadrature, self.directs, self.turned = Signal(), Signal(), Signal()
        self.filter_cycles = Signal(FILTER_BITS)
        self.silence = Signal(32)  # cycles without a count forward, from which on the encoder may be dead
        self.most_back = Signal(BACK_BITS)  # counts: a belt at rest trembles
        self.position, self.furthest = Signal(signed(POSITION_BITS)), Signal(signed(POSITION_BITS))
        self.quiet = Signal(32)  # cycles since it was last further than before
        self.raised = Signal(3)  # the first bits of ENCODER_FAULT

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        a, b = self._filtered(m, self.a), self._filtered(m, self.b)
        counts, back, step, skipped = self._decode(m, a, b)
        following, furthest = Signal(signed(POSITION_BITS)), self.furthest
        advances, went_back = Signal(), Signal()
        m.d.comb += [
            following.eq(self.position + step),
            advances.eq(counts & ~back & (self.position == furthest)),
        ]
        m.d.sync += went_back.eq(furthest - self.position > self.most_back)
        with m.If(counts):
            m.d.sync += self.position.eq(following)
        with m.If(advances):
            m.d.sync += furthest.eq(following)
        m.d.comb += self.raised.eq(Cat(self._silent(m, advances), went_back, skipped))
        return m

    def _filtered(self, m: Module, level: Signal) -> Any:
        """The level once it has been another one for longer than the filter."""
        steady, held = Signal(FILTER_BITS), Signal()
        with m.If(level == held):
            m.d.sync += steady.eq(0)
        with m.Else():
            m.d.sync += steady.eq(steady + 1)
            with m.If(steady >= self.filter_cycles):
                m.d.sync += [held.eq(level), steady.eq(0)]
        return held

    def _decode(self, m: Module, a: Any, b: Any) -> tuple[Any, Any, Any, Any]:
        """From registers: something is counted, backwards, what it adds, and a count is missing because both levels
        changed at once."""
        a_before, b_before = Signal(), Signal()
        counts, goes_back, skipped = Signal(), Signal(), Signal()
        back, *backs = (Signal(name=f"back{i}", attrs={"keep": "true"}) for i in range(1 + STEP_PARTS))
        m.d.sync += [copy.eq(goes_back) for copy in (back, *backs)]
        m.d.sync += [a_before.eq(a), b_before.eq(b)]
        with m.If(self.quadrature):
            changed = Cat(a ^ a_before, b ^ b_before)
            m.d.sync += [
                counts.eq(changed.xor()),
                skipped.eq(changed.all()),
            ]
            m.d.comb += goes_back.eq(a_before ^ b ^ self.turned)
        with m.Else():
            m.d.sync += [counts.eq(a & ~a_before), skipped.eq(0)]
            m.d.comb += goes_back.eq((b & self.directs) ^ self.turned)
        step = Cat(Const(1, 1), *(copy.replicate((POSITION_BITS - 1) // STEP_PARTS) for copy in backs)).as_signed()
        return counts, back, step, skipped

    def _silent(self, m: Module, advances: Signal) -> Any:
        """A belt that only trembles is silent too."""
        quiet, silent, advanced = self.quiet, Signal(), Signal()
        m.d.comb += silent.eq(quiet >= self.silence)
        m.d.sync += advanced.eq(advances)  # a register: the comparison of positions is long enough
        with m.If(advanced):
            m.d.sync += quiet.eq(0)
        with m.Elif(~quiet.all()):
            m.d.sync += quiet.eq(quiet + 1)
        return silent
