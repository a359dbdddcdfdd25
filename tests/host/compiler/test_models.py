"""Whole frames of the shipped models: golden model = the package's golden maps, and the goals of the predicted time."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from board.overlay.golden import run_program
from board.overlay.program import PROGRAM_BIN, decode_file, encode_file
from host.compiler.compilation import Compiled, compile_net, disassemble
from host.compiler.reader import load_qdq
from host.compiler.table import Row, dense_utilisation, make_rows
from host.compiler.timing import CLOCK_HZ, predict
from host.integers.arithmetic import IMAGE, IMAGE_EXPONENT, MAP, Add, IntegerNet, Layer, Upsample, costs
from protocol.errors import EXIT_BAD_INPUT
from protocol.manifest import MODEL_ONNX, load_package
from tests.host.compiler.ordering import Ordering, most_tokens
from tests.host.compiler.random_layers import EXPONENT, random_conv

MODELS = Path(__file__).resolve().parents[3] / "models"
SHIPPED = sorted(path.parent.name for path in MODELS.glob("*/manifest.json"))


def detector(side_px: int, widths: tuple[int, int, int, int], decoder: int) -> IntegerNet:
    """A network of the shape of `host.learning.network`, with random weights."""
    rng = np.random.default_rng(0)
    layers: list[Layer] = [random_conv(rng, "stem", IMAGE, (3, widths[0], 5), 2)]
    level = "stem"
    for number, (low, high) in enumerate(pairwise(widths)):
        layers.append(random_conv(rng, f"down{number}", level, (low, high, 3), 2))
        layers.append(random_conv(rng, f"refine{number}", f"down{number}", (high, high, 3)))
        level = f"level{number}"
        layers.append(Add(level, f"down{number}", f"refine{number}", EXPONENT))
    layers.append(random_conv(rng, "merged2", "level2", (widths[3], decoder, 1)))
    for number in (1, 0):
        layers.append(Upsample(f"up{number}", f"merged{number + 1}"))
        layers.append(random_conv(rng, f"lateral{number}", f"level{number}", (widths[number + 1], decoder, 1)))
        layers.append(Add(f"sum{number}", f"up{number}", f"lateral{number}", EXPONENT))
        layers.append(random_conv(rng, f"merged{number}", f"sum{number}", (decoder, decoder, 3)))
    layers.append(random_conv(rng, MAP, "merged0", (decoder, 1, 1)))
    assert IMAGE_EXPONENT < EXPONENT
    return IntegerNet((side_px, side_px), tuple(layers))


@pytest.mark.parametrize("model", SHIPPED)
def test_whole_frames_of_the_shipped_models(model: str) -> None:
    package = load_package(MODELS / model)
    compiled = compile_net(load_qdq(package.path(MODEL_ONNX)))
    program, golden = decode_file(encode_file(compiled.program)), package.load_golden()
    for number, (image, expected) in enumerate(zip(golden.images, golden.maps, strict=True)):
        answer = run_program(program, image, Ordering(), garbage=number)
        assert np.array_equal(answer, expected[np.newaxis])


@pytest.mark.parametrize("model", SHIPPED)
def test_the_shipped_programs_give_the_golden_maps(model: str) -> None:
    package = load_package(MODELS / model)
    program, golden = decode_file(package.path(PROGRAM_BIN).read_bytes()), package.load_golden()
    for image, expected in zip(golden.images, golden.maps, strict=True):
        assert np.array_equal(run_program(program, image)[0], expected)


@pytest.mark.parametrize("model", SHIPPED)
def test_shipped_models_reach_their_goals(model: str) -> None:
    package = load_package(MODELS / model)
    compiled = compile_net(load_qdq(package.path(MODEL_ONNX)))
    check_goals(compiled, frames_per_s=275 if package.manifest.preprocess.input_px == (128, 128) else 70)
    assert most_tokens(compiled.instructions) <= 63


@pytest.mark.parametrize(("side_px", "macs", "frames_per_s"), [(128, 149.7e6, 150), (256, 598.7e6, 40)])
def test_networks_of_the_architecture_reach_their_goals(side_px: int, macs: float, frames_per_s: int) -> None:
    net = detector(side_px, (32, 64, 96, 128), 48)
    assert sum(cost.macs for cost in costs(net)) == pytest.approx(macs, rel=0.001)
    check_goals(compile_net(net), frames_per_s)


def check_goals(compiled: Compiled, frames_per_s: int) -> None:
    rows, timing = make_rows(compiled), predict(compiled.instructions)
    assert CLOCK_HZ / timing.total >= frames_per_s
    assert dense_utilisation(rows) >= 0.7
    check_sum(rows, timing.total)


def check_sum(rows: list[Row], total: int) -> None:
    """The layers' cycles are the frame's, but for what the last store takes."""
    assert 0.98 * total <= sum(row.cycles for row in rows) <= total
    assert all(row.computing <= row.cycles for row in rows)


def command(*words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "host.compiler", *words]
    return subprocess.run(line, cwd=MODELS.parent, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_prints_tables_and_programs_and_writes_a_file(tmp_path: Path) -> None:
    folder, file = str(MODELS / SHIPPED[0]), tmp_path / PROGRAM_BIN
    done = command(folder, "--disassemble", "--table", "--out", str(file))
    assert done.returncode == 0, done.stderr
    assert "stem:\n     0  LoadImage" in done.stdout
    assert "frames/s at 100 MHz" in done.stdout
    assert decode_file(file.read_bytes()) == compile_net(load_qdq(MODELS / SHIPPED[0] / MODEL_ONNX)).program


def test_the_command_says_what_it_cannot_read(tmp_path: Path) -> None:
    done = command(str(tmp_path))
    assert done.returncode == EXIT_BAD_INPUT
    assert done.stderr.startswith("beltsight: ")
    assert done.stderr.count("\n") == 1


def test_the_disassembly_has_a_line_for_each_instruction() -> None:
    compiled = compile_net(detector(32, (16, 16, 16, 16), 16))
    lines = disassemble(compiled).splitlines()
    changes = 1 + sum(one is not other for one, other in pairwise(compiled.owners))
    assert len(lines) == len(compiled.instructions) + changes
    assert lines[0] == "stem:"
    assert lines[-1].endswith("End")
