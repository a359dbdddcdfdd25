"""Who is logged in: bounded, each for a shift, each with a token that a foreign page cannot know."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

LASTS_S = 8 * 3600.0
IDLE_S = 3600.0
MAX_SESSIONS = 100  # the oldest ends when one more begins
FAILURES = 5  # of one address within WINDOW_S; then it waits
WINDOW_S = 60.0
MAX_INSIDE = 8  # logins that are being looked at, one after the other, of all addresses
CROWDED_S = 1.0
MAX_ADDRESSES = 4096  # that are remembered


@dataclass
class Session:
    user: str
    credential: str  # what let the user in
    token: str  # goes with each order, in a header: what CSRF cannot send
    began_s: float
    used_s: float

    def accepts(self, token: str) -> bool:
        return hmac.compare_digest(self.token.encode(), token.encode("utf-8", "surrogatepass"))


class Sessions:
    """Cookies are kept as hashes: what is read out of this process's memory logs nobody in."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic, credential: Callable[[str], str] = str) -> None:
        """`credential`: what lets a user in now, empty if nothing does; a session ends when it is another."""
        self._clock_s, self._credential = clock_s, credential
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def begin(self, user: str) -> str:
        """The cookie."""
        cookie, now_s = secrets.token_urlsafe(32), self._clock_s()
        with self._lock:
            while len(self._sessions) >= MAX_SESSIONS:
                del self._sessions[next(iter(self._sessions))]
            self._sessions[_hash(cookie)] = Session(
                user, self._credential(user), secrets.token_urlsafe(32), now_s, now_s
            )
        return cookie

    def find(self, cookie: str) -> Session | None:
        with self._lock:
            session = self._sessions.get(_hash(cookie))
            if session is None:
                return None
            now_s = self._clock_s()
            is_over = now_s - session.began_s > LASTS_S or now_s - session.used_s > IDLE_S
            if is_over or not session.credential or self._credential(session.user) != session.credential:
                del self._sessions[_hash(cookie)]
                return None
            session.used_s = now_s
            return session

    def end(self, cookie: str) -> None:
        with self._lock:
            self._sessions.pop(_hash(cookie), None)


class Guesses:
    """How many logins an address may begin. Each counts at the door, and is given back if it was right: who tries many
    at once gains nothing. Nobody's tries count for another address.
    """

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._begun_s: OrderedDict[str, deque[float]] = OrderedDict()  # by address; the latest to come stands last
        self._inside = 0
        self._lock = threading.Lock()

    def enter(self, address: str) -> float:
        """0 where a login has begun, which `leave` ends; else how long to wait, in seconds."""
        who, now_s = network_of(address), self._clock_s()
        with self._lock:
            begun_s = self._begun_s.setdefault(who, deque())
            while begun_s and begun_s[0] <= now_s - WINDOW_S:
                begun_s.popleft()
            if len(begun_s) >= FAILURES:
                return begun_s[0] + WINDOW_S - now_s
            if self._inside >= MAX_INSIDE:
                return CROWDED_S
            self._inside += 1
            begun_s.append(now_s)
            self._begun_s.move_to_end(who)
            while len(self._begun_s) > MAX_ADDRESSES:
                self._begun_s.popitem(last=False)
            return 0.0

    def leave(self, address: str, *, is_right: bool) -> None:
        with self._lock:
            self._inside -= 1
            begun_s = self._begun_s.get(network_of(address))
            if is_right and begun_s:
                begun_s.pop()


def network_of(address: str) -> str:
    """Who has an address of IPv6 has the 2^64 of its network too."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = getattr(parsed, "ipv4_mapped", None)
    if parsed.version == 4 or mapped:
        return str(mapped or parsed)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


def _hash(cookie: str) -> str:
    return hashlib.sha256(cookie.encode("utf-8", "surrogatepass")).hexdigest()
