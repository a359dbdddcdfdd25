"""Every decoder of bytes from outside under a fuzzer: `beltsight fuzz --executions 1000000`; its table is kept."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from protocol.errors import InputError, run_main
from tests.fuzzing.decoders import ROOT, open_decoders

CASES = Path(__file__).parent / "cases"  # found inputs: NAME-NUMBER, kept as regression tests
S_A_RUN = 0.05  # seconds an execution may take on average, before the run as a whole is called hung
START_S = 120.0


@dataclass(frozen=True)
class Record:
    decoder: str
    by: str
    executions: int
    seconds: float
    slowest_ms: float
    more_mb: float
    problem: str
    input: str


def fuzz(name: str, executions: int, seed: int) -> Record:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "tests.fuzzing.runner", name, str(executions), str(seed), str(report)]
        log = Path(folder) / "log"
        with log.open("wb") as output:
            subprocess.run(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                check=False,
                timeout=START_S + executions * S_A_RUN,
            )
        if not report.exists():  # the process itself died: a crash below Python
            return Record(name, "", 0, 0.0, 0.0, 0.0, log.read_text(errors="replace")[-300:], "")
        return Record(**json.loads(report.read_text()))


def keep(record: Record) -> None:
    """The found input, as a case of the tests."""
    CASES.mkdir(exist_ok=True)
    number = len(list(CASES.glob(f"{record.decoder}-*")))
    (CASES / f"{record.decoder}-{number}").write_bytes(bytes.fromhex(record.input))


def show(records: list[Record]) -> Table:
    table = Table("decoder", "by", "executions", "s", "slowest, ms", "more memory, MB", "problem")
    for record in records:
        figures = (record.executions, record.seconds, record.slowest_ms, record.more_mb)
        table.add_row(record.decoder, record.by, *map(str, figures), record.problem)
    return table


def main() -> int:
    decoders = open_decoders()
    parser = argparse.ArgumentParser(prog="beltsight fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--executions", type=int, default=10_000, help="of each decoder (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("decoders", nargs="*", metavar="decoder", help=f"of {', '.join(decoders)}; default: all")
    options = parser.parse_args()
    unknown = set(options.decoders) - set(decoders)
    if unknown or options.executions < 1:
        raise InputError(f"no decoder {', '.join(sorted(unknown))}, or no executions: see --help")
    records = []
    for name in options.decoders or decoders:
        record = fuzz(name, options.executions, options.seed)
        print(f"{name}: {record.executions} executions, {record.seconds:.0f} s {record.problem}", file=sys.stderr)
        if record.input:
            keep(record)
        records.append(record)
    Console(width=130).print(show(records))
    return 1 if any(record.problem for record in records) else 0


if __name__ == "__main__":
    sys.exit(run_main(main))
