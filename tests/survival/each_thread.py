"""Each thread of the station ends once, and hangs once.

The real program, with good parts on its belt. Within a second of the end or the silence, the log and the state name the
thread. If the line cannot do without it, the gate opens for nobody any more, and systemd's watchdog hears nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from rich.table import Table

from host.export.trivial import FRAME_PX
from protocol.messages import Trigger, clock_id
from protocol.sockets import Socket
from protocol.wire import Passage, encode_message, encode_raw_frame
from sim.station import LOOPBACK, free_port
from tests.survival.each_call import Sweep
from tests.survival.nursery import Birth
from tests.survival.strike import OPENS_NS, RATE_HZ, Run, read_gate

Manner = Literal["ends", "hangs"]
# Threads of a station that feeds from a belt, with everything switched on that needs no other machine.
NEEDED = ("line", "watch", "second watch", "gate", "gate closer", "belt", "outbox", "network", "signals")
OTHERS = ("recorder", "drift", "metrics")
MANNERS: tuple[Manner, ...] = ("ends", "hangs")
SEEN_WITHIN_S = 1.0
OPENED_WITHIN_S = 20.0
WATCHED_S = 8.0  # after which it is not seen at all
CALM_S = 1.2  # of belt and watchdog, once it was seen


@dataclass
class Death:
    """What came of one thread's end."""

    name: str
    manner: Manner
    log_s: float = float("inf")  # until the log named it
    state_s: float = float("inf")  # until the state did
    opened_before: int = 0
    opened_after: int = 0  # a second later
    beats_after: int = 0  # of the watchdog
    violations: list[str] = field(default_factory=list)

    @property
    def late_s(self) -> float:
        """Until everybody could know."""
        return self.log_s if self.name == "network" else max(self.log_s, self.state_s)


class GoodParts:
    """On the belt, until it is closed."""

    def __init__(self, belt: Socket, run: str) -> None:
        self._belt, self._run = belt, run
        self._closing = threading.Event()
        self._frame = np.random.default_rng(7)
        self._thread = threading.Thread(target=self._send_all, name="good parts", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()

    def _send_all(self) -> None:
        due: list[tuple[int, int | None]] = []  # times of passages, in order
        number, next_ns = 0, time.monotonic_ns()
        with contextlib.suppress(OSError):
            while not self._closing.wait(0.002):
                now_ns = time.monotonic_ns()
                while due and due[0][0] <= now_ns:
                    self._belt.send_multipart(encode_message(Passage(self._run, due.pop(0)[0], clock_id())))
                if now_ns >= next_ns:
                    frame = self._frame.integers(32, 49, (FRAME_PX, FRAME_PX, 3)).astype(np.uint8)
                    trigger = Trigger(self._run, number, now_ns, clock_id())
                    self._belt.send_multipart(encode_raw_frame(trigger, frame, {}))
                    due.append((now_ns + OPENS_NS, number))
                    number, next_ns = number + 1, now_ns + int(1e9 / RATE_HZ)


class Systemd:
    """Its end of the socket on which the station says that it lives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def beats(self) -> int:
        """Since the last call."""
        count = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                count += self._socket.recv(4096) == b"WATCHDOG=1"
        return count

    def close(self) -> None:
        self._socket.close()


class LifeAndDeath(Run):
    """A station, one thread of which ends or hangs while good parts go by."""

    def die(self, name: str, manner: Manner) -> Death:
        self.folder.mkdir()
        (self.folder / "line.toml").write_text(self._config() + self._more(), encoding="utf-8")
        death, orders = Death(name, manner), self.folder / "orders"
        with contextlib.ExitStack() as opened:
            systemd = opened.enter_context(contextlib.closing(Systemd(self.folder / "notify")))
            ended = self._start(self._mortal_birth(orders, systemd.path))
            opened.callback(self._end, ended)
            belt = opened.enter_context(contextlib.closing(self._open_belt()))
            opened.enter_context(contextlib.closing(GoodParts(belt, self.line)))
            self._watch(death, orders, systemd, ended)
        self._judge_death(death)
        return death

    def _mortal_birth(self, orders: Path, notify: Path) -> Birth:
        return Birth(
            config=str(self.folder / "line.toml"),
            log=str(self.folder / "board.log"),
            shim="",
            orders=str(orders),
            notify=str(notify),
        )

    def _more(self) -> str:
        return f"""
[drift]
enabled = true
folder = "drift"

[metrics]
listen = "{LOOPBACK}:{free_port()}"
"""

    def _end(self, ended: threading.Event) -> None:
        if not ended.is_set():
            os.kill(self.pid, signal.SIGKILL)
        ended.wait()

    def _watch(self, death: Death, orders: Path, systemd: Systemd, ended: threading.Event) -> None:
        gate = self.folder / "gate.jsonl"
        wait(lambda: any(is_open for _, is_open in read_gate(gate)), OPENED_WITHIN_S)
        orders.with_suffix(".new").write_text(json.dumps({"name": death.name, "manner": death.manner}))
        orders.with_suffix(".new").rename(orders)
        answer = orders.with_suffix(".done")
        wait(lambda: answer.exists() or ended.is_set(), OPENED_WITHIN_S)
        told_s = time.monotonic()
        since_s = json.loads(answer.read_text())["since_ns"] / 1e9 if answer.exists() else told_s
        self._see(death, since_s)
        systemd.beats()
        calm_s = max(since_s + SEEN_WITHIN_S, time.monotonic())
        ended.wait(max(0.0, calm_s + CALM_S - time.monotonic()))
        death.beats_after = systemd.beats()
        opened_s = [t_ns / 1e9 for t_ns, is_open in read_gate(gate) if is_open]
        death.opened_before = sum(t_s < since_s for t_s in opened_s)
        death.opened_after = sum(t_s > calm_s for t_s in opened_s)

    def _see(self, death: Death, since_s: float) -> None:
        """subtle: without the network the state cannot be told, and the line's own end is told as the station's."""
        words = re.compile(rf"\b{death.name} (ended|silent)" + ("|KeyError" if death.name == "line" else ""))
        log = self.folder / "board.log"
        deadline_s = since_s + WATCHED_S
        while time.monotonic() < deadline_s and not (death.log_s < WATCHED_S and death.state_s < WATCHED_S):
            now_s = time.monotonic() - since_s
            if death.log_s > now_s and words.search(log.read_text(errors="replace")):
                death.log_s = now_s
            if death.state_s > now_s and any(words.search(why) for _, why in list(self.ears.states.get(self.line, []))):
                death.state_s = now_s
            if death.name == "network" and death.log_s < WATCHED_S:
                return
            time.sleep(0.005)

    def _judge_death(self, death: Death) -> None:
        if death.log_s > WATCHED_S:
            death.violations.append("the log does not name it")
        if death.state_s > WATCHED_S and death.name != "network":
            death.violations.append("the state does not name it")
        if not death.opened_before:
            death.violations.append("undisturbed, it let nobody through")
        if death.name in NEEDED and death.opened_after:
            death.violations.append(f"the gate opened {death.opened_after} times afterwards")
        if death.name in NEEDED and death.beats_after:
            death.violations.append("the watchdog heard it afterwards")
        if death.name not in NEEDED and not death.opened_after:
            death.violations.append("nobody passes any more, though the line can do without it")


def wait(condition: Callable[[], object], within_s: float) -> None:
    deadline_s = time.monotonic() + within_s
    while not condition() and time.monotonic() < deadline_s:
        time.sleep(0.01)


class Threads(Sweep):
    def die(self, name: str, manner: Manner) -> Death:
        with self.lent_nursery() as (nursery, folder):
            return LifeAndDeath(self.ears, nursery, folder, self.models, self.port, None).die(name, manner)

    def die_all(self, names: tuple[str, ...]) -> Iterator[Death]:
        """Each by both manners."""
        with ThreadPoolExecutor(self.workers) as pool:
            yield from pool.map(lambda case: self.die(*case), [(name, manner) for name in names for manner in MANNERS])


def show(deaths: list[Death]) -> Table:
    table = Table("thread", "manner", "in the log after, s", "in the state after, s", "violations", title="Each thread")
    for death in deaths:
        state = "–" if death.name == "network" else f"{death.state_s:.2f}"
        table.add_row(death.name, death.manner, f"{death.log_s:.2f}", state, "; ".join(death.violations))
    return table
