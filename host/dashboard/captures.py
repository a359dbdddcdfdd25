"""Good parts that the line recorded for retraining: looked through, and the bad pictures dropped.

<captures>/<name>/*.beltrec           as recorded
<captures>/<name>/reviewed/*.png      what was kept: `scripts/export.sh --data` takes this folder
"""

from __future__ import annotations

import re
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from board.records.recording import RECORDING_SUFFIX, list_records, read_record
from host.pictures.reading import encode_png
from protocol.errors import InputError

REVIEWED = "reviewed"
MAX_PICTURES = 2000  # of a capture
MAX_CAPTURES = 200
MAX_INDEXES = 8
SPARE_BYTES = 256 << 20  # of the disk: history and log need them
MAX_KEPT_BYTES = 32 << 20  # of pictures, as JPEG
_NAME = re.compile(r"[\w][\w.-]{0,63}", re.ASCII)


def always() -> bool:
    return True


@dataclass(frozen=True)
class Shown:
    number: int  # within its capture
    part_id: int
    score: float
    path: Path  # of the recording
    offset: int  # of its record


@dataclass(frozen=True)
class Index:
    """What a capture holds, without the pictures."""

    stamp: tuple[tuple[str, int, int], ...]
    pictures: dict[int, Shown]


class Captures:
    """Pictures stay on the disk: one is read when it is asked for, and only what was asked for last is kept, as JPEG.

    Many readers of one capture have it indexed once.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._indexes: OrderedDict[str, Index] = OrderedDict()  # the latest asked for last
        self._jpegs: OrderedDict[Shown, bytes] = OrderedDict()
        self._kept_bytes = 0
        self._lock, self._indexing, self._keeping = threading.Lock(), threading.Lock(), threading.Lock()

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

    def open(self, name: str, is_wanted: Callable[[], bool] = always) -> list[Shown]:
        """The strangest first; not to its end when nobody wants it any more. Raises: InputError."""
        pictures = self._index(name, is_wanted).pictures
        return sorted(pictures.values(), key=lambda part: part.score, reverse=True)

    def jpeg(self, name: str, number: int, is_wanted: Callable[[], bool] = always) -> bytes:
        """Raises: InputError."""
        shown = self._index(name, is_wanted).pictures.get(number)
        if shown is None:
            raise InputError("the capture has no such picture: load the page again")
        with self._lock:
            if shown in self._jpegs:
                self._jpegs.move_to_end(shown)
                return self._jpegs[shown]
        image = read_record(shown.path, shown.offset).frame.image
        if image is None:
            raise InputError("the capture has no such picture: load the page again")
        return self._remember(shown, _jpeg(image))

    def _remember(self, shown: Shown, jpeg: bytes) -> bytes:
        with self._lock:
            if shown not in self._jpegs:
                self._jpegs[shown] = jpeg
                self._kept_bytes += len(jpeg)
            while self._kept_bytes > MAX_KEPT_BYTES:
                self._kept_bytes -= len(self._jpegs.popitem(last=False)[1])
        return jpeg

    def _index(self, name: str, is_wanted: Callable[[], bool]) -> Index:
        """Raises: InputError."""
        with self._indexing:
            stamp = self._stamp(name)
            index = self._indexes.pop(name, None)
            if index is None or index.stamp != stamp:
                index = Index(stamp, {one.number: one for one in self._look_through(name, is_wanted)})
            self._indexes[name] = index
            while len(self._indexes) > MAX_INDEXES:
                self._indexes.popitem(last=False)
            return index

    def _look_through(self, name: str, is_wanted: Callable[[], bool]) -> Iterator[Shown]:
        """Raises: InputError, also when nobody wants it any more."""
        entries = ((path, entry) for path in self._recordings(name) for entry in list_records(path))
        for number, (path, entry) in enumerate(islice(entries, MAX_PICTURES)):
            if not is_wanted():
                raise InputError("nobody waits for this capture any more")
            if entry.has_picture:
                yield Shown(number, entry.verdict.part_id, entry.verdict.score or 0.0, path, entry.offset)

    def _stamp(self, name: str) -> tuple[tuple[str, int, int], ...]:
        """Differs when the capture has grown, or has gone. Raises: InputError."""
        try:
            stats = [(path.name, path.stat()) for path in self._recordings(name)]
        except OSError as error:
            raise InputError(f"the capture cannot be read ({error.strerror}): load the page again") from None
        return tuple((file, status.st_size, status.st_mtime_ns) for file, status in stats)

    def _recordings(self, name: str) -> list[Path]:
        return sorted(self._find(name).glob(f"*{RECORDING_SUFFIX}"))

    def keep(self, name: str, dropped: Sequence[int]) -> int:
        """Write all but the dropped ones as PNG; how many those are. Raises: InputError."""
        with self._keeping:
            return self._keep(name, set(dropped))

    def _keep(self, name: str, dropped: set[int]) -> int:
        folder = self._find(name) / REVIEWED
        part = folder.with_name(f"{REVIEWED}.part")
        kept = 0
        try:
            if shutil.disk_usage(folder.parent).free < SPARE_BYTES:
                raise InputError(f"{folder.parent} has less than {SPARE_BYTES >> 20} MiB free: remove old captures")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            for shown in self._index(name, always).pictures.values():
                image = read_record(shown.path, shown.offset).frame.image
                if shown.number not in dropped and image is not None:
                    (part / f"{shown.number:05d}.png").write_bytes(encode_png(image))
                    kept += 1
            shutil.rmtree(folder, ignore_errors=True)
            part.rename(folder)
        except OSError as error:
            raise InputError(f"cannot write {folder} ({error.strerror}): free the disk") from None
        return kept

    def _find(self, name: str) -> Path:
        """Raises: InputError; no name leads out of the folder."""
        if not _NAME.fullmatch(name) or not (self._folder / name).is_dir():
            raise InputError("there is no such capture")
        return self._folder / name


def _jpeg(image: NDArray[np.uint8]) -> bytes:
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return data.tobytes()
