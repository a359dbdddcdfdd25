"""Each call of the station to the world fails once, and hangs once: `beltsight survive --each-call`.

In the manner of SQLite's tests of I/O errors (https://www.sqlite.org/testing.html, 3.2): a short run is repeated, and
the n-th call of one kind fails, for n = 1, 2, 3 … until a run has fewer calls than n. Kinds are the gate's pin, files,
the outbox's SQLite, TCP sockets, waits, clocks, engines and the camera (the belt, as the line reads it); the station is
the real program, each_call.c stands before its C library, strike.py says what must hold after each run. With
`--journal` a sweep that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import random
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from host.export.trivial import write_trivial_package
from protocol.errors import InputError
from sim.station import free_port, start_broker
from tests.survival.strike import KINDS, MANNERS, Ears, Nursery, Outcome, Run, Strike

SOURCE = Path(__file__).with_name("each_call.c")
FIRST_READS, LATER_READS = 6, 8  # of the monotonic clock, at each place
SAY_EVERY_S = 30.0
STANDSTILL_S = 2.0


def build_shim(folder: Path) -> Path:
    """Raises: InputError without a compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise InputError("each call is struck by a library in C: apt-get install gcc")
    library = folder / "each_call.so"
    command = [compiler, "-std=c11", "-O1", "-shared", "-fPIC", str(SOURCE), "-o", str(library), "-ldl"]
    subprocess.run(command, check=True)
    return library


class Sweep:
    """A broker, stations that are born side by side, and the strikes that each of them takes."""

    def __init__(self, folder: Path, workers: int, opened: contextlib.ExitStack) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.models = write_trivial_package(folder / "models" / "trivial").parent
        self.port = free_port()
        opened.enter_context(start_broker(folder, self.port))
        self.ears = Ears(self.port)
        opened.callback(self.ears.close)
        shim = build_shim(folder)
        self._nurseries: queue.SimpleQueue[Nursery] = queue.SimpleQueue()
        for _ in range(workers):
            nursery = Nursery(shim)
            opened.callback(nursery.close)
            self._nurseries.put(nursery)
        self.workers, self._number, self._lock = workers, 0, threading.Lock()
        self._standstills = 0
        threading.Thread(target=self._notice_standstills, name="standstills", daemon=True).start()

    @contextlib.contextmanager
    def lent_nursery(self) -> Iterator[tuple[Nursery, Path]]:
        """And the folder of the station that will be born there."""
        nursery = self._nurseries.get()
        with self._lock:
            self._number += 1
            folder = self._folder / f"line{os.getpid()}-{self._number}"
        try:
            yield nursery, folder
        finally:
            self._nurseries.put(nursery)
            self.ears.forget(folder.name)

    def strike(self, strike: Strike | None) -> Outcome:
        """Anew, if all of us were stopped meanwhile: what came late then was no fault of the station's."""
        while True:
            standstills = self._standstills
            outcome = self._strike_once(strike)
            if self._standstills == standstills:
                return outcome

    def _strike_once(self, strike: Strike | None) -> Outcome:
        with self.lent_nursery() as (nursery, folder):
            outcome = Run(self.ears, nursery, folder, self.models, self.port, strike).live()
        folder.with_suffix(".record").unlink(missing_ok=True)
        if not outcome.violations:
            shutil.rmtree(folder, ignore_errors=True)
        return outcome

    def _notice_standstills(self) -> None:
        last_s = time.monotonic()
        while True:
            time.sleep(0.1)
            self._standstills += time.monotonic() - last_s > STANDSTILL_S
            last_s = time.monotonic()

    def strike_all(self, strikes: list[Strike]) -> Iterator[Outcome]:
        """As they end."""
        with ThreadPoolExecutor(self.workers) as pool:
            waiting = [pool.submit(self.strike, strike) for strike in strikes]
            try:
                yield from (done.result() for done in as_completed(waiting))
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def choose(calm: Outcome, share: float, seed: int) -> list[Strike]:
    """Every call of an undisturbed run in both manners, and a few beyond; or a share of them. In random order, so that
    what is done first is a sample of the whole.

    The monotonic clock is read thousands of times, and never fails: at each place that reads it, the first times and
    some of the others hang.
    """
    every = [
        Strike(kind, at, manner)
        for kind, count in zip(KINDS, calm.counted, strict=True)
        for at in range(1, beyond(count) + 1)
        for manner in MANNERS
        if kind != "clock"
    ]
    every += [Strike("clock", at, "hangs", site) for site, count in calm.sites.items() for at in moments(count)]
    return random.Random(seed).sample(every, max(1, round(share * len(every))))


def beyond(count: int) -> int:
    """A run has more calls than another."""
    return round(count * 1.05) + 1


def moments(count: int) -> list[int]:
    first, last = min(count, FIRST_READS), beyond(count)
    step = max(1, (last - first) // LATER_READS)
    return [*range(1, first + 1), *range(first + step, last + 1, step)]


class Journal:
    """What was struck already: a line of JSON each, the undisturbed run first."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path and path.exists() else []
        self.outcomes = [_read_outcome(line) for line in lines]

    @property
    def calm(self) -> Outcome | None:
        return self.outcomes[0] if self.outcomes else None

    def done(self) -> set[Strike]:
        return {outcome.strike for outcome in self.outcomes[1:]}

    def add(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        if self._path:
            with self._path.open("a", encoding="utf-8") as file:
                told = asdict(outcome)
                if len(self.outcomes) > 1:
                    told["sites"] = {}  # the undisturbed run's are enough
                file.write(json.dumps(told) + "\n")


def _read_outcome(line: str) -> Outcome:
    told = json.loads(line)
    return Outcome(Strike(**told.pop("strike")), counted=tuple(told.pop("counted")), **told)


def show(outcomes: list[Outcome]) -> Table:
    table = Table("kind", "manner", "struck", "never came", "violations", title="Each call of the station, once")
    for kind in KINDS:
        for manner in MANNERS:
            rows = [o for o in outcomes if (o.strike.kind, o.strike.manner) == (kind, manner)]
            struck = [o for o in rows if o.what]
            bad = [o for o in rows if o.violations]
            table.add_row(kind, manner, str(len(struck)), str(len(rows) - len(struck)), str(len(bad)))
    injected, violated = sum(bool(o.what) for o in outcomes), sum(bool(o.violations) for o in outcomes)
    table.caption = f"{injected} injected failures, {violated} runs with violations"
    return table


def main() -> int:
    options = parse_options()
    with contextlib.ExitStack() as opened:
        folder = options.keep or Path(opened.enter_context(tempfile.TemporaryDirectory()))
        journal = Journal(options.journal)
        sweep = Sweep(folder.resolve(), options.workers, opened)
        if journal.calm is None:
            journal.add(sweep.strike(None))
        calm = journal.outcomes[0]
        print(f"undisturbed: {dict(zip(KINDS, calm.counted, strict=True))} {calm.violations or ''}", flush=True)
        done = journal.done()
        strikes = [s for s in choose(calm, options.share, options.seed) if options.kind in (None, s.kind)]
        left = [strike for strike in strikes if strike not in done]
        for outcome in follow(sweep.strike_all(left), len(left), len(strikes)):
            journal.add(outcome)
    Console().print(show(journal.outcomes[1:]))
    return int(any(outcome.violations for outcome in journal.outcomes))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="beltsight survive --each-call", description="Each call fails once.")
    parser.add_argument("--share", type=float, default=1.0, help="of all calls, chosen at random (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of order and choice (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=3 * (os.cpu_count() or 1), help="stations side by side")
    parser.add_argument("--kind", choices=KINDS, help="calls of this kind alone")
    parser.add_argument("--journal", type=Path, help="file of what was done; the same command goes on behind it")
    parser.add_argument("--keep", type=Path, help="folder for runs with violations (default: a temporary one)")
    return parser.parse_args()


def follow(outcomes: Iterator[Outcome], left: int, total: int) -> Iterator[Outcome]:
    """Say what was violated, and now and then how far it is."""
    started_s, said_s, bad = time.monotonic(), time.monotonic(), 0
    for number, outcome in enumerate(outcomes, start=1):
        if outcome.violations:
            bad += 1
            print(f"{outcome.strike} ({outcome.what}): {'; '.join(outcome.violations)}", flush=True)
        if time.monotonic() - said_s > SAY_EVERY_S:
            said_s = time.monotonic()
            left_s = (said_s - started_s) / number * (left - number)
            print(f"{total - left + number}/{total}, {bad} with violations, {left_s / 60:.0f} min left", flush=True)
        yield outcome
