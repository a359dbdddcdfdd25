"""What an interrupted export needs to go on: one file for each phase, in a folder beside the package."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


class Checkpoint:
    """State of an export's phases. `fingerprint` names recipe, pictures and seed: state of another is not used."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self._folder = folder
        self._fingerprint = fingerprint

    def load(self, phase: str) -> dict[str, Any] | None:
        """The last saved state of a phase, or None."""
        path = self._folder / f"{phase}.pt"
        if not path.is_file():
            return None
        stored: dict[str, Any] = torch.load(path, weights_only=True)
        return stored["state"] if stored["fingerprint"] == self._fingerprint else None

    def save(self, phase: str, state: Mapping[str, Any]) -> None:
        """Atomic: an interruption leaves the state before or after."""
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._folder / f"{phase}.partial"
        torch.save({"fingerprint": self._fingerprint, "state": dict(state)}, partial)
        os.replace(partial, self._folder / f"{phase}.pt")
