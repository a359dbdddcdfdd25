"""One line in the terminal that says how far a long step is, and how long it will take."""

from __future__ import annotations

import time
from typing import TextIO

EVERY_S = 0.5


class Progress:
    """Rewrites its line on a terminal; elsewhere it says only what begins."""

    def __init__(self, step: str, out: TextIO) -> None:
        self._step, self._out = step, out
        self._rewrites = out.isatty()
        self._began_s = time.monotonic()
        self._shown_s = -EVERY_S
        if not self._rewrites:
            print(f"{step} …", file=out, flush=True)

    def show(self, done_bytes: int, total_bytes: int) -> None:
        now_s = time.monotonic()
        finished = done_bytes >= total_bytes
        if self._rewrites and (finished or now_s - self._shown_s >= EVERY_S):
            self._shown_s = now_s
            line = describe(self._step, done_bytes, total_bytes, now_s - self._began_s)
            print(f"\r\x1b[K{line}", end="\n" if finished else "", file=self._out, flush=True)


def describe(step: str, done_bytes: int, total_bytes: int, elapsed_s: float) -> str:
    """
    >>> describe("writing", 250_000_000, 1_000_000_000, 10.0)
    'writing: 25 %, 250 of 1000 MB, 25.0 MB/s, 0:30 left'
    """
    rate = done_bytes / elapsed_s if elapsed_s > 0 else 0.0
    text = f"{step}: {100 * done_bytes // max(total_bytes, 1)} %, {done_bytes // 10**6} of {total_bytes // 10**6} MB"
    if rate <= 0:
        return text
    left_s = round((total_bytes - done_bytes) / rate)
    return f"{text}, {rate / 1e6:.1f} MB/s, {left_s // 60}:{left_s % 60:02d} left"
