"""The tap: each judged part for whoever looks on, over ZeroMQ PUB. Nobody who looks on slows the line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import zmq
from numpy.typing import NDArray

from protocol.messages import Frame, Verdict
from protocol.sockets import open_socket
from protocol.strict import require
from protocol.tap import TapPart, encode_tap


@dataclass(frozen=True)
class TapSettings:
    endpoint: str = ""  # e.g. "tcp://127.0.0.1:5561"; empty: no tap
    queue_parts: int = 8  # for a slow looker-on; what comes on top is dropped

    def __post_init__(self) -> None:
        require(1 <= self.queue_parts <= 1000, "queue_parts", "must be 1..1000")


class TapSink:
    def __init__(self, settings: TapSettings, map_scale: Callable[[], float]) -> None:
        """`map_scale`: of the model that judged the part that is published."""
        self._socket = open_socket("PUB", settings.endpoint, bind=True, high_water_mark=settings.queue_parts)
        self._map_scale = map_scale
        self._seq = 0

    def publish(self, frame: Frame, verdict: Verdict, anomaly: NDArray[np.int8] | None) -> None:
        part = TapPart(self._seq, verdict, frame.image, anomaly, self._map_scale())
        self._seq += 1
        self._socket.send_multipart(encode_tap(part), zmq.NOBLOCK)

    def close(self) -> None:
        self._socket.close(0)
