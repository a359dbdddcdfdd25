"""Within a station: its supervised threads end or hang when they are told to.

A thread that is to end gets an exception at its next step, wherever it is; one that is to hang does so at its next
beat. Who is told is written beside the orders: all names, and when it was done.
"""

from __future__ import annotations

import ctypes
import json
import threading
import time
from pathlib import Path
from typing import ClassVar

from protocol.supervision import SUPERVISOR, Supervised

LOOK_S = 0.01
AGAIN_NS = 300_000_000
HANG_S = 60.0  # longer than anybody waits for it to come back


class Hanging:
    """Who hangs at its next beat, unless that begins a call that may take longer."""

    name = ""
    since_ns = 0
    limits_s: ClassVar[dict[str, float]] = {}  # the shortest silence that each was seen to be allowed


def await_orders(orders: Path) -> None:
    """From a thread of the test's own, which nobody supervises."""
    before = Supervised.beat

    def beat(supervised: Supervised) -> None:
        before(supervised)
        limit_s = vars(supervised)["_limit_s"]
        shortest_s = Hanging.limits_s[supervised.name] = min(limit_s, Hanging.limits_s.get(supervised.name, limit_s))
        if supervised.name == Hanging.name and limit_s == shortest_s:
            Hanging.since_ns = Hanging.since_ns or time.monotonic_ns()
            time.sleep(HANG_S)

    setattr(Supervised, "beat", beat)  # noqa: B010 - the one place that every thread passes at each turn
    threading.Thread(target=_obey, args=(orders,), name="orders", daemon=True).start()


def _obey(orders: Path) -> None:
    while not orders.exists():
        time.sleep(LOOK_S)
    order = json.loads(orders.read_text())
    since_ns = 0
    if order["manner"] == "hangs":
        Hanging.name = order["name"]
        while not Hanging.since_ns:
            time.sleep(LOOK_S / 10)
        since_ns = Hanging.since_ns
    elif order["manner"] == "ends":
        since_ns = _end(order["name"])
    told = {"since_ns": since_ns, "names": [supervised.name for supervised in _supervised()]}
    answer = orders.with_suffix(".done")
    answer.with_suffix(".part").write_text(json.dumps(told))
    answer.with_suffix(".part").rename(answer)


def _end(name: str) -> int:
    """When it was told for the last time; it ends at its next step."""
    since_ns = 0
    # subtle: paho takes every `Exception` in its waiting for a broken connection, and another one is made
    kind = SystemExit if name.endswith("network") else KeyError
    while not any(supervised.ended for supervised in _named(name)):
        if _named(name) and time.monotonic_ns() > since_ns + AGAIN_NS:
            thread = vars(_named(name)[0])["_thread"] or threading.main_thread()  # a loop has none of its own
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(kind))
            since_ns = time.monotonic_ns()
            if thread is threading.main_thread():
                break
        time.sleep(LOOK_S / 10)
    return since_ns


def _named(name: str) -> list[Supervised]:
    return [supervised for supervised in _supervised() if supervised.name == name]


def _supervised() -> list[Supervised]:
    return list(vars(SUPERVISOR)["_watched"])
