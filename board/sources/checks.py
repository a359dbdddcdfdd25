"""Pictures that no camera at work makes: one that was there before, a dark or a white one. Their parts are UNKNOWN."""

from __future__ import annotations

import time
import zlib
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from numpy.typing import NDArray

from board.condition import Complaint
from board.seams import FrameSource
from protocol.manifest import Distribution
from protocol.messages import Frame
from protocol.strict import require
from protocol.units import NS_PER_MS

KNOWN = 32  # pictures that none may be like: as many buffers as a driver may hand out again and again (VIDEO_MAX_FRAME)
KEPT = 4  # of them, whose parts are compared, too
SAMPLED = 32  # rows and columns of a picture that are looked at
FROZEN_SHARE = 0.25  # of the rows or columns, for a camera that froze in a part of its picture
TEXTURE = 32  # levels from dark to light, in a part that noise must change
MEANS = (3.0, 252.0)  # levels
CLIPPED = (2, 253)  # beyond these levels noise changes nothing
COMPLAIN_PARTS = 20  # pictures without a fault, after which nothing is said any more


@dataclass(frozen=True)
class FrameSettings:
    # levels; below it a cap is on the lens, above it all is white. None: `MEANS`, and what the model's good parts need
    mean_range: tuple[float, float] | None = None
    may_repeat: bool = False  # for pictures out of a folder, of which some are alike

    def __post_init__(self) -> None:
        low, high = self.mean_range or MEANS
        require(0 <= low < high <= 255, "mean_range", "must be two levels of 0..255, the lower first")


@runtime_checkable
class Telling(Protocol):
    """A source that has something to say of itself."""

    def counters(self) -> dict[str, int]: ...

    def complaint(self) -> Complaint | None: ...


class CheckedSource:
    """A source whose pictures are looked at before anything is made of them."""

    def __init__(
        self,
        source: FrameSource,
        settings: FrameSettings,
        usual: Callable[[], Distribution | None] = lambda: None,
    ) -> None:
        """`usual`: the brightness of good parts, as the model that judges knows it."""
        self._source, self._usual = source, usual
        self._mean_range = settings.mean_range
        self._before = Before() if not settings.may_repeat else None
        self._faults: Counter[str] = Counter()
        self._good_since = COMPLAIN_PARTS
        self._reason = ""

    def read(self, timeout_s: float) -> Frame | None:
        frame = self._source.read(timeout_s)
        if frame is None:
            return None
        if frame.image is None:
            self._note("corrupt" if frame.fault.startswith("corrupt") else "")
            return frame
        started_ns = time.monotonic_ns()
        kind, fault = self._examine(frame.image)
        self._note(kind)
        decode_ms = frame.decode_ms + (time.monotonic_ns() - started_ns) / NS_PER_MS
        return replace(frame, image=None if fault else frame.image, fault=fault, decode_ms=decode_ms)

    def close(self) -> None:
        self._source.close()

    def counters(self) -> dict[str, int]:
        inner = self._source.counters() if isinstance(self._source, Telling) else {}
        return inner | {f"frames_{kind}": self._faults[kind] for kind in ("repeated", "dark", "white", "corrupt")}

    def complaint(self) -> Complaint | None:
        if self._good_since >= COMPLAIN_PARTS:
            return self._source.complaint() if isinstance(self._source, Telling) else None
        return Complaint("degraded", self._reason)

    def _examine(self, image: NDArray[np.uint8]) -> tuple[str, str]:
        """The kind of fault and what is wrong, or nothing twice."""
        samples = _sample(image)
        mean = sum(cv2.mean(samples)[:3]) / 3
        repeated = self._before.find(image, samples) if self._before else ""
        if repeated:
            return "repeated", f"repeated frame: {repeated} is bit for bit one of those before"
        low, high = self._mean_range or widen(MEANS, self._usual())
        if mean < low:
            return "dark", f"dark frame: mean {mean:.1f}, at least {low:g} is expected"
        if mean > high:
            return "white", f"white frame: mean {mean:.1f}, at most {high:g} is expected"
        return "", ""

    def _note(self, kind: str) -> None:
        if kind:
            self._faults[kind] += 1
            self._good_since = 0
            self._reason = f"the camera's frames are {kind}: check camera, lens, light and cable"
        else:
            self._good_since += 1


def widen(means: tuple[float, float], usual: Distribution | None) -> tuple[float, float]:
    """Half as dark as good parts are, or half as far from white, is a picture all the same."""
    if usual is None:
        return means
    darkest, _, lightest = usual.quantiles
    return min(means[0], darkest / 2), max(means[1], (255 + lightest) / 2)


class Before:
    """The pictures before this one: noise makes each unlike all others, in each of its parts."""

    def __init__(self) -> None:
        self._known: deque[int] = deque(maxlen=KNOWN)  # checksums
        self._kept: deque[tuple[NDArray[np.uint8], NDArray[np.int32]]] = deque(maxlen=KEPT)

    def find(self, image: NDArray[np.uint8], samples: NDArray[np.uint8]) -> str:
        """What of this picture was there before; empty if nothing was. It is remembered."""
        checksum = zlib.crc32(image[:: max(1, len(image) // SAMPLED)].tobytes())
        pixels = cv2.cvtColor(samples, cv2.COLOR_RGB2RGBA).view(np.int32)[:, :, 0]  # all three colours in one
        is_known = checksum in self._known
        is_frozen = any(
            _is_frozen(image, before, pixels == pixels_before)
            for before, pixels_before in self._kept
            if image.shape == before.shape
        )
        self._known.append(checksum)
        self._kept.append((image, pixels))
        return "the picture" if is_known else "a part of the picture" if is_frozen else ""


def _sample(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Rows and columns at even distances, of all three colours."""
    down, across = (max(1, side // SAMPLED) for side in image.shape[:2])
    return np.ascontiguousarray(image[::down, ::across])


def _is_frozen(image: NDArray[np.uint8], before: NDArray[np.uint8], is_same: NDArray[np.bool_]) -> bool:
    """Whether a share of the rows, or of the columns, shows what it showed before. `is_same`: of the samples."""
    if np.count_nonzero(is_same) < FROZEN_SHARE * is_same.size:
        return False
    columns = image.swapaxes(0, 1), before.swapaxes(0, 1), is_same.T
    return _is_same_strip(image, before, is_same) or _is_same_strip(*columns)


def _is_same_strip(image: NDArray[np.uint8], before: NDArray[np.uint8], is_same: NDArray[np.bool_]) -> bool:
    """Of the lines along the first axis; false where noise would change nothing."""
    lines = np.flatnonzero(is_same.all(axis=1))
    if lines.size < FROZEN_SHARE * len(is_same):
        return False
    at = lines * max(1, len(image) // SAMPLED)
    strip = image[at]
    changing = strip[(strip >= CLIPPED[0]) & (strip <= CLIPPED[1])]
    has_texture = 2 * changing.size >= strip.size and int(changing.max()) - int(changing.min()) >= TEXTURE
    return has_texture and np.array_equal(strip, before[at])
