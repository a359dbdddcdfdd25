"""Who may act: names and password hashes, one a line, in a file of mode 0600.

NAME:scrypt:<salt>:<hash>       RFC 7914, N = 2^15, r = 8, p = 1: 32 MiB and a tenth of a second for each guess
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import threading
from pathlib import Path

from protocol.errors import InputError
from protocol.keys import require_private

SHORTEST = 10
LONGEST = 200
MAX_USERS = 1000
_N, _R, _P = 2**15, 8, 1
_MEMORY_BYTES = 64 << 20
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,31}", re.ASCII)
_ENTRY = re.compile(r"([\w.-]+):scrypt:([0-9a-f]{32}):([0-9a-f]{64})", re.ASCII)
_ONE_AT_A_TIME = threading.Lock()  # guesses may cost time, but not memory
_NOBODY = ("0" * 32, "0" * 64)


def set_password(path: Path, name: str, password: str) -> None:
    """Add or change one user. Raises: InputError."""
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r:.40} is no name: use up to 32 letters, digits, '.', '_' and '-'")
    if not SHORTEST <= len(password) <= LONGEST:
        raise InputError(f"the password has {len(password)} characters: use {SHORTEST}..{LONGEST}")
    users = _load(path) if path.exists() else {}
    salt = os.urandom(16).hex()
    users[name] = (salt, _hash(password, salt))
    lines = "".join(f"{user}:scrypt:{salt}:{digest}\n" for user, (salt, digest) in users.items())
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # subtle: made with its mode, never open to others for even a moment
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(lines)
        part.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}): name another file with --passwords") from None


def require_passwords(path: Path) -> None:
    """Raises: InputError for a file that is damaged, or open to others; none at all is in order: nobody may act."""
    if path.exists():
        _load(path)


def is_password(path: Path, name: str, password: str) -> bool:
    """Takes as long for a name that is not there. Raises: InputError."""
    users = _load(path) if path.exists() else {}
    salt, digest = users.get(name, _NOBODY)
    if len(password) > LONGEST:
        return False
    with _ONE_AT_A_TIME:
        given = _hash(password, salt)
    return hmac.compare_digest(given, digest) and name in users


class Credentials:
    """What lets each user in, as the file says it now; nobody while it cannot be read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, ...] | None = None
        self._users: dict[str, tuple[str, str]] = {}
        self._lock = threading.Lock()

    def of(self, name: str) -> str:
        """Empty for who is no user."""
        with self._lock:
            try:
                self._look()
            except (OSError, InputError):
                return ""
            return ":".join(self._users.get(name, ()))

    def _look(self) -> None:
        status = self._path.stat()
        stamp = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
        if stamp != self._stamp:
            self._stamp, self._users = None, {}
            self._users = _load(self._path)
            self._stamp = stamp


def _hash(password: str, salt: str) -> str:
    salted = bytes.fromhex(salt)
    text = password.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(text, salt=salted, n=_N, r=_R, p=_P, maxmem=_MEMORY_BYTES, dklen=32).hex()


def _load(path: Path) -> dict[str, tuple[str, str]]:
    """Salt and hash of each user."""
    try:
        require_private(path, "600")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path} ({error}): make it with --set-password NAME") from None
    entries = [_ENTRY.fullmatch(line) for line in lines]
    if len(entries) > MAX_USERS or not all(entries):
        raise InputError(f"{path} is no file of passwords: remove it, and make it with --set-password NAME")
    return {entry[1]: (entry[2], entry[3]) for entry in entries if entry}
