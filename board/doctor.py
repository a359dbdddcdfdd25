"""Check an installation: `beltsight doctor`, or `python3 /opt/beltsight/current/board/doctor.py` on the board.

Reads and asks, changes nothing, and leaves a station that runs alone. Exit code 0: nothing fails; 1: something does.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

if not __package__:  # started as a file: import from the repository
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    sys.path.insert(1, sys.path[0] + "/site")  # the board's own packages

from board.checkup import machine
from board.checkup.finding import Finding, fail

ROOT = Path(__file__).resolve().parent.parent
EXIT_FAILED = 1
COLOURS = {"OK": "\033[32m", "WARN": "\033[33m", "FAIL": "\033[31m"}
PLAIN = "\033[0m"


def main() -> int:
    options = parse_options()
    findings = []
    for finding in examine(options.config):
        findings.append(finding)
        if not options.json:
            print(write_line(finding, is_coloured=sys.stdout.isatty()), flush=True)
    is_sound = all(finding.level != "FAIL" for finding in findings)
    if options.json:
        print(json.dumps({"sound": is_sound, "findings": [asdict(finding) for finding in findings]}, indent=2))
    return 0 if is_sound else EXIT_FAILED


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="beltsight doctor", description="Check an installation; changes nothing.")
    flashed, shipped = ROOT / "config" / "line.toml", ROOT / "board" / "line.toml"
    default = flashed if flashed.exists() else shipped
    parser.add_argument("--config", type=Path, default=default, help="the line's TOML file (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="for programs")
    return parser.parse_args()


def examine(path: Path) -> Iterator[Finding]:
    """The machine first: where packages are missing, nothing else could even be imported."""
    packages = machine.check_packages()
    yield from packages
    yield machine.check_clock()
    yield machine.check_network()
    yield machine.check_memory(machine.read_meminfo())
    if any(finding.level == "FAIL" for finding in packages):
        yield fail("station", "not looked at: packages are missing", "install them, and ask again")
        return
    from board.checkup.examination import examine_station  # noqa: PLC0415 - imports what may be missing

    yield from examine_station(path)


def write_line(finding: Finding, *, is_coloured: bool) -> str:
    level = f"{COLOURS[finding.level]}{finding.level:4}{PLAIN}" if is_coloured else f"{finding.level:4}"
    advice = f"\n     → {finding.remedy}" if finding.remedy else ""
    return f"{level} {finding.check}: {finding.found}{advice}"


if __name__ == "__main__":
    sys.exit(main())
