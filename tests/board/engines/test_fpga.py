"""The FPGA engine on the simulated hardware, as the chain opens it; what happens where there is no hardware."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from board.engines.chain import EngineChain, open_arm, open_engine
from board.engines.fpga import load_program
from board.engines.fpga_pynq import FpgaSettings
from board.engines.fpga_sim import FpgaSimSettings, open_fpga_sim
from board.engines.settings import EngineSettings
from board.overlay.errors import EXPLANATIONS, Fault, explain
from board.overlay.program import PROGRAM_BIN
from board.seams import Engine
from protocol.errors import EngineError, ManifestError
from protocol.manifest import Package

ROOT = Path(__file__).resolve().parents[3]
needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="the simulated overlay is compiled with g++")
needs_no_pynq = pytest.mark.skipif(bool(importlib.util.find_spec("pynq")), reason="pynq is installed here")


def noise(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (128, 128, 3), np.uint8)


def open_chain(package: Package, settings: EngineSettings) -> EngineChain:
    return EngineChain(settings, package.load_golden(), lambda name: open_engine(name, package, settings))


@needs_compiler
def test_the_simulated_overlay_speaks_with_the_maps_of_the_other_engines(trivial_package: Package) -> None:
    chain = open_chain(trivial_package, EngineSettings(order=("fpga-sim", "arm")))
    other = open_arm(trivial_package, EngineSettings())
    for seed in range(4):
        anomaly, speaker = chain.infer(noise(seed))
        assert speaker == "fpga-sim"
        assert np.array_equal(anomaly, other.infer(noise(seed)))
    assert not chain.degraded
    chain.close()


@needs_compiler
def test_a_map_is_not_overwritten_by_the_next(trivial_package: Package) -> None:
    engine = open_fpga_sim(load_program(trivial_package), FpgaSimSettings())
    first = engine.infer(noise(1))
    kept = first.copy()
    engine.infer(noise(2))
    assert np.array_equal(first, kept)
    engine.close()


@needs_compiler
def test_a_missed_deadline_is_an_error_and_the_next_engine_speaks(trivial_package: Package) -> None:
    settings = EngineSettings(order=("fpga-sim", "arm"), fpga_sim=FpgaSimSettings(deadline_s=1e-6))
    chain = open_chain(trivial_package, settings)
    assert chain.infer(noise(1))[1] == "arm-onnxruntime"
    assert chain.trouble.startswith("fpga-sim: fpga-sim: no result within 1e-06 s")
    chain.close()


@needs_compiler
def test_a_program_of_another_model_fails_the_self_test(trivial_package: Package) -> None:
    """Its weights differ by one byte."""
    program = load_program(trivial_package)
    weights = bytearray(program.model)
    weights[-192] ^= 0x40

    def open_altered(_name: str) -> Engine:
        return open_fpga_sim(replace(program, model=bytes(weights)), FpgaSimSettings())

    with pytest.raises(EngineError, match="fpga-sim does not give the model's golden map"):
        EngineChain(EngineSettings(order=("fpga-sim",)), trivial_package.load_golden(), open_altered)


@needs_no_pynq
def test_without_pynq_the_arm_speaks_and_the_line_is_degraded(trivial_package: Package) -> None:
    chain = open_chain(trivial_package, EngineSettings(order=("fpga", "arm")))
    assert chain.infer(noise(1))[1] == "arm-onnxruntime"
    assert chain.degraded
    assert chain.trouble == ("fpga: fpga needs the board's pynq package (No module named 'pynq'): run it on the board")
    chain.close()


def test_a_package_without_a_program_is_named(trivial_package: Package) -> None:
    files = {name: digest for name, digest in trivial_package.manifest.files.items() if name != PROGRAM_BIN}
    bare = Package(trivial_package.folder, replace(trivial_package.manifest, files=files))
    with pytest.raises(ManifestError, match=r"has no program\.bin: export the model again"):
        open_engine("fpga", bare, EngineSettings())


@pytest.mark.parametrize(
    ("preparation", "asked", "message"),
    [
        ("sys.modules['amaranth'] = None", "find_library({0})", "fpga-sim needs Amaranth ("),
        (
            "os.environ['PATH'] = ''",
            "build_library('', {0})",
            "the simulated overlay is compiled with g++, which is not installed: install g++",
        ),
    ],
)
def test_what_the_simulation_lacks_is_one_line(preparation: str, asked: str, message: str, tmp_path: Path) -> None:
    lines = (
        "import os, sys",
        preparation,
        "from pathlib import Path",
        "from board.engines.fpga_sim import find_library",
        "from board.overlay.simulation.simulator import build_library",
        "from protocol.errors import run_main",
        f"sys.exit(run_main(lambda: {asked.format(repr(tmp_path)).replace('PosixPath', 'Path')}))",
    )
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"beltsight: {message}")


def test_every_fault_has_its_words() -> None:
    assert set(EXPLANATIONS) == set(Fault) - {Fault.NONE}
    expected = "the overlay stopped with SEGMENT near instruction 7: an access outside the program's memory: "
    assert explain(3, 7) == f"{expected}export the model again"
    for code in (0, 8, 255):
        assert f"unknown code {code}: rebuild" in explain(code, 7)


@pytest.mark.parametrize(
    "wrong",
    [{"deadline_s": 0.0}, {"deadline_s": 61.0}, {"clock_mhz": 0.0}, {"clock_mhz": 101.0}, {"address": 0x43C0_0004}],
)
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FpgaSettings(**wrong)  # type: ignore[arg-type]
