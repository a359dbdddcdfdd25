"""Stations as children of one process that has imported all they need: a run costs no start of Python.

`python -m tests.survival.nursery` reads one order a line, JSON, starts a station for it, says its process id on a line,
and its exit code on another when it has ended. It has no threads, so that it may fork.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from board import packages, run
from board.engines import onnx_runtime
from board.seams import Engine, FrameSource
from board.sources import belt
from protocol.errors import EngineError, SourceError, run_main
from protocol.messages import Frame
from tests.survival.mortal_threads import await_orders

RECORD_BYTES = 65536
WATCHDOG_US = "400000"
PR_SET_PDEATHSIG = 1  # prctl(2)
MAPPED: list[mmap.mmap] = []  # for as long as we live
IMPORTED = (onnx_runtime, belt, onnxruntime)  # before the fork: the program imports them only where it uses them


@dataclass(frozen=True)
class Birth:
    """A station, and the call of it that fails or hangs: see each_call.c."""

    config: str
    log: str
    shim: str  # the library of each_call.c; empty: nothing fails
    record: str = ""  # file of `RECORD_BYTES` that both sides map
    kind: int = 0
    at: int = 0
    manner: int = 0
    hang_ms: int = 0
    folder: str = ""  # calls on files are counted below it
    site: str = ""  # of the clock's calls, those of this place are counted
    orders: str = ""  # file in which threads.py is told which thread is to end or hang
    notify: str = ""  # socket that hears what systemd would


class StruckEngine:
    """An engine whose n-th answer is an error, one that the chain of engines knows or, every other time, another."""

    def __init__(self, engine: Engine, library: ctypes.CDLL) -> None:
        self.name = engine.name
        self._engine, self._library = engine, library
        self._calls = 0

    def infer(self, image: NDArray[np.uint8]) -> NDArray[np.int8]:
        self._calls += 1
        if self._library.strikes_engine(self.name.encode()):
            raise (EngineError if self._calls % 2 else RuntimeError)("struck")
        return self._engine.infer(image)

    def close(self) -> None:
        self._engine.close()


class StruckCamera:
    """A source whose n-th frame is an error, one that the line knows or, every other time, another."""

    def __init__(self, source: FrameSource, library: ctypes.CDLL) -> None:
        self._source, self._library = source, library
        self._calls = 0

    def __getattr__(self, name: str) -> Any:
        """What else the source tells."""
        return getattr(self._source, name)

    def read(self, timeout_s: float) -> Frame | None:
        self._calls += 1
        if self._library.strikes_camera(type(self._source).__name__.encode()):
            raise (SourceError if self._calls % 2 else RuntimeError)("struck")
        return self._source.read(timeout_s)

    def close(self) -> None:
        self._source.close()


def die_with_parent() -> None:
    """A sweep that is killed leaves nothing running."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> int:
    die_with_parent()
    for line in sys.stdin:
        birth = Birth(**json.loads(line))
        pid = os.fork()
        if pid == 0:
            os._exit(live(birth))
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    return 0


def live(birth: Birth) -> int:
    """The station's life, with the exit code of `board/run.py`."""
    os.setsid()
    die_with_parent()
    log = os.open(birth.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    if birth.shim:
        arm(birth)
    if birth.notify:
        os.environ |= {"NOTIFY_SOCKET": birth.notify, "WATCHDOG_USEC": WATCHDOG_US}
    if birth.orders:
        await_orders(Path(birth.orders))
    sys.argv = ["board/run.py", "--config", birth.config]
    try:
        return run_main(run.main)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    finally:
        sys.stderr.flush()


def arm(birth: Birth) -> None:
    with Path(birth.record).open("r+b") as file:
        shared = mmap.mmap(file.fileno(), RECORD_BYTES)
    MAPPED.append(shared)
    address = ctypes.addressof(ctypes.c_char.from_buffer(shared))
    library = ctypes.CDLL(birth.shim)
    open_engine = vars(packages)["open_engine"]
    vars(packages)["open_engine"] = lambda *given, **named: StruckEngine(open_engine(*given, **named), library)
    open_source = vars(run)["open_camera_or_replay"]
    vars(run)["open_camera_or_replay"] = lambda *given: StruckCamera(open_source(*given), library)
    library.arm(
        ctypes.c_void_p(address),
        birth.kind,
        ctypes.c_long(birth.at),
        birth.manner,
        ctypes.c_long(birth.hang_ms),
        birth.folder.encode(),
        birth.site.encode(),
    )


def encode_birth(birth: Birth) -> str:
    return json.dumps(asdict(birth)) + "\n"


if __name__ == "__main__":
    sys.exit(main())
