"""Where tensors lie in the activation memory: whole as long as they live, or in strips that pass through DDR."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from board.overlay import isa
from host.compiler.operations import Operation, Tensor, UnsupportedError, View, find_window
from host.integers.arithmetic import IMAGE

STRIPS = 8  # of a tensor that is loaded or stored: fewer hide less, more cost more instructions and halo rows


@dataclass(frozen=True)
class Region:
    start: int
    words: int

    @property
    def end(self) -> int:
        return self.start + self.words

    def overlap(self, other: Region) -> int:
        return max(0, min(self.end, other.end) - max(self.start, other.start))

    def banks(self) -> list[Region]:
        """The whole banks in which it lies: while they are read, writing there costs cycles."""
        first, last = self.start // isa.BANK_WORDS, (self.end - 1) // isa.BANK_WORDS
        return [Region(bank * isa.BANK_WORDS, isa.BANK_WORDS) for bank in range(first, last + 1)]


@dataclass(frozen=True)
class Placement:
    """The tensor's region, or, if it `passes` in strips, the buffers that its strips take in turn."""

    regions: tuple[Region, ...]
    passes: bool

    def region(self, strip: int) -> Region:
        return self.regions[strip % len(self.regions)]


@dataclass(frozen=True)
class OperationPlan:
    operation: Operation
    strip_rows: int
    sources: tuple[Placement, ...]
    output: Placement
    words: int  # in use meanwhile, by these and by tensors that are read later

    def strips(self) -> list[tuple[int, int]]:
        """(first, end) output row of each strip."""
        return _strips(self.operation, self.strip_rows)


class _DoesNotFitError(Exception):
    """Nothing that the user sees: another tensor must pass through DDR."""


def plan_memory(operations: list[Operation], words: int) -> list[OperationPlan]:
    """Tensors go to DDR, the largest first, until the others fit into that many words.

    Raises: UnsupportedError if one row of an operation does not fit.
    """
    passing = {IMAGE, operations[-1].output.tensor.name}
    while True:
        attempt = _Attempt(operations, frozenset(passing), words)
        try:
            for step in range(len(operations)):
                attempt.place(step)
            return attempt.plans
        except _DoesNotFitError:
            passing.add(_choose_passing(operations[len(attempt.plans)], attempt))


def _choose_passing(operation: Operation, attempt: _Attempt) -> str:
    tensors = [*(tensor for tensor, _ in attempt.live.values()), operation.output.tensor]
    sizes = {tensor.name: tensor.size_words for tensor in tensors if tensor.name not in attempt.passing}
    if not sizes:
        row = max(source.tensor.row_words for source in operation.sources)
        raise UnsupportedError(
            f"layer {operation.name}: a strip of one row does not fit into {attempt.words} words (a source row "
            f"has {row}): make the picture narrower or give it fewer channels"
        )
    return max(sizes, key=lambda name: sizes[name])


@dataclass
class _Attempt:
    """Operation by operation; `live` are the tensors that are kept whole, with their regions."""

    operations: list[Operation]
    passing: frozenset[str]
    words: int
    plans: list[OperationPlan] = field(default_factory=list)
    live: dict[str, tuple[Tensor, Region]] = field(default_factory=dict)

    def place(self, step: int) -> None:
        """Raises: _DoesNotFitError."""
        needed = {view.tensor.name for later in self.operations[step:] for view in (*later.sources, later.output)}
        self.live = {name: kept for name, kept in self.live.items() if name in needed}
        for buffers, strip_rows in self._choices(self.operations[step]):
            try:
                plan = self._try(self.operations[step], strip_rows, buffers)
            except _DoesNotFitError:
                continue
            output = self.operations[step].output.tensor
            if not plan.output.passes:
                self.live[output.name] = (output, plan.output.regions[0])
            self.plans.append(plan)
            return
        raise _DoesNotFitError

    def _choices(self, operation: Operation) -> Iterator[tuple[int, int]]:
        """(buffers, rows of a strip), the best first."""
        rows = operation.output.tensor.rows
        if not any(view.tensor.name in self.passing for view in (*operation.sources, operation.output)):
            yield 1, rows
            return
        for buffers in (2, 1):
            height = -(-rows // STRIPS)
            while height:
                yield buffers, height
                height //= 2

    def _try(self, operation: Operation, strip_rows: int, buffers: int) -> OperationPlan:
        space = _Space(self.words, [region for _, region in self.live.values()])
        read = [self.live[view.tensor.name][1] for view in operation.sources if view.tensor.name in self.live]
        written = self._place_kept_output(operation.output, space, read)
        sources = self._place_sources(operation, strip_rows, buffers, space, [*read, *written])
        if not written:
            read += [region for placement in sources for region in placement.regions]
            words = strip_rows * operation.output.tensor.cols * operation.output.words
            written = [space.take(words, read) for _ in range(buffers)]
        passes = operation.output.tensor.name in self.passing
        return OperationPlan(operation, strip_rows, sources, Placement(tuple(written), passes), space.used_words())

    def _place_kept_output(self, output: View, space: _Space, avoid: list[Region]) -> list[Region]:
        if output.tensor.name in self.passing:
            return []
        if output.tensor.name in self.live:  # another part of it was written before
            return [self.live[output.tensor.name][1]]
        return [space.take(output.tensor.size_words, avoid)]

    def _place_sources(
        self, operation: Operation, strip_rows: int, buffers: int, space: _Space, avoid: list[Region]
    ) -> tuple[Placement, ...]:
        """Buffers of one turn lie away from those of the other, which are read while these are loaded."""
        passing = [view for view in operation.sources if view.tensor.name in self.passing]
        turns: list[list[Region]] = []
        for _ in range(buffers):
            others = avoid + [region for turn in turns for region in turn]
            turns.append([space.take(_buffer_words(operation, view, strip_rows), others) for view in passing])
        columns = iter(zip(*turns, strict=True))
        return tuple(
            Placement(next(columns), True)
            if view.tensor.name in self.passing
            else Placement((self.live[view.tensor.name][1],), False)
            for view in operation.sources
        )


class _Space:
    """What is taken of the activation memory."""

    def __init__(self, words: int, taken: list[Region]) -> None:
        self._words = words
        self._taken = list(taken)

    def used_words(self) -> int:
        return sum(region.words for region in self._taken)

    def take(self, words: int, avoid: list[Region]) -> Region:
        """A free region with the least part in the banks of `avoid`, the lowest of equals.

        Raises: _DoesNotFitError.
        """
        banks = {bank.start: bank for region in avoid for bank in region.banks()}.values()
        free = [region for region in self._candidates(words) if not any(region.overlap(one) for one in self._taken)]
        if not free:
            raise _DoesNotFitError
        best = min(free, key=lambda region: (sum(region.overlap(bank) for bank in banks), region.start))
        self._taken.append(best)
        return best

    def _candidates(self, words: int) -> list[Region]:
        """At the edges of what is taken and of banks."""
        edges = {bank * isa.BANK_WORDS for bank in range(isa.BANKS + 1)}
        edges |= {edge for region in self._taken for edge in (region.start, region.end)}
        starts = {start for edge in edges for start in (edge, edge - words)}
        return [Region(start, words) for start in starts if 0 <= start <= self._words - words]


def _strips(operation: Operation, strip_rows: int) -> list[tuple[int, int]]:
    rows = operation.output.tensor.rows
    return [(start, min(rows, start + strip_rows)) for start in range(0, rows, strip_rows)]


def _buffer_words(operation: Operation, view: View, strip_rows: int) -> int:
    windows = (find_window(operation, start, end).stored(view) for start, end in _strips(operation, strip_rows))
    return max(end - start for start, end in windows) * view.tensor.cols * view.words
