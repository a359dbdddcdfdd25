"""The seam to the programmable logic with the overlay in it: its registers, and the memory that it shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Buffer:
    """Physically contiguous memory that processor and overlay share."""

    content: NDArray[np.uint8]  # as the processor sees it
    address: int  # as the overlay sees it


class Fabric(Protocol):
    """The programmable logic with the overlay in it. Every method raises EngineError when it cannot do its work."""

    clock_hz: float  # of the logic

    def read(self, register: str) -> int: ...

    def write(self, register: str, value: int) -> None: ...

    def allocate(self, size_bytes: int) -> Buffer: ...

    def free(self, buffer: Buffer) -> None: ...

    def flush(self, buffer: Buffer) -> None:
        """Make visible to the overlay what the processor has written."""

    def invalidate(self, buffer: Buffer) -> None:
        """Make visible to the processor what the overlay has written."""

    def wait(self, timeout_s: float) -> None:
        """Until the overlay's interrupt; may return earlier, and returns after `timeout_s` at the latest."""

    def reload(self) -> None:
        """Put the overlay in afresh: whatever it was doing ends."""

    def close(self) -> None:
        """All buffers have been given back."""
