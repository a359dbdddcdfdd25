"""The ARM cores through ONNX Runtime: runs the QDQ graph, `model.onnx`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from board.engines.answer import drop_single
from board.engines.weights import require_weights_inside
from board.preprocess import as_input
from protocol.errors import EngineError


class OnnxRuntimeEngine:
    name = "arm-onnxruntime"

    def __init__(self, model: Path, threads: int) -> None:
        """Raises: EngineError if the model does not load; ImportError without ONNX Runtime."""
        import onnxruntime  # noqa: PLC0415 - the vendor package of this driver alone

        require_weights_inside(model)
        options = session_options(threads)
        self._errors = error_types()
        try:
            self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        except self._errors as error:
            raise EngineError(f"ONNX Runtime refuses {model}: {first_line(error)}") from None

    def infer(self, image: NDArray[np.uint8]) -> NDArray[np.int8]:
        try:
            (anomaly,) = self._session.run(None, {"image": as_input(image)})
            return np.array(drop_single(anomaly), np.int8)
        except self._errors as error:
            raise EngineError(f"ONNX Runtime gives no map: {first_line(error)}") from None

    def close(self) -> None:
        del self._session


def session_options(threads: int) -> Any:
    """Options under which ONNX Runtime keeps to the integer truth."""
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # subtle: without this, x86 without VNNI saturates sums of u8·s8 pairs and leaves the integer truth
    options.add_session_config_entry("session.x64quantprecision", "1")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def error_types() -> tuple[type[Exception], ...]:
    """ONNX Runtime has no common base of its errors."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state  # noqa: PLC0415

    own = [value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (*own, ValueError, RuntimeError)


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]
