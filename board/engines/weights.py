"""A runtime loads a model by its path, and would follow it to other files."""

from __future__ import annotations

from pathlib import Path

from protocol.errors import EngineError
from protocol.onnx_weights import weights_fault


def require_weights_inside(model: Path) -> None:
    """Raises: EngineError for a file that is not to be loaded."""
    try:
        fault = weights_fault(model.read_bytes())
    except OSError as error:
        raise EngineError(f"{model} cannot be read ({error.strerror}): copy the model folder again") from None
    if fault:
        raise EngineError(f"{model} {fault}")
