"""What the parts of the design have in common: a base that the type checker knows, and streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amaranth.hdl import Const, Mux, Signal

if TYPE_CHECKING:

    class Elaboratable:
        """Amaranth has no types."""

else:
    from amaranth.hdl import Elaboratable

__all__ = ["Elaboratable", "Loop", "Nest", "Stream", "connect", "data", "delayed"]


class Stream:
    """A payload moves in every cycle in which both `valid` and `ready` are 1; `valid` never waits for `ready`."""

    def __init__(self, shape: Any, name: str) -> None:
        self.valid = Signal(name=f"{name}_valid")
        self.ready = Signal(name=f"{name}_ready")
        self.payload = Signal(shape, name=f"{name}_payload")


class Loop:
    """Counts 0..last and again. `ends` tells the last from a register, so that a nest of loops costs no comparison."""

    def __init__(self, last: Any, name: str) -> None:
        self.last = last
        self.count = Signal(len(last), name=name)
        self.ends = Signal(name=f"{name}_ends")
        self.last_but_one = Signal(len(last), name=f"{name}_last_but_one")

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
        self.wraps = Signal(len(loops), name="wraps")

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
    """`signal` as it was `cycles` cycles ago."""
    for _ in range(cycles):
        earlier, signal = signal, Signal(signal.shape())
        m.d.sync += signal.eq(earlier)
    return signal


def connect(m: Any, source: Stream, sink: Stream) -> None:
    m.d.comb += [sink.valid.eq(source.valid), sink.payload.eq(source.payload), source.ready.eq(sink.ready)]
