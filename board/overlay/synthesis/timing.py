"""The longest paths of a netlist of xc7 cells, by the delays of `delays`: an estimate before placement."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from board.overlay.errors import OverlayError
from board.overlay.synthesis import delays
from board.overlay.synthesis.netlist import Cell, Netlist, Pin
from board.overlay.synthesis.wires import find_nets

LUTS = {f"LUT{inputs}" for inputs in range(1, 7)} | {"INV"}
FLIP_FLOPS = {"FDRE", "FDSE"}
LUTRAMS = {"RAM32M", "RAM64M"}
SHIFTERS = {"SRL16E", "SRLC32E"}
CLOCKS = {
    "SRL16E.CLK",
    "SRLC32E.CLK",
    "FDRE.C",
    "FDSE.C",
    "DSP48E1.CLK",
    "RAM32M.WCLK",
    "RAM64M.WCLK",
    "RAMB36E1.CLKARDCLK",
    "RAMB36E1.CLKBWRCLK",
}
# Of one sink, between cells of one slice: (driver, sink's port).
PACKED = {("LUT", "D"), ("LUT", "S"), ("LUT", "DI"), ("LUT", "I0"), ("LUT", "I1"), ("CARRY4", "D"), ("MUXF7", "D")}
PACKED |= {("MUXF8", "D"), ("MUXF7", "I0"), ("MUXF7", "I1")}
# Wires that serve nothing else.
DIRECT = {("CO", "CI"), ("PCOUT", "PCIN"), ("ACOUT", "ACIN"), ("BCOUT", "BCIN")}


@dataclass(frozen=True)
class Hop:
    cell: str  # its kind
    net: str  # what it drives, by name
    sinks: int
    arrival_ns: float


@dataclass(frozen=True)
class Path:
    """From a register or port, `hops[0]`, to the pin of a register, memory, DSP or port."""

    end: str
    delay_ns: float
    hops: tuple[Hop, ...]

    @property
    def levels(self) -> int:
        """Look-up tables and carry chains; a chain counts once."""
        return sum(left.cell != "CARRY4" or right.cell != "CARRY4" for left, right in pairwise(self.hops))


Wires = Callable[[int, int], float]  # ns of a net with so many sinks, of which so many are DSPs and block RAMs


def no_wires(_sinks: int, _blocks: int) -> float:
    return 0.0


class Timing:
    """Latest arrival at every net, and the paths to the ends."""

    def __init__(self, netlist: Netlist, wires: Wires = delays.wire) -> None:
        self.netlist, self._wires = netlist, wires
        self._drivers: dict[int, tuple[Cell | None, Pin]] = {net: (None, Pin("", 0)) for net in netlist.inputs}
        self._sinks: Counter[int] = Counter(netlist.outputs.keys())
        for cell in netlist.cells:
            self._drivers |= {net: (cell, pin) for pin, net in cell.outputs.items()}
            self._sinks.update(net for pin, net in cell.inputs.items() if f"{cell.kind}.{pin.port}" not in CLOCKS)
        self._loads = {net.number: net for net in find_nets(netlist)}
        self._arrivals: dict[int, float] = {}
        self._before: dict[int, int] = {}
        self._propagate()

    def worst_paths(self, count: int) -> list[Path]:
        """The slowest paths, one for each register (whatever its bits) at the end."""
        ends: dict[str, tuple[float, int]] = {}
        for delay, end, net in self._ends():
            name = re.sub(r"\[\d+\]", "", end)
            ends[name] = max(ends.get(name, (0.0, 0)), (delay, net))
        slowest = sorted(ends.items(), key=lambda item: -item[1][0])[:count]
        return [Path(end, delay, self._trace(net)) for end, (delay, net) in slowest]

    def _propagate(self) -> None:
        for net, name in self.netlist.inputs.items():
            # the reset comes from a register beside the overlay
            self._arrivals[net] = delays.FF_CLOCK_TO_Q if name == "rst" else delays.PORT
        for cell in self.netlist.cells:
            self._arrivals |= {cell.outputs[pin]: delay for pin, delay in launches(cell)}
        arcs, missing = self._collect_arcs()
        ready = [net for net in self._drivers if not missing[net]]
        done = 0
        while ready:
            net = ready.pop()
            done += 1
            arrival = self._arrivals.setdefault(net, 0.0)
            for behind, delay in arcs[net]:
                if arrival + delay > self._arrivals.get(behind, -1.0):
                    self._arrivals[behind], self._before[behind] = arrival + delay, net
                missing[behind] -= 1
                if not missing[behind]:
                    ready.append(behind)
        if done < len(self._drivers):
            raise OverlayError("the netlist has a combinational loop: look for one in the last change of the hardware")

    def _collect_arcs(self) -> tuple[defaultdict[int, list[tuple[int, float]]], Counter[int]]:
        """For each net those behind one cell, with the delay; and how many arcs lead to each net."""
        arcs: defaultdict[int, list[tuple[int, float]]] = defaultdict(list)
        missing: Counter[int] = Counter()
        for cell in self.netlist.cells:
            for source, target, delay in arcs_through(cell):
                net, behind = cell.inputs[source], cell.outputs[target]
                if net in self._drivers:
                    arcs[net].append((behind, delay + self._net(net, cell, source)))
                    missing[behind] += 1
        return arcs, missing

    def _net(self, net: int, cell: Cell, pin: Pin) -> float:
        driver, source = self._drivers[net]
        kind = "" if driver is None else "LUT" if driver.kind in LUTS else driver.kind
        if (source.port, pin.port) in DIRECT:
            return 0.0
        if self._sinks[net] == 1 and (kind, pin.port) in PACKED and cell.kind not in LUTS:
            return 0.0
        return self._wire(net)

    def _wire(self, net: int) -> float:
        found = self._loads.get(net)
        return self._wires(max(1, found.loads), found.blocks) if found else self._wires(1, 0)

    def _ends(self) -> Iterator[tuple[float, str, int]]:
        for cell in self.netlist.cells:
            for pin, setup in captures(cell):
                net = cell.inputs[pin]
                if net in self._arrivals:
                    yield self._arrivals[net] + self._net(net, cell, pin) + setup, self._end_name(cell, pin), net
        for net, name in self.netlist.outputs.items():
            yield self._arrivals.get(net, 0.0) + self._wire(net) + delays.PORT, name, net

    def _end_name(self, cell: Cell, pin: Pin) -> str:
        if cell.kind in FLIP_FLOPS:
            return f"{self.netlist.names.get(cell.outputs[Pin('Q', 0)], cell.name)}.{pin.port}"
        return f"{cell.kind} {cell.name}.{pin.port}"

    def _trace(self, net: int) -> tuple[Hop, ...]:
        hops: list[Hop] = []
        here: int | None = net
        while here is not None:
            driver, _ = self._drivers[here]
            name = self.netlist.names.get(here, "")
            hops.append(Hop(driver.kind if driver else "port", name, self._sinks[here], self._arrivals[here]))
            here = self._before.get(here)
        return tuple(reversed(hops))


def launches(cell: Cell) -> Iterator[tuple[Pin, float]]:
    """Outputs that change with the clock, and how long after it."""
    for pin in cell.outputs:
        if cell.kind in FLIP_FLOPS:
            yield pin, delays.FF_CLOCK_TO_Q
        elif cell.kind in LUTRAMS:
            yield pin, delays.LUTRAM_CLOCK_TO_O
        elif cell.kind in SHIFTERS:
            yield pin, delays.SHIFTER_CLOCK_TO_Q
        elif cell.kind == "RAMB36E1":
            registered = cell.parameters["DOA_REG" if pin.port in {"DOADO", "DOPADOP"} else "DOB_REG"]
            yield pin, delays.BRAM_CLOCK_TO_DO_REGISTERED if registered else delays.BRAM_CLOCK_TO_DO
        elif cell.kind == "DSP48E1" and pin.port in {"P", "PCOUT"}:
            table = delays.DSP_P if pin.port == "P" else delays.DSP_PCOUT
            last = next((name for name in ("PREG", "MREG", "AREG") if cell.parameters[name]), None)
            if last:
                yield pin, table[last]


def captures(cell: Cell) -> Iterator[tuple[Pin, float]]:
    """Inputs that a clock samples, and how long before it they must be there."""
    for pin in cell.inputs:
        setup = _setup(cell, pin.port)
        if setup is not None and f"{cell.kind}.{pin.port}" not in CLOCKS:
            yield pin, setup


def _setup(cell: Cell, port: str) -> float | None:
    if cell.kind in FLIP_FLOPS:
        return delays.FF_SETUP.get(port)
    if cell.kind in SHIFTERS:
        return delays.SHIFTER_SETUP if port in {"D", "CE"} else None
    if cell.kind in LUTRAMS:
        return delays.LUTRAM_SETUP if port.startswith(("DI", "WE", "ADDRD")) else None
    if cell.kind == "RAMB36E1":
        return _bram_setup(port)
    if cell.kind == "DSP48E1":
        return _dsp_setup(cell, port)
    return None


def _bram_setup(port: str) -> float:
    if port.startswith("ADDR"):
        return delays.BRAM_SETUP_ADDRESS
    return delays.BRAM_SETUP_DATA if port.startswith("DI") else delays.BRAM_SETUP_OTHER


def _dsp_setup(cell: Cell, port: str) -> float | None:
    port = {"ACIN": "A", "BCIN": "B"}.get(port, port)
    if port in {"A", "B", "C"} and cell.parameters[f"{port}REG"]:
        return delays.DSP_SETUP_REGISTERED[port]
    if port in {"A", "B"} and cell.parameters["MREG"]:
        return delays.DSP_SETUP_TO_M[port]
    if port in {"A", "B", "C", "PCIN"}:
        return delays.DSP_SETUP_TO_P[port] if cell.parameters["PREG"] else None
    return delays.DSP_SETUP_CONTROL


def arcs_through(cell: Cell) -> Iterator[tuple[Pin, Pin, float]]:
    """Combinational ways from an input to an output."""
    for source in cell.inputs:
        for target in cell.outputs:
            delay = _through(cell, source, target)
            if delay is not None:
                yield source, target, delay


def _through(cell: Cell, source: Pin, target: Pin) -> float | None:
    if cell.kind in LUTS:
        return delays.LUT
    if cell.kind in {"MUXF7", "MUXF8"}:
        return delays.MUX[source.port]
    if cell.kind == "CARRY4":
        return delays.CARRY.get((source.port, source.place, target.port, target.place))
    if cell.kind in LUTRAMS:  # ADDRA reads DOA, and so on
        return delays.LUTRAM_READ if source.port == f"ADDR{target.port[-1]}" else None
    if cell.kind == "DSP48E1" and not cell.parameters["PREG"]:
        registered = source.port in {"A", "B"} and (cell.parameters[f"{source.port}REG"] or cell.parameters["MREG"])
        registered = registered or (source.port == "C" and cell.parameters["CREG"])
        return None if registered else delays.DSP_THROUGH.get(source.port)
    return None
