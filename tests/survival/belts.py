"""Fake belts of every kind before a real board: what crosses its gate, by the belt's own positions.

    python -m tests.survival.belts                          every kind of belt, some 15 minutes
    python -m tests.survival.belts --parts 200 --seeds 3    longer
    python -m tests.survival.belts --only "stop"            those with this word in their name

Each row is one run of sim/conveyor.py, with a broker and a board of its own, in real time. Nothing but OK may cross.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

from rich.console import Console
from rich.table import Table

from protocol.errors import InputError, run_main
from sim.station import ROOT

CLOSE = ("--pitch-mm", "20:150")
APART = ("--pitch-mm", "110:200")
RUN_WITHIN_S = 900.0
PIPED_WIDTH = 170
SHOWN = 60  # characters of the line's state
DISTINCT = 24  # drawn once: the belt's time is for the board
SAFE, UNSAFE = 0, 1  # exit codes of the conveyor; others mean that there was no run


@dataclass(frozen=True)
class Belt:
    name: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    belt: Belt
    seed: int
    report: dict[str, Any]

    @property
    def is_safe(self) -> bool:
        return not self.report["crossed_wrongly"]


def belts() -> Iterator[Belt]:
    """All that are tried."""
    for (pitch, mm), (proof, sensor) in itertools.product(
        (("close", CLOSE), ("apart", APART)), (("two barriers", ()), ("encoder", ("--encoder",)))
    ):
        name, options = f"{pitch}, {proof}", (*mm, *sensor)
        yield Belt(name, options)
        for factor in ("0.5", "0.6", "1.5", "2"):
            yield Belt(f"{name}, speed × {factor}", (*options, "--speed-error", factor))
        yield Belt(f"{name}, stop and go", (*options, "--stop-and-go"))
    free = ("--free-running", "--pitch-mm", "100:180", "--speed", "300")
    yield Belt("free-running", free)
    yield Belt("free-running, speed × 1.5", (*free, "--speed-error", "1.5"))
    yield Belt("free-running, stop and go", (*free, "--stop-and-go"))
    yield Belt("apart, camera freezes", (*APART, "--frozen-after", "20"))
    yield Belt("apart, frames late", (*APART, "--late-frames", "0.3"))
    yield Belt("apart, JPEG cut", (*APART, "--cut-jpeg", "0.3"))
    yield Belt("close, all at once", (*CLOSE, "--stop-and-go", "--late-frames", "0.2", "--cut-jpeg", "0.2"))


def run_belt(belt: Belt, seed: int, folder: Path, *, parts: int, more: tuple[str, ...]) -> Run:
    """Raises: InputError if the run did not come to its end."""
    report = folder / f"{seed}.json"
    command = [sys.executable, "sim/conveyor.py", "--parts", str(parts), "--seed", str(seed), *belt.options, *more]
    command += ["--defect-share", "0.4", "--report", str(report), "--run-folder", str(folder / str(seed))]
    if "--free-running" not in belt.options:
        command += ["--distinct", str(DISTINCT)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=RUN_WITHIN_S, check=False)
    if done.returncode not in (SAFE, UNSAFE) or not report.exists():
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise InputError(f"{belt.name}: no run ({last})")
    return Run(belt, seed, json.loads(report.read_text()))


def show(console: Console, runs: list[Run]) -> None:
    table = Table("belt", "seed", "OK", "REJECT", "UNKNOWN", "crossed open", "good stopped", "the line at the end")
    for run in runs:
        report = run.report
        crossed = " / ".join(str(count) for count in report["crossed_open"].values())
        counts = [str(report[key]) for key in ("ok", "reject", "unknown")]
        state = shorten(report["state"], SHOWN, placeholder=" …")  # so that a row stays a line
        style = None if run.is_safe else "bold red"
        table.add_row(run.belt.name, str(run.seed), *counts, crossed, str(report["good_stopped"]), state, style=style)
    console.print(table)


def main() -> int:
    options = parse_options()
    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
    chosen = [belt for belt in belts() if options.only in belt.name]
    if not chosen:
        raise InputError(f"--only {options.only!r}: no belt has that in its name")
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="belts-") as made:
        for number, belt in enumerate(chosen):
            folder = Path(made) / str(number)
            folder.mkdir()
            for seed in range(1, options.seeds + 1):
                runs.append(run_belt(belt, seed, folder, parts=options.parts, more=()))
                what = "safe" if runs[-1].is_safe else f"UNSAFE: {runs[-1].report['crossed_wrongly']}"
                console.print(f"{belt.name}, seed {seed}: {what}", highlight=False)
    show(console, runs)
    unsafe = sum(not run.is_safe for run in runs)
    console.print(f"{len(runs)} runs, {sum(run.report['parts'] for run in runs)} parts, {unsafe} runs unsafe")
    return 1 if unsafe else 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.survival.belts", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--parts", type=int, default=80, help="of each run (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each belt (default: %(default)s)")
    parser.add_argument("--only", default="", metavar="WORDS", help="belts with these words in their name")
    options = parser.parse_args()
    for name in ("parts", "seeds"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name} is {getattr(options, name)}: give 1 or more")
    return options


if __name__ == "__main__":
    sys.exit(run_main(main))
