"""Single instructions by hand: expected values from plain loops over the sentences of ARCHITECTURE.md."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from board.overlay.errors import Fault, OverlayError, ProgramError
from board.overlay.golden import FaultError, Machine
from board.overlay.isa import (
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
)

SEGMENT_BYTES = 1 << 16


def make_machine(seed: int = 0) -> Machine:
    rng = np.random.default_rng(seed)
    return Machine([rng.integers(0, 256, SEGMENT_BYTES).astype(np.uint8) for _ in Segment], garbage=seed)


def set_parameters(machine: Machine, word: int, bias: list[int], shift: list[int]) -> None:
    for lane in range(16):
        content = bias[lane].to_bytes(4, "little", signed=True) + bytes([shift[lane]])
        machine.weights[word, 12 * lane : 12 * lane + 5] = np.frombuffer(content, np.int8)


def rounded(total: int, shift: int, relu: int) -> int:
    """Python rounds half to even; the sum is one of 32 bits."""
    total = (total + 2**31) % 2**32 - 2**31
    result = max(-128, min(127, round(Fraction(total, 1 << shift))))
    return max(result, 0) if relu else result


def pixel(machine: Machine, compute: Compute, place: tuple[int, int], source: str, block: int) -> list[int]:
    row, col = place
    base, base_row, base_col, double = (
        getattr(compute, name) for name in (source, f"{source}_row", f"{source}_col", f"{source}_double")
    )
    if not (0 <= row < compute.source_rows and 0 <= col < compute.source_cols):
        return [-128 if compute.mode == Mode.MAX else 0] * 16
    word = base + (row >> double) * base_row + (col >> double) * base_col + block
    return [int(value) for value in machine.activations[word % 16384]]


def expected_lanes(machine: Machine, compute: Compute, y: int, x: int) -> list[int]:
    """Of output pixel (y, x), by its definition."""
    parameters = machine.weights[compute.weights % 1024].tobytes()
    bias = [int.from_bytes(parameters[12 * n : 12 * n + 4], "little", signed=True) for n in range(16)]
    sums, step, even = list(bias), 0, x - x % 2
    if compute.mode == Mode.MAX:
        sums = [-128] * 16
    for source in "ab"[: compute.sources]:
        for i in range(compute.kernel_rows):
            for j in range(compute.kernel_cols):
                for block in range(compute.blocks):
                    row = y * compute.stride_rows + compute.first_row + i
                    left = even * compute.stride_cols + compute.first_col + j * compute.step_cols
                    places = [(row, left), (row, left + compute.stride_cols)]
                    pair = [pixel(machine, compute, place, source, block) for place in places]
                    weights = [int(w) for w in machine.weights[(compute.weights + 1 + step) % 1024]]
                    own, other = pair[x % 2], pair[1 - x % 2]
                    for c in range(16):
                        if compute.mode == Mode.DENSE and c < 12:
                            sums[c] += sum(own[i] * weights[16 * c + i] for i in range(16))
                        elif compute.mode == Mode.LANES:
                            side = 4 if x % 2 else 2
                            sums[c] += own[c] * weights[16 * (c % 2) + c] + other[c] * weights[16 * (side + c % 2) + c]
                        elif compute.mode == Mode.MAX:
                            sums[c] = max(sums[c], own[c])
                    step += 1
    return [rounded(sums[c], parameters[12 * c + 4], compute.relu) for c in range(16)]


def random_compute(rng: np.random.Generator, mode: Mode) -> Compute:
    blocks = int(rng.integers(1, 4))
    return Compute(
        mode=mode,
        relu=int(rng.integers(2)),
        weights=int(rng.integers(1024)),
        rows=int(rng.integers(1, 5)),
        cols=int(rng.integers(1, 6)),
        kernel_rows=int(rng.integers(1, 4)),
        kernel_cols=int(rng.integers(1, 4)),
        step_cols=int(rng.integers(1, 3)),
        blocks=blocks,
        stride_rows=int(rng.integers(1, 3)),
        stride_cols=int(rng.integers(1, 3)),
        first_row=int(rng.integers(-3, 3)),
        first_col=int(rng.integers(-3, 3)),
        source_rows=int(rng.integers(1, 9)),
        source_cols=int(rng.integers(1, 9)),
        sources=int(rng.integers(1, 3)),
        a=16384 - int(rng.integers(1, 100)),
        a_row=int(rng.integers(30, 60)),
        a_col=blocks,
        a_double=int(rng.integers(2)),
        b=int(rng.integers(4096)),
        b_row=int(rng.integers(30, 60)),
        b_col=blocks,
        b_double=int(rng.integers(2)),
        out=int(rng.integers(30000, 40000)),
        out_row=20,
        out_col=int(rng.integers(2, 4)),
        out_quads=int(rng.integers(1, 4 if mode == Mode.DENSE else 5)),
    )


@pytest.mark.parametrize("mode", list(Mode))
def test_compute_is_its_definition(mode: Mode) -> None:
    rng = np.random.default_rng(mode)
    for case in range(25):
        machine, compute = make_machine(case), random_compute(rng, mode)
        if mode == Mode.LANES:
            even = machine.weights.reshape(1024, 12, 16)[:, :6]
            even[:, 0::2, 1::2] = even[:, 1::2, 0::2] = 0
        bias = [int(n) for n in rng.integers(-9999, 9999, 16)]
        if case < 4:  # sums that leave 32 bits
            bias = [int(n) for n in rng.choice([-(2**31), 2**31 - 1], 16)]
        set_parameters(machine, compute.weights, bias, [int(n) for n in rng.integers(0, 32 if case < 4 else 12, 16)])
        before = machine.activations.copy()
        expected = {
            (y, x): expected_lanes(machine, compute, y, x) for y in range(compute.rows) for x in range(compute.cols)
        }
        machine.execute(compute)
        after, kept = machine.activations.reshape(-1), before.reshape(-1).copy()
        for (y, x), lanes in expected.items():
            first = 4 * (compute.out + 4 * (y * compute.out_row + x * compute.out_col))
            kept[first : first + 4 * compute.out_quads] = lanes[: 4 * compute.out_quads]
        assert np.array_equal(after, kept), compute


def test_an_image_row_becomes_words_of_five_pixels() -> None:
    rng = np.random.default_rng(1)
    for case in range(20):
        machine = make_machine(case)
        cols, words, stride, lead = (int(n) for n in (rng.integers(1, 20), rng.integers(1, 12), 1 + case % 2, case - 9))
        load = LoadImage(
            segment=Segment.INPUT, address=3, pitch=9, rows=2, cols=cols, words=words, stride=stride, lead=lead,
            base=16380, base_row=40, base_col=2,
        )  # fmt: skip
        machine.execute(load)
        data = machine.segments[Segment.INPUT]
        for row in range(2):
            for x in range(words):
                word = machine.activations[(16380 + row * 40 + x * 2) % 16384]
                assert word[15] == 0
                for t in range(5):
                    col = x * stride - lead + t
                    for colour in range(3):
                        there = int(data[(3 + row * 9) * 8 + 3 * col + colour]) - 128 if 0 <= col < cols else 0
                        assert word[3 * t + colour] == there, (load, row, x, t)


def test_tiles_travel_word_by_word() -> None:
    machine = make_machine()
    where = {"address": 5, "pitch": 17, "rows": 3, "cols": 4, "words": 2, "base": 16370, "base_row": 11, "base_col": 3}
    machine.execute(LoadTile(segment=Segment.SCRATCH, **where))
    machine.execute(StoreTile(segment=Segment.OUTPUT, **where))
    for row in range(3):
        for x in range(4):
            for word in range(2):
                start = (5 + row * 17) * 8 + (x * 2 + word) * 16
                content = machine.segments[Segment.SCRATCH][start : start + 16]
                there = machine.activations[(16370 + row * 11 + x * 3 + word) % 16384]
                assert there.tobytes() == content.tobytes()
                assert machine.segments[Segment.OUTPUT][start : start + 16].tobytes() == content.tobytes()


def test_weights_of_8_and_of_4_bits() -> None:
    machine = make_machine()
    content = machine.segments[Segment.MODEL]
    machine.execute(LoadWeights(address=7, words=2, base=1023))
    assert machine.weights[1023].tobytes() == content[56 : 56 + 192].tobytes()
    assert machine.weights[0].tobytes() == content[56 + 192 : 56 + 384].tobytes()
    machine.execute(LoadWeights(address=7, words=1, base=5, format=WeightFormat.INT4))
    nibbles = [nibble for byte in content[56 : 56 + 96] for nibble in (int(byte) & 15, int(byte) >> 4)]
    assert machine.weights[5].tolist() == [nibble - 16 * (nibble > 7) for nibble in nibbles]


@pytest.mark.parametrize(
    ("program", "fault"),
    [
        ([], Fault.PROGRAM_END),
        ([LoadTile()], Fault.PROGRAM_END),
        ([LoadTile(segment=Segment.INPUT, address=SEGMENT_BYTES // 8 - 1), End()], Fault.SEGMENT),
        ([LoadTile(rows=3, pitch=SEGMENT_BYTES // 16), End()], Fault.SEGMENT),
        ([LoadWeights(address=SEGMENT_BYTES // 8 - 23), End()], Fault.SEGMENT),
        ([StoreTile(address=1 << 28), End()], Fault.SEGMENT),
        ([LoadImage(cols=3, address=SEGMENT_BYTES // 8 - 1), End()], Fault.SEGMENT),
        ([Compute(wait=1), End()], Fault.WATCHDOG),
        ([*[LoadTile(signal=2)] * 64, End()], Fault.TOKENS),
        ([LoadTile(), Instruction()], Fault.OPCODE),
    ],
)
def test_faults(program: list[Instruction], fault: Fault) -> None:
    with pytest.raises(FaultError) as caught:
        make_machine().run(program)
    assert caught.value.fault == fault
    assert isinstance(caught.value, OverlayError)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ([LoadTile(signal=2), End()], "tokens are left"),
        ([End(wait=1)], "End belongs to no unit"),
        ([Compute(out_quads=4), End()], "a dense Compute has 12 lanes"),
        ([Compute(mode=Mode.LANES), End()], "must be zero"),
        (
            [Compute(a=50, cols=4, a_col=1, out=204, out_col=1, source_cols=4), End()],
            "reads a word that it has written",
        ),
    ],
)
def test_what_the_text_forbids(program: list[Instruction], reason: str) -> None:
    machine = make_machine()
    set_parameters(machine, 0, [0] * 16, [0] * 16)
    with pytest.raises(ProgramError, match=reason):
        machine.run(program)


def test_a_shift_beyond_31_is_refused() -> None:
    machine = make_machine()
    set_parameters(machine, 0, [0] * 16, [32] * 16)
    with pytest.raises(ProgramError, match="shift"):
        machine.execute(Compute(out=400))


def test_a_pixel_may_be_written_over_what_it_was_made_of() -> None:
    machine = make_machine()
    set_parameters(machine, 0, [0] * 16, [0] * 16)
    machine.execute(Compute(a=50, cols=4, a_col=1, out=200, out_col=1, source_cols=4))
