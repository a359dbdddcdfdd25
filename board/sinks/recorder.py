"""Keeps frames and verdicts on disk, bounded: the oldest files go first.

A thread writes; the line never waits for the disk.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from board.records.recording import MAGIC, RECORDING_SUFFIX, encode_record
from protocol.errors import InputError
from protocol.messages import Frame, Verdict
from protocol.strict import require
from protocol.supervision import SUPERVISOR, Supervised, Supervisor

LOOK_UP_S = 0.1  # how soon the thread notices that the recording ends
SILENT_S = 0.7
WRITE_WITHIN_S = 5.0  # a card that cleans up keeps a write waiting for a second
CLOSE_WITHIN_S = 10.0


@dataclass(frozen=True)
class RecorderSettings:
    keep: Literal["nothing", "rejected", "everything"] = "nothing"
    folder: Path = Path("recordings")
    max_bytes: int = 1 << 30  # of all recordings in the folder
    file_bytes: int = 64 << 20  # a file of this size is closed and the next begun
    queue_parts: int = 16  # waiting for the disk; what comes on top is dropped and counted
    spare_bytes: int = 256 << 20  # of the disk that no recording takes: outbox and log need them

    def __post_init__(self) -> None:
        require(self.file_bytes >= 1 << 20, "file_bytes", "must be 1048576 or more")
        require(self.max_bytes >= 2 * self.file_bytes, "max_bytes", "must be at least twice file_bytes")
        require(1 <= self.queue_parts <= 1000, "queue_parts", "must be 1..1000")
        require(self.spare_bytes >= 0, "spare_bytes", "must be 0 or more")


def free_bytes(file: BinaryIO) -> int:
    """Of the file's disk. Raises: OSError."""
    status = os.fstatvfs(file.fileno())
    return status.f_bavail * status.f_frsize


class RecorderSink:
    def __init__(
        self,
        settings: RecorderSettings,
        supervisor: Supervisor = SUPERVISOR,
        free: Callable[[BinaryIO], int] = free_bytes,
    ) -> None:
        """Raises: InputError if the folder cannot be written."""
        self._settings, self._free = settings, free
        self._queue: queue.Queue[tuple[Frame, Verdict]] = queue.Queue(settings.queue_parts)
        self._files = 0
        self.dropped = 0
        try:
            settings.folder.mkdir(parents=True, exist_ok=True)
            self._file = self._open_file()
        except OSError as error:
            where = f"{settings.folder} ({error.strerror})"
            raise InputError(f"cannot record in {where}: correct [recorder] folder") from None
        self._closing = threading.Event()
        self._thread = supervisor.start("recorder", self._run, silent_s=SILENT_S, is_needed=False)

    def publish(self, frame: Frame, verdict: Verdict, anomaly: NDArray[np.int8] | None) -> None:  # noqa: ARG002
        if self._settings.keep == "rejected" and verdict.decision == "OK":
            return
        try:
            self._queue.put_nowait((frame, verdict))
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """What waits is written first. A disk that hangs is left alone, with its file."""
        if self._thread.stop(self._closing.set, CLOSE_WITHIN_S):
            with contextlib.suppress(OSError):  # a full disk, once more
                self._file.close()

    def _run(self, supervised: Supervised) -> None:
        while not (self._closing.is_set() and self._queue.empty()):
            supervised.beat()
            with contextlib.suppress(queue.Empty):
                frame, verdict = self._queue.get(timeout=LOOK_UP_S)
                with supervised.busy(WRITE_WITHIN_S):
                    self._keep(frame, verdict)

    def _keep(self, frame: Frame, verdict: Verdict) -> None:
        try:
            record = encode_record(frame, verdict)
            if self._free(self._file) < self._settings.spare_bytes + len(record):
                self.dropped += 1
            else:
                self._write(record)
        except OSError:  # the disk is full or gone: verdicts do not depend on recordings
            self.dropped += 1

    def _write(self, record: bytes) -> None:
        if self._file.tell() + len(record) > self._settings.file_bytes:
            full, self._file = self._file, self._open_file()
            full.close()
        self._file.write(record)

    def _open_file(self) -> BinaryIO:
        self._delete_oldest()
        self._files += 1
        stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%f")
        file = (self._settings.folder / f"{stamp}-{self._files:04d}{RECORDING_SUFFIX}").open("wb")
        file.write(MAGIC)
        file.flush()  # who looks in while it grows finds a recording, if an empty one
        return file

    def _delete_oldest(self) -> None:
        """Make room for one more file."""
        files = sorted(self._settings.folder.glob(f"*{RECORDING_SUFFIX}"))
        sizes = [path.stat().st_size for path in files]
        while files and sum(sizes) + self._settings.file_bytes > self._settings.max_bytes:
            files.pop(0).unlink()
            sizes.pop(0)
