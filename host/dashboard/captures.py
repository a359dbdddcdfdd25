"""Good parts that the line recorded for retraining: looked through, and the bad pictures dropped.

<captures>/<name>/*.beltrec           as recorded
<captures>/<name>/reviewed/*.png      what was kept: `scripts/export.sh --data` takes this folder
"""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from board.records.recording import RECORDING_SUFFIX, read_recording
from host.pictures.reading import encode_png
from protocol.errors import InputError

REVIEWED = "reviewed"
MAX_PICTURES = 2000  # of a capture
MAX_CAPTURES = 200
_NAME = re.compile(r"[\w][\w.-]{0,63}", re.ASCII)


@dataclass(frozen=True, eq=False)
class Captured:
    number: int  # within its capture
    part_id: int
    score: float
    image: NDArray[np.uint8]


@dataclass(frozen=True)
class Shown:
    number: int
    part_id: int
    score: float
    jpeg: bytes


class Captures:
    """The pictures of the capture that was opened last stay in memory, as JPEG."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._opened: tuple[str, dict[int, Shown]] = ("", {})
        self._lock = threading.Lock()

    def list_names(self) -> list[str]:
        """The newest first."""
        if not self._folder.is_dir():
            return []
        folders = [path for path in self._folder.iterdir() if path.is_dir() and _NAME.fullmatch(path.name)]
        folders.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
        return [path.name for path in folders[:MAX_CAPTURES]]

    def reviewed(self, name: str) -> int | None:
        """How many pictures were kept; None before the review. Raises: InputError."""
        folder = self._find(name) / REVIEWED
        return len(list(folder.glob("*.png"))) if folder.is_dir() else None

    def open(self, name: str) -> list[Shown]:
        """The strangest first. Raises: InputError."""
        shown = {part.number: Shown(part.number, part.part_id, part.score, _jpeg(part)) for part in self._read(name)}
        with self._lock:
            self._opened = (name, shown)
        return sorted(shown.values(), key=lambda part: part.score, reverse=True)

    def jpeg(self, name: str, number: int) -> bytes:
        """Raises: InputError."""
        with self._lock:
            opened, shown = self._opened
        if opened != name:
            self.open(name)
            shown = self._opened[1]
        if number not in shown:
            raise InputError("the capture has no such picture: load the page again")
        return shown[number].jpeg

    def keep(self, name: str, dropped: Sequence[int]) -> int:
        """Write all but the dropped ones as PNG; how many those are. Raises: InputError."""
        folder = self._find(name) / REVIEWED
        part = folder.with_name(f"{REVIEWED}.part")
        leave = set(dropped)
        kept = 0
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            for captured in self._read(name):
                if captured.number not in leave:
                    (part / f"{captured.number:05d}.png").write_bytes(encode_png(captured.image))
                    kept += 1
            shutil.rmtree(folder, ignore_errors=True)
            part.rename(folder)
        except OSError as error:
            raise InputError(f"cannot write {folder} ({error.strerror}): free the disk") from None
        return kept

    def _read(self, name: str) -> Iterator[Captured]:
        """Raises: InputError."""
        files = sorted(self._find(name).glob(f"*{RECORDING_SUFFIX}"))
        records = (record for path in files for record in read_recording(path))
        for number, record in enumerate(islice(records, MAX_PICTURES)):
            if record.frame.image is not None:
                yield Captured(number, record.verdict.part_id, record.verdict.score or 0.0, record.frame.image)

    def _find(self, name: str) -> Path:
        """Raises: InputError; no name leads out of the folder."""
        if not _NAME.fullmatch(name) or not (self._folder / name).is_dir():
            raise InputError("there is no such capture")
        return self._folder / name


def _jpeg(part: Captured) -> bytes:
    _, data = cv2.imencode(".jpg", cv2.cvtColor(part.image, cv2.COLOR_RGB2BGR))
    return data.tobytes()
