from __future__ import annotations

from tests.overlay.conftest import library, simulator

__all__ = ["library", "simulator"]
