"""What every detector of the bench can do. The runner knows nothing else of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import onnx
from numpy.typing import NDArray

from host.bench.weights import Weights
from protocol.errors import BeltsightError

Images = NDArray[np.uint8]  # (n, h, w, 3) RGB; of grey pictures all channels are equal
Maps = NDArray[np.float32]  # (n, h', w'), higher is more anomalous, any scale
Scores = NDArray[np.float64]  # (n,)
Pool = Literal["maximum", "mean"]
Advance = Callable[[float], None]  # is told the share of the work that is done, 0..1


class MissingError(BeltsightError):
    """Weights or a package that the method needs are not here. The row is skipped and says so."""


@dataclass(frozen=True)
class Given:
    """What a detector is built for."""

    seed: int
    input_px: int
    channels: Literal[1, 3]  # 1: the pictures are grey, and a method that can use one channel does
    weights: Weights


@dataclass(frozen=True)
class Labelled:
    """Labelled pictures. Those that teach are never measured with."""

    images: Images
    defective: NDArray[np.bool_]  # (n,)
    masks: Sequence[NDArray[np.bool_]]  # any size; none at all where no mask says which pixels are defective


class Detector(Protocol):
    """`pools` is how the method makes a picture's score of its map.

    A method that only scores whole pictures returns maps of one pixel: the score itself; pixels are not
    measured then.
    """

    pools: Pool

    def fit(self, goods: Images, advance: Advance) -> None:
        """Learn from good pictures alone."""

    def score_map(self, images: Images) -> Maps:
        """float32 (n, h', w'), or (n, 1, 1) of a method that only scores whole pictures."""

    def export(self) -> onnx.ModelProto | None:
        """int8 'image' (1, 3, h, w), level - 128, to float32 'map' (1, 1, h', w'); None if ONNX cannot say it."""


@runtime_checkable
class Taught(Protocol):
    """A detector that also learns from labelled pictures, and is measured on the other ones."""

    def teach(self, labelled: Labelled) -> None:
        """Called once, before `fit`."""


@runtime_checkable
class Stepwise(Protocol):
    """A detector that can score pictures between two steps of its training, which goes on as if it had not."""

    is_stepwise: Literal[True]


@runtime_checkable
class Embedding(Protocol):
    """A detector whose view of a picture is a vector, for a t-SNE plot."""

    def embed(self, images: Images) -> NDArray[np.float32]:
        """(n, d)."""


Build = Callable[[Any, Given], Detector]


def pool(maps: Maps, how: Pool) -> Scores:
    """Pictures' scores (n,) of maps (n, h', w')."""
    flat = maps.reshape(len(maps), -1).astype(np.float64)
    return np.asarray(flat.max(axis=1) if how == "maximum" else flat.mean(axis=1), np.float64)


def localizes(maps: Maps) -> bool:
    return maps.shape[1:] != (1, 1)
