"""What the parts of the design have in common: a base that the type checker knows, and streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amaranth.hdl import Mux, Signal

if TYPE_CHECKING:

    class Elaboratable:
        """Amaranth has no types."""

else:
    from amaranth.hdl import Elaboratable

__all__ = ["Elaboratable", "Loop", "Stream", "connect", "delayed"]


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

    def begin(self) -> list[Any]:
        return [self.count.eq(0), self.ends.eq(self.last == 0)]

    def advance(self) -> list[Any]:
        later = self.count + 1
        return [
            self.count.eq(Mux(self.ends, 0, later)),
            self.ends.eq(Mux(self.ends, self.last == 0, later == self.last)),
        ]


def delayed(m: Any, signal: Any, cycles: int) -> Any:
    """`signal` as it was `cycles` cycles ago."""
    for _ in range(cycles):
        earlier, signal = signal, Signal(signal.shape())
        m.d.sync += signal.eq(earlier)
    return signal


def connect(m: Any, source: Stream, sink: Stream) -> None:
    m.d.comb += [sink.valid.eq(source.valid), sink.payload.eq(source.payload), source.ready.eq(sink.ready)]
