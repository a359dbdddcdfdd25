"""What the station's dry gate did, by its own log: through a pipe, which a full disk and a restart do not cut off."""

from __future__ import annotations

import json
import os
import select
import threading
from dataclasses import dataclass
from pathlib import Path

TURN_S = 0.1
CHUNK_BYTES = 65536


@dataclass(frozen=True)
class Opening:
    part_id: int
    t_ns: int  # monotonic


class GateLog:
    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._pipe = os.open(path, os.O_RDWR)  # also a writer: without one, the end of the station would be our end
        self._openings: list[Opening] = []
        self._closing = False
        self._thread = threading.Thread(target=self._read, name="gate-log", daemon=True)
        self._thread.start()

    def openings(self) -> list[Opening]:
        return list(self._openings)

    def close(self) -> None:
        self._closing = True
        self._thread.join()
        os.close(self._pipe)

    def _read(self) -> None:
        rest = b""
        while not self._closing:
            if not select.select([self._pipe], [], [], TURN_S)[0]:
                continue
            *lines, rest = (rest + os.read(self._pipe, CHUNK_BYTES)).split(b"\n")
            for move in map(json.loads, lines):
                if move["open"]:
                    self._openings.append(Opening(move["part_id"], move["t_ns"]))
