"""The instruction Compute of the golden model: where it reads and writes, and what it makes of that."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from board.overlay import isa
from board.overlay.errors import ProgramError
from board.overlay.isa import Compute, Mode

Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

SHIFT_HIGH = 31
GATHERED_WORDS = 1 << 17  # read at a time, which bounds the memory that a large tile needs


@dataclass(frozen=True)
class Addresses:
    """Of one Compute. Columns are counted in pairs of pixels, so `read` may have one more than `written`."""

    read: Int64  # words (rows, cols made even, steps); where nothing exists, any
    exists: NDArray[np.bool_]  # of the same shape
    written: Int64  # quads (rows, cols, quads)

    @property
    def steps(self) -> int:
        return int(self.read.shape[2])


def find_addresses(compute: Compute) -> Addresses:
    """The section "Compute" of ARCHITECTURE.md."""
    cols_even = compute.cols + compute.cols % isa.PIXELS
    row = np.arange(compute.rows)[:, np.newaxis] * compute.stride_rows + compute.first_row
    row = row + np.arange(compute.kernel_rows)
    col = np.arange(cols_even)[:, np.newaxis] * compute.stride_cols + compute.first_col
    col = col + np.arange(compute.kernel_cols) * compute.step_cols
    row_exists, col_exists = (row >= 0) & (row < compute.source_rows), (col >= 0) & (col < compute.source_cols)
    places = [(compute.a, compute.a_row, compute.a_col, compute.a_double)]
    if compute.sources == 2:
        places.append((compute.b, compute.b_row, compute.b_col, compute.b_double))
    # axes: output row, output column, source, kernel row, kernel column, block
    shape = (compute.rows, cols_even, len(places), compute.kernel_rows, compute.kernel_cols, compute.blocks)
    words = np.zeros(shape, np.int64)
    for number, (base, row_words, col_words, double) in enumerate(places):
        rows = (row >> double)[:, np.newaxis, :, np.newaxis, np.newaxis] * row_words
        cols = (col >> double)[np.newaxis, :, np.newaxis, :, np.newaxis] * col_words
        words[:, :, number] = base + rows + cols + np.arange(compute.blocks)
    exists = (
        row_exists[:, np.newaxis, np.newaxis, :, np.newaxis, np.newaxis]
        & (col_exists[np.newaxis, :, np.newaxis, np.newaxis, :, np.newaxis])
    )
    read = (words % isa.ACTIVATION_WORDS).reshape(compute.rows, cols_even, -1)
    return Addresses(read, np.broadcast_to(exists, shape).reshape(read.shape), _written(compute))


def overwrites_itself(addresses: Addresses) -> bool:
    """Whether a pair of pixels reads a word that an earlier pair has written: its value would depend on timing."""
    rows, cols, _ = addresses.written.shape
    if not np.isin(addresses.written // 4, addresses.read[addresses.exists]).any():
        return False
    pairs = np.arange(rows)[:, np.newaxis] * cols + np.arange(addresses.read.shape[1]) // isa.PIXELS
    last_read = np.full(isa.ACTIVATION_WORDS, -1)
    first_write = np.full(isa.ACTIVATION_WORDS, isa.ACTIVATION_WORDS * cols + rows * cols)
    read_by = np.broadcast_to(pairs[:, :, np.newaxis], addresses.read.shape)[addresses.exists]
    np.maximum.at(last_read, addresses.read[addresses.exists], read_by)
    written_by = np.broadcast_to(pairs[:, :cols, np.newaxis], addresses.written.shape)
    np.minimum.at(first_write, addresses.written.ravel() // 4, written_by.ravel())
    return bool((first_write < last_read).any())


def sum_up(compute: Compute, addresses: Addresses, activations: Int8, weights: Int8, bias: Int32) -> Int32:
    """Sums int32 (rows, cols made even, 16) of 32 bits; lanes beyond those of the mode hold their bias."""
    rows, cols, steps = addresses.read.shape
    at_once = max(1, GATHERED_WORDS // (cols * steps))
    sums = [
        _sum_rows(
            compute.mode,
            _gather(compute.mode, addresses, slice(start, start + at_once), activations),
            weights.reshape(steps, isa.CHANNELS_OUT, isa.CHANNELS_IN),
            bias,
        )
        for start in range(0, rows, at_once)
    ]
    return np.concatenate(sums).astype(np.int32)  # int64 to int32 keeps the lower 32 bits


def requantize(sums: Int32, shift: Int64, *, relu: bool) -> Int8:
    """The section "Numerics". Raises: ProgramError for a shift beyond 31."""
    if shift.max() > SHIFT_HIGH:
        raise ProgramError(f"a shift of {shift.max()} is beyond 0..{SHIFT_HIGH}: compile again")
    wide = sums.astype(np.int64)
    whole = wide >> shift
    twice_rest = (wide - (whole << shift)) << 1
    one = np.int64(1) << shift
    whole += (twice_rest > one) | ((twice_rest == one) & (whole % 2 == 1))
    result: Int8 = np.clip(whole, 0 if relu else -128, 127).astype(np.int8)
    return result


def _written(compute: Compute) -> Int64:
    rows = np.arange(compute.rows)[:, np.newaxis, np.newaxis] * compute.out_row
    cols = np.arange(compute.cols)[:, np.newaxis] * compute.out_col
    quads: Int64 = (compute.out + 4 * (rows + cols) + np.arange(compute.out_quads)) % (4 * isa.ACTIVATION_WORDS)
    return quads


def _gather(mode: Mode, addresses: Addresses, rows: slice, activations: Int8) -> Int8:
    """int8 (rows, cols, steps, 16)."""
    outside = np.int8(-128 if mode == Mode.MAX else 0)
    exists = addresses.exists[rows][..., np.newaxis]
    values: Int8 = np.where(exists, activations[addresses.read[rows]], outside)
    return values


def _sum_rows(mode: Mode, values: Int8, weights: Int8, bias: Int32) -> Int64:
    if mode == Mode.MAX:
        largest: Int64 = values.max(axis=2).astype(np.int64)
        return largest
    start = bias.astype(np.int64)
    return _sum_dense(values, weights, start) if mode == Mode.DENSE else _sum_lanes(values, weights, start)


def _sum_dense(values: Int8, weights: Int8, start: Int64) -> Int64:
    rows, cols = values.shape[:2]
    sums: Int64 = np.broadcast_to(start, (rows, cols, isa.CHANNELS_IN)).copy()
    matrix = weights.transpose(0, 2, 1).reshape(-1, isa.CHANNELS_OUT)
    # subtle: float64 is exact here (products below 2^14, fewer than 2^20 of them) and multiplies matrices fast
    products = values.reshape(rows * cols, -1).astype(np.float64) @ matrix.astype(np.float64)
    sums[:, :, : isa.CHANNELS_OUT] += products.astype(np.int64).reshape(rows, cols, -1)
    return sums


def _sum_lanes(values: Int8, weights: Int8, start: Int64) -> Int64:
    u, v, t = _lane_weights(weights)
    left, right = values[:, 0::2].astype(np.int64), values[:, 1::2].astype(np.int64)
    sums = np.empty((*values.shape[:2], isa.CHANNELS_IN), np.int64)
    sums[:, 0::2] = start + (left * u + right * v).sum(axis=2)
    sums[:, 1::2] = start + (right * u + left * t).sum(axis=2)
    return sums


def _lane_weights(weights: Int8) -> tuple[Int64, Int64, Int64]:
    """U, V, T int64 (steps, 16). Raises: ProgramError if a byte is set that must be zero."""
    channel = np.arange(isa.CHANNELS_IN)
    odd = channel % 2
    others = odd[np.newaxis, :] != np.arange(6)[:, np.newaxis] % 2
    if weights[:, :6][:, others].any():
        raise ProgramError("a weight word of LANES has bytes set that must be zero: compile again")
    wide = weights.astype(np.int64)
    return wide[:, odd, channel], wide[:, 2 + odd, channel], wide[:, 4 + odd, channel]
