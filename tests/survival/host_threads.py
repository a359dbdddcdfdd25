"""The same of page, bridge and server: each of their threads ends once, and hangs once.

The log names it, within a second of its end or of the silence that it is allowed. A program that cannot do without it
ends with an exit code that is not 0, so that whoever started it starts it again.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from sim.station import LOOPBACK, ROOT, free_port, start_broker
from tests.survival.each_thread import MANNERS, Manner, wait

STARTED_WITHIN_S = 60.0
NAMED_WITHIN_S = 30.0  # some may be silent for 20 s
ENDED_WITHIN_S = 55.0  # one that hangs is given time to come back
CALM_S = 1.0
OPTIONAL = ("tap reader", "metrics")  # without them the rest goes on
HANG_ONLY = (
    "live view",  # a task of the event loop, without a thread of its own
    "plant network",  # as of a broken connection, it is followed by another
)


@dataclass(frozen=True)
class Program:
    name: str
    module: str
    runs: str  # what its log says when it does
    options: tuple[str, ...]


PROGRAMS = {
    "page": Program(
        "page", "host.dashboard.__main__", "the page of line", ("--config", "line.toml", "--folder", "page")
    ),
    "bridge": Program("bridge", "host.plant.__main__", "bridge of site", ("--sparkplug", "group")),
    "server": Program("server", "host.server.__main__", "server runs", ("--workers", "1", "--models", "models")),
}


@dataclass
class HostDeath:
    program: str
    thread: str
    manner: str
    late_s: float = float("inf")  # until the log named it, beyond the silence that it is allowed
    exit_code: int | None = None  # None: it went on
    violations: list[str] = field(default_factory=list)


class Life:
    """A program with a broker at hand, in a folder of its own."""

    def __init__(self, program: Program, folder: Path, broker_port: int) -> None:
        self._program, self._folder = program, folder
        (folder / "models").mkdir(parents=True)
        self._log, self._orders = folder / "log", folder / "orders"
        where, listen = f"{LOOPBACK}:{broker_port}", f"{LOOPBACK}:{free_port()}"
        site = folder.name  # its client id is of the site
        config = f'site = "{site}"\nline = "1"\nmodel = "one"\n[tap]\nendpoint = "tcp://{LOOPBACK}:{free_port()}"\n'
        (folder / "line.toml").write_text(config + f"[broker]\nport = {broker_port}\n", encoding="utf-8")
        own = {
            "page": ("--listen", listen, "--passwords", "passwords"),
            "bridge": ("--site", site, "--broker", where),
            "server": ("--bind", f"tcp://{listen}", "--metrics", f"{LOOPBACK}:{free_port()}"),
        }
        command = [sys.executable, "-m", "tests.survival.mortal_program", str(self._orders), program.module]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, *program.options, *own[program.name]],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait(lambda: program.runs in self._text() or self._process.poll() is not None, STARTED_WITHIN_S)

    def names(self) -> list[str]:
        """Of all that is supervised."""
        names: list[str] = self._order("", "is listed")["names"]
        return names

    def die(self, thread: str, manner: Manner) -> HostDeath:
        death = HostDeath(self._program.name, thread, manner)
        since_s = self._order(thread, manner).get("since_ns", time.monotonic_ns()) / 1e9
        said = re.compile(rf"\b{thread} (?:ended|silent for more than ([\d.]+) s)|^KeyError", re.MULTILINE)
        wait(lambda: said.search(self._text()) or time.monotonic() > since_s + NAMED_WITHIN_S, NAMED_WITHIN_S + 1)
        found = said.search(self._text())
        if found:
            death.late_s = max(0.0, time.monotonic() - since_s - float(found[1] or 0))
        wait(lambda: self._process.poll() is not None, CALM_S if thread in OPTIONAL else ENDED_WITHIN_S)
        death.exit_code = self._process.poll()
        self._judge(death)
        return death

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _judge(self, death: HostDeath) -> None:
        if death.late_s == float("inf"):
            death.violations.append("the log does not name it")
        if death.thread in OPTIONAL and death.exit_code is not None:
            death.violations.append(f"all ended with {death.exit_code}, though it can do without it")
        if death.thread not in OPTIONAL and not death.exit_code:
            death.violations.append(f"exit code {death.exit_code}: nobody starts it again")

    def _order(self, thread: str, manner: str) -> dict[str, Any]:
        new, answer = self._orders.with_suffix(".new"), self._orders.with_suffix(".done")
        new.write_text(json.dumps({"name": thread, "manner": manner}), encoding="utf-8")
        new.rename(self._orders)
        wait(lambda: answer.exists() or self._process.poll() is not None, NAMED_WITHIN_S)
        told: dict[str, Any] = json.loads(answer.read_text()) if answer.exists() else {}
        return told

    def _text(self) -> str:
        return self._log.read_text(errors="replace")


class HostThreads:
    def __init__(self, folder: Path, workers: int, opened: contextlib.ExitStack) -> None:
        self._folder, self._workers = folder, workers
        self._port = free_port()
        opened.enter_context(start_broker(folder, self._port))

    def die_all(
        self, names: Sequence[str] = tuple(PROGRAMS), manners: Sequence[Manner] = MANNERS
    ) -> Iterator[HostDeath]:
        """Each thread of each program."""
        found = ((name, *case) for name in names for case in self._cases(name))
        cases = [case for case in found if case[2] in manners]
        with ThreadPoolExecutor(self._workers) as pool:
            yield from pool.map(lambda case: self.die(*case), cases)

    def die(self, name: str, thread: str, manner: Manner) -> HostDeath:
        with self._live(name, f"{name}-{thread}-{manner}".replace(" ", "-")) as life:
            return life.die(thread, manner)

    def _cases(self, name: str) -> Iterator[tuple[str, Manner]]:
        with self._live(name, name) as life:
            time.sleep(CALM_S)  # until all have begun
            threads = life.names()
        for thread in threads:
            if thread not in HANG_ONLY:
                yield thread, "ends"
            yield thread, "hangs"

    @contextlib.contextmanager
    def _live(self, name: str, folder: str) -> Iterator[Life]:
        with contextlib.closing(Life(PROGRAMS[name], self._folder / folder, self._port)) as life:
            yield life


def show(deaths: list[HostDeath]) -> Table:
    table = Table("program", "thread", "manner", "late, s", "exit code", "violations", title="Each thread of the host")
    for death in deaths:
        code = "–" if death.exit_code is None else str(death.exit_code)
        row = (death.program, death.thread, death.manner, f"{death.late_s:.2f}", code, "; ".join(death.violations))
        table.add_row(*row)
    return table
