"""Synthesis of the whole overlay without a vendor's tool: `beltsight synthesis [FOLDER]`.

Writes synthesis.md into the folder. Ends with 1 when a budget is exceeded, a register is missing or a path too long.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path as FilePath

from board.overlay.errors import OverlayError
from board.overlay.hardware.overlay import NAME, emit_verilog
from board.overlay.synthesis.netlist import Netlist
from board.overlay.synthesis.pipeline import missing_registers
from board.overlay.synthesis.resources import BUDGET, count_resources, exceeded
from board.overlay.synthesis.timing import Path, Timing
from board.overlay.synthesis.yosys import synthesise, yosys_version

CLOCK_MHZ = 125  # the board runs at 100: a quarter more for what the estimate does not see
PERIOD_NS = 1000 / CLOCK_MHZ
PATHS = 12


@dataclass(frozen=True)
class Report:
    used: dict[str, int]
    paths: tuple[Path, ...]  # the slowest first
    problems: tuple[str, ...]

    def as_markdown(self) -> str:
        lines = [f"# The overlay, synthesised for xc7z020-1 by Yosys {yosys_version()}", ""]
        lines += ["| resource | used | limit | on the chip |", "|---|---|---|---|"]
        lines += [f"| {name} | {self.used[name]:,} | {b.limit:,} | {b.device:,} |" for name, b in BUDGET.items()]
        lines += ["", f"Longest paths, estimated before placement; at most {PERIOD_NS:.2f} ns at {CLOCK_MHZ} MHz:", ""]
        lines += ["| ns | levels | from | to |", "|---|---|---|---|"]
        lines += [f"| {p.delay_ns:.2f} | {p.levels} | `{p.hops[0].net}` | `{p.end}` |" for p in self.paths]
        lines += ["", *(f"- **{problem}**" for problem in self.problems or ("Everything is within its limits.",)), ""]
        return "\n".join(lines)


def examine(netlist: Netlist) -> Report:
    used = count_resources(netlist)
    paths = Timing(netlist).worst_paths(PATHS)
    slow = [f"{p.delay_ns:.2f} ns from {p.hops[0].net} to {p.end}" for p in paths if p.delay_ns > PERIOD_NS]
    return Report(used, tuple(paths), (*exceeded(used), *missing_registers(netlist), *slow))


def main() -> int:
    parser = argparse.ArgumentParser(prog="beltsight synthesis", description=(__doc__ or "").splitlines()[0])
    default = FilePath("build/overlay")
    parser.add_argument("folder", type=FilePath, nargs="?", default=default, help="(default: %(default)s)")
    folder = parser.parse_args().folder
    try:
        report = examine(synthesise(emit_verilog(), NAME, folder))
    except OverlayError as error:
        print(f"beltsight: {error}", file=sys.stderr)
        return 2
    text = report.as_markdown()
    (folder / "synthesis.md").write_text(text)
    print(text)
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
