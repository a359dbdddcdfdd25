"""Which nets go to more pins than one register should drive."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from board.overlay.synthesis.netlist import Cell, Netlist, Pin

GOAL_LOADS = 32  # of a net that is no clock and no leaf of the reset's tree; the report names those that have more
MOST_LOADS = 256  # the line's registers of 64 bits still have one net of 231
MOST_RESETS = 600  # of a leaf of the reset's tree, which has a whole cycle for its one wire
BESIDE = 4  # flip-flops of a slice behind one pin for the enable, and one for the reset: eight, of which four are used
CLOCKS = {"C", "CLK", "WCLK", "CLKARDCLK", "CLKBWRCLK"}
FLIP_FLOPS = {"FDRE", "FDSE"}
RESETS = {"R", "S", "RSTA", "RSTB", "RSTM", "RSTP", "RSTC"}
SHARED = RESETS | {"CE"}


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
    nets = sorted(find_nets(netlist), key=lambda net: -net.loads)
    limits = ((net, MOST_RESETS if net.resets and net.registered else MOST_LOADS) for net in nets)
    return [
        f"{_name(netlist, net)} goes to {net.loads} places, at most {most}" for net, most in limits if net.loads > most
    ]


def count_above_goal(netlist: Netlist) -> int:
    return sum(net.loads > GOAL_LOADS and not (net.resets and net.registered) for net in find_nets(netlist))


def _name(netlist: Netlist, net: Net) -> str:
    return netlist.names.get(net.number, str(net.number))
