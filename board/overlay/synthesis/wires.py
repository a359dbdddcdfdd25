"""Which nets go to more pins than one register should drive."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from board.overlay.synthesis.netlist import Cell, Netlist, Pin

MOST_LOADS = 64  # of a net that is no clock and no leaf of the reset's tree; the aim is 32
MOST_RESETS = 600  # of a leaf of the reset's tree, which has a whole cycle for its one wire
BESIDE = 4  # flip-flops of a slice behind one pin for the enable, and one for the reset: eight, of which four are used
CLOCKS = {"C", "CLK", "WCLK", "CLKARDCLK", "CLKBWRCLK"}
FLIP_FLOPS = {"FDRE", "FDSE"}
RESETS = {"R", "S", "RSTA", "RSTB", "RSTM", "RSTP", "RSTC"}
SHARED = RESETS | {"CE"}


class Excused(NamedTuple):
    net: str  # how its name begins, or that of the registers behind or before it
    most: int
    reason: str


# Yosys maps the choice of what a refused step holds into the address tables of all block RAMs, whatever was copied.
CHOICE = "known and not mended: the choice between two addresses, once for each block RAM"
STARTS = "known and not mended: the state of a unit, which starts its loops"
PLACES = "known and not mended: what a unit loads, and how"
ASKS = "known and not mended: a burst is asked for, and the counts of beats follow"
EXCUSED = (
    Excused("engine.compute.refused3", 388, CHOICE),
    Excused("engine.compute.fsm_state", 111, STARTS),
    Excused("engine.store.fsm_state", 98, STARTS),
    Excused("engine.load.are_image0", 75, PLACES),
    Excused("engine.writer.lengths.level", 68, ASKS),
    Excused("engine.reader.", 66, ASKS),
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
    drivers = _find_drivers(netlist, {net.number for net in wide})
    for net in sorted(wide, key=lambda net: -net.loads):
        name = _name(netlist, net.number)
        if net.resets and net.registered:
            if net.loads > MOST_RESETS:
                yield name, net.loads, MOST_RESETS, ""
            continue
        if name.startswith("$"):  # given by Yosys, another one after each change
            name = _name_before(netlist, drivers.get(net.number))
        known = next((known for known in EXCUSED if name.removeprefix(BEFORE).startswith(known.net)), None)
        yield (name, net.loads, known.most, known.reason) if known else (name, net.loads, MOST_LOADS, "")


def _find_drivers(netlist: Netlist, nets: set[int]) -> dict[int, Cell]:
    return {net: cell for cell in netlist.cells for net in nets.intersection(cell.outputs.values())}


def _name_before(netlist: Netlist, driver: Cell | None) -> str:
    """After the register, or else the signal, that the wire's driver hears."""
    heard = [_name(netlist, net) for net in driver.inputs.values()] if driver else []
    named = [_STEM.sub("", name) for name in heard if not name.startswith("$")]
    return f"{BEFORE}{named[0]}" if named else "a wire of logic"


BEFORE = "a wire behind "
_STEM = re.compile(r"\[\d+\]$")


def _name(netlist: Netlist, net: int) -> str:
    return netlist.names.get(net, f"${net}")
