"""A station of which one call to the world fails or hangs, the few parts that it is fed, and what came of them.

After each run must hold:

- every part that triggered has one verdict, from this station or from the one that is started after it;
- nothing but a good part crossed an open gate, by the dry gate's own record;
- whatever cost a part its verdict in time was said: on the state topic, in the log or by the exit code;
- the station ends when it is told to.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from host.export.trivial import FRAME_PX
from protocol.errors import InputError
from protocol.messages import Trigger, Verdict, clock_id, decode_verdict
from protocol.sockets import Socket, open_socket
from protocol.wire import Buffer, EndOfRun, Passage, encode_message, encode_raw_frame
from sim.station import LOOPBACK, ROOT
from tests.survival.broker import open_client
from tests.survival.nursery import RECORD_BYTES, Birth, encode_birth

# As in each_call.c. `clock` is the monotonic one, which never fails; `wall` fails by a jump.
KINDS = ("pin", "files", "database", "sockets", "waits", "clock", "wall", "engine", "camera")
MANNERS = ("fails", "hangs")
SITE = struct.Struct("112sq")
PARTS, BAD = 4, (1, 3)
RATE_HZ = 10.0  # 15 mm apart: windows of 12 mm do not touch
BELT_MM_S, GATE_MM, WINDOW_MM, LEAD_MS = 150.0, 60.0, 12.0, 2.0
OPENS_NS = int((GATE_MM - WINDOW_MM / 2) / BELT_MM_S * 1e9)
CENTRE_NS = int(GATE_MM / BELT_MM_S * 1e9)
PASSED_NS = CENTRE_NS + int(WINDOW_MM / BELT_MM_S * 1e9)
HANG_MS = 1300
START_WITHIN_S, VERDICTS_WITHIN_S, STOP_WITHIN_S = 20.0, 5.0, 10.0
TRANSIT_MS = 150.0  # of a belt whose process shares a busy machine with many stations
STOOD_STILL_MS = OPENS_NS / 1e6 + 1000


@dataclass(frozen=True)
class Strike:
    """The call that fails or hangs; `at` counts from 1, for the clock at each place of the program that reads it."""

    kind: str
    at: int
    manner: str
    site: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.at} {self.manner}" + (f" at {self.site}" if self.site else "")


@dataclass
class Outcome:
    strike: Strike
    what: str = ""  # the call that was struck; empty: the run had fewer
    counted: tuple[int, ...] = ()  # calls of each kind
    sites: dict[str, int] = field(
        default_factory=dict, repr=False
    )  # of the monotonic clock, with how often each reads it
    passed: int = 0  # parts that found the gate open
    violations: list[str] = field(default_factory=list)


class Ears:
    """Verdicts and states of all lines that run on one broker."""

    def __init__(self, port: int) -> None:
        self.verdicts: dict[str, dict[int, dict[str, Verdict]]] = {}  # line → part → event → verdict
        self.states: dict[str, list[tuple[str, str]]] = {}
        self._client = open_client("each-call")
        ready = threading.Event()
        self._client.on_connect = lambda client, *_: client.subscribe("beltsight/#", qos=1)
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.on_message = lambda _client, _data, message: self._take(message.topic, bytes(message.payload))
        self._client.connect(LOOPBACK, port)
        self._client.loop_start()
        if not ready.wait(START_WITHIN_S):
            raise InputError("the broker does not answer")

    def _take(self, topic: str, payload: bytes) -> None:
        _, _, line, kind = topic.split("/", 3)
        if kind == "verdict":
            verdict = decode_verdict(payload)
            self.verdicts.setdefault(line, {}).setdefault(verdict.part_id, {})[verdict.event_id] = verdict
        elif kind == "state" and payload:
            state = json.loads(payload)
            self.states.setdefault(line, []).append((state["state"], state["reason"]))

    def heard(self, line: str) -> dict[int, dict[str, Verdict]]:
        return {part: dict(events) for part, events in list(self.verdicts.get(line, {}).items())}

    def forget(self, line: str) -> None:
        self.verdicts.pop(line, None)
        self.states.pop(line, None)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def own_port() -> int:
    """Of one nursery's stations, which run one after another.

    Below those that Linux gives to outgoing connections: one of them would take it before the station does.
    """
    for port in random.sample(range(10_000, 32_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port
    raise InputError("no free port between 10000 and 32000: end what holds them")


class Nursery:
    """Where stations are born: see nursery.py."""

    def __init__(self, shim: Path) -> None:
        self.shim, self.belt_port = shim, own_port()
        environment = {**os.environ, "LD_PRELOAD": str(shim), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "tests.survival.nursery"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT, env=environment)

    def bear(self, birth: Birth) -> int:
        """The station's process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(encode_birth(birth))
        self._process.stdin.flush()
        return int(self._read())

    def wait(self) -> int:
        """Its exit code; negative: the signal that ended it."""
        return int(self._read())

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        self._process.wait()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@dataclass
class Run:
    """One station's life, and what it was fed."""

    ears: Ears
    nursery: Nursery
    folder: Path
    models: Path
    broker_port: int
    strike: Strike | None
    triggers_ns: list[int] = field(default_factory=list)
    code: int | None = None

    @property
    def line(self) -> str:
        return self.folder.name

    @property
    def belt_port(self) -> int:
        return self.nursery.belt_port

    def live(self) -> Outcome:
        """Feed the parts to a station whose call is struck, and look what came of them."""
        self.folder.mkdir()
        (self.folder / "line.toml").write_text(self._config(), encoding="utf-8")
        record = self.folder.with_suffix(".record")
        record.write_bytes(bytes(RECORD_BYTES))
        strike = self.strike or Strike("files", 0, "fails")
        birth = self._birth(record, strike)
        outcome = Outcome(strike)
        ended = self._start(birth)
        belt = self._open_belt()
        with contextlib.closing(belt):
            self._feed(belt, ended)
            self._wait_for_verdicts(ended)
            self._stop(ended, outcome)
            gate = read_gate(self.folder / "gate.jsonl")
            read_record(record, outcome)
            if len(self.ears.heard(self.line)) < PARTS:
                self._start_again(birth, belt, outcome)
                self._wait_for_the_last()
        self._judge(outcome, gate)
        return outcome

    def _birth(self, record: Path, strike: Strike) -> Birth:
        return Birth(
            config=str(self.folder / "line.toml"),
            log=str(self.folder / "board.log"),
            shim=str(self.nursery.shim),
            record=str(record),
            kind=KINDS.index(strike.kind),
            at=strike.at,
            manner=1 + MANNERS.index(strike.manner),
            hang_ms=HANG_MS,
            folder=str(self.folder),
            site=strike.site,
        )

    def _config(self) -> str:
        return f"""\
model = "trivial"
models_dir = '{self.models}'
site = "survival"
line = "{self.line}"
source = "belt"
belt_speed_mm_s = {BELT_MM_S}

[belt]
endpoint = "tcp://{LOOPBACK}:{self.belt_port}"
transit_ms = {TRANSIT_MS}

[gate]
distance_mm = {GATE_MM}
window_mm = {WINDOW_MM}
lead_ms = {LEAD_MS}
dry_log = "gate.jsonl"

[motion]
by = "barriers"

[broker]
host = "{LOOPBACK}"
port = {self.broker_port}

[mqtt]
outbox = "outbox.sqlite"
broker_at_start = "optional"

[recorder]
keep = "everything"
folder = "recordings"
"""

    def _start(self, birth: Birth) -> threading.Event:
        """Set when the station has ended; its exit code is in `code` then."""
        self.code = None
        self.pid = self.nursery.bear(birth)
        ended = threading.Event()

        def wait() -> None:
            self.code = self.nursery.wait()
            ended.set()

        threading.Thread(target=wait, name="wait", daemon=True).start()
        deadline_s = time.monotonic() + START_WITHIN_S
        log = self.folder / "board.log"
        while not ended.is_set() and time.monotonic() < deadline_s:
            if log.exists() and b" runs, model " in log.read_bytes():
                break
            if self.strike and self.strike.kind == "files" and self._shows_running():
                break  # it was the log's line that failed
            time.sleep(0.01)
        return ended

    def _shows_running(self) -> bool:
        return any(state == "running" for state, _ in self.ears.states.get(self.line, []))

    def _open_belt(self) -> Socket:
        endpoint = f"tcp://{LOOPBACK}:{self.belt_port}"
        return open_socket("PUSH", endpoint, bind=False, high_water_mark=1000, linger_ms=0, timeout_ms=2000)

    def _feed(self, belt: Socket, ended: threading.Event) -> None:
        """Triggers with frames at the light barrier, passages where each part's window begins."""
        rng = np.random.default_rng(7)
        started_ns = time.monotonic_ns() + 20_000_000
        steps = [(int(number / RATE_HZ * 1e9), number, True) for number in range(PARTS)]
        steps += [(t_ns + OPENS_NS, number, False) for t_ns, number, _ in steps]
        for after_ns, number, is_trigger in sorted(steps):
            ended.wait(max(0.0, (started_ns + after_ns - time.monotonic_ns()) / 1e9))
            if is_trigger:
                now_ns = time.monotonic_ns()
                self.triggers_ns.append(now_ns)
                level = 200 if number in BAD else 40
                frame = rng.integers(level - 8, level + 9, (FRAME_PX, FRAME_PX, 3)).astype(np.uint8)
                self._send(belt, encode_raw_frame(Trigger(self.line, number, now_ns, clock_id()), frame, {}))
            else:
                # stamped as if this process had not been late itself
                passage = Passage(self.line, self.triggers_ns[number] + OPENS_NS, clock_id())
                self._send(belt, encode_message(passage))
        self._send(belt, encode_message(EndOfRun(self.line, PARTS)))

    def _send(self, belt: Socket, parts: Sequence[Buffer]) -> None:
        belt.send_multipart(parts)

    def _wait_for_verdicts(self, ended: threading.Event) -> None:
        passed_ns = self.triggers_ns[-1] + PASSED_NS  # the last part has surely left the gate
        ended.wait(max(0.0, (passed_ns - time.monotonic_ns()) / 1e9))
        deadline_s = time.monotonic() + VERDICTS_WITHIN_S
        while len(self.ears.heard(self.line)) < PARTS and time.monotonic() < deadline_s:
            if ended.wait(0.02):
                time.sleep(0.1)  # what it sent last is on its way
                return

    def _wait_for_the_last(self) -> None:
        """What a station sent before its end may be on its way from the broker."""
        deadline_s = time.monotonic() + VERDICTS_WITHIN_S
        while len(self.ears.heard(self.line)) < PARTS and time.monotonic() < deadline_s:
            time.sleep(0.02)

    def _stop(self, ended: threading.Event, outcome: Outcome) -> None:
        if not ended.is_set():
            os.kill(self.pid, signal.SIGTERM)
        if not ended.wait(STOP_WITHIN_S):
            outcome.violations.append("does not end when it is told to")
            os.kill(self.pid, signal.SIGKILL)
            ended.wait()

    def _start_again(self, birth: Birth, belt: Socket, outcome: Outcome) -> None:
        """A station in order, in the same place: parts that have no verdict yet are owed one."""
        (self.folder / "gate.jsonl").unlink(missing_ok=True)
        self.first_code = self.code
        ended = self._start(replace(birth, shim=""))
        self._send(belt, encode_message(EndOfRun(self.line, PARTS)))
        self._wait_for_verdicts(ended)
        self._stop(ended, outcome)
        self.code = self.first_code

    def _judge(self, outcome: Outcome, gate: list[tuple[int, bool]]) -> None:
        heard = self.ears.heard(self.line)
        missing = [part for part in range(PARTS) if part not in heard]
        if missing:
            outcome.violations.append(f"no verdict for {missing}")
        doubled = [part for part, events in heard.items() if len(events) > 1]
        if doubled:
            outcome.violations.append(f"two verdicts for {doubled}")
        for part, t_ns in enumerate(self.triggers_ns):
            is_ok = all(verdict.decision == "OK" for verdict in heard.get(part, {}).values()) and part in heard
            if stands_open(gate, t_ns + CENTRE_NS) and (not is_ok or part in BAD):
                outcome.violations.append(f"part {part} crossed an open gate")
        wrong = [part for part in BAD for verdict in heard.get(part, {}).values() if verdict.decision == "OK"]
        if wrong:
            outcome.violations.append(f"bad parts judged OK: {wrong}")
        outcome.passed = sum(stands_open(gate, t_ns + CENTRE_NS) for t_ns in self.triggers_ns)
        if self.strike is None and not outcome.passed:  # a busy machine is late for some
            outcome.violations.append("undisturbed, it let nobody through")
        if self._went_wrong(heard) and not self._was_said():
            outcome.violations.append("nothing was said")

    def _went_wrong(self, heard: dict[int, dict[str, Verdict]]) -> bool:
        """A verdict's own reason says why it is late; a line that stood still for a second says so itself."""
        verdicts = [verdict for events in heard.values() for verdict in events.values()]
        unexplained = any(v.decision == "UNKNOWN" and not v.reason for v in verdicts)
        return len(verdicts) < PARTS or unexplained or any(v.latency_ms > STOOD_STILL_MS for v in verdicts)

    def _was_said(self) -> bool:
        states = self.ears.states.get(self.line, [])
        if any(state != "running" and reason not in ("", "switched off") for state, reason in states):
            return True
        log = (self.folder / "board.log").read_text(errors="replace")
        return bool(self.code) or any(f"{state}: " in log for state in ("degraded", "stopped", "alarm"))


def read_gate(path: Path) -> list[tuple[int, bool]]:
    """Times, monotonic in ns, at which the dry gate moved, and whether it stood open from then on.

    A process that hangs between its look at the clock and the move moves it later than it says: behind what another
    process has written meanwhile.
    """
    if not path.exists():
        return []
    moves, latest_ns = [], 0
    for line in path.read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError):  # a line that was cut
            move = json.loads(line)
            latest_ns = max(latest_ns, move["t_ns"])
            moves.append((latest_ns, move["open"]))
    return moves


def stands_open(moves: list[tuple[int, bool]], at_ns: int) -> bool:
    before = [is_open for t_ns, is_open in moves if t_ns <= at_ns]
    return bool(before) and before[-1]


def read_record(path: Path, outcome: Outcome) -> None:
    """Calls of each kind, the one that was struck, and the clock's readers: `struct record` of each_call.c."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), RECORD_BYTES, access=mmap.ACCESS_READ) as data:
        outcome.counted = struct.unpack_from(f"{len(KINDS)}q", data)
        struck_ns, what = struct.unpack_from("q160s", data, 8 * len(KINDS))
        outcome.what = _text(what) if struck_ns else ""
        sites = data[8 * len(KINDS) + 168 :]
        outcome.sites = {
            _text(name): count
            for name, count in SITE.iter_unpack(sites[: len(sites) // SITE.size * SITE.size])
            if count
        }


def _text(data: bytes) -> str:
    return data.split(b"\0")[0].decode(errors="replace").strip()
