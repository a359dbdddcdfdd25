"""The same network gives the same bytes, whatever the process: hashes of texts differ from one to the next."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from board.overlay.isa import LoadWeights, WeightFormat
from board.overlay.program import encode_file
from host.compiler.compilation import compile_net, disassemble
from host.integers.arithmetic import IMAGE, MAP, IntegerNet
from host.integers.qdq import write_qdq
from tests.board.overlay.networks import make_detector
from tests.host.compiler.random_layers import check_net, random_conv
from tests.host.compiler.test_foreign_graphs import command
from tests.host.compiler.test_reader import every_layer

ROOT = Path(__file__).resolve().parents[3]
SMALL_MEMORY = 1_024  # words: tensors go through DDR


def list_networks() -> list[tuple[IntegerNet, int]]:
    nets = [every_layer(0), make_detector((64, 64), (16, 32, 48, 48), 16)]
    return [(net, words) for net in nets for words in (16_384, SMALL_MEMORY)]


def digest() -> str:
    """Of all programs and their disassemblies."""
    compiled = [compile_net(net, words) for net, words in list_networks()]
    parts = [encode_file(item.program) + disassemble(item).encode() for item in compiled]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def test_programs_do_not_depend_on_the_process() -> None:
    code = "from tests.host.compiler.test_repeatable import digest; print(digest())"
    made = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        ).stdout.strip()
        for seed in ("0", "1", "4711")
    }
    assert made == {digest()}


def test_the_command_writes_the_same_file_again(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(write_qdq(every_layer(0)).SerializeToString())
    made = []
    for seed in ("1", "2"):
        done = command(str(model), "--disassemble", "--table", "--out", str(tmp_path / seed), seed=seed)
        assert done.returncode == 0, done.stderr
        made.append(((tmp_path / seed).read_bytes(), done.stdout))
    assert made[0] == made[1]


@pytest.mark.parametrize(("most", "packed"), [(7, True), (8, False)])
def test_weights_that_fit_four_bits_travel_in_four(most: int, packed: bool) -> None:
    """And half of the bytes are read; −8..7 are all there are."""
    rng = np.random.default_rng(0)
    conv = random_conv(rng, MAP, IMAGE, (3, 12, 5))
    conv.weights[:] = rng.integers(-8, 8, conv.weights.shape)
    conv.weights[0, 0, 0, :2] = (-8, most)
    compiled = check_net((16, 16), [conv], rng)
    loads = [item for item in compiled.instructions if isinstance(item, LoadWeights)]
    small = [item.words for item in loads if item.format == WeightFormat.INT4]
    assert small == ([5] if packed else [])
    assert sum(item.words for item in loads) == 6  # a word of parameters and a step for each kernel row
