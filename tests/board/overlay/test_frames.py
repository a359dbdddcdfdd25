"""Whole frames of whole networks: compiled, run in the simulated hardware, equal to the integer network."""

from __future__ import annotations

import numpy as np
import pytest

from board.overlay.errors import Fault
from board.overlay.program import pack_image, unpack_output
from board.overlay.simulation.simulator import MemoryPort, Run, Simulator
from host.compiler.compilation import Compiled, compile_net
from host.compiler.timing import predict
from host.integers.arithmetic import IntegerNet, run
from tests.board.overlay.networks import make_detector
from tests.host.random_nets import random_net

CLOCK_HZ = 100_000_000
SMALL = (32, 32)


def infer(simulator: Simulator, net: IntegerNet, compiled: Compiled, seed: int) -> Run:
    """One frame of random pixels; its map must be that of the integer network."""
    program = compiled.program
    image = np.random.default_rng(seed).integers(0, 256, (*net.input_px, 3), dtype=np.uint8)
    views = simulator.place(program.segment_bytes())
    views[0][:] = np.frombuffer(program.model, np.uint8)
    views[2][:] = np.frombuffer(pack_image(image), np.uint8)
    simulator.start(0, program.instruction_count)
    done = simulator.finish()
    assert done.fault == Fault.NONE
    want = run(net, (image ^ np.uint8(0x80)).view(np.int8).transpose(2, 0, 1))
    assert (unpack_output(program, views[3].tobytes()).reshape(want.shape) == want).all()
    return done


@pytest.mark.parametrize("activation_words", [16_384, 1_024])
def test_random_networks(simulator: Simulator, activation_words: int) -> None:
    """The smaller memory sends tensors through DDR, strip by strip."""
    for seed in range(12):
        net = random_net(seed, SMALL)
        infer(simulator, net, compile_net(net, activation_words), seed)


def test_networks_take_turns_on_a_memory_that_stalls(simulator: Simulator) -> None:
    """A, B, A, B … fifty frames without a reset: nothing of a frame may reach into the next."""
    simulator.set_port(MemoryPort(stall=0.2))
    nets = [make_detector(SMALL, (16, 16, 32, 16), 16, seed) for seed in range(2)]
    compiled = [compile_net(net, words) for net, words in zip(nets, (16_384, 1_024), strict=True)]
    for frame in range(50):
        infer(simulator, nets[frame % 2], compiled[frame % 2], frame)


def test_a_detector_of_150_million_products_runs_150_times_a_second(simulator: Simulator) -> None:
    net = make_detector((128, 128), (32, 64, 96, 128), 48)
    compiled = compile_net(net)
    done = infer(simulator, net, compiled, 0)
    cycles = done.counters["CYCLES"]
    assert CLOCK_HZ / cycles >= 150
    assert abs(predict(compiled.instructions).total / cycles - 1) < 0.02
