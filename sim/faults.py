"""What a bad camera does to its frames. Which frames are hit depends on seed and number alone.

--frozen-after N     from frame N on it sends the one before again, byte for byte
--late-frames SHARE  they leave the camera late, some of them too late
--cut-jpeg SHARE     they come as JPEG that lacks its end; every second one with an end marker all the same
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from protocol.messages import Trigger
from protocol.wire import Buffer, FrameHeader, FrameMessage, encode_message, encode_raw_frame
from sim.drawing import Exposure

_LATE, _CUT = range(40, 42)  # purposes of random numbers, beside those of sim/motion.py
LATE_S = (0.1, 0.8)  # a board waits 0.2 s for a frame
KEPT = (0.3, 0.9)  # share of its bytes that a cut JPEG keeps
QUALITY = 95
END_MARKER = b"\xff\xd9"


@dataclass(frozen=True)
class CameraFaults:
    frozen_after: int | None = None
    late_share: float = 0.0
    cut_share: float = 0.0
    seed: int = 0

    def late_s(self, number: int) -> float:
        """How long after its exposure the frame leaves."""
        rng = self._rng(number, _LATE)
        return float(rng.uniform(*LATE_S)) if rng.random() < self.late_share else 0.0

    def encode(self, trigger: Trigger, exposure: Exposure) -> list[Buffer]:
        """Its frame message."""
        rng = self._rng(exposure.number, _CUT)
        if rng.random() >= self.cut_share:
            return encode_raw_frame(trigger, exposure.image, exposure.readings)
        bgr = cv2.cvtColor(exposure.image, cv2.COLOR_RGB2BGR)
        jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
        cut = jpeg[: int(len(jpeg) * rng.uniform(*KEPT))] + (END_MARKER if rng.random() < 0.5 else b"")
        header = FrameHeader(trigger, exposure.image.shape[:2], "jpeg", exposure.readings)
        return encode_message(FrameMessage(header, cut))

    def is_frozen(self, number: int) -> bool:
        return self.frozen_after is not None and number >= max(1, self.frozen_after)

    def _rng(self, number: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, number, purpose])


class Frozen:
    """Gives the picture before the frozen one again."""

    def __init__(self, faults: CameraFaults) -> None:
        self._faults = faults
        self._last: Exposure | None = None

    def look(self, exposure: Exposure) -> Exposure:
        if self._last is not None and self._faults.is_frozen(exposure.number):
            return replace(exposure, image=self._last.image)
        self._last = exposure
        return exposure
