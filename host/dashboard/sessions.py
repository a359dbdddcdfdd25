"""Who is logged in: bounded, each for a shift, each with a token that a foreign page cannot know."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

LASTS_S = 8 * 3600.0
IDLE_S = 3600.0
MAX_SESSIONS = 100  # the oldest ends when one more begins
FAILURES = 5  # of one address within WINDOW_S; then it waits
ALL_FAILURES = 30  # of all addresses together
WINDOW_S = 60.0


@dataclass
class Session:
    user: str
    token: str  # goes with each order, in a header: what CSRF cannot send
    began_s: float
    used_s: float

    def accepts(self, token: str) -> bool:
        return hmac.compare_digest(self.token.encode(), token.encode("utf-8", "surrogatepass"))


class Sessions:
    """Cookies are kept as hashes: what is read out of this process's memory logs nobody in."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def begin(self, user: str) -> str:
        """The cookie."""
        cookie, now_s = secrets.token_urlsafe(32), self._clock_s()
        with self._lock:
            while len(self._sessions) >= MAX_SESSIONS:
                del self._sessions[next(iter(self._sessions))]
            self._sessions[_hash(cookie)] = Session(user, secrets.token_urlsafe(32), now_s, now_s)
        return cookie

    def find(self, cookie: str) -> Session | None:
        with self._lock:
            session = self._sessions.get(_hash(cookie))
            if session is None:
                return None
            now_s = self._clock_s()
            if now_s - session.began_s > LASTS_S or now_s - session.used_s > IDLE_S:
                del self._sessions[_hash(cookie)]
                return None
            session.used_s = now_s
            return session

    def end(self, cookie: str) -> None:
        with self._lock:
            self._sessions.pop(_hash(cookie), None)


class Guesses:
    """How many logins failed of late, by address and in all."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._failed: deque[tuple[float, str]] = deque(maxlen=ALL_FAILURES)

    def must_wait_s(self, address: str) -> float:
        """0 when a login may be tried."""
        now_s = self._clock_s()
        recent = [(at_s, who) for at_s, who in list(self._failed) if at_s > now_s - WINDOW_S]
        own = [at_s for at_s, who in recent if who == address]
        if len(own) >= FAILURES:
            return own[-FAILURES] + WINDOW_S - now_s
        if len(recent) >= ALL_FAILURES:
            return recent[0][0] + WINDOW_S - now_s
        return 0.0

    def note_failure(self, address: str) -> None:
        self._failed.append((self._clock_s(), address))


def _hash(cookie: str) -> str:
    return hashlib.sha256(cookie.encode("utf-8", "surrogatepass")).hexdigest()
