"""A flat netlist of xc7 cells, as Yosys writes it: cells with parameters, and the nets (numbers) at their pins."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple


class Pin(NamedTuple):
    port: str
    place: int  # of the bit


@dataclass(frozen=True)
class Cell:
    """`inputs` and `outputs` hold the pins that are connected to a net; constant inputs are left out."""

    name: str
    kind: str
    parameters: dict[str, str | int]
    inputs: dict[Pin, int]
    outputs: dict[Pin, int]


@dataclass(frozen=True)
class Netlist:
    cells: tuple[Cell, ...]
    inputs: dict[int, str]  # nets driven from outside, with the port's name
    outputs: dict[int, str]
    names: dict[int, str]  # a readable name of a net

    def of_kind(self, kind: str) -> Iterator[Cell]:
        return (cell for cell in self.cells if cell.kind == kind)


def load_netlist(path: Path, top: str) -> Netlist:
    """`path`: what `write_json` of Yosys wrote of a flattened design."""
    module = json.loads(path.read_text())["modules"][top]
    cells = (_cell(name, raw) for name, raw in module["cells"].items() if not raw["type"].startswith("$"))
    names: dict[int, str] = {}
    for name, raw in sorted(module["netnames"].items(), key=lambda item: _awkwardness(item[0], item[1])):
        width = len(raw["bits"])
        for index, net in enumerate(raw["bits"]):
            if isinstance(net, int):
                names.setdefault(net, name if width == 1 else f"{name}[{index}]")
    ports: dict[str, dict[int, str]] = {"input": {}, "output": {}}
    for name, raw in module["ports"].items():
        ports[raw["direction"]] |= {net: name for net in raw["bits"] if isinstance(net, int)}
    return Netlist(tuple(cells), ports["input"], ports["output"], names)


def _awkwardness(name: str, raw: dict[str, Any]) -> tuple[bool, int, str]:
    return bool(raw.get("hide_name")) or "$" in name, len(name), name


def _cell(name: str, raw: dict[str, Any]) -> Cell:
    pins: dict[str, dict[Pin, int]] = {"input": {}, "output": {}}
    for port, nets in raw["connections"].items():
        direction = pins[raw["port_directions"][port]]
        direction |= {Pin(port, index): net for index, net in enumerate(nets) if isinstance(net, int)}
    parameters = {key: _value(value) for key, value in raw["parameters"].items()}
    return Cell(name, raw["type"], parameters, pins["input"], pins["output"])


def _value(text: str) -> str | int:
    """Numbers are written in binary; contents of memories (longer than 32 bits) stay text."""
    return int(text, 2) if len(text) <= 32 and text.strip("01") == "" and text else text.strip()
