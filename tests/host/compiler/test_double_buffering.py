"""While a strip is computed the next one is loaded and the last one stored: the array does not wait for DDR."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from board.overlay.errors import Fault
from board.overlay.isa import Compute, Instruction, LoadTile, Segment, StoreTile
from board.overlay.simulation.simulator import MemoryPort, Simulator
from host.compiler.compilation import Compiled, compile_net
from host.compiler.durations import measure
from host.integers.arithmetic import IMAGE, MAP, IntegerNet
from tests.host.compiler.random_layers import random_conv
from tests.host.compiler.test_frames_in_hardware import begin

SIDE_PX = 64
MOST_WAITING = 0.05  # of a frame's cycles: its first strip and the last ones
LEAST_MOVING = 0.25  # of the cycles, with which the port is at work: so much must be hidden


def compile_chain(channels: int, kernel_px: int, activation_words: int) -> Compiled:
    """Three convolutions, whose tensors do not fit."""
    rng = np.random.default_rng(0)
    shape = (channels, channels, kernel_px)
    layers = (
        random_conv(rng, "first", IMAGE, (3, channels, 3)),
        random_conv(rng, "second", "first", shape),
        random_conv(rng, MAP, "second", shape),
    )
    return compile_net(IntegerNet((SIDE_PX, SIDE_PX), layers), activation_words)


def count_cycles(simulator: Simulator, compiled: Compiled) -> dict[str, int]:
    begin(simulator, compiled.program, np.zeros((SIDE_PX, SIDE_PX, 3), np.uint8))
    done = simulator.finish()
    assert done.fault == Fault.NONE
    return done.counters


def strips(instructions: tuple[Instruction, ...], kind: type[LoadTile | StoreTile], segment: Segment) -> list[int]:
    """Where they lie in the activation memory, in order."""
    return [item.base for item in instructions if isinstance(item, kind) and item.segment == segment]


@pytest.mark.parametrize(("channels", "kernel_px", "words"), [(32, 3, 2048), (48, 1, 3000)])
def test_loading_and_storing_hide_behind_computing(
    simulator: Simulator, channels: int, kernel_px: int, words: int
) -> None:
    compiled = compile_chain(channels, kernel_px, words)
    counters = count_cycles(simulator, compiled)
    moved = counters["BEATS_READ"] + counters["BEATS_WRITTEN"]
    assert moved > LEAST_MOVING * counters["CYCLES"]
    assert counters["CYCLES_TOKEN"] < MOST_WAITING * counters["CYCLES"]
    one_by_one = sum(measure(item, MemoryPort()).cycles for item in compiled.instructions if item.UNIT is not None)
    assert counters["CYCLES"] < 0.8 * one_by_one


def test_with_room_for_one_buffer_alone_the_array_waits(simulator: Simulator) -> None:
    """What the counters say where nothing is hidden."""
    counters = count_cycles(simulator, compile_chain(48, 1, 600))
    assert counters["CYCLES_TOKEN"] > 4 * MOST_WAITING * counters["CYCLES"]


def test_strips_take_two_buffers_in_turn() -> None:
    compiled = compile_chain(48, 1, 3000)
    computes = [item for item in compiled.instructions if isinstance(item, Compute)]
    for kind, segment in ((LoadTile, Segment.SCRATCH), (StoreTile, Segment.SCRATCH), (StoreTile, Segment.OUTPUT)):
        places = strips(compiled.instructions, kind, segment)
        assert len(places) > 10
        assert all(one != other for one, other in pairwise(places))
    sources = {item.a for item in computes}
    assert sources >= set(strips(compiled.instructions, LoadTile, Segment.SCRATCH))
