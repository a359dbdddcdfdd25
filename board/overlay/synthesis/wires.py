"""Which nets go to more pins than one register should drive."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from board.overlay.synthesis.netlist import Cell, Netlist, Pin

MOST_LOADS = 32  # of a net that is no clock and no leaf of the reset's tree
MOST_RESETS = 600  # of a leaf of the reset's tree, which has a whole cycle for its one wire
BESIDE = 4  # flip-flops of a slice behind one pin for the enable, and one for the reset: eight, of which four are used
CLOCKS = {"C", "CLK", "WCLK", "CLKARDCLK", "CLKBWRCLK"}
FLIP_FLOPS = {"FDRE", "FDSE"}
RESETS = {"R", "S", "RSTA", "RSTB", "RSTM", "RSTP", "RSTC"}
SHARED = RESETS | {"CE"}


class Excused(NamedTuple):
    net: str  # its name, or that of the registers behind it
    most: int
    reason: str


SHUTS = "it closes the gate, in the very cycle in which that is known"
ENABLES = "the enable of so many flip-flops that lie side by side"
EXCUSED = (
    Excused("line.gate.last_begun", 60, SHUTS),
    Excused("line.gate.oldest", 40, ENABLES),
    Excused("line.barrier.since", 33, ENABLES),
    Excused("line.passage.since", 33, ENABLES),
)


class Net(NamedTuple):
    """`loads`: cells, but flip-flops that share a pin count as a slice."""

    number: int
    loads: int
    blocks: int  # DSPs and block RAMs among them
    resets: bool  # some are resets
    registered: bool  # driven by a flip-flop


def find_nets(netlist: Netlist) -> Iterator[Net]:
    sinks: defaultdict[int, list[tuple[Cell, Pin]]] = defaultdict(list)
    registered = {net for cell in netlist.cells if cell.kind in FLIP_FLOPS for net in cell.outputs.values()}
    for cell in netlist.cells:
        for pin, net in cell.inputs.items():
            if pin.port not in CLOCKS:
                sinks[net].append((cell, pin))
    for number, pins in sinks.items():
        shared = {cell.name for cell, pin in pins if cell.kind in FLIP_FLOPS and pin.port in SHARED}
        others = {cell.name for cell, _ in pins} - shared
        blocks = {cell.name for cell, _ in pins if cell.kind in {"DSP48E1", "RAMB36E1"}}
        resets = any(pin.port in RESETS for _, pin in pins)
        yield Net(number, len(others) - (-len(shared) // BESIDE), len(blocks), resets, number in registered)


def broadcasts(netlist: Netlist) -> list[str]:
    """One line a net that will not route, the worst first."""
    return [f"{name} goes to {loads} places, at most {most}" for name, loads, most, _ in _wide(netlist) if loads > most]


def excused(netlist: Netlist) -> list[str]:
    """One line a net that goes to more than MOST_LOADS places and may."""
    return [
        f"{name} goes to {loads} places: {why}" for name, loads, most, why in _wide(netlist) if why and loads <= most
    ]


def _wide(netlist: Netlist) -> Iterator[tuple[str, int, int, str]]:
    """Name, loads, how many are allowed, and why more than MOST_LOADS are."""
    wide = [net for net in find_nets(netlist) if net.loads > MOST_LOADS]
    behind = _find_behind(netlist, {net.number for net in wide})
    for net in sorted(wide, key=lambda net: -net.loads):
        if net.resets and net.registered:
            if net.loads > MOST_RESETS:
                yield _name(netlist, net.number), net.loads, MOST_RESETS, ""
            continue
        name = _name(netlist, net.number)
        if name.startswith("$"):  # given by Yosys, another one after each change
            name = f"a wire into {behind[net.number]}"
        known = next((known for known in EXCUSED if known.net == name.removeprefix("a wire into ")), None)
        yield (name, net.loads, known.most, known.reason) if known else (name, net.loads, MOST_LOADS, "")


def _find_behind(netlist: Netlist, nets: set[int]) -> dict[int, str]:
    """Of each net, the register, or else the signal, that most of its pins lead to."""
    into: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for cell in netlist.cells:
        named = [name for out in cell.outputs.values() if not (name := _name(netlist, out)).startswith("$")]
        for net in nets.intersection(cell.inputs.values()):
            into[net].update(_STEM.sub("", name) for name in named[:1])
    return {net: into[net].most_common(1)[0][0] if into[net] else "logic" for net in nets}


_STEM = re.compile(r"\[\d+\]$")


def _name(netlist: Netlist, net: int) -> str:
    return netlist.names.get(net, f"${net}")
