"""What networks answer: one map, or the features of a backbone."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray


def drop_single(tensor: NDArray[Any]) -> NDArray[Any]:
    """(h', w') of a tensor (…, 1, h', w') or (h', w'), else (channels, h', w'); what stands before must be 1."""
    if tensor.ndim > 2 and tensor.shape[-3] > 1:
        return tensor.reshape(tensor.shape[-3:])
    return tensor.reshape(tensor.shape[-2:])
