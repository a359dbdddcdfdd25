"""SPARKPLUG.md names a test for each assertion, and each test is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from sim.station import ROOT

TABLE = ROOT / "host" / "plant" / "SPARKPLUG.md"
ROW = re.compile(r"^\| (tck-id-\S+) \| (.+) \|$", re.MULTILINE)
ROWS = ROW.findall(TABLE.read_text(encoding="utf-8"))
REASONS = {
    "no templates are published",
    "no data sets are published",
    "no property sets are published",
    "the edge node speaks MQTT 3.1.1",
    "there is one MQTT server: the list that it walks has one entry",
    "the plant gives out group and edge node ids; `--node` is there for it",
    "a permission; device ids are the names of the site's lines",
}


def names_of_tests(folder: Path) -> set[str]:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in folder.glob("test_*.py")]
    return {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("assertion", "shown"), ROWS)
def test_each_row_names_a_test_that_is_there_or_a_reason(assertion: str, shown: str) -> None:
    if shown in REASONS:
        return
    named = re.findall(r"`(test_\w+)`", shown)
    assert named, assertion
    assert set(named) <= names_of_tests(ROOT / "tests" / "host" / "plant")


def test_no_assertion_stands_there_twice_and_the_sums_are_right() -> None:
    text = TABLE.read_text(encoding="utf-8")
    assert len({assertion for assertion, _ in ROWS}) == len(ROWS)
    assert text.count("| tck-id-") == len(ROWS)
    left_out = sum(shown in REASONS for _, shown in ROWS)
    sums = f"{len(ROWS)}, of which {len(ROWS) - left_out} are shown by tests and {left_out} do not"
    assert sums in text
