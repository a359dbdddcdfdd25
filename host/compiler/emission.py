"""From operations and places to instructions in program order, and the bytes that they load."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from board.overlay import isa
from board.overlay.isa import Compute, Instruction, LoadImage, LoadTile, LoadWeights, Segment, StoreTile, WeightFormat
from board.overlay.program import row_bytes
from host.compiler.memory import OperationPlan, Placement
from host.compiler.operations import Group, Operation, Tensor, View, Window, find_window
from host.compiler.tiles import Tile

ALIGNMENT_BEATS = 16  # the longest burst of the memory port
WORD_BEATS = isa.WORD_BYTES // isa.BEAT_BYTES
WEIGHT_WORD_BEATS = isa.WEIGHT_WORD_BYTES // isa.BEAT_BYTES


@dataclass(frozen=True)
class Line:
    """An instruction and the operation that it serves."""

    instruction: Instruction
    operation: Operation


@dataclass(frozen=True)
class Rows:
    """Where a part of a tensor lies in DDR: rows one after the other, without a gap."""

    segment: Segment
    address: int  # beats
    pitch: int


class Emission:
    """Instructions without tokens; addresses of weights are counted from the first one."""

    def __init__(self, plans: list[OperationPlan]) -> None:
        self.lines: list[Line] = []
        self.weights = _Weights()
        self.scratch_beats = 0
        self._output = plans[-1].operation.output.tensor.name
        self._rows: dict[tuple[str, int], Rows] = {}
        together: list[OperationPlan] = []
        for plan in plans:
            together.append(plan)
            if not plan.output.handed:
                self._emit_operations(together)
                together = []

    def _emit_operations(self, plans: list[OperationPlan]) -> None:
        """Strip by strip, which each hands on to the next."""
        tiles = {group.tile for plan in plans for group in plan.operation.groups}
        keep = sum(tile.words for tile in tiles) <= isa.WEIGHT_WORDS
        self.weights.forget()
        for number, (start, end) in enumerate(plans[0].strips()):
            for plan in plans:
                self._emit_strip(plan, (number, start, end), keep=keep)

    def _emit_strip(self, plan: OperationPlan, strip: tuple[int, int, int], *, keep: bool) -> None:
        operation, (number, start, end) = plan.operation, strip
        window = find_window(operation, start, end)
        for view, placement in zip(operation.sources, plan.sources, strict=True):
            if placement.passes and not placement.handed:
                self._load(operation, view, window, placement.region(number).start)
        for group in operation.groups:
            weights = self._place_tile(group.tile, operation, keep=keep)
            self._add(_compute(plan, group, weights, window, strip), operation)
        if plan.output.passes and not plan.output.handed:
            self._store(operation, start, end, plan.output.region(number).start)

    def _load(self, operation: Operation, view: View, window: Window, base: int) -> None:
        start, end = window.stored(view)
        if operation.taps:
            self._load_image(operation, start, end, base)
            return
        cols = view.tensor.cols
        for number, first, words in view.parts():
            rows = self._rows[view.tensor.name, number]
            load = LoadTile(
                segment=rows.segment,
                address=rows.address + start * rows.pitch,
                pitch=rows.pitch,
                rows=end - start,
                cols=cols,
                words=words,
                base=base + first - view.first_word,
                base_row=cols * view.words,
                base_col=view.words,
            )
            self._add(load, operation)

    def _load_image(self, operation: Operation, start: int, end: int, base: int) -> None:
        taps, words = operation.taps, operation.sources[0]
        if taps is None:
            return
        pitch = row_bytes(taps.image_px[1]) // isa.BEAT_BYTES
        for number, lead in enumerate(taps.leads):
            load = LoadImage(
                segment=Segment.INPUT,
                address=start * pitch,
                pitch=pitch,
                rows=end - start,
                cols=taps.image_px[1],
                words=words.tensor.cols,
                stride=taps.stride,
                lead=lead,
                base=base + number,
                base_row=words.tensor.row_words,
                base_col=words.words,
            )
            self._add(load, operation)

    def _place_tile(self, tile: Tile, operation: Operation, *, keep: bool) -> int:
        """First weight word of the tile, which is loaded unless it is there."""
        place = self.weights.places.get(tile) if keep else None
        if place is None:
            place, loads = self.weights.load(tile)
            for load in loads:
                self._add(load, operation)
        return place

    def _store(self, operation: Operation, start: int, end: int, base: int) -> None:
        view = operation.output
        number = next(number for number, first, _ in view.parts() if first == view.first_word)
        rows = self._find_rows(view.tensor, number)
        store = StoreTile(
            segment=rows.segment,
            address=rows.address + start * rows.pitch,
            pitch=rows.pitch,
            rows=end - start,
            cols=view.tensor.cols,
            words=view.words,
            base=base,
            base_row=view.tensor.cols * view.words,
            base_col=view.words,
        )
        self._add(store, operation)

    def _find_rows(self, tensor: Tensor, part: int) -> Rows:
        pitch = tensor.cols * tensor.parts[part] * WORD_BEATS
        if tensor.name == self._output:
            return Rows(Segment.OUTPUT, 0, pitch)
        if (tensor.name, part) not in self._rows:
            self._rows[tensor.name, part] = Rows(Segment.SCRATCH, self.scratch_beats, pitch)
            self.scratch_beats += align(tensor.rows * pitch)
        return self._rows[tensor.name, part]

    def _add(self, instruction: Instruction, operation: Operation) -> None:
        self.lines.append(Line(instruction, operation))


@dataclass
class _Weights:
    """The weight memory as a ring, and the bytes in DDR; equal tiles lie there once."""

    content: bytearray = field(default_factory=bytearray)
    places: dict[Tile, int] = field(default_factory=dict)
    _addresses: dict[Tile, int] = field(default_factory=dict)
    _head: int = 0

    def forget(self) -> None:
        """An operation does not count on what another has loaded."""
        self.places = {}

    def load(self, tile: Tile) -> tuple[int, list[LoadWeights]]:
        base, self._head = self._head, (self._head + tile.words) % isa.WEIGHT_WORDS
        self.places[tile] = base
        if tile not in self._addresses:
            self._addresses[tile] = len(self.content) // isa.BEAT_BYTES
            self.content += tile.parameters + tile.stored_weights()
        address = self._addresses[tile]
        if tile.format == WeightFormat.INT8:
            return base, [LoadWeights(address=address, words=tile.words, base=base)]
        steps = LoadWeights(
            address=address + WEIGHT_WORD_BEATS,
            format=tile.format,
            words=tile.steps,
            base=(base + 1) % isa.WEIGHT_WORDS,
        )
        return base, [LoadWeights(address=address, words=1, base=base), steps]


def move_weights(line: Line, beats: int) -> Line:
    """Counted from the segment's beginning, where `beats` of instructions lie before the weights."""
    if not isinstance(line.instruction, LoadWeights):
        return line
    return replace(line, instruction=replace(line.instruction, address=line.instruction.address + beats))


def _compute(plan: OperationPlan, group: Group, weights: int, window: Window, strip: tuple[int, int, int]) -> Compute:
    operation = plan.operation
    number, start, end = strip
    seen = [
        _look(view, placement, number, window.stored(view)[0])
        for view, placement in zip(operation.sources, plan.sources, strict=True)
    ]
    out, out_row, out_col = _look(operation.output, plan.output, number, start)
    first, last = operation.sources[0], operation.sources[-1]
    a, b = seen[0], seen[-1] if len(seen) == 2 else (0, 0, 0)
    return Compute(
        mode=operation.mode,
        relu=int(operation.relu),
        weights=weights,
        rows=end - start,
        cols=operation.output.tensor.cols,
        kernel_rows=operation.kernel_rows,
        kernel_cols=operation.kernel_cols,
        step_cols=operation.step_cols,
        blocks=operation.blocks,
        stride_rows=operation.stride_rows,
        stride_cols=operation.stride_cols,
        first_row=window.first_row,
        first_col=-operation.pad_cols,
        source_rows=window.end - window.start,
        source_cols=first.cols,
        sources=len(seen),
        a=a[0] + group.block,
        a_row=a[1],
        a_col=a[2],
        a_double=int(first.double),
        b=b[0] + (group.block if len(seen) == 2 else 0),
        b_row=b[1],
        b_col=b[2],
        b_double=int(last.double and len(seen) == 2),
        out=4 * out + group.quad,
        out_row=out_row,
        out_col=out_col,
        out_quads=group.quads,
    )


def _look(view: View, placement: Placement, strip: int, row: int) -> tuple[int, int, int]:
    """(word of the view's first pixel in that row, words from row to row, from pixel to pixel)."""
    base = placement.region(strip).start
    if placement.passes:  # a buffer holds the view's words alone, beginning with that row
        return base, view.tensor.cols * view.words, view.words
    return base + row * view.tensor.row_words + view.first_word, view.tensor.row_words, view.tensor.pixel_words


def align(beats: int) -> int:
    """Up to where a burst of full length begins."""
    return -(-beats // ALIGNMENT_BEATS) * ALIGNMENT_BEATS
