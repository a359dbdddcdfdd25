"""Worker processes on this machine: started, watched, and started again when they end."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from host.server.orders import NAME_BYTES
from protocol.errors import InputError

ROOT = Path(__file__).resolve().parent.parent.parent
STEADY_S = 1.0  # who lived this long may be started again at once
MAX_PAUSE_S = 5.0
STOP_WITHIN_S = 3.0


@dataclass(frozen=True)
class Keys:
    server: Path  # the front's public key
    own: Path  # the workers' secret key


@dataclass
class _Post:
    """A place in the crew, filled by one process after the other."""

    child: subprocess.Popen[bytes] | None = None
    name: bytes = b""
    pidfd: int = -1
    started_s: float = 0.0
    start_at_s: float = 0.0
    pause_s: float = 0.0


@dataclass
class Crew:
    endpoint: str
    size: int
    threads: int = 1
    keys: Keys | None = None
    starts: int = 0
    _posts: list[_Post] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._posts = [_Post() for _ in range(self.size)]

    def tend(self, now_s: float) -> list[bytes]:
        """Start who is missing and due; the names of those that have ended since the last call."""
        ended = []
        for post in self._posts:
            if post.child is not None and post.child.poll() is not None:
                ended.append(post.name)
                _vacate(post, now_s)
            if post.child is None and now_s >= post.start_at_s:
                self._start(post, now_s)
        return ended

    def kill(self, name: bytes) -> None:
        """End a worker that hangs; `tend` then starts another. Names of others are none of ours."""
        for post in self._posts:
            if post.name == name and post.child is not None:
                post.child.kill()

    def pidfds(self) -> list[int]:
        """Become readable when a process ends."""
        return [post.pidfd for post in self._posts if post.child is not None]

    def pids(self) -> list[int]:
        return [post.child.pid for post in self._posts if post.child is not None]

    def stop(self) -> None:
        children = [post.child for post in self._posts if post.child is not None]
        for child in children:
            child.send_signal(signal.SIGTERM)
        until_s = time.monotonic() + STOP_WITHIN_S
        for child in children:
            try:
                child.wait(max(0.0, until_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        for post in self._posts:
            if post.child is not None:
                _vacate(post, 0.0)

    def _start(self, post: _Post, now_s: float) -> None:
        post.name = secrets.token_bytes(NAME_BYTES)
        command = [sys.executable, "-m", "host.server.worker", "--connect", self.endpoint, "--name", post.name.hex()]
        command += ["--threads", str(self.threads)]
        if self.keys:
            command += ["--server-key", str(self.keys.server), "--key", str(self.keys.own)]
        try:
            post.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd=ROOT, env=_environment())  # noqa: S603
        except OSError as error:
            raise InputError(f"cannot start a worker ({error.strerror}): free memory, or use fewer --workers") from None
        post.pidfd, post.started_s = os.pidfd_open(post.child.pid), now_s
        self.starts += 1


def _vacate(post: _Post, now_s: float) -> None:
    os.close(post.pidfd)
    lived_s = now_s - post.started_s
    # who dies again and again waits longer each time
    post.pause_s = 0.0 if lived_s >= STEADY_S else min(MAX_PAUSE_S, max(0.1, 2 * post.pause_s))
    post.child, post.pidfd, post.start_at_s = None, -1, now_s + post.pause_s


def _environment() -> dict[str, str]:
    """Each worker keeps to its threads, whatever library it calls."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
