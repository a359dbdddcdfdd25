"""What an interrupted export needs to go on: one file for each phase, in a folder beside the package."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from protocol.errors import InputError


class Checkpoint:
    """State of an export's phases. `fingerprint` names recipe, pictures and seed: state of another is not used."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self._folder = folder
        self._fingerprint = fingerprint

    def load(self, phase: str) -> dict[str, Any] | None:
        """The last saved state of a phase, or None. Raises: InputError if the file is damaged."""
        path = self._folder / f"{phase}.pt"
        if not path.is_file():
            return None
        try:
            stored: dict[str, Any] = torch.load(path, weights_only=True)
            return stored["state"] if stored["fingerprint"] == self._fingerprint else None
        except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError):
            raise InputError(f"{path} is damaged: delete it, and the training starts anew") from None

    def save(self, phase: str, state: Mapping[str, Any]) -> None:
        """Atomic: an interruption leaves the state before or after."""
        self._folder.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()  # subtle: written by torch itself, a full disk is no OSError
        torch.save({"fingerprint": self._fingerprint, "state": dict(state)}, content)
        partial = self._folder / f"{phase}.partial"
        partial.write_bytes(content.getbuffer())
        os.replace(partial, self._folder / f"{phase}.pt")
