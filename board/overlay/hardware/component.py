"""What the parts of the design have in common: a base that the type checker knows, and streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amaranth.hdl import Const, Module, Mux, Signal

if TYPE_CHECKING:

    class Elaboratable:
        """Amaranth has no types."""

else:
    from amaranth.hdl import Elaboratable

__all__ = [
    "PINS",
    "SPREAD_CYCLES",
    "Elaboratable",
    "Loop",
    "Nest",
    "Skid",
    "Stream",
    "connect",
    "copied",
    "data",
    "delayed",
    "kept",
    "spread",
]

PINS = 32  # that one register drives at most: a wire to more of them is too long for a cycle
SPREAD_CYCLES = 2


class Stream:
    """A payload moves in every cycle in which both `valid` and `ready` are 1; `valid` never waits for `ready`."""

    def __init__(self, shape: Any, name: str) -> None:
        self.valid = Signal(name=f"{name}_valid")
        self.ready = Signal(name=f"{name}_ready")
        self.payload = Signal(shape, name=f"{name}_payload")


class Skid(Elaboratable):
    """A stream from `source` to `sink`. What it says to either, it says from a register."""

    def __init__(self, bits: int) -> None:
        self.source, self.sink = Stream(bits, "source"), Stream(bits, "sink")

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        waits = Signal()  # one stands aside, as it came when the sink could take no more
        moves = Signal()
        m.d.comb += [moves.eq(~self.sink.valid | self.sink.ready), self.source.ready.eq(~waits)]
        m.d.sync += waits.eq(~moves & (waits | self.source.valid))
        with m.If(moves):
            m.d.sync += self.sink.valid.eq(waits | self.source.valid)
        parts = range(0, len(self.source.payload), PINS)
        for place in parts:
            self._part(m, slice(place, place + PINS))
        return m

    def _part(self, m: Module, bits: slice) -> None:
        """With its own copies of the two registers that move it."""
        payload, aside = data(len(self.source.payload[bits])), data(len(self.source.payload[bits]))
        held = Signal(attrs={"keep": "true"})
        waits = Signal(attrs={"keep": "true"})
        moves = Signal()
        m.d.comb += [moves.eq(~held | self.sink.ready), self.sink.payload[bits].eq(payload)]
        m.d.sync += waits.eq(~moves & (waits | self.source.valid))
        with m.If(moves):
            m.d.sync += [held.eq(waits | self.source.valid), payload.eq(Mux(waits, aside, self.source.payload[bits]))]
        with m.If(~waits):
            m.d.sync += aside.eq(self.source.payload[bits])


class Loop:
    """Counts 0..last and again. `ends` tells the last from a register, so that a nest of loops costs no comparison."""

    def __init__(self, last: Any, name: str) -> None:
        self.last = last
        self.count = data(len(last), name=name)
        self.ends = data(name=f"{name}_ends")
        self.last_but_one = data(len(last), name=f"{name}_last_but_one")

    @property
    def single(self) -> Any:
        return ~self.last.any()

    @property
    def ends_next(self) -> Any:
        return Mux(self.ends, self.single, self.count == self.last_but_one)

    def begin(self) -> list[Any]:
        return [self.count.eq(0), self.ends.eq(self.single), self.last_but_one.eq(self.last - 1)]

    def advance(self) -> list[Any]:
        return [self.count.eq(Mux(self.ends, 0, self.count + 1)), self.ends.eq(self.ends_next)]


class Nest:
    """Loops in each other, the innermost first. Bit k of `wraps`, a register: loops 0..k are all at their last."""

    def __init__(self, *loops: Loop) -> None:
        self.loops = loops
        self.wraps = data(len(loops), name="wraps")

    def begin(self) -> list[Any]:
        statements, together = [], Const(1, 1)
        for wrap, loop in zip(self.wraps, self.loops, strict=True):
            together = together & loop.single
            statements += [*loop.begin(), wrap.eq(together)]
        return statements

    def advance(self) -> list[Any]:
        statements, together, turn = [], Const(1, 1), Const(1, 1)
        for wrap, loop in zip(self.wraps, self.loops, strict=True):
            ends = Mux(turn, loop.ends_next, loop.ends)
            together = together & ends
            count = Mux(loop.ends, 0, loop.count + 1)
            statements += [loop.count.eq(Mux(turn, count, loop.count)), loop.ends.eq(ends), wrap.eq(together)]
            turn = wrap
        return statements


def data(shape: Any = 1, **settings: Any) -> Any:
    """A register for what somebody vouches for: no reset reaches it, which would need a wire to each of its bits."""
    return Signal(shape, reset_less=True, src_loc_at=1, **settings)


def delayed(m: Any, signal: Any, cycles: int) -> Any:
    """`signal` as it was `cycles` cycles ago; no reset reaches it."""
    for _ in range(cycles):
        earlier, signal = signal, data(signal.shape())
        m.d.sync += signal.eq(earlier)
    return signal


def copied(m: Any, signal: Any, count: int) -> list[Any]:
    """`signal` a cycle later in `count` registers, each for the pins that lie near it; no reset reaches them."""
    copies = kept(count, "copy", signal.shape())
    m.d.sync += [copy.eq(signal) for copy in copies]
    return copies


def kept(count: int, name: str, shape: Any = 1) -> list[Any]:
    """Registers that stay as many as they are. Without `keep` every tool makes one of those that hold the same."""
    return [data(shape, name=f"{name}{i}", attrs={"keep": "true"}) for i in range(count)]


def spread(m: Any, signal: Any, count: int) -> list[Any]:
    """`signal` SPREAD_CYCLES later in `count` registers, by a tree of two levels."""
    trunks = copied(m, signal, -(-count // PINS))
    return [copied(m, trunks[i // PINS], 1)[0] for i in range(count)]


def connect(m: Any, source: Stream, sink: Stream) -> None:
    m.d.comb += [sink.valid.eq(source.valid), sink.payload.eq(source.payload), source.ready.eq(sink.ready)]
