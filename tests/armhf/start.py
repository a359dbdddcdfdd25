"""What the station's start costs on the board's Cortex-A9 up to its first verdict: instructions, and bytes of the card.

    beltsight estimate models/bottle-128 --start

board/run.py itself runs, with a signed model, without network, broker or clock (it is 1970). Its only part is a picture
that it replays; then it ends. BOOT.md has the budget.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import sqlite3
import subprocess
from dataclasses import dataclass
from pathlib import Path

import cv2

from host.deploy.sign import sign_package
from protocol.manifest import load_package
from protocol.messages import Verdict, decode_verdict
from protocol.signing import write_signing_pair
from tests.armhf import userland
from tests.armhf.counting import CLOCK_HZ, CYCLES, Count, Opening, count_program

# Nothing but a loopback that is down; a clock that begins where that of a board without a battery does.
WITHOUT_NETWORK = ("unshare", "--user", "--map-root-user", "--net")
WITHOUT_CLOCK = ("faketime", "--exclude-monotonic", "-f", "@1970-01-01 00:00:30")
CONFIG = """\
model = "{model}"
models_dir = "models"
trusted_keys = "keys"
source = "replay"
[replay]
path = "part.bmp"
[gate]
distance_mm = 1e6  # an emulated processor is slower than any
[engines]
runtime = "kernels"
[broker]
host = "192.0.2.1"  # RFC 5737: nobody has it
[mqtt]
outbox = "outbox.sqlite"
broker_at_start = "optional"
"""
MOST_INSTRUCTIONS = 5_000_000_000  # BOOT.md, "The budget"
# Which package a file belongs to while modules are imported; the first that matches.
PACKAGES = {
    "NumPy": r"/numpy/",
    "OpenCV and what it is linked to": r"/cv2\.",
    "ZeroMQ": r"/zmq/",
    "paho-mqtt": r"/paho/",
    "the station's modules": r"/(board|protocol)/",
    "Python's own modules": r"/lib/python3",
}
# What comes after, each from the first such file on.
STEPS = (
    ("configuration", r"/line\.toml$"),
    ("keys, signature, digests of the package", r"/cryptography/"),
    ("outbox", r"/outbox\.sqlite$"),
    ("engine, golden pictures, known-bad parts", r"/engines/kernels/"),
    ("first part, and closing", r"/part\.bmp$"),
)


@dataclass(frozen=True)
class Step:
    name: str
    count: Count
    files_bytes: int  # of files that no step before opened, in full

    @property
    def estimated_s(self) -> float:
        vector = self.count.vector
        cycles = (self.count.instructions - vector) * CYCLES["scalar"][0] + vector * CYCLES["int8"][1]
        return cycles / CLOCK_HZ


@dataclass(frozen=True)
class Start:
    steps: tuple[Step, ...]
    verdict: Verdict

    @property
    def total(self) -> Step:
        count = sum((step.count for step in self.steps), Count(0, 0))
        return Step("together", count, sum(step.files_bytes for step in self.steps))


def measure_start(model: Path, folder: Path) -> Start:
    """In `folder`, which is empty. Raises: InputError if the station does not run."""
    config = write_station(model, folder)
    userland.run("board/run.py", "--config", str(config))  # the card has all modules compiled: now this machine too
    for written in folder.glob("outbox.sqlite*"):
        written.unlink()
    before = tuple(word for command in (WITHOUT_NETWORK, WITHOUT_CLOCK) if works(command) for word in command)
    run = count_program("board/run.py", "--config", str(config), before=before)
    return Start(split(run.openings, run.count), read_verdict(folder / "outbox.sqlite"))


def works(command: tuple[str, ...]) -> bool:
    """Whether this machine lets us run something under it."""
    return shutil.which(command[0]) is not None and subprocess.call([*command, "true"], stderr=subprocess.DEVNULL) == 0


def write_station(model: Path, folder: Path) -> Path:
    """A line's configuration with what it names: a signed copy of the model, the key, a part."""
    golden = load_package(model).load_golden()
    copy = shutil.copytree(model, folder / "models" / model.name)
    _, secret = write_signing_pair(folder / "keys", "maker")
    sign_package(secret, copy)
    secret.unlink()
    cv2.imwrite(str(folder / "part.bmp"), cv2.cvtColor(golden.frames[0], cv2.COLOR_RGB2BGR))
    config = folder / "line.toml"
    config.write_text(CONFIG.format(model=model.name))
    return config


def split(openings: tuple[Opening, ...], end: Count) -> tuple[Step, ...]:
    """What was executed from each opened file to the next belongs to the step that this file is of."""
    openings = (Opening(Count(0, 0), "/usr/bin/python3"), *openings)
    counts: dict[str, Count] = {}
    files: dict[str, set[Path]] = {}
    name, coming = "Python", list(STEPS)
    for opening, after in zip(openings, (*(one.before for one in openings[1:]), end), strict=True):
        if coming and re.search(coming[0][1], opening.path):
            name, _ = coming.pop(0)
        elif len(coming) == len(STEPS):
            name = next((package for package, pattern in PACKAGES.items() if re.search(pattern, opening.path)), name)
        counts[name] = counts.get(name, Count(0, 0)) + (after - opening.before)
        path = find_file(opening.path)
        if path and not any(path in seen for seen in files.values()):
            files.setdefault(name, set()).add(path)
    return tuple(Step(name, counts[name], sum(path.stat().st_size for path in files.get(name, ()))) for name in counts)


def find_file(named: str) -> Path | None:
    """The file that the emulator opens for a name, None if there is none."""
    inside, outside = userland.ROOT_FS / named.lstrip("/"), Path(named)
    path = next((path for path in (inside, outside) if path.is_file()), None)
    return path.resolve() if path and not named.startswith("/proc/") else None


def read_verdict(outbox: Path) -> Verdict:
    """The only one that waits there for a broker."""
    with contextlib.closing(sqlite3.connect(outbox)) as database:
        (payload,) = database.execute("SELECT payload FROM verdict").fetchone()
    return decode_verdict(payload)


def write_start_table(start: Start) -> str:
    """Markdown."""
    lines = ["| step | M instructions | s, estimated | files, MB |", "|---|---|---|---|"]
    for step in (*start.steps, start.total):
        million, size_mb = step.count.instructions / 1e6, step.files_bytes / 1e6
        lines.append(f"| {step.name} | {million:,.1f} | {step.estimated_s:.2f} | {size_mb:.1f} |")
    return "\n".join(lines)
