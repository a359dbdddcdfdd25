"""Pictures that no camera at work makes: one that was there before, a dark or a white one. Their parts are UNKNOWN."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from operator import eq
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from board.condition import Complaint
from board.seams import FrameSource
from protocol.manifest import Distribution
from protocol.messages import Frame
from protocol.strict import require
from protocol.units import NS_PER_MS

KNOWN = 32  # pictures that none may be like: as many buffers as a driver may hand out again and again (VIDEO_MAX_FRAME)
SAMPLED = 32  # rows of a picture that are looked at
LEVELS = 1000  # bytes of those rows that the mean is of, or somewhat more
KEPT = 4  # pictures whose halves are compared
EDGES = (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1])
HALF = 0.45  # of the rows or columns, from an edge: what does not move in a picture seldom reaches the part's middle
TEXTURE = 32  # levels from dark to light, in a half that noise must change
CLIPPED = (2, 253)  # beyond these levels noise changes nothing
MEANS = (3.0, 252.0)  # levels
MISSED_OF, MOST_MISSED = 50, 4  # latest parts, and how many of them may be without a picture
MISSED = (
    f"more than {MOST_MISSED} of the last {MISSED_OF} parts had no picture: check the camera, its cable and its speed"
)
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
        *,
        shows_parts: bool = False,
    ) -> None:
        """`usual`: the brightness of good parts, as the model that judges knows it. `shows_parts`: each picture is of
        another part, out of a camera. Half a view of a belt, or of a video, may stay as it is.
        """
        self._source, self._usual = source, usual
        self._mean_range = settings.mean_range
        self._known: deque[int] = deque(maxlen=0 if settings.may_repeat else KNOWN)  # checksums
        kept = KEPT if shows_parts and not settings.may_repeat else 0
        self._kept: deque[tuple[NDArray[np.uint8], tuple[bytes, ...]]] = deque(maxlen=kept)  # with their edges
        self._run = ""
        self._faults: Counter[str] = Counter()
        self._missed = deque[bool](maxlen=MISSED_OF if shows_parts else 0)  # a belt's views may be lost
        self._good_since = COMPLAIN_PARTS
        self._reason = ""

    def read(self, timeout_s: float) -> Frame | None:
        frame = self._source.read(timeout_s)
        if frame is None:
            return None
        self._missed.append(frame.image is None)
        if frame.image is None:
            self._note("corrupt" if frame.fault.startswith("corrupt") else "")
            return frame
        started_ns = time.monotonic_ns()
        kind, fault = self._examine_in(frame.trigger.run, frame.image)
        self._note(kind)
        decode_ms = frame.decode_ms + (time.monotonic_ns() - started_ns) / NS_PER_MS
        return replace(frame, image=None if fault else frame.image, fault=fault, decode_ms=decode_ms)

    def close(self) -> None:
        self._source.close()

    def counters(self) -> dict[str, int]:
        inner = self._source.counters() if isinstance(self._source, Telling) else {}
        return inner | {f"frames_{kind}": self._faults[kind] for kind in ("repeated", "dark", "white", "corrupt")}

    def complaint(self) -> Complaint | None:
        if self._good_since < COMPLAIN_PARTS:
            return Complaint("degraded", self._reason)
        told = self._source.complaint() if isinstance(self._source, Telling) else None
        return told or (Complaint("degraded", MISSED) if sum(self._missed) > MOST_MISSED else None)

    def _examine_in(self, run: str, image: NDArray[np.uint8]) -> tuple[str, str]:
        """A belt that starts again may bring the same pictures, as a recording does, but not the last one at once."""
        begins, self._run = run != self._run, run
        if begins:
            self._forget()
        kind, fault = self._examine(image)
        if begins and not fault:
            self._forget()
        return kind, fault

    def _forget(self) -> None:
        """All but the last picture."""
        for pictures in (self._known, self._kept):
            while len(pictures) > 1:
                pictures.popleft()

    def _examine(self, image: NDArray[np.uint8]) -> tuple[str, str]:
        """The kind of fault and what is wrong, or nothing twice."""
        rows = image[:: max(1, len(image) // SAMPLED)]
        looked_at = rows.tobytes()
        # subtle: neither lets another thread run first, as OpenCV, NumPy and zlib do with so many bytes
        checksum, levels = hash(looked_at), looked_at[:: len(looked_at) // (3 * LEVELS) * 3 + 1]  # all three colours
        mean = sum(levels) / len(levels)
        is_repeated = checksum in self._known
        self._known.append(checksum)
        if is_repeated:
            return "repeated", "repeated frame: in every row looked at it is one of those before, bit for bit"
        if self._kept.maxlen and self._has_frozen(image, rows):
            return "repeated", "repeated frame: half of the picture is bit for bit that of one before"
        low, high = self._mean_range or widen(MEANS, self._usual())
        if mean < low:
            return "dark", f"dark frame: mean {mean:.1f}, at least {low:g} is expected"
        if mean > high:
            return "white", f"white frame: mean {mean:.1f}, at most {high:g} is expected"
        return "", ""

    def _has_frozen(self, image: NDArray[np.uint8], rows: NDArray[np.uint8]) -> bool:
        """subtle: nearly all pictures differ at every edge, which costs little to see."""
        edges = tuple(rows[edge].tobytes() for edge in EDGES)
        alike = [before for before, others in self._kept if any(map(eq, edges, others))]
        self._kept.append((image, edges))
        return any(has_same_half(image, before) for before in alike)

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


def has_same_half(image: NDArray[np.uint8], before: NDArray[np.uint8]) -> bool:
    """Whether a camera froze in the upper, lower, left or right half, as far as noise would have changed that."""
    if image.shape != before.shape:
        return False
    down, across = (max(1, side // SAMPLED) for side in image.shape[:2])
    is_same = (image[::down, ::across] == before[::down, ::across]).all(axis=2)
    return any(
        _is_frozen(lines, half, half_before)
        for lines, half, half_before in (
            (is_same.all(axis=1), image[::down], before[::down]),
            (is_same.all(axis=0), image[:, ::across].swapaxes(0, 1), before[:, ::across].swapaxes(0, 1)),
        )
    )


def _is_frozen(is_same: NDArray[np.bool_], lines: NDArray[np.uint8], lines_before: NDArray[np.uint8]) -> bool:
    """`lines`: along the first axis those of which samples are compared in `is_same`."""
    count = math.ceil(HALF * len(is_same))
    return any(
        is_same[half].all() and _has_texture(lines[half]) and np.array_equal(lines[half], lines_before[half])
        for half in (np.s_[:count], np.s_[-count:])
    )


def _has_texture(lines: NDArray[np.uint8]) -> bool:
    changing = lines[(lines >= CLIPPED[0]) & (lines <= CLIPPED[1])]
    return 2 * changing.size >= lines.size and int(changing.max()) - int(changing.min()) >= TEXTURE
