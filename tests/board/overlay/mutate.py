"""Puts the faults of `mutations` into a copy of the tree, one at a time, and runs the test that should catch each.

beltsight mutate                    # all: about 20 minutes on two cores
beltsight mutate parts              # those that a part's own test catches: a minute
beltsight mutate "halves are rounded up" …

Ends with 1 if one survives.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from tests.board.overlay.mutations import MUTATIONS, Mutation

ROOT = Path(__file__).resolve().parents[3]
HARDWARE = Path("board/overlay/hardware")
COPIES = 2  # at work at once
MOST_S = 600  # for one test
COMPILED = "compiled"
TAKEN = ("board", "host", "protocol", "sim", "tests", "pyproject.toml")
# a test that fails for another reason, a name that does not exist, has caught nothing
BLAME = re.compile(r"^FAILED \S+(?: .*)? - ((?:assert |AssertionError|.*OverlayError: ).*)", re.MULTILINE)


def main() -> int:
    parser = argparse.ArgumentParser(prog="beltsight mutate", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="fault", help="name of a fault, or `parts` (default: all)")
    names = parser.parse_args().names
    chosen = [mutation for mutation in MUTATIONS if not names or mutation.name in names]
    if names == ["parts"]:
        chosen = [mutation for mutation in MUTATIONS if mutation.of_a_part]
    if not chosen:
        sys.exit(f"no such fault: {', '.join(names)}; the names are in {Path(__file__).with_name('mutations.py')}")
    missed = 0
    for mutation, reason in try_out(chosen):
        missed += not reason
        print(f"{mutation.name} | {mutation.test} | {reason or 'SURVIVED'}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} faults are caught")
    return int(missed > 0)


def try_out(mutations: Sequence[Mutation]) -> Iterator[tuple[Mutation, str]]:
    """Each with the reason that its test gives for failing, or with nothing where that test does not fail."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(COPIES) as pool:
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(COPIES):
            trees.put(_copy_tree(Path(folder) / str(number)))

        def catch(mutation: Mutation) -> str:
            tree = trees.get()
            try:
                return _catch(tree, mutation)
            finally:
                trees.put(tree)

        yield from zip(mutations, pool.map(catch, mutations), strict=True)


def insert(source: str, mutation: Mutation) -> str:
    """The source with the fault. Raises: ValueError if its place is not there exactly once."""
    if source.count(mutation.old) != 1:
        raise ValueError(f"{mutation.file} has {source.count(mutation.old)} places for {mutation.name!r}: adapt it")
    return source.replace(mutation.old, mutation.new)


def _copy_tree(tree: Path) -> Path:
    for name in TAKEN:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, tree / name)
    # what runs once is compiled fast instead of well
    simulator = tree / "board/overlay/simulation/simulator.py"
    simulator.write_text(simulator.read_text(encoding="utf-8").replace('"-O2"', '"-O0"'), encoding="utf-8")
    return tree


def _catch(tree: Path, mutation: Mutation) -> str:
    file = tree / HARDWARE / mutation.file
    whole = file.read_text(encoding="utf-8")
    _write(tree, file, insert(whole, mutation))
    try:
        return _blame(tree, mutation)
    finally:
        _write(tree, file, whole)


def _write(tree: Path, file: Path, source: str) -> None:
    """subtle: two sources of one size, written within a second, look alike to Python's compiled files."""
    for compiled in (tree / COMPILED).rglob(f"{file.stem}.*.pyc"):
        compiled.unlink()
    file.write_text(source, encoding="utf-8")


def _blame(tree: Path, mutation: Mutation) -> str:
    environment = {**os.environ, "COLUMNS": "300", "OMP_NUM_THREADS": "1", "PYTHONPYCACHEPREFIX": str(tree / COMPILED)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--confcutdir=tests/board/overlay"]
    try:
        done = subprocess.run(
            [*command, f"tests/board/overlay/{mutation.test}"],
            cwd=tree, env=environment, capture_output=True, text=True, timeout=MOST_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return ""  # a test that hangs tells nobody what is wrong
    found = BLAME.search(done.stdout)
    return found[1] if found and mutation.reason in found[1] else ""


if __name__ == "__main__":
    sys.exit(main())
