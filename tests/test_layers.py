"""Layers point one way: protocol ← board ← host, and protocol ← sim. No exceptions."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAY_IMPORT = {
    "protocol": {"protocol"},
    "board": {"board", "protocol"},
    "host": {"host", "board", "protocol"},
    "sim": {"sim", "protocol"},
}
NEVER_ON_THE_BOARD = {"torch", "torchvision", "brevitas", "onnx", "qonnx", "pydantic", "rich", "sklearn"}


def imported_packages(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            found.add((node.module or "").partition(".")[0])
    return found


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_a_layer_imports_only_what_lies_below(layer: str) -> None:
    ours = set(MAY_IMPORT)
    for path in (ROOT / layer).rglob("*.py"):
        assert imported_packages(path) & ours <= MAY_IMPORT[layer], path


@pytest.mark.parametrize("layer", ["protocol", "board"])
def test_the_board_gets_by_without_the_hosts_packages(layer: str) -> None:
    for path in (ROOT / layer).rglob("*.py"):
        assert not imported_packages(path) & NEVER_ON_THE_BOARD, path


def test_no_file_in_a_start_folder_hides_a_module_of_the_standard_library() -> None:
    """`python sim/conveyor.py` would find sim/queue.py before the library's own."""
    import sys

    for folder in ("board", "sim"):
        names = {path.stem for path in (ROOT / folder).glob("*.py")}
        assert not names & sys.stdlib_module_names, folder


# The rooms of each layer, the lowest floor first: a room imports those on floors below its own, and none beside it.
FLOORS = {
    "board": (
        ("commands", "condition", "disk", "log", "overlay", "pictures", "preprocess", "score"),
        ("seams", "teaching"),
        ("drift", "engines", "records"),
        ("alarms", "gate", "models", "sinks"),
        ("sources",),
        ("config",),
        ("checkup", "loop", "packages"),
        ("doctor", "run"),
    ),
    "host": (
        ("beltsight", "broker_options", "aside", "last_words", "progress", "integers", "pictures"),
        ("compiler", "dashboard", "deploy", "flash", "judging", "plant", "server"),
        ("learning",),
        ("export",),
        ("large", "teaching", "tuning"),
        ("bench",),
    ),
}


def rooms_imported(path: Path, layer: str) -> set[str]:
    """Rooms of the same layer that the file imports, wherever in it: folders, and files beside them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith(f"{layer}.")}
    return found


def room_of(path: Path, layer: str) -> str:
    return path.relative_to(ROOT / layer).with_suffix("").parts[0]


@pytest.mark.parametrize("layer", FLOORS)
def test_rooms_import_only_from_floors_below(layer: str) -> None:
    floor_of = {room: floor for floor, rooms in enumerate(FLOORS[layer]) for room in rooms}
    paths = [path for path in (ROOT / layer).rglob("*.py") if path.name != "__init__.py"]
    assert {room_of(path, layer) for path in paths} == set(floor_of), "a room has no floor"
    for path in paths:
        own = room_of(path, layer)
        for room in rooms_imported(path, layer) - {own}:
            assert floor_of[room] < floor_of[own], f"{path}: {own} imports {room}"
