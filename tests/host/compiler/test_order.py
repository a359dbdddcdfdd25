"""Instructions stand in the order in which their units begin; what is read pixel by pixel next is handed on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from board.overlay import isa
from board.overlay.isa import Compute, End, Instruction, LoadWeights, Segment, StoreTile
from host.compiler.compilation import Compiled, compile_net
from host.compiler.durations import compute_steps
from host.compiler.emission import Emission
from host.compiler.footprints import count_places, find_accesses
from host.compiler.lowering import lower
from host.compiler.memory import plan_memory
from host.compiler.order import find_order
from host.compiler.timing import QUEUE_DEPTH, predict
from host.compiler.tokens import add_tokens
from host.integers.arithmetic import IMAGE, MAP, Add, IntegerNet, Layer, Upsample
from tests.host.compiler.random_layers import EXPONENT, check_net, random_conv
from tests.host.random_nets import random_net


def deep_net() -> IntegerNet:
    """A fine layer, and coarse ones whose weights take longer to load than to use."""
    rng = np.random.default_rng(1)
    layers: list[Layer] = [
        random_conv(rng, "fine", IMAGE, (3, 64, 5), 2),
        random_conv(rng, "finer", "fine", (64, 64, 3)),
        random_conv(rng, "half", "finer", (64, 64, 1), 2),
        random_conv(rng, "coarse", "half", (64, 128, 3), 2),
        random_conv(rng, "coarser", "coarse", (128, 128, 3), 2),
        random_conv(rng, "last", "coarser", (128, 128, 3)),
        random_conv(rng, MAP, "last", (128, 8, 1)),
    ]
    return IntegerNet((32, 32), tuple(layers))


def most_ahead(compiled: Compiled) -> int:
    """Computations that stand in the program between the loading of a tile and the first that reads it."""
    most, computes, loaded = 0, 0, np.zeros(isa.WEIGHT_WORDS, int)
    for instruction in compiled.instructions[:-1]:
        for access in find_accesses(instruction):
            if isinstance(instruction, LoadWeights) and access.write:
                loaded[access.places] = computes
            if isinstance(instruction, Compute) and access.memory == "weights":
                most = max(most, computes - int(loaded[access.places].max()))
        computes += isinstance(instruction, Compute)
    return most


def as_emitted(net: IntegerNet) -> list[Instruction]:
    """Each tile right before the computation that reads it first."""
    emission = Emission(plan_memory(lower(net), isa.ACTIVATION_WORDS))
    places = count_places([1 << 20] * len(Segment))
    return [*add_tokens([line.instruction for line in emission.lines], places), End()]


def test_weights_of_coarse_layers_are_loaded_while_fine_ones_are_computed() -> None:
    net = deep_net()
    compiled = compile_net(net)
    assert most_ahead(compiled) > 2 * QUEUE_DEPTH
    lost = [predict(program).total - count_steps(program) for program in (compiled.instructions, as_emitted(net))]
    assert lost[0] < 0.8 * lost[1]


def count_steps(program: Sequence[Instruction]) -> int:
    return sum(compute_steps(item) for item in program if isinstance(item, Compute))


@pytest.mark.parametrize("seed", range(3))
def test_what_meets_in_a_memory_keeps_its_order(seed: int) -> None:
    compiled = compile_net(random_net(seed, (24, 32)), 400)
    items = [item for item in compiled.instructions if item.UNIT is not None]
    places = count_places([size // isa.BEAT_BYTES for size in compiled.program.segment_bytes()])
    rank = np.argsort(find_order(items, places))
    last: dict[
        tuple[str, int], tuple[int, bool]
    ] = {}  # of each place: the last that wrote or, if none has since, read it
    for number, item in enumerate(items):
        for access in find_accesses(item):
            for place in map(int, access.places):
                before, wrote = last.get((access.memory, place), (number, False))
                assert not (wrote or access.write) or rank[before] <= rank[number]
                last[access.memory, place] = number, access.write


def residual(rows_px: int, *, upsampled: bool = False) -> list[Layer]:
    rng = np.random.default_rng([rows_px, upsampled])
    layers: list[Layer] = [random_conv(rng, "skip", IMAGE, (3, 32, 3))]
    other = "skip"
    if upsampled:
        layers += [random_conv(rng, "coarse", "skip", (32, 32, 3), 2), Upsample("up", "coarse")]
        other = "up"
    layers.append(random_conv(rng, "refined", "skip", (32, 32, 3)))
    layers += [Add("sum", other, "refined", EXPONENT), random_conv(rng, MAP, "sum", (32, 16, 3))]
    return layers


@pytest.mark.parametrize(
    ("rows", "upsampled", "words", "stored"),
    [
        (32, False, 6000, set()),
        (32, False, 4300, {"skip"}),
        (32, True, 3000, {"skip", "sum"}),
        (40, True, 4300, {"skip", "refined"}),  # strips of five rows do not begin with a row of what is doubled
        (32, False, 1500, {"skip", "sum", "refined"}),  # strips would be too low
    ],
)
def test_an_addition_takes_the_strips_of_the_convolution_before(
    rows: int, upsampled: bool, words: int, stored: set[str]
) -> None:
    rng = np.random.default_rng(3)
    compiled = check_net((rows, 32), residual(rows, upsampled=upsampled), rng, activation_words=words)
    pairs = zip(compiled.instructions, compiled.owners, strict=False)
    stores = {owner.name for item, owner in pairs if isinstance(item, StoreTile) and item.segment == Segment.SCRATCH}
    assert stores == stored
