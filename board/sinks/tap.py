"""The tap: verdict, frame and anomaly map of each part for whoever looks on.

Lossy; the sequence number shows what was missed. Parts of a message:

    b"part" | JSON {seq, shape, map_shape, map_scale} | verdict JSON | RGB pixels | int8 map
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import zmq
from numpy.typing import NDArray

from protocol.messages import Frame, Verdict, encode_verdict
from protocol.sockets import open_socket
from protocol.strict import require


@dataclass(frozen=True)
class TapSettings:
    endpoint: str = ""  # e.g. "tcp://127.0.0.1:5561"; empty: no tap
    queue_parts: int = 8  # for a slow looker-on; what comes on top is dropped

    def __post_init__(self) -> None:
        require(1 <= self.queue_parts <= 1000, "queue_parts", "must be 1..1000")


class TapSink:
    def __init__(self, settings: TapSettings, map_scale: float) -> None:
        self._socket = open_socket("PUB", settings.endpoint, bind=True, high_water_mark=settings.queue_parts)
        self._map_scale = map_scale
        self._seq = 0

    def publish(self, frame: Frame, verdict: Verdict, anomaly: NDArray[np.int8] | None) -> None:
        image = np.zeros((0, 0, 3), np.uint8) if frame.image is None else np.ascontiguousarray(frame.image)
        shown = np.zeros((0, 0), np.int8) if anomaly is None else np.ascontiguousarray(anomaly)
        head = {"seq": self._seq, "shape": image.shape[:2], "map_shape": shown.shape, "map_scale": self._map_scale}
        self._seq += 1
        parts = [b"part", json.dumps(head).encode(), encode_verdict(verdict), image.tobytes(), shown.tobytes()]
        self._socket.send_multipart(parts, zmq.NOBLOCK)

    def close(self) -> None:
        self._socket.close(0)
