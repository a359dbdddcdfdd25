"""Damaged bytes for the decoders that meet them: each gives its own error and nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from board.overlay import isa
from board.overlay.errors import ProgramError
from board.pictures import decode_pixels
from board.records.outbox import Item, Outbox, part_of
from board.seams import LastPart
from board.sinks.delivery import mark_late
from protocol.errors import InputError, MessageError, SinkError
from protocol.keys import load_public
from protocol.messages import Verdict, decode_verdict, encode_verdict
from protocol.pictures.reader import read_picture
from protocol.tap import TapPart, decode_tap, encode_tap
from tests.examples import VERDICT

SHAPE = (24, 32)
PIXELS = np.random.default_rng(1).integers(0, 256, (*SHAPE, 3), np.uint8)
JPEG = cv2.imencode(".jpg", PIXELS)[1].tobytes()
PNG = cv2.imencode(".png", PIXELS)[1].tobytes()
TAP = encode_tap(TapPart(3, VERDICT, PIXELS, np.zeros((8, 8), np.int8), 0.5))
PROGRAM = isa.encode_program([isa.LoadTile(rows=3), isa.LoadWeights(words=37, base=5), isa.End()])


def damaged(data: bytes) -> st.SearchStrategy[bytes]:
    """Bytes overwritten, cut out, or inserted, at one to four places."""

    def damage(places: list[tuple[int, int, bytes]]) -> bytes:
        spoilt = data
        for at, gone, patch in places:
            spoilt = spoilt[:at] + patch + spoilt[at + gone :]
        return spoilt

    place = st.tuples(st.integers(0, len(data)), st.integers(0, 8), st.binary(max_size=8))
    return st.lists(place, min_size=1, max_size=4).map(damage)


def decoded(decode: Callable[[], object], refusal: type[Exception]) -> object:
    with contextlib.suppress(refusal):
        return decode()
    return None


@given(damaged(encode_verdict(VERDICT)))
def test_a_damaged_verdict_is_one_that_can_be_sent_on_or_refused(data: bytes) -> None:
    verdict = decoded(lambda: decode_verdict(data), MessageError)
    if isinstance(verdict, Verdict):
        assert decode_verdict(encode_verdict(verdict)) == verdict


@given(st.integers(0, len(TAP) - 1), st.data())
def test_a_damaged_tap_is_a_part_or_refused(which: int, data: st.DataObject) -> None:
    parts = [*TAP[:which], data.draw(damaged(bytes(TAP[which]))), *TAP[which + 1 :]]
    part = decoded(lambda: decode_tap(parts), MessageError)
    if isinstance(part, TapPart) and part.image is not None:
        assert part.image.nbytes == len(parts[3])


@given(damaged(JPEG))
def test_a_damaged_jpeg_is_a_picture_of_its_size_or_refused(data: bytes) -> None:
    image = decoded(lambda: decode_pixels("jpeg", SHAPE, data), MessageError)
    assert image is None or (isinstance(image, np.ndarray) and image.shape == (*SHAPE, 3))


@given(st.sampled_from([JPEG, PNG]).flatmap(damaged))
def test_a_damaged_file_is_a_picture_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("pictures") / "picture"
    path.write_bytes(data)
    image = decoded(lambda: read_picture(path), InputError)
    assert image is None or (isinstance(image, np.ndarray) and image.ndim == 3)


@pytest.mark.parametrize(
    ("form", "at", "sides"),
    [
        (".png", 16, (30_000).to_bytes(4, "big") * 2),
        (".jpg", JPEG.index(b"\xff\xc0") + 5, (30_000).to_bytes(2, "big") * 2),
        (".bmp", 18, (30_000).to_bytes(4, "little") * 2),
        (".bmp", 18, (30_000).to_bytes(4, "little") + (-30_000).to_bytes(4, "little", signed=True)),
    ],
)
def test_a_small_file_that_claims_to_be_a_huge_picture_is_not_decoded(
    tmp_path: Path, form: str, at: int, sides: bytes
) -> None:
    data = bytearray(cv2.imencode(form, PIXELS)[1].tobytes())
    (tmp_path / "picture").write_bytes(data)
    assert read_picture(tmp_path / "picture").shape == (*SHAPE, 3)
    data[at : at + len(sides)] = sides
    (tmp_path / "picture").write_bytes(data)
    with pytest.raises(InputError, match="picture is 30000 × 30000, at most 4096 are read"):
        read_picture(tmp_path / "picture")


@given(damaged(PROGRAM))
def test_a_damaged_program_is_itself_or_refused(data: bytes) -> None:
    """What is accepted encodes to the same bytes: no bit is silently dropped."""
    program = decoded(lambda: isa.decode_program(data), ProgramError)
    if isinstance(program, list):
        assert isa.encode_program(program) == data


@given(st.binary(max_size=60))
def test_any_bytes_are_a_key_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("keys") / "some.public"
    path.write_bytes(data)
    key = decoded(lambda: load_public(path), InputError)
    assert key is None or key == data.strip()


@given(damaged(encode_verdict(VERDICT)))
@example(b"[" * 5_000)
@example(b'{"a":' * 5_000)
@example(b"9" * 5000)
def test_damaged_bytes_of_an_outbox_are_still_sent(data: bytes) -> None:
    late = mark_late(data)
    assert late == data or b'"late":true' in late
    part_of(data)


@given(st.lists(st.tuples(st.integers(0, 20_000), st.binary(min_size=1, max_size=64)), min_size=1, max_size=6))
@example([(957, b"\x80")])  # SQLite quotes it
@example([(1003, b"$")])  # a column of another name
@example([(18, b"\x03")])  # SQLite opens it, and only reads it
def test_a_damaged_outbox_opens_and_stores(
    tmp_path_factory: pytest.TempPathFactory, patches: list[tuple[int, bytes]]
) -> None:
    path = tmp_path_factory.mktemp("outbox") / "outbox.sqlite"
    with contextlib.closing(Outbox(path)) as outbox:
        outbox.store([Item(encode_verdict(VERDICT), LastPart("run", number)) for number in range(10)])
    spoil(path, patches)
    with contextlib.closing(Outbox(path)) as outbox:
        following = [Item(b"next", LastPart("run", 10))]
        try:
            outbox.store(following)
        except SinkError:  # damage that opening did not find; the line tries again
            outbox.store(following)
        assert outbox.read_after(outbox.last_seq - 1, 1)[0].payload == b"next"


def spoil(path: Path, patches: list[tuple[int, bytes]]) -> None:
    content = bytearray(path.read_bytes())
    for place, patch in patches:
        at = place % len(content)
        content[at : at + len(patch)] = patch[: len(content) - at]
    path.write_bytes(content)
