"""Whether the registers that a DSP48E1 and a block RAM bring along are used."""

from __future__ import annotations

from collections import defaultdict

from board.overlay.synthesis.netlist import Cell, Netlist

ARRAY = ".\\array."  # in the name of the array's multipliers
MEMORIES = ("activations", "weights")


def missing_registers(netlist: Netlist) -> list[str]:
    """One line a cell. Multipliers of the array: A or B, M and P. Others: nothing is added to a product of this cycle.

    The two large memories: what is read goes into a register and nowhere else, so that the block RAM's own can be it.
    """
    problems = []
    for cell in netlist.of_kind("DSP48E1"):
        wanted = ("AREG", "BREG", "MREG", "PREG") if ARRAY in cell.name else ("MREG",)
        missing = [name for name in wanted if not cell.parameters[name]]
        multiplies_only = cell.parameters["PREG"] and not _adds(cell)
        if missing and not (missing == ["MREG"] and multiplies_only and ARRAY not in cell.name):
            problems.append(f"DSP48E1 {cell.name} has no {', '.join(missing)}")
    sinks = defaultdict(list)
    for cell in netlist.cells:
        for pin, net in cell.inputs.items():
            sinks[net].append(f"{cell.kind}.{pin.port}")
    for cell in netlist.of_kind("RAMB36E1"):
        if any(f".{memory}." in f".{cell.name}" for memory in MEMORIES):
            problems += [f"RAMB36E1 {cell.name} is read through {to}" for to in sorted(_logic_behind(cell, sinks))]
    return problems


def _adds(cell: Cell) -> bool:
    return any(pin.port in {"C", "PCIN"} for pin in cell.inputs)


def _logic_behind(cell: Cell, sinks: dict[int, list[str]]) -> set[str]:
    registers = {"FDRE.D", "FDSE.D"}
    read = [net for pin, net in cell.outputs.items() if pin.port.startswith("DO")]
    return {sink for net in read for sink in sinks[net] if sink not in registers or len(sinks[net]) > 1}
