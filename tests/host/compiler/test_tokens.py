"""The witness itself: a program that lacks a token is caught, so its silence elsewhere means something."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from board.overlay.golden import run_program
from board.overlay.isa import Instruction, Unit, encode_program
from host.compiler.compilation import Compiled, compile_net
from tests.host.compiler.ordering import Ordering, RaceError
from tests.host.random_nets import random_net

COMPILED = compile_net(random_net(2, (32, 32)), 300)
IMAGE = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)


def pairs_of_tokens(instructions: list[Instruction]) -> list[tuple[int, Unit, int, Unit]]:
    """(position of the signal, its unit, position of the wait, its unit)."""
    found = []
    for giver in Unit:
        for taker in Unit:
            signals = [n for n, item in enumerate(instructions) if giver == item.UNIT and item.signal >> taker & 1]
            waits = [n for n, item in enumerate(instructions) if taker == item.UNIT and item.wait >> giver & 1]
            found += [(signal, giver, wait, taker) for signal, wait in zip(signals, waits, strict=True)]
    return found


def run(compiled: Compiled, instructions: list[Instruction]) -> None:
    code = encode_program(instructions)
    program = replace(compiled.program, model=code + compiled.program.model[len(code) :])
    run_program(program, IMAGE, Ordering())


def test_most_tokens_are_needed() -> None:
    """Without it the units race. (A few wait for more than they must, since a later signal came cheaper.)"""
    instructions = list(COMPILED.instructions)
    run(COMPILED, instructions)
    pairs, caught = pairs_of_tokens(instructions), 0
    for signal, giver, wait, taker in pairs:
        changed = list(instructions)
        changed[signal] = replace(changed[signal], signal=changed[signal].signal & ~(1 << taker))
        changed[wait] = replace(changed[wait], wait=changed[wait].wait & ~(1 << giver))
        try:
            run(COMPILED, changed)
        except RaceError:
            caught += 1
    assert caught == len(pairs)


def test_a_result_does_not_depend_on_what_memory_held() -> None:
    answers = [run_program(COMPILED.program, IMAGE, garbage=seed) for seed in range(3)]
    assert np.array_equal(answers[0], answers[1])
    assert np.array_equal(answers[0], answers[2])


def test_the_witness_names_the_race() -> None:
    instructions = [replace(item, wait=0, signal=0) for item in COMPILED.instructions]
    with pytest.raises(RaceError, match="without a token"):
        run(COMPILED, instructions)
