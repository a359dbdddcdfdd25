"""Mappings become dataclasses only when everything fits; the error names the key by its path."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from protocol.strict import FieldError, build, require


@dataclass(frozen=True)
class Lens:
    focal_mm: float
    mount: Literal["C", "CS"] = "C"
    filter_name: str | None = None

    def __post_init__(self) -> None:
        require(self.focal_mm > 0, "focal_mm", "must be above 0")


@dataclass(frozen=True)
class Rig:
    name: str
    port: int = 1
    on: bool = True
    lens: Lens = field(default_factory=lambda: Lens(8))
    size_px: tuple[int, int] = (1, 2)
    gains: tuple[float, ...] = ()
    offsets: dict[str, float] = field(default_factory=dict)
    folder: Path = Path()


def test_a_full_mapping_becomes_the_dataclass() -> None:
    mapping = {
        "name": "left",
        "port": 2,
        "on": False,
        "lens": {"focal_mm": 12, "mount": "CS", "filter_name": "red"},
        "size_px": [480, 640],
        "gains": [1, 2.5],
        "offsets": {"r": -1},
        "folder": "runs/left",
    }
    lens = Lens(12.0, "CS", "red")
    assert build(Rig, mapping) == Rig("left", 2, False, lens, (480, 640), (1.0, 2.5), {"r": -1.0}, Path("runs/left"))


def test_left_out_keys_have_their_defaults() -> None:
    assert build(Rig, {"name": "left"}) == Rig("left")


def test_a_whole_number_for_a_float_becomes_a_float() -> None:
    assert type(build(Lens, {"focal_mm": 8}).focal_mm) is float


def test_null_is_taken_only_where_it_is_allowed() -> None:
    assert build(Lens, {"focal_mm": 8, "filter_name": None}).filter_name is None
    with pytest.raises(FieldError, match="focal_mm: must be a number, not null"):
        build(Lens, {"focal_mm": None})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "colour: unknown key; known keys are name, port, on, lens"),
        ({"name": 3}, "name: must be text, not a whole number"),
        ({"port": True}, "port: must be a whole number, not true or false"),
        ({"port": 1.0}, "port: must be a whole number, not a number"),
        ({"on": 1}, "on: must be true or false, not a whole number"),
        ({"lens": 8}, "lens: must be a table of keys, not a whole number"),
        ({"lens": {}}, "lens.focal_mm: missing"),
        ({"lens": {"focal_mm": True}}, "lens.focal_mm: must be a number, not true or false"),
        ({"lens": {"focal_mm": -1}}, "lens.focal_mm: must be above 0"),
        ({"lens": {"focal_mm": 8, "zoom": 1}}, "lens.zoom: unknown key"),
        ({"lens": {"focal_mm": 8, "mount": "F"}}, "lens.mount: must be one of 'C', 'CS', not 'F'"),
        ({"lens": {"focal_mm": 8, "mount": ["C"]}}, "lens.mount: must be one of"),
        ({"size_px": [1]}, "size_px: must have 2 values, not 1"),
        ({"size_px": [1, "2"]}, "size_px.1: must be a whole number, not text"),
        ({"size_px": 3}, "size_px: must be a list, not a whole number"),
        ({"gains": [1.0, float("nan")]}, "gains.1: must be a finite number"),
        ({"gains": [float("inf")]}, "gains.0: must be a finite number"),
        ({"gains": [10**400]}, "gains.0: must be a finite number"),
        ({"offsets": {"r": "1"}}, "offsets.r: must be a number, not text"),
        ({"offsets": [1]}, "offsets: must be a table of keys, not a list"),
        ({"folder": 1}, "folder: must be a path, not a whole number"),
        ({"folder": "a\0b"}, "folder: must be a path without zero bytes"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_path(change: dict[str, Any], message: str) -> None:
    with pytest.raises(FieldError) as refused:
        build(Rig, {"name": "left", **change})
    assert str(refused.value).startswith(message)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(FieldError, match=r"^name: missing$"):
        build(Rig, {})


@pytest.mark.parametrize("content", [None, 3, "text", [], True])
def test_only_a_table_is_a_dataclass(content: object) -> None:
    with pytest.raises(FieldError, match="must be a table of keys"):
        build(Rig, content)


@pytest.mark.parametrize("key", ["a\nb", "\x1b[31m", "x" * 5000])
def test_the_refusal_of_any_key_is_one_printable_short_line(key: str) -> None:
    with pytest.raises(FieldError) as refused:
        build(Lens, {"focal_mm": 8, key: 1})
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 300
