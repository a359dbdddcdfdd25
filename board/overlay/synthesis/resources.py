"""What a netlist takes of an XC7Z020, and what it may take."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from board.overlay.synthesis.netlist import Netlist


class Budget(NamedTuple):
    limit: int
    device: int  # what the XC7Z020 has


# 70 % of the look-up tables and 60 % of the flip-flops, beyond which routing gets slow; the rest is the block design's.
BUDGET = {
    "LUT": Budget(37_240, 53_200),
    "FF": Budget(63_840, 106_400),
    "BRAM36": Budget(120, 140),
    "DSP48E1": Budget(200, 220),
}
# Look-up tables, and parts of them, in a cell. An inverter mostly vanishes in what it drives; it is counted.
LUTS = {**{f"LUT{inputs}": 1.0 for inputs in range(1, 7)}, "INV": 1.0, "RAM32M": 4.0, "RAM64M": 4.0, "RAM32X1D": 2.0}
LUTS |= {"RAM64X1D": 2.0, "SRL16E": 1.0, "SRLC32E": 1.0, "SRLC16E": 1.0}
FLIP_FLOPS = {"FDRE", "FDSE", "FDCE", "FDPE"}
# Cells that cost none of the four.
FREE = {"CARRY4", "MUXF7", "MUXF8"}


def count_resources(netlist: Netlist) -> dict[str, int]:
    """Raises KeyError for a kind of cell that is not known."""
    kinds = Counter(cell.kind for cell in netlist.cells)
    used = dict.fromkeys(BUDGET, 0.0)
    for kind, count in kinds.items():
        if kind in FLIP_FLOPS:
            used["FF"] += count
        elif kind in {"RAMB36E1", "RAMB18E1"}:
            used["BRAM36"] += count * (1.0 if kind == "RAMB36E1" else 0.5)
        elif kind == "DSP48E1":
            used["DSP48E1"] += count
        elif kind not in FREE:
            used["LUT"] += count * LUTS[kind]
    return {name: round(amount + 0.25) for name, amount in used.items()}


def exceeded(used: dict[str, int]) -> list[str]:
    return [
        f"{name}: {used[name]:,} of at most {budget.limit:,} ({budget.device:,} on the chip)"
        for name, budget in BUDGET.items()
        if used[name] > budget.limit
    ]
