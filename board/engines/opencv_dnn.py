"""The ARM cores through OpenCV's dnn, where ONNX Runtime cannot be had: runs `carried.onnx`.

OpenCV's quantized layers differ between versions. The carried graph holds the same integers in float32, where every sum
stays below 2²⁴ and is exact in any order.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from board.engines.answer import drop_single
from board.engines.weights import require_weights_inside
from board.preprocess import as_input
from protocol.errors import EngineError


class OpenCvEngine:
    name = "arm-opencv"

    def __init__(self, model: Path, threads: int) -> None:
        """Raises: EngineError if the model does not load."""
        require_weights_inside(model)
        cv2.setNumThreads(threads)
        try:
            self._net = cv2.dnn.readNetFromONNX(str(model))
        except cv2.error as error:
            raise EngineError(f"OpenCV refuses {model}: {error.err}") from None
        # subtle: Winograd convolution transforms its input by fractions and so leaves the integers
        if hasattr(self._net, "enableWinograd"):
            self._net.enableWinograd(False)

    def infer(self, image: NDArray[np.uint8]) -> NDArray[np.int8]:
        try:
            self._net.setInput(as_input(image).astype(np.float32), "image")
            anomaly = self._net.forward()
            return np.array(drop_single(anomaly), np.int8)
        except cv2.error as error:
            raise EngineError(f"OpenCV gives no map: {error.err}") from None
        except ValueError as error:
            raise EngineError(f"OpenCV gives no map: {error}") from None

    def close(self) -> None:
        del self._net
