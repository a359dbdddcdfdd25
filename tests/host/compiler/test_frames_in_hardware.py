"""Frames of real networks on the simulated overlay: its map is the golden model's and ONNX Runtime's, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from board.engines.onnx_runtime import OnnxRuntimeEngine
from board.overlay.errors import Fault
from board.overlay.golden import run_program
from board.overlay.program import PROGRAM_BIN, Program, decode_file, pack_image, unpack_output
from board.overlay.registers import STATUS_BUSY
from board.overlay.simulation.simulator import MemoryPort, Simulator
from host.compiler.compilation import compile_net
from host.compiler.reader import load_qdq
from host.integers.qdq import write_qdq
from host.learning.network import DetectorNet, Widths
from host.learning.quantization import extract, fold, quantize
from protocol.manifest import MODEL_ONNX, load_package
from tests.host.compiler.test_models import MODELS, SHIPPED

Image = NDArray[np.uint8]
Map = NDArray[np.int8]
PORTS = [
    MemoryPort(),
    MemoryPort(latency_cycles=90, efficiency=0.4, stall=0.1, seed=2),
    MemoryPort(latency_cycles=2, efficiency=1.0, stall=0.3, shy=True, seed=3),
]


def begin(simulator: Simulator, program: Program, image: Image) -> NDArray[np.uint8]:
    """Starts a frame; the bytes where its map will be."""
    views = simulator.place(program.segment_bytes())
    views[0][:] = np.frombuffer(program.model, np.uint8)
    views[2][:] = np.frombuffer(pack_image(image), np.uint8)
    views[3][:] = 0xA5  # of an earlier frame nothing is left
    simulator.start(0, program.instruction_count)
    return views[3]


def infer_channels(simulator: Simulator, program: Program, image: Image) -> Map:
    """The output, int8 (channels, h', w')."""
    output = begin(simulator, program, image)
    assert simulator.finish().fault == Fault.NONE
    return unpack_output(program, output.tobytes())


def infer(simulator: Simulator, program: Program, image: Image) -> Map:
    """The map, int8 (h', w')."""
    (output,) = infer_channels(simulator, program, image)
    return np.asarray(output)


def shipped_program(model: str) -> Program:
    return decode_file(load_package(MODELS / model).path(PROGRAM_BIN).read_bytes())


def random_images(count: int, input_px: tuple[int, int]) -> Image:
    """Noise, and black and white alone: they saturate."""
    images = np.random.default_rng(count).integers(0, 256, (count, *input_px, 3), np.uint8)
    images[1::2] = np.where(images[1::2] < 128, 0, 255)
    return images


@pytest.mark.parametrize("model", SHIPPED)
def test_frames_of_the_shipped_models(simulator: Simulator, model: str) -> None:
    """Golden pictures and random ones, from the files as they are shipped, on memories of any pace."""
    package = load_package(MODELS / model)
    program, golden = shipped_program(model), package.load_golden()
    arm = OnnxRuntimeEngine(package.path(MODEL_ONNX), threads=1)
    for image, expected, port in zip(golden.images, golden.maps, PORTS, strict=True):
        simulator.set_port(port)
        assert np.array_equal(infer(simulator, program, image), expected)
        assert np.array_equal(arm.infer(image), expected)
    for image in random_images(1 if max(program.input_px) > 128 else 2, program.input_px):
        found = infer(simulator, program, image)
        assert np.array_equal(found, run_program(program, image)[0])
        assert np.array_equal(found, arm.infer(image))


def test_shipped_models_take_turns(simulator: Simulator) -> None:
    """A, B, A without a reset."""
    programs = [shipped_program(model) for model in SHIPPED]
    goldens = [load_package(MODELS / model).load_golden() for model in SHIPPED]
    for frame in range(3):
        program, golden = programs[frame % len(programs)], goldens[frame % len(goldens)]
        assert np.array_equal(infer(simulator, program, golden.images[0]), golden.maps[0]), frame


def test_a_reset_in_mid_frame_leaves_nothing_behind(simulator: Simulator) -> None:
    program, golden = shipped_program(SHIPPED[0]), load_package(MODELS / SHIPPED[0]).load_golden()
    for cycles in (300, 20_000, 90_000):
        begin(simulator, program, golden.images[1])
        assert not simulator.wait(cycles)
        simulator.reset()
        simulator.wait(300)
        assert not simulator.read("STATUS") & STATUS_BUSY
        simulator.check()
        assert np.array_equal(infer(simulator, program, golden.images[0]), golden.maps[0])


@pytest.mark.parametrize("input_px", [(128, 128), (64, 96)])
def test_frames_of_the_default_architecture(simulator: Simulator, input_px: tuple[int, int], tmp_path: Path) -> None:
    """Untrained, but from float to program on the same way as a trained one."""
    torch.manual_seed(0)
    images = random_images(2, input_px)
    batch = (torch.from_numpy(images).permute(0, 3, 1, 2).float() - 128) / 128
    with torch.no_grad():
        detector = DetectorNet(Widths()).eval()
        detector.logits.weight.mul_(2 / detector(batch).std())  # as wide as a trained one's
        net = extract(quantize(fold(detector), [batch]), input_px)
    model = tmp_path / MODEL_ONNX
    model.write_bytes(write_qdq(net).SerializeToString())
    program = compile_net(load_qdq(model)).program
    arm = OnnxRuntimeEngine(model, threads=1)
    for image in images:
        found = infer(simulator, program, image)
        assert len(np.unique(found)) > 20, "a map without variety shows nothing"
        assert np.array_equal(found, run_program(program, image)[0])
        assert np.array_equal(found, arm.infer(image))
