"""What the overlay does for a network: operations over tensors that lie as rows of pixels of words of 16 channels."""

from __future__ import annotations

from dataclasses import dataclass

from board.overlay.isa import Mode
from host.compiler.tiles import Tile
from protocol.errors import BeltsightError


class UnsupportedError(BeltsightError):
    """The overlay cannot run this network; the message names the layer, the reason, and what would be accepted."""


@dataclass(frozen=True)
class Tensor:
    """`parts` are the words of a pixel that each producer writes: several for a concatenation, else one."""

    name: str
    rows: int
    cols: int
    parts: tuple[int, ...]

    @property
    def pixel_words(self) -> int:
        return sum(self.parts)

    @property
    def row_words(self) -> int:
        return self.cols * self.pixel_words

    @property
    def size_words(self) -> int:
        return self.rows * self.row_words


@dataclass(frozen=True)
class View:
    """Neighbouring parts of a tensor's pixels: `words` of them from `first_word` on."""

    tensor: Tensor
    first_word: int
    words: int
    double: bool = False  # each stored pixel stands for 2 × 2

    @property
    def rows(self) -> int:
        return self.tensor.rows << self.double

    @property
    def cols(self) -> int:
        return self.tensor.cols << self.double

    def parts(self) -> list[tuple[int, int, int]]:
        """(number of the part, its first word in the tensor's pixel, its words) of the parts in view."""
        found, first = [], 0
        for number, words in enumerate(self.tensor.parts):
            if self.first_word <= first < self.first_word + self.words:
                found.append((number, first, words))
            first += words
        return found


@dataclass(frozen=True)
class Taps:
    """How LoadImage makes the words of a source: one instruction for each lead."""

    image_px: tuple[int, int]
    stride: int
    leads: tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """One Compute instruction a strip."""

    tile: Tile
    block: int  # first word of the source's pixel
    quad: int  # first quad of the output's pixel
    quads: int


@dataclass(frozen=True)
class Operation:
    """Fields named as in Compute have its meaning. `taps` is there if the source is the image."""

    name: str
    mode: Mode
    sources: tuple[View, ...]
    output: View
    groups: tuple[Group, ...]
    relu: bool = False
    kernel_rows: int = 1
    kernel_cols: int = 1
    step_cols: int = 1
    blocks: int = 1
    stride_rows: int = 1
    stride_cols: int = 1
    pad_rows: int = 0
    pad_cols: int = 0
    taps: Taps | None = None
    macs: int = 0
    channels: int = 0  # of the output
    inputs: int = 0  # channels that a dense sum runs over

    @property
    def steps(self) -> int:
        return len(self.sources) * self.kernel_rows * self.kernel_cols * self.blocks

    @property
    def doubles(self) -> bool:
        return any(source.double for source in self.sources)


@dataclass(frozen=True)
class Window:
    """Source rows, counted after doubling, that a strip of output rows needs."""

    first_row: int  # the field of Compute
    start: int
    end: int

    def stored(self, source: View) -> tuple[int, int]:
        """(first, end) of the rows as they lie in memory."""
        return self.start >> source.double, (self.end + source.double) >> source.double


def find_window(operation: Operation, start: int, end: int) -> Window:
    """Of output rows start..end - 1."""
    first = start * operation.stride_rows - operation.pad_rows
    last = (end - 1) * operation.stride_rows - operation.pad_rows + operation.kernel_rows - 1
    top = max(0, first)
    if operation.doubles:
        top -= top % 2  # a strip begins with a stored row
    return Window(first - top, top, min(operation.sources[0].rows, last + 1))
