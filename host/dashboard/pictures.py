"""Pictures and anomaly maps of parts on disk, bounded in bytes: rejected parts, and a ring of the last good ones.

FOLDER/rejected/<key>.jpg   the frame as the line saw it           FOLDER/good/<key>.jpg
FOLDER/rejected/<key>.map   height, width (uint16), scale (float64), then int8 values; all little-endian
"""

from __future__ import annotations

import os
import struct
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Literal

import cv2

from host.dashboard.identity import is_part_key, part_key
from protocol.errors import InputError
from protocol.supervision import SUPERVISOR, Supervised, Supervisor
from protocol.tap import TapPart

JPEG_QUALITY = 90
MAP_HEAD = struct.Struct("<HHd")
Suffix = Literal["jpg", "map"]
SUFFIXES: tuple[Suffix, ...] = ("jpg", "map")
_ENDINGS = tuple(f".{suffix}" for suffix in SUFFIXES)


class Shelf:
    """One folder; the oldest parts leave it when it is full. What it had at the start is counted by `take_stock`."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Raises: InputError if the folder cannot be used."""
        self._folder, self._max_bytes = folder, max_bytes
        self._sizes: OrderedDict[str, int] = OrderedDict()  # bytes of each part on the disk, the oldest first
        self.used_bytes = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._block_bytes = os.statvfs(folder).f_frsize or 1
        except OSError as error:
            raise InputError(f"cannot keep pictures in {folder} ({error.strerror}): name another --folder") from None

    def put(self, key: str, files: dict[Suffix, bytes]) -> None:
        """Raises: OSError."""
        size = sum(self._on_disk(len(data)) for data in files.values())
        self._make_room(size)
        if size > self._max_bytes:
            return
        for suffix, data in files.items():
            (self._folder / f"{key}.{suffix}").write_bytes(data)
        self._note(key, size)

    def path(self, key: str, suffix: Suffix) -> Path | None:
        """subtle: `key` comes from outside, and what is no key of ours reaches no path."""
        path = self._folder / f"{key}.{suffix}"
        return path if is_part_key(key) and path.is_file() else None

    def list_stock(self) -> OrderedDict[str, int]:
        """Parts of before, the oldest first, with their bytes. Takes seconds where there are many. Raises: OSError."""
        with os.scandir(self._folder) as entries:
            files = [(entry.stat(), Path(entry.name)) for entry in entries if entry.name.endswith(_ENDINGS)]
        sizes: OrderedDict[str, int] = OrderedDict()
        for status, name in sorted(files, key=lambda file: file[0].st_mtime_ns):
            if is_part_key(name.stem):
                sizes[name.stem] = sizes.get(name.stem, 0) + self._on_disk(status.st_size)
        return sizes

    def add_stock(self, stock: OrderedDict[str, int]) -> None:
        """What has come since is newer."""
        before = OrderedDict((key, size) for key, size in stock.items() if key not in self._sizes)
        self.used_bytes += sum(before.values())
        before.update(self._sizes)
        self._sizes = before
        self._make_room(0)

    def _on_disk(self, size: int) -> int:
        return -(-size // self._block_bytes) * self._block_bytes

    def _make_room(self, size: int) -> None:
        while self._sizes and self.used_bytes + size > self._max_bytes:
            self._drop_oldest()

    def _note(self, key: str, size: int) -> None:
        self.used_bytes += size - self._sizes.get(key, 0)
        self._sizes[key] = size

    def _drop_oldest(self) -> None:
        key, size = self._sizes.popitem(last=False)
        self.used_bytes -= size
        for suffix in SUFFIXES:
            (self._folder / f"{key}.{suffix}").unlink(missing_ok=True)


class PictureStore:
    def __init__(self, folder: Path, rejected_bytes: int, good_bytes: int, supervisor: Supervisor = SUPERVISOR) -> None:
        """What was there before is counted by a thread: until then nothing of it leaves. Raises: InputError."""
        self._rejected = Shelf(folder / "rejected", rejected_bytes)
        self._good = Shelf(folder / "good", good_bytes)
        self._lock = threading.Lock()
        # None: as long as it takes to list the folders
        self._stock = supervisor.start(
            "stock of pictures", self._take_stock, silent_s=None, is_needed=False, is_once=True
        )

    def await_stock(self, within_s: float) -> bool:
        """Whether all that was there before is counted."""
        return self._stock.wait(within_s)

    def _take_stock(self, _: Supervised) -> None:
        for shelf in (self._rejected, self._good):
            stock = shelf.list_stock()
            with self._lock:
                shelf.add_stock(stock)

    def put(self, part: TapPart) -> None:
        """Raises: OSError when the disk does not take it."""
        files: dict[Suffix, bytes] = {}
        if part.image is not None:
            encoded, jpeg = cv2.imencode(
                ".jpg", cv2.cvtColor(part.image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
            )
            if encoded:
                files["jpg"] = jpeg.tobytes()
        if part.anomaly is not None:
            files["map"] = MAP_HEAD.pack(*part.anomaly.shape, part.map_scale) + part.anomaly.tobytes()
        shelf = self._good if part.verdict.decision == "OK" else self._rejected
        with self._lock:
            shelf.put(part_key(part.verdict.event_id), files)

    def path(self, key: str, suffix: Suffix) -> Path | None:
        """None if it is not, or no longer, kept."""
        with self._lock:
            return self._find(key, suffix)

    def read(self, key: str, suffix: Suffix) -> bytes | None:
        """All of it, even while the part is put again or leaves its shelf. Raises: OSError."""
        with self._lock:
            path = self._find(key, suffix)
            return path.read_bytes() if path else None

    def used_bytes(self) -> dict[str, int]:
        return {"rejected": self._rejected.used_bytes, "good": self._good.used_bytes}

    def _find(self, key: str, suffix: Suffix) -> Path | None:
        return self._rejected.path(key, suffix) or self._good.path(key, suffix)
