"""What a program does, in NumPy integers, written from ARCHITECTURE.md: hardware and compiler must agree with it.

The machine executes one instruction after the other in program order, which by the compiler's rule is one of the
orders that the hardware may take. A `Witness` sees every access and can tell whether the tokens allow another order
with another result.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from board.overlay import isa
from board.overlay.compute import Addresses, find_addresses, overwrites_itself, requantize, sum_up
from board.overlay.errors import Fault, OverlayError, ProgramError
from board.overlay.isa import Compute, End, Instruction, LoadImage, LoadTile, LoadWeights, StoreTile, Unit
from board.overlay.program import Program, pack_image, unpack_output

Bytes = NDArray[np.uint8]
Int8 = NDArray[np.int8]
Indices = NDArray[np.int64]

TOKENS_HIGH = 63
ACTIVATIONS, WEIGHTS, DDR = "activations", "weights", "ddr"  # addressed in words, words, and beats


class FaultError(OverlayError):
    """The overlay would stop with this code in its register ERROR."""

    def __init__(self, fault: Fault, instruction: int, reason: str) -> None:
        super().__init__(f"instruction {instruction}, fault {fault.name}: {reason}: compile again")
        self.fault = fault
        self.instruction = instruction


class Witness(Protocol):
    def begin(self, instruction: Instruction) -> None:
        """The accesses that follow belong to this instruction."""

    def access(self, memory: str, addresses: Indices, *, write: bool) -> None:
        """`memory` is "activations", "weights" or "ddr0".."ddr3"."""


def run_program(program: Program, image: Bytes, witness: Witness | None = None, garbage: int = 0) -> Int8:
    """Output int8 (channels, h', w') of a preprocessed image uint8 (h, w, 3).

    Raises: ProgramError or FaultError for a program that ARCHITECTURE.md does not allow.
    """
    sizes = program.segment_bytes()
    segments = [np.zeros(size, np.uint8) for size in sizes]
    segments[isa.Segment.MODEL][:] = np.frombuffer(program.model, np.uint8)
    segments[isa.Segment.INPUT][:] = np.frombuffer(pack_image(image), np.uint8)
    machine = Machine(segments, witness, garbage)
    machine.run(program.instructions())
    return unpack_output(program, segments[isa.Segment.OUTPUT].tobytes())


class Machine:
    """The memories and the token counters. `garbage` seeds what the memories hold before the program."""

    def __init__(self, segments: Sequence[Bytes], witness: Witness | None = None, garbage: int = 0) -> None:
        rng = np.random.default_rng(garbage)
        self.segments = segments
        self.activations = rng.integers(-128, 128, (isa.ACTIVATION_WORDS, isa.WORD_BYTES)).astype(np.int8)
        self.weights = rng.integers(-128, 128, (isa.WEIGHT_WORDS, isa.WEIGHT_WORD_BYTES)).astype(np.int8)
        self.tokens = {(giver, taker): 0 for giver in Unit for taker in Unit if giver != taker}
        self._witness = witness
        self._position = 0

    def run(self, program: Iterable[Instruction]) -> None:
        """From a start to `End`. Raises: ProgramError, FaultError."""
        self.tokens = dict.fromkeys(self.tokens, 0)
        for self._position, instruction in enumerate(program):
            if isinstance(instruction, End):
                self._end(instruction)
                return
            self.execute(instruction)
        raise self._fault(Fault.PROGRAM_END, "the program has no End")

    def execute(self, instruction: Instruction) -> None:
        if self._witness:
            self._witness.begin(instruction)
        self._take_tokens(instruction)
        if isinstance(instruction, LoadTile):
            self._load_tile(instruction)
        elif isinstance(instruction, LoadImage):
            self._load_image(instruction)
        elif isinstance(instruction, LoadWeights):
            self._load_weights(instruction)
        elif isinstance(instruction, StoreTile):
            self._store_tile(instruction)
        elif isinstance(instruction, Compute):
            self._compute(instruction)
        else:
            raise self._fault(Fault.OPCODE, f"{type(instruction).__name__} is no instruction of a unit")
        self._give_tokens(instruction)

    def _load_tile(self, load: LoadTile) -> None:
        data = self._read_rows(load, load.cols * load.words * isa.WORD_BYTES)
        words = _tile_words(load)
        self._saw(ACTIVATIONS, words, write=True)
        self.activations[words.ravel()] = data.view(np.int8).reshape(-1, isa.WORD_BYTES)

    def _store_tile(self, store: StoreTile) -> None:
        words = _tile_words(store)
        self._saw(ACTIVATIONS, words, write=False)
        data = self.activations[words].view(np.uint8).reshape(store.rows, -1)
        for row, content in enumerate(data):
            address = store.address + row * store.pitch
            self._check_segment(store.segment, address, content.size)
            self._saw_beats(store.segment, address, content.size, write=True)
            start = address * isa.BEAT_BYTES
            self.segments[store.segment][start : start + content.size] = content

    def _load_image(self, load: LoadImage) -> None:
        rows = self._read_rows(load, 3 * load.cols).reshape(load.rows, load.cols, 3)
        pixels = (rows ^ np.uint8(0x80)).view(np.int8)  # subtle: flipping the top bit subtracts 128
        taken = np.arange(load.words)[:, np.newaxis] * load.stride - load.lead + np.arange(isa.IMAGE_TAPS)
        inside = (taken >= 0) & (taken < load.cols)
        words = np.zeros((load.rows, load.words, isa.WORD_BYTES), np.int8)
        taps = np.where(inside[:, :, np.newaxis], pixels[:, np.where(inside, taken, 0)], np.int8(0))
        words[:, :, : 3 * isa.IMAGE_TAPS] = taps.reshape(load.rows, load.words, -1)
        places = load.base + np.add.outer(np.arange(load.rows) * load.base_row, np.arange(load.words) * load.base_col)
        places %= isa.ACTIVATION_WORDS
        self._saw(ACTIVATIONS, places, write=True)
        self.activations[places.ravel()] = words.reshape(-1, isa.WORD_BYTES)

    def _load_weights(self, load: LoadWeights) -> None:
        size = load.words * isa.WEIGHT_WORD_BYTES
        if load.format == isa.WeightFormat.INT4:
            packed = self._read_beats(load.segment, load.address, size // 2)
            nibbles = np.stack([packed & 15, packed >> 4], axis=1).reshape(-1)
            data = (nibbles ^ 8).astype(np.int8) - np.int8(8)
        else:
            data = self._read_beats(load.segment, load.address, size).view(np.int8)
        words = (load.base + np.arange(load.words)) % isa.WEIGHT_WORDS
        self._saw(WEIGHTS, words, write=True)
        self.weights[words] = data.reshape(load.words, -1)

    def _compute(self, compute: Compute) -> None:
        _check_compute(compute)
        addresses = find_addresses(compute)
        words = (compute.weights + np.arange(1 + addresses.steps)) % isa.WEIGHT_WORDS
        used = words[:1] if compute.mode == isa.Mode.MAX else words  # subtle: a maximum has no weights
        self._saw(WEIGHTS, used, write=False)
        self._saw(ACTIVATIONS, addresses.read[addresses.exists], write=False)
        self._saw(ACTIVATIONS, addresses.written // 4, write=True)
        if overwrites_itself(addresses):
            raise ProgramError("Compute reads a word that it has written: give the output another place")
        bias, shift = _parameters(self.weights[words[0]])
        sums = sum_up(compute, addresses, self.activations, self.weights[words[1:]], bias)
        result = requantize(sums, shift, relu=bool(compute.relu))
        quads = self.activations.reshape(-1, isa.QUAD_BYTES)
        self._write_quads(quads, compute, addresses, result)

    def _write_quads(self, quads: Int8, compute: Compute, addresses: Addresses, result: Int8) -> None:
        lanes = result[:, : compute.cols, : compute.out_quads * isa.QUAD_BYTES]
        quads[addresses.written.ravel()] = lanes.reshape(-1, isa.QUAD_BYTES)

    def _read_rows(self, load: LoadTile | LoadImage, size: int) -> Bytes:
        """uint8 (rows, size)."""
        rows = [self._read_beats(load.segment, load.address + row * load.pitch, size) for row in range(load.rows)]
        return np.stack(rows)

    def _read_beats(self, segment: int, address: int, size: int) -> Bytes:
        self._check_segment(segment, address, size)
        self._saw_beats(segment, address, size, write=False)
        start = address * isa.BEAT_BYTES
        return self.segments[segment][start : start + size]

    def _check_segment(self, segment: int, address: int, size: int) -> None:
        end = (address + -(-size // isa.BEAT_BYTES)) * isa.BEAT_BYTES
        if end > len(self.segments[segment]):
            raise self._fault(Fault.SEGMENT, f"byte {end} of segment {segment}, it has {len(self.segments[segment])}")

    def _take_tokens(self, instruction: Instruction) -> None:
        for giver in Unit:
            if instruction.wait >> giver & 1:
                pair = (giver, _unit(instruction))
                if self.tokens[pair] == 0:
                    raise self._fault(Fault.WATCHDOG, f"{pair[1].name} waits for a token that {giver.name} gives later")
                self.tokens[pair] -= 1

    def _give_tokens(self, instruction: Instruction) -> None:
        for taker in Unit:
            if instruction.signal >> taker & 1:
                pair = (_unit(instruction), taker)
                self.tokens[pair] += 1
                if self.tokens[pair] > TOKENS_HIGH:
                    raise self._fault(Fault.TOKENS, f"more than {TOKENS_HIGH} tokens wait for {taker.name}")

    def _end(self, end: End) -> None:
        if end.wait or end.signal:
            raise ProgramError("End belongs to no unit and exchanges no tokens: compile again")
        if any(self.tokens.values()):
            raise ProgramError("tokens are left at End: compile again")

    def _fault(self, fault: Fault, reason: str) -> FaultError:
        return FaultError(fault, self._position, reason)

    def _saw(self, memory: str, addresses: Indices, *, write: bool) -> None:
        if self._witness:
            self._witness.access(memory, addresses.ravel(), write=write)

    def _saw_beats(self, segment: int, address: int, size: int, *, write: bool) -> None:
        if self._witness:
            beats = np.arange(address, address + -(-size // isa.BEAT_BYTES))
            self._witness.access(f"{DDR}{int(segment)}", beats, write=write)


def _unit(instruction: Instruction) -> Unit:
    if instruction.UNIT is None:
        raise ProgramError(f"{type(instruction).__name__} belongs to no unit: compile again")
    return instruction.UNIT


def _tile_words(tile: LoadTile | StoreTile) -> Indices:
    """Activation words (rows, cols, words) in the order of DDR."""
    rows = np.arange(tile.rows)[:, np.newaxis, np.newaxis] * tile.base_row
    cols = np.arange(tile.cols)[:, np.newaxis] * tile.base_col
    words: Indices = (tile.base + rows + cols + np.arange(tile.words)) % isa.ACTIVATION_WORDS
    return words


def _parameters(word: Int8) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """(bias, shift) of the 16 lanes."""
    lanes = word.reshape(isa.CHANNELS_IN, isa.PARAMETER_BYTES)
    shift = lanes[:, 4].view(np.uint8).astype(np.int64)
    return np.ascontiguousarray(lanes[:, :4]).view("<i4")[:, 0], shift


def _check_compute(compute: Compute) -> None:
    if compute.mode == isa.Mode.DENSE and compute.out_quads * isa.QUAD_BYTES > isa.CHANNELS_OUT:
        raise ProgramError(
            f"a dense Compute has {isa.CHANNELS_OUT} lanes, not {compute.out_quads} quads: compile again"
        )
