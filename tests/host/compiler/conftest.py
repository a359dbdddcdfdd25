from __future__ import annotations

from tests.board.overlay.conftest import library, simulator

__all__ = ["library", "simulator"]
