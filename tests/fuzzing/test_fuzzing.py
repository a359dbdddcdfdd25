"""A short campaign, the cases that were found before, and a fault that the fuzzer must find."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzzing.campaign import CASES, fuzz
from tests.fuzzing.decoders import ROOT, open_decoders, try_one

DECODERS = open_decoders()


@pytest.mark.parametrize("name", DECODERS)
def test_examples_are_decoded(name: str) -> None:
    for example in DECODERS[name].seeds:
        DECODERS[name].feed(example)


@pytest.mark.parametrize("path", sorted(CASES.glob("*-*")), ids=lambda path: path.name)
def test_what_was_found_stays_mended(path: Path) -> None:
    try_one(DECODERS[path.name.rpartition("-")[0]], path.read_bytes())


@pytest.mark.parametrize("name", ["wire", "command", "manifest", "jpeg", "program"])
def test_a_short_campaign_finds_nothing(name: str) -> None:
    record = fuzz(name, 1000, 1)
    assert (record.executions, record.problem) == (1000, "")


BRITTLE = """
import sys
from pathlib import Path
from protocol.errors import MessageError
from tests.fuzzing import runner
from tests.fuzzing.decoders import Decoder

def feed(data):
    if data[:1] == b"{" and data[-1:] != b"}":
        raise ZeroDivisionError("no end")

decoder = Decoder(feed, MessageError, [b"{abc}"])
trial = runner.Trial("brittle", decoder, 100000, Path(sys.argv[1]))
(runner.lead_by_coverage if runner.HAS_ATHERIS else runner.damage_by_chance)(trial, decoder, 1)
"""


@pytest.mark.parametrize("before", ["", 'import sys; sys.modules["atheris"] = None'], ids=["atheris", "hypothesis"])
def test_an_error_that_is_not_the_decoders_own_is_found(tmp_path: Path, before: str) -> None:
    command = [sys.executable, "-c", before + BRITTLE, str(tmp_path / "report.json")]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=120)
    assert found.returncode == 1, found.stderr.decode()
    record = json.loads((tmp_path / "report.json").read_text())
    assert record["problem"] == "ZeroDivisionError: no end"
    assert bytes.fromhex(record["input"]).startswith(b"{")
