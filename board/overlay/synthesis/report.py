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
from board.overlay.synthesis.delays import wire
from board.overlay.synthesis.netlist import Netlist
from board.overlay.synthesis.pipeline import missing_registers
from board.overlay.synthesis.resources import BUDGET, count_resources, exceeded
from board.overlay.synthesis.timing import Path, Timing, no_wires
from board.overlay.synthesis.wires import MOST_LOADS, broadcasts, excused
from board.overlay.synthesis.yosys import synthesise, yosys_version

CLOCK_MHZ = 100
PERIOD_NS = 1000 / CLOCK_MHZ
MOST_LOGIC_NS = PERIOD_NS - 4  # without any wire: what is left is for them
MOST_ROUTED_NS = 19.5  # with the wires of the one router that was tried: more than 16, and it shall not grow
PATHS = 12


@dataclass(frozen=True)
class Report:
    used: dict[str, int]
    paths: tuple[Path, ...]  # with wires, the slowest first
    logic: tuple[Path, ...]  # the same without
    excused: tuple[str, ...]  # nets with more loads than others may have
    problems: tuple[str, ...]

    def as_markdown(self) -> str:
        lines = [f"# The overlay, synthesised for xc7z020-1 by Yosys {yosys_version()}", ""]
        lines += ["| resource | used | limit | on the chip |", "|---|---|---|---|"]
        lines += [f"| {name} | {self.used[name]:,} | {b.limit:,} | {b.device:,} |" for name, b in BUDGET.items()]
        lines += ["", "Nothing here was routed, or seen on a board: all times are estimates before placement.", ""]
        lines += [f"Longest paths of logic alone; at most {MOST_LOGIC_NS:.1f} ns:", "", *_table(self.logic)]
        lines += [
            "",
            "Longest paths with wires as the open router had them in an earlier overlay (`delays.wire`); at most ",
        ]
        lines[-1] += f"{MOST_ROUTED_NS:.1f} ns:"
        lines += ["", *_table(self.paths)]
        lines += ["", f"Nets that may go to more than {MOST_LOADS} places:", "", *(f"- {net}" for net in self.excused)]
        lines += ["", *(f"- **{problem}**" for problem in self.problems or ("Everything is within its limits.",)), ""]
        return "\n".join(lines)


def _table(paths: tuple[Path, ...]) -> list[str]:
    rows = [f"| {p.delay_ns:.2f} | {p.levels} | `{p.hops[0].net}` | `{p.end}` |" for p in paths]
    return ["| ns | levels | from | to |", "|---|---|---|---|", *rows]


def examine(netlist: Netlist) -> Report:
    used = count_resources(netlist)
    paths, logic = (Timing(netlist, wires).worst_paths(PATHS) for wires in (wire, no_wires))
    slow = [*_above(logic, MOST_LOGIC_NS, "of logic alone"), *_above(paths, MOST_ROUTED_NS, "with wires")]
    problems = (*exceeded(used), *missing_registers(netlist), *broadcasts(netlist), *slow)
    return Report(used, tuple(paths), tuple(logic), tuple(excused(netlist)), problems)


def _above(paths: list[Path], limit_ns: float, what: str) -> list[str]:
    return [f"{p.delay_ns:.2f} ns {what} from {p.hops[0].net} to {p.end}" for p in paths if p.delay_ns > limit_ns]


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
