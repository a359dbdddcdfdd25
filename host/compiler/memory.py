"""Where tensors lie in the activation memory: whole as long as they live, or in strips that pass through DDR.

What the next operation alone reads, pixel by pixel, may be handed on: that operation takes each strip from its buffer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from host.compiler.operations import Operation, Tensor, UnsupportedError, View, find_window
from host.compiler.space import DoesNotFitError, Region, Space
from host.integers.arithmetic import IMAGE

STRIPS = 8  # of a tensor that is loaded or stored: fewer hide less, more cost more instructions and halo rows
LEAST_HANDED_ROWS = 4  # of a strip: with fewer, its halo costs more than a way through DDR


@dataclass(frozen=True)
class Placement:
    """The tensor's region, or, if it `passes` in strips, the buffers that its strips take in turn.

    A strip that is `handed` on never sees DDR.
    """

    regions: tuple[Region, ...]
    passes: bool
    handed: bool = False

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


def plan_memory(operations: list[Operation], words: int) -> list[OperationPlan]:
    """Tensors go to DDR, the largest first, until the others fit into that many words.

    Raises: UnsupportedError if one row of an operation does not fit.
    """
    passing = {IMAGE, operations[-1].output.tensor.name}
    while True:
        attempt = _Attempt(operations, frozenset(passing), words)
        try:
            while len(attempt.plans) < len(operations):
                attempt.place_next()
            return attempt.plans
        except DoesNotFitError:
            passing.add(_choose_passing(attempt))


def _choose_passing(attempt: _Attempt) -> str:
    """One that could be handed on goes last."""
    *handing, last = attempt.next_operations()
    tensors = [*(tensor for tensor, _ in attempt.live.values()), last.output.tensor]
    for some in (tensors, [operation.output.tensor for operation in handing]):
        sizes = {tensor.name: tensor.size_words for tensor in some if tensor.name not in attempt.passing}
        if sizes:
            return max(sizes, key=lambda name: sizes[name])
    row = max(source.tensor.row_words for source in last.sources)
    raise UnsupportedError(
        f"layer {last.name}: a strip of one row does not fit into {attempt.words} words (a source row "
        f"has {row}): make the picture narrower or give it fewer channels"
    )


@dataclass
class _Attempt:
    """Operation by operation; `live` are the tensors that are kept whole, with their regions."""

    operations: list[Operation]
    passing: frozenset[str]
    words: int
    plans: list[OperationPlan] = field(default_factory=list)
    live: dict[str, tuple[Tensor, Region]] = field(default_factory=dict)

    def next_operations(self) -> tuple[Operation, ...]:
        """One, or two of which the first may hand its output on."""
        step = len(self.plans)
        first, later = self.operations[step], self.operations[step + 1 :]
        return (first, later[0]) if self._may_hand_on(first, later) else (first,)

    def place_next(self) -> None:
        """Raises: DoesNotFitError."""
        self._forget()
        together = self.next_operations()
        if len(together) == 1:
            self._place_alone(together[0])
        elif not self._place_whole(together) and not self._place_handing(together):
            raise DoesNotFitError

    def _may_hand_on(self, operation: Operation, later: list[Operation]) -> bool:
        """To the next operation, which reads each pixel once and is the only one that does."""
        tensor = operation.output.tensor
        views = [(reader, view) for reader in later for view in reader.sources if view.tensor.name == tensor.name]
        if len(views) != 1 or len(tensor.parts) > 1 or tensor.name in self.passing:
            return False
        reader, view = views[0]
        window = (reader.kernel_rows, reader.kernel_cols, reader.stride_rows, reader.stride_cols)
        pointwise = window == (1, 1, 1, 1) and not view.double
        return reader is later[0] and pointwise and any(_can_share(reader, height) for height in _heights(operation))

    def _place_whole(self, together: tuple[Operation, ...]) -> bool:
        """One after the other, nothing in strips; false, and all as before, where they do not fit."""
        kept, count = dict(self.live), len(self.plans)
        if any(self._passes(operation) for operation in together):
            return False
        try:
            for operation in together:
                self._place_alone(operation)
        except DoesNotFitError:
            self.live, self.plans = kept, self.plans[:count]
            return False
        return True

    def _place_handing(self, together: tuple[Operation, ...]) -> bool:
        for height in _heights(together[0]):
            if _can_share(together[-1], height) and self._place(together, height, 2):
                return True
        return False

    def _place_alone(self, operation: Operation) -> None:
        """Raises: DoesNotFitError."""
        self._forget()
        if self._passes(operation):
            choices = [(height, buffers) for buffers in (2, 1) for height in _heights(operation)]
        else:
            choices = [(operation.output.tensor.rows, 1)]
        if not any(self._place((operation,), height, buffers) for height, buffers in choices):
            raise DoesNotFitError

    def _passes(self, operation: Operation) -> bool:
        return any(view.tensor.name in self.passing for view in (*operation.sources, operation.output))

    def _forget(self) -> None:
        """What nobody reads any more."""
        later = self.operations[len(self.plans) :]
        needed = {view.tensor.name for operation in later for view in (*operation.sources, operation.output)}
        self.live = {name: kept for name, kept in self.live.items() if name in needed}

    def _place(self, together: tuple[Operation, ...], strip_rows: int, buffers: int) -> bool:
        try:
            plans = self._try(together, strip_rows, buffers)
        except DoesNotFitError:
            return False
        output = together[-1].output.tensor
        if not plans[-1].output.passes:
            self.live[output.name] = (output, plans[-1].output.regions[0])
        self.plans += plans
        return True

    def _try(self, together: tuple[Operation, ...], strip_rows: int, buffers: int) -> list[OperationPlan]:
        space = Space(self.words, [region for _, region in self.live.values()])
        views = [view for operation in together for view in operation.sources]
        read = [self.live[view.tensor.name][1] for view in views if view.tensor.name in self.live]
        handed: dict[str, Placement] = {}
        for operation in together[:-1]:  # one buffer: the next operation has read it before it is written again
            region = space.take(_strip_words(operation, strip_rows), read)
            handed[operation.output.tensor.name] = Placement((region,), passes=True, handed=True)
            read.append(region)
        written = self._place_kept_output(together[-1].output, space, read)
        sources = []
        for operation in together:
            placed = self._place_sources(operation, (strip_rows, buffers), space, [*read, *written], handed)
            sources.append(placed)
            if not written or len(together) > 1:
                read += [region for placement in placed for region in placement.regions]
        if not written:
            written = [space.take(_strip_words(together[-1], strip_rows), read) for _ in range(buffers)]
        last = Placement(tuple(written), together[-1].output.tensor.name in self.passing)
        return [
            OperationPlan(operation, strip_rows, placed, output, space.used_words())
            for operation, placed, output in zip(together, sources, [*handed.values(), last], strict=True)
        ]

    def _place_kept_output(self, output: View, space: Space, avoid: list[Region]) -> list[Region]:
        if output.tensor.name in self.passing:
            return []
        if output.tensor.name in self.live:  # another part of it was written before
            return [self.live[output.tensor.name][1]]
        return [space.take(output.tensor.size_words, avoid)]

    def _place_sources(
        self,
        operation: Operation,
        strip: tuple[int, int],
        space: Space,
        avoid: list[Region],
        handed: dict[str, Placement],
    ) -> tuple[Placement, ...]:
        """`strip`: its rows, and how many buffers take turns. Those of one turn lie away from those of the other, which
        are read while these are loaded.
        """
        strip_rows, buffers = strip
        passing = [view for view in operation.sources if view.tensor.name in self.passing]
        turns: list[list[Region]] = []
        for _ in range(buffers):
            others = avoid + [region for turn in turns for region in turn]
            turns.append([space.take(_buffer_words(operation, view, strip_rows), others) for view in passing])
        columns = iter(zip(*turns, strict=True))
        return tuple(
            Placement(next(columns), True)
            if view.tensor.name in self.passing
            else handed.get(view.tensor.name) or Placement((self.live[view.tensor.name][1],), False)
            for view in operation.sources
        )


def _heights(operation: Operation) -> Iterator[int]:
    """Of strips, the best first."""
    height = -(-operation.output.tensor.rows // STRIPS)
    while height:
        yield height
        height //= 2


def _can_share(reader: Operation, height: int) -> bool:
    """A strip for a reader that doubles another source begins with a stored row of that."""
    return height >= LEAST_HANDED_ROWS and not (reader.doubles and height % 2)


def _strips(operation: Operation, strip_rows: int) -> list[tuple[int, int]]:
    rows = operation.output.tensor.rows
    return [(start, min(rows, start + strip_rows)) for start in range(0, rows, strip_rows)]


def _strip_words(operation: Operation, strip_rows: int) -> int:
    return strip_rows * operation.output.tensor.cols * operation.output.words


def _buffer_words(operation: Operation, view: View, strip_rows: int) -> int:
    windows = (find_window(operation, start, end).stored(view) for start, end in _strips(operation, strip_rows))
    return max(end - start for start, end in windows) * view.tensor.cols * view.words
