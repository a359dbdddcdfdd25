"""Captures are read from the disk, picture by picture, whoever and however many ask for them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from starlette.requests import Request
from starlette.types import Message

from board.records.recording import MAGIC, encode_record
from host.dashboard.captures import Captures
from host.dashboard.while_there import WhileThere
from protocol.errors import InputError
from protocol.messages import Frame, Trigger
from tests.examples import VERDICT

PICTURES = 40


def record(number: int) -> bytes:
    image = np.full((48, 64, 3), number, np.uint8)
    return encode_record(
        Frame(Trigger("run", number, 0, "clock"), image), replace(VERDICT, part_id=number, score=number)
    )


def write(folder: Path, name: str) -> Path:
    (folder / name).mkdir(parents=True)
    path = folder / name / "1.beltrec"
    path.write_bytes(MAGIC + b"".join(map(record, range(PICTURES))))
    return path


def level(jpeg: bytes) -> int:
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return int(picture[0, 0, 0])


def test_many_readers_of_two_captures_have_each_indexed_once(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path, name)
    captures, looks = Captures(tmp_path), list[bool]()

    def is_wanted() -> bool:
        looks.append(True)
        return True

    with ThreadPoolExecutor(16) as readers:
        shown = list(readers.map(lambda number: captures.open(("one", "two")[number % 2], is_wanted), range(45)))
    assert {len(pictures) for pictures in shown} == {PICTURES}
    assert [one.number for one in shown[0][:3]] == [39, 38, 37], "the strangest first"
    assert len(looks) == 2 * PICTURES


def test_a_picture_is_that_of_its_record(tmp_path: Path) -> None:
    write(tmp_path, "one")
    captures = Captures(tmp_path)
    for number in (0, 17, 39, 17):
        assert level(captures.jpeg("one", number)) == number
    with pytest.raises(InputError, match="no such picture"):
        captures.jpeg("one", PICTURES)


def test_a_capture_that_grows_or_is_torn_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path, captures = write(tmp_path, "one"), Captures(tmp_path)
    assert len(captures.open("one")) == PICTURES
    path.write_bytes(path.read_bytes() + record(PICTURES) + record(41)[:-1])
    assert len(captures.open("one")) == PICTURES + 1
    assert level(captures.jpeg("one", PICTURES)) == PICTURES


def test_a_damaged_picture_is_refused_and_the_others_are_shown(tmp_path: Path) -> None:
    path, captures = write(tmp_path, "one"), Captures(tmp_path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="checksum"):
        captures.jpeg("one", PICTURES - 1)
    assert level(captures.jpeg("one", 0)) == 0
    with pytest.raises(InputError, match="checksum"):
        captures.keep("one", [])


def test_what_nobody_wants_any_more_ends(tmp_path: Path) -> None:
    write(tmp_path, "one")
    wanted = iter([True] * 3)
    with pytest.raises(InputError, match="nobody waits"):
        Captures(tmp_path).open("one", lambda: next(wanted, False))


# ---- whoever asks may leave


def request_of(is_there: Callable[[], bool]) -> Request:
    async def receive() -> Message:
        while is_there():
            await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}

    return Request({"type": "http"}, receive)


def test_work_is_told_when_its_reader_has_left_and_others_wait_for_their_turn() -> None:
    left, begun = threading.Event(), list[str]()

    def work(is_wanted: Callable[[], bool]) -> str:
        begun.append("work")
        deadline_s = time.monotonic() + 30.0
        while is_wanted() and time.monotonic() < deadline_s:
            left.set()
            time.sleep(0.005)
        return "ended" if not is_wanted() else "did not hear of it"

    async def both() -> list[str | BaseException]:
        turns = WhileThere(1)
        leaver = request_of(lambda: not left.is_set())
        return await asyncio.gather(*(turns.do(leaver, work) for _ in range(3)), return_exceptions=True)

    ended, *waited = asyncio.run(both())
    assert ended == "ended"
    assert len(waited) == 2
    assert all(isinstance(one, InputError) for one in waited), "who had left before his turn came costs nothing"
    assert begun == ["work"]
