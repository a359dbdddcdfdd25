"""Predicted cycles are those of the simulated hardware: instructions alone, layers, and whole frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from board.overlay.errors import Fault
from board.overlay.isa import (
    BEAT_BYTES,
    Compute,
    End,
    Instruction,
    LoadImage,
    LoadTile,
    LoadWeights,
    Mode,
    Segment,
    StoreTile,
    WeightFormat,
    encode_program,
)
from board.overlay.simulation.simulator import MemoryPort, Simulator
from host.compiler.compilation import Compiled, compile_net
from host.compiler.durations import measure
from host.compiler.reader import load_qdq
from host.compiler.table import make_rows
from host.compiler.timing import ddr_bytes, predict
from host.integers.arithmetic import IntegerNet
from protocol.manifest import MODEL_ONNX
from tests.board.overlay.networks import make_detector
from tests.host.compiler.test_models import MODELS, SHIPPED
from tests.host.compiler.test_reader import every_layer
from tests.host.random_nets import random_net

ERROR = 0.02  # of the cycles that the simulation needs
PORTS = [MemoryPort(), *(MemoryPort(latency, efficiency) for latency in (10, 60) for efficiency in (0.5, 1.0))]
SEGMENT_BYTES = 1 << 20
TILE: dict[str, Any] = {
    "segment": Segment.SCRATCH, "rows": 6, "cols": 20, "words": 2, "pitch": 80, "base_row": 40, "base_col": 2,
}  # fmt: skip
ROW: dict[str, Any] = {"segment": Segment.SCRATCH, "rows": 1, "cols": 4, "base_col": 1}
IMAGE: dict[str, Any] = {"segment": Segment.INPUT, "cols": 40, "pitch": 15, "base_col": 1}
PLANE: dict[str, Any] = {
    "rows": 6, "cols": 8, "source_rows": 6, "source_cols": 8, "a_row": 16, "a_col": 2, "out_row": 16, "out_col": 2,
}  # fmt: skip
ALONE: dict[str, Instruction] = {
    "tile": LoadTile(**TILE),
    "narrow rows": LoadTile(**(TILE | {"cols": 1, "rows": 16})),
    "row": LoadTile(**ROW),
    "tile stored": StoreTile(**TILE),
    "row stored": StoreTile(**ROW),
    "weights": LoadWeights(address=4096, words=20),
    "int4 weights": LoadWeights(address=4096, words=20, format=WeightFormat.INT4),
    "a parameter word": LoadWeights(address=4096),
    "image": LoadImage(**IMAGE, rows=7, words=20, stride=2, lead=2, base_row=20),
    "image from its third pixel": LoadImage(**IMAGE, rows=7, words=40, lead=-2, base_row=40),
    "3 × 3": Compute(**PLANE, kernel_rows=3, kernel_cols=3, first_row=-1, first_col=-1, out=4 * 8192),
    "3 × 3 in its own bank": Compute(**PLANE, kernel_rows=3, kernel_cols=3, first_row=-1, out=4 * 1024),
    "two steps in its own bank": Compute(**PLANE, blocks=2, out=4 * 1024),
    "one step in its own bank": Compute(**PLANE, out=4 * 1024),
    "one step": Compute(**PLANE, out=4 * 8192),
    "maximum across banks": Compute(**PLANE, mode=Mode.MAX, kernel_rows=2, kernel_cols=2, a=4060, out=4 * 4000),
}


def describe(port: MemoryPort) -> str:
    return f"{port.latency_cycles} cycles, {port.efficiency:.0%}"


def simulate(
    simulator: Simulator, segments: tuple[int, ...], model: bytes, instructions: list[Instruction]
) -> dict[str, int]:
    """The counters after a run of these instructions, in which the model's are replaced by them."""
    code = encode_program(instructions)
    views = simulator.place(segments)
    views[0][: len(model)] = np.frombuffer(model, np.uint8)
    views[0][: len(code)] = np.frombuffer(code, np.uint8)
    simulator.start(0, len(instructions))
    done = simulator.finish()
    assert done.fault == Fault.NONE
    return done.counters


def run_frame(simulator: Simulator, compiled: Compiled, end: int | None = None) -> dict[str, int]:
    """Of a frame, or of its instructions before number `end`."""
    program = compiled.program
    some = [*compiled.instructions[:end], End()] if end else list(compiled.instructions)
    return simulate(simulator, program.segment_bytes(), program.model, some)


@pytest.mark.parametrize("port", PORTS, ids=describe)
def test_instructions_alone(simulator: Simulator, port: MemoryPort) -> None:
    """Twelve more of the same take twelve times as long, but for their own fetch."""
    simulator.set_port(port)
    for name, instruction in ALONE.items():
        few, many = (
            simulate(simulator, (SEGMENT_BYTES,) * 4, b"", [*[instruction] * count, End()])["CYCLES"]
            for count in (8, 20)
        )
        fetched = 4 / port.efficiency  # beats that a load may have to wait for
        cycles = measure(instruction, port).cycles
        margin = max(4, 0.07 * cycles)
        assert cycles - margin <= (many - few) / 12 <= cycles + margin + fetched, name


def networks() -> dict[str, Compiled]:
    """Tiny and large, all kinds of layers, whole in the activation memory and through DDR."""
    shapes: dict[str, tuple[IntegerNet, int]] = {
        "random": (random_net(0), 16_384),
        "random, through memory": (random_net(0), 1_024),
        "every layer": (every_layer(0), 16_384),
        "every layer, through memory": (every_layer(1), 1_024),
        "32 pixels": (make_detector((32, 32), (16, 32, 32, 32), 16), 16_384),
        "64 pixels": (make_detector((64, 64), (32, 48, 64, 64), 32), 16_384),
    }
    return {name: compile_net(net, words) for name, (net, words) in shapes.items()}


def check_frame(simulator: Simulator, compiled: Compiled, port: MemoryPort, name: str) -> None:
    simulator.set_port(port)
    counters = run_frame(simulator, compiled)
    cycles = counters["CYCLES"]
    predicted = predict(compiled.instructions, port).total
    assert abs(predicted / cycles - 1) < ERROR, f"{name}, {port}: {cycles} cycles, predicted {predicted}"
    assert ddr_bytes(compiled.instructions) == (counters["BEATS_READ"] + counters["BEATS_WRITTEN"]) * BEAT_BYTES


@pytest.mark.parametrize("port", PORTS, ids=describe)
def test_small_frames(simulator: Simulator, port: MemoryPort) -> None:
    for name, compiled in networks().items():
        check_frame(simulator, compiled, port, name)


@pytest.mark.parametrize(("side_px", "encoder", "decoder"), [(128, (32, 64, 96, 128), 48), (256, (16, 32, 48, 64), 32)])
def test_large_frames(simulator: Simulator, side_px: int, encoder: tuple[int, ...], decoder: int) -> None:
    """The second has tensors that do not fit."""
    compiled = compile_net(make_detector((side_px, side_px), encoder, decoder))
    check_frame(simulator, compiled, MemoryPort(), f"{side_px} pixels")


@pytest.mark.parametrize("model", SHIPPED)
def test_frames_of_the_shipped_models(simulator: Simulator, model: str) -> None:
    check_frame(simulator, compile_net(load_qdq(MODELS / model / MODEL_ONNX)), MemoryPort(), model)


def test_layers(simulator: Simulator) -> None:
    """A program that ends behind a layer takes what is predicted of it; the table's cycles are the whole frame's."""
    compiled = networks()["64 pixels"]
    rows = make_rows(compiled)
    assert len(rows) == 18
    assert sum(row.cycles for row in rows) == pytest.approx(max(predict(compiled.instructions).ends), rel=ERROR)
    for row in rows[:-1]:
        end = 1 + max(number for number, owner in enumerate(compiled.owners) if owner is row.operation)
        predicted = predict([*compiled.instructions[:end], End()]).total
        cycles = run_frame(simulator, compiled, end)["CYCLES"]
        assert abs(predicted - cycles) < ERROR * cycles, f"{row.operation.name}: {cycles}, predicted {predicted}"
