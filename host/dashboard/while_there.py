"""Work that ends when whoever asked for it has gone, a few at a time: the rest of the page goes on meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from protocol.errors import InputError
from protocol.supervision import SUPERVISOR, Supervised

LOOK_EVERY_S = 0.2

T = TypeVar("T")


class WhileThere:
    def __init__(self, at_once: int) -> None:
        self._turn = asyncio.Semaphore(at_once)

    async def do(self, request: Request, work: Callable[[Callable[[], bool]], T]) -> T:
        """`work` is given what tells whether its result is still wanted. Raises: InputError if it is not."""
        gone = threading.Event()
        # None: it ends with the work, or with the reader
        supervised, watch = SUPERVISOR.start_task(
            "reader", partial(_watch, request, gone), silent_s=None, is_needed=False
        )
        supervised.let_end()
        try:
            async with self._turn:
                if gone.is_set():
                    raise InputError("nobody waits for this any more")
                return await run_in_threadpool(work, lambda: not gone.is_set())
        finally:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch


async def _watch(request: Request, gone: threading.Event, _: Supervised) -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(LOOK_EVERY_S)
    gone.set()
