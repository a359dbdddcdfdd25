"""Deliberate faults in the hardware are caught: here one of each part, and one that the AXI rules see."""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path

import pytest

from tests.board.overlay.mutate import HARDWARE, ROOT, insert, try_out
from tests.board.overlay.mutations import MUTATIONS, REQUANTIZE, Mutation

TESTS = Path(__file__).parent
WITHOUT_LOGIC = {"__init__.py", "decode.py"}
CROSSES = "bursts of the whole overlay cross 128 bytes"


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_fault_has_its_place_and_its_test(mutation: Mutation) -> None:
    source = (ROOT / HARDWARE / mutation.file).read_text(encoding="utf-8")
    assert ast.dump(ast.parse(insert(source, mutation))) != ast.dump(ast.parse(source))
    file, test = mutation.test.split("::")
    assert re.search(rf"^def {test.split('[')[0]}\(", (TESTS / file).read_text(encoding="utf-8"), re.MULTILINE)


def test_every_file_of_the_hardware_has_a_fault() -> None:
    files = {path.name for path in (ROOT / HARDWARE).glob("*.py")}
    assert {mutation.file for mutation in MUTATIONS} == files - WITHOUT_LOGIC
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)


def test_a_fault_of_each_part_is_caught() -> None:
    """`beltsight mutate` tries the others."""
    chosen = {mutation.file: mutation for mutation in MUTATIONS if mutation.of_a_part}
    assert [mutation.name for mutation, reason in try_out([*chosen.values()]) if not reason] == []


def test_a_burst_across_128_bytes_is_reported_by_the_rules_of_the_port() -> None:
    if not shutil.which("g++"):
        pytest.skip("the simulated overlay is compiled with g++, which is not installed")
    (fault,) = [mutation for mutation in MUTATIONS if mutation.name == CROSSES]
    ((_, reason),) = try_out([fault])
    assert "broke AXI" in reason
    assert fault.reason in reason


def test_what_changes_nothing_and_what_does_not_run_are_not_caught() -> None:
    same = Mutation("the same", "requantize.py", "floor >= 127", "127 <= floor", REQUANTIZE)
    broken = Mutation("no such name", "requantize.py", "floor >= 127", "flor >= 127", REQUANTIZE)
    elsewhere = Mutation("a fault", "requantize.py", "floor >= 127", "floor > 127", REQUANTIZE, "another reason")
    assert [reason for _, reason in try_out([same, broken, elsewhere])] == ["", "", ""]
    with pytest.raises(ValueError, match="0 places"):
        insert("", same)
