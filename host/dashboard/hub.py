"""Live data to every open page, as server-sent events. A page that does not keep up loses events, and nobody waits."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from host.dashboard.history import Row
from protocol.supervision import Supervised

TICK_S = 0.2
SUMMARY_EVERY = 5  # ticks
SUMMARIZE_WITHIN_S = 30.0  # it asks the database
SILENT_S = 1.0  # of the loop that answers every page
MAX_PAGES = 64
QUEUED_EVENTS = 25  # of each page: five seconds
MAX_PENDING = 1000  # parts between two ticks
LIVE_FIELDS = ("key", "part_id", "decision", "score", "threshold", "time", "latency_ms", "late", "reason", "model_id")

HasPicture = Callable[[str], bool]


class Hub:
    def __init__(self, summarize: Callable[[], dict[str, Any]], has_picture: HasPicture) -> None:
        """`summarize` may ask the database: it runs in a thread."""
        self._summarize, self._has_picture = summarize, has_picture
        self._pending: deque[Row] = deque(maxlen=MAX_PENDING)
        self._lock = threading.Lock()
        self._pages: set[asyncio.Queue[bytes | None]] = set()
        self.dropped = 0  # events that slow pages did not get

    def show(self, parts: list[Row]) -> None:
        """From any thread."""
        with self._lock:
            self._pending.extend(parts)

    async def run(self, stopping: Callable[[], bool], supervised: Supervised) -> None:
        supervised.let_end()  # with the program
        tick = 0
        while not stopping():
            supervised.beat()
            if tick % SUMMARY_EVERY == 0:
                with supervised.busy(SUMMARIZE_WITHIN_S):
                    summary = await asyncio.to_thread(self._summarize)
                self._send("summary", summary)
            parts = self._take_pending()
            if parts:
                self._send("parts", [live_part(part, self._has_picture) for part in parts])
            tick += 1
            await asyncio.sleep(TICK_S)
        for page in list(self._pages):
            self._put(page, None)

    @property
    def is_full(self) -> bool:
        return len(self._pages) >= MAX_PAGES

    @property
    def pages(self) -> int:
        return len(self._pages)

    async def events(self) -> AsyncIterator[bytes]:
        """Until the page leaves or the program stops."""
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUED_EVENTS)
        self._pages.add(queue)
        try:
            yield b"retry: 1000\n\n"
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._pages.discard(queue)

    def _take_pending(self) -> list[Row]:
        with self._lock:
            parts = list(self._pending)
            self._pending.clear()
        return parts

    def _send(self, name: str, content: object) -> None:
        event = f"event: {name}\ndata: {json.dumps(content, separators=(',', ':'))}\n\n".encode()
        for page in self._pages:
            self._put(page, event)

    def _put(self, page: asyncio.Queue[bytes | None], event: bytes | None) -> None:
        if page.full():
            page.get_nowait()  # the oldest: what is new matters more
            self.dropped += 1
        page.put_nowait(event)


def live_part(part: Row, has_picture: HasPicture) -> dict[str, Any]:
    return {**{name: part[name] for name in LIVE_FIELDS}, "has_picture": has_picture(part["key"])}
