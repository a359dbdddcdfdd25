"""Pictures that no camera at work makes: one that was there before, a dark or a white one. Their parts are UNKNOWN."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from board.condition import Complaint
from board.seams import FrameSource
from protocol.messages import Frame
from protocol.strict import require
from protocol.units import NS_PER_MS

KEPT = 4  # pictures that none may be like: as many buffers as a driver may hand out again and again
SAMPLES = 1024  # bytes of a picture that its mean is taken of, and that are compared before all others are
COMPLAIN_PARTS = 20  # pictures without a fault, after which nothing is said any more


@dataclass(frozen=True)
class FrameSettings:
    mean_range: tuple[float, float] = (3.0, 252.0)  # levels; below it a cap is on the lens, above it all is white
    may_repeat: bool = False  # for pictures out of a folder, of which some are alike

    def __post_init__(self) -> None:
        low, high = self.mean_range
        require(0 <= low < high <= 255, "mean_range", "must be two levels of 0..255, the lower first")


@runtime_checkable
class Telling(Protocol):
    """A source that has something to say of itself."""

    def counters(self) -> dict[str, int]: ...

    def complaint(self) -> Complaint | None: ...


@dataclass(frozen=True, eq=False)
class Kept:
    image: NDArray[np.uint8]
    samples: bytes


class CheckedSource:
    """A source whose pictures are looked at before anything is made of them."""

    def __init__(self, source: FrameSource, settings: FrameSettings) -> None:
        self._source = source
        self._low, self._high = settings.mean_range
        self._kept: deque[Kept] = deque(maxlen=0 if settings.may_repeat else KEPT)
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
        flat = image.reshape(-1)
        samples = flat[:: max(1, flat.size // SAMPLES) | 1].tobytes()  # an odd step takes all three colours
        mean = sum(samples) / max(1, len(samples))  # subtle: NumPy's mean of so few takes ten times as long
        is_repeated = any(kept.samples == samples and np.array_equal(kept.image, image) for kept in self._kept)
        self._kept.append(Kept(image, samples))
        if is_repeated:
            return "repeated", "repeated frame: the picture is bit for bit one of those before"
        if mean < self._low:
            return "dark", f"dark frame: mean {mean:.1f}, at least {self._low:g} is expected"
        if mean > self._high:
            return "white", f"white frame: mean {mean:.1f}, at most {self._high:g} is expected"
        return "", ""

    def _note(self, kind: str) -> None:
        if kind:
            self._faults[kind] += 1
            self._good_since = 0
            self._reason = f"the camera's frames are {kind}: check camera, lens, light and cable"
        else:
            self._good_since += 1
