"""JPEG frames that are whole: to a decoder what is missing of one is grey, and it tells nobody.

A picture is decoded with a tail behind its last block, then with another tail. A whole one never comes to read its
tail; one that is cut anywhere does, and the two differ. The same holds for each of the intervals between restart
markers (ITU T.81, E.2.4). Which decoder, and of which version, does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from protocol.errors import MessageError

# JPEG markers that start a frame and carry its size: SOF0..SOF15 without DHT, JPG and DAC (ITU T.81, table B.1)
_SIZE_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL = (0xC0, 0xC1)  # Huffman, one block after the other
_RESTARTS = range(0xD0, 0xD8)
_START_OF_SCAN, _END_OF_IMAGE, _RESTART_INTERVAL = 0xDA, 0xD9, 0xDD
# Markers that a length follows and that may stand before it: all but RST0..RST7, SOI, EOI and SOS
_SEGMENT_MARKERS = frozenset(range(0xC0, 0xFF)) - frozenset(range(0xD0, 0xDB))
_MARKER = re.compile(rb"\xff+[\x01-\xfe]")  # between entropy-coded bytes, where 0xFF itself is FF 00
BLOCK_PX = 8
MAX_SIDE_PX = 65_500  # of libjpeg
MAX_INTERVALS = 1024  # each costs two decodings of its own
# Random, so that no table of codes makes blocks without content of both; more than a decoder reads ahead
_TAILS = tuple(np.random.default_rng(seed).integers(0, 255, 256, np.uint8).tobytes() for seed in (1, 2))

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Scan:
    head: bytes  # all up to the entropy-coded bytes
    size_at: int  # of the height in `head`
    size_px: tuple[int, int]  # (height, width)
    unit_px: tuple[int, int]  # of an MCU
    restart_every: int  # MCUs; all of them where there are no restart markers
    intervals: list[bytes]  # entropy-coded bytes, without markers

    @property
    def units(self) -> tuple[int, int]:
        """MCUs down and across."""
        return -(-self.size_px[0] // self.unit_px[0]), -(-self.size_px[1] // self.unit_px[1])


def jpeg_size(data: bytes | memoryview) -> tuple[int, int] | None:
    """(height, width) from a JPEG's frame header, None if there is none."""
    for marker, at in _segments(data):
        if marker in _SIZE_MARKERS and at + 9 <= len(data):
            return _number(data, at + 5), _number(data, at + 7)
    return None


def decode_jpeg(data: bytes) -> Picture:
    """(h, w, 3) BGR. Raises: MessageError when it is not whole, or not known to be so."""
    scan = _find_scan(data)
    entropy = b"".join(
        part + (bytes((0xFF, _RESTARTS[number % 8])) if number + 1 < len(scan.intervals) else b"")
        for number, part in enumerate(scan.intervals)
    )
    image = _decode(scan.head + entropy + _TAILS[0])
    # subtle: nothing but tails may end what is decoded here: of an end marker behind them a decoder complains on stderr
    if len(scan.intervals) == 1:
        _require_same(image, _decode(scan.head + entropy + _TAILS[1]))
    else:
        _check_intervals(scan)
    return image


def _check_intervals(scan: Scan) -> None:
    """Each is a picture of its own, of its MCUs alone. Raises: MessageError."""
    down, across = scan.units
    left = down * across
    for entropy in scan.intervals:
        head = _resize(scan, min(left, scan.restart_every), across)
        _require_same(*(_decode(head + entropy + tail) for tail in _TAILS))
        left -= scan.restart_every


def _resize(scan: Scan, units: int, across: int) -> bytes:
    """The head of a picture of so many MCUs: whole rows, or one row."""
    rows, columns = (units // across, across) if units % across == 0 else (1, units)
    height, width = rows * scan.unit_px[0], columns * scan.unit_px[1]
    if width > MAX_SIDE_PX:
        raise MessageError("JPEG has restart markers in places that cannot be checked: save it without them")
    sides = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return scan.head[: scan.size_at] + sides + scan.head[scan.size_at + 4 :]


def _find_scan(data: bytes) -> Scan:
    """Raises: MessageError if there is not exactly one scan that goes to its end."""
    frame_at, restart_every, scan_at = 0, 0, 0
    for marker, at in _segments(data):
        if marker in _SIZE_MARKERS:
            if marker not in _SEQUENTIAL:
                raise MessageError("JPEG is a progressive one, which cannot be checked: save it as a baseline JPEG")
            frame_at = at
        elif marker == _RESTART_INTERVAL:
            restart_every = _number(data, at + 4)
        elif marker == _START_OF_SCAN:
            scan_at = at
    body_at = scan_at + 2 + _number(data, scan_at + 2)
    if not frame_at or not scan_at or body_at > len(data):
        raise MessageError("JPEG ends before its picture")
    if data[scan_at + 4] != data[frame_at + 9]:
        raise MessageError("JPEG comes in several scans, which cannot be checked: save it as a baseline JPEG")
    size_px = (_number(data, frame_at + 5), _number(data, frame_at + 7))
    if not all(size_px):
        raise MessageError("JPEG does not tell its size")
    unit_px = _unit_px(data, frame_at)
    units = -(-size_px[0] // unit_px[0]) * -(-size_px[1] // unit_px[1])
    intervals = _split(data, body_at)
    restart_every = restart_every or units
    _require_intervals(len(intervals), units, restart_every)
    return Scan(data[:body_at], frame_at + 5, size_px, unit_px, restart_every, intervals)


def _require_intervals(count: int, units: int, restart_every: int) -> None:
    expected = -(-units // restart_every)
    if count != expected:
        raise MessageError(f"JPEG has {count - 1} restart markers, not {expected - 1}: part of it is lost")
    if count > MAX_INTERVALS:
        raise MessageError(f"JPEG has {count - 1} restart markers, at most {MAX_INTERVALS} are checked: use fewer")


def _split(data: bytes, at: int) -> list[bytes]:
    """The entropy-coded bytes between restart markers, up to the end marker. Raises: MessageError."""
    intervals = []
    for found in _MARKER.finditer(data, at):
        intervals.append(data[at : found.start()])
        at = found.end()
        marker = data[at - 1]
        if marker == _END_OF_IMAGE:
            return intervals
        if marker != _RESTARTS[(len(intervals) - 1) % 8]:
            raise MessageError(f"JPEG has marker {marker:02X} within its picture: part of it is lost")
    raise MessageError("JPEG ends before its end marker")


def _unit_px(data: bytes, frame_at: int) -> tuple[int, int]:
    """(height, width) of an MCU (ITU T.81, A.2). Raises: MessageError."""
    components = data[frame_at + 9]
    factors = data[frame_at + 11 : frame_at + 11 + 3 * components : 3]
    if len(factors) != components or not all(1 <= side <= 4 for factor in factors for side in divmod(factor, 16)):
        raise MessageError("JPEG has no components")
    if components == 1:
        return BLOCK_PX, BLOCK_PX
    return BLOCK_PX * max(factor % 16 for factor in factors), BLOCK_PX * max(factor // 16 for factor in factors)


def _segments(data: bytes | memoryview) -> Iterator[tuple[int, int]]:
    """Markers and where they stand, from the first to that of the scan."""
    at = 2
    while at + 4 <= len(data) and data[:2] == b"\xff\xd8" and data[at] == 0xFF:
        marker, length = data[at + 1], _number(data, at + 2)
        if marker == _START_OF_SCAN:
            yield marker, at
            return
        # subtle: past a marker without a length the decoder would find another frame header than this loop
        if marker not in _SEGMENT_MARKERS or length < 2:
            return
        yield marker, at
        at += 2 + length


def _number(data: bytes | memoryview, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big")


def _require_same(image: Picture, other: Picture) -> None:
    if not np.array_equal(image, other):
        raise MessageError("JPEG ends before its last block")


def _decode(data: bytes) -> Picture:
    """Raises: MessageError."""
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        raise MessageError("JPEG does not decode")
    return np.asarray(image, np.uint8)
