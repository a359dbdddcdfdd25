"""How much one user may order: others' orders do not wait for his, nor does the audit log fill with them."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

AT_ONCE = 2  # of one user: one that takes long, as a change of the model, and one beside it
A_MINUTE = 60  # far more than hands order
WINDOW_S = 60.0
MAX_USERS = 1024


class Turns:
    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._begun_s: OrderedDict[str, deque[float]] = OrderedDict()
        self._under_way: dict[str, int] = {}
        self._lock = threading.Lock()

    def begin(self, user: str) -> str:
        """Why not; empty where an order has begun, which `end` ends."""
        now_s = self._clock_s()
        with self._lock:
            begun_s = self._begun_s.setdefault(user, deque())
            self._begun_s.move_to_end(user)
            while len(self._begun_s) > MAX_USERS:
                self._begun_s.popitem(last=False)
            while begun_s and begun_s[0] <= now_s - WINDOW_S:
                begun_s.popleft()
            if self._under_way.get(user, 0) >= AT_ONCE:
                return "your other orders wait for their answers: try again"
            if len(begun_s) >= A_MINUTE:
                return f"{A_MINUTE} orders within a minute: wait {begun_s[0] + WINDOW_S - now_s:.0f} s"
            begun_s.append(now_s)
            self._under_way[user] = self._under_way.get(user, 0) + 1
            return ""

    def end(self, user: str) -> None:
        with self._lock:
            self._under_way[user] -= 1
            if not self._under_way[user]:
                del self._under_way[user]
