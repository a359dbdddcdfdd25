"""Frames from pictures, recordings and videos: in order, bit for bit, at the given rate, and then the end."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from board.records.recording import MAGIC, encode_record
from board.seams import EndOfStream
from board.sources.replay import ReplaySettings, ReplaySource
from protocol.errors import InputError
from protocol.manifest import Preprocess
from protocol.messages import Frame, Trigger, Verdict, clock_id
from protocol.pictures.files import MAX_PICTURE_BYTES
from protocol.pictures.reader import read_picture

FITTING = Preprocess((8, 12), (0, 0, 8, 12), (4, 4))


def noise(seed: int, shape: tuple[int, int] = (8, 12)) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)


def write_picture(path: Path, image: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[:, :, ::-1])


def read_to_end(source: ReplaySource) -> list[Frame]:
    frames = []
    with pytest.raises(EndOfStream):  # noqa: PT012 - the reading ends so
        while True:
            frame = source.read(1)
            assert frame is not None
            frames.append(frame)
    source.close()
    return frames


def replay(path: Path, expected: Preprocess | None = None) -> list[Frame]:
    return read_to_end(ReplaySource(ReplaySettings(path), expected))


def test_pictures_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name, seed in (("b/1.png", 2), ("a.png", 1), ("c.BMP", 3)):
        write_picture(tmp_path / name, noise(seed))
    (tmp_path / "notes.txt").write_text("no picture")
    frames = replay(tmp_path, FITTING)
    assert [frame.trigger.part_id for frame in frames] == [0, 1, 2]
    assert len({frame.trigger.run for frame in frames}) == 1
    for frame, seed in zip(frames, (1, 2, 3), strict=True):
        assert frame.image is not None
        assert np.array_equal(frame.image, noise(seed))


def test_triggers_are_of_now_and_here(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", noise(1))
    source = ReplaySource(ReplaySettings(tmp_path), None)
    before_ns = time.monotonic_ns()
    frame = source.read(1)
    assert frame is not None
    assert before_ns <= frame.trigger.t_ns <= time.monotonic_ns()
    assert frame.trigger.clock == clock_id()


def test_a_recording_comes_back_bit_for_bit(tmp_path: Path, verdict: Verdict) -> None:
    recorded = [
        Frame(Trigger("then", 5, 10, "there"), noise(1), readings={"die_c": 50.0}),
        Frame(Trigger("then", 6, 20, "there"), None, "frame lost"),
        Frame(Trigger("then", 7, 30, "there"), noise(2)),
    ]
    body = b"".join(encode_record(frame, verdict) for frame in recorded)
    (tmp_path / "a.beltrec").write_bytes(MAGIC + body)
    for path in (tmp_path, tmp_path / "a.beltrec"):
        frames = replay(path, FITTING)
        assert [(f.trigger.run, f.trigger.part_id, f.fault) for f in frames] == [
            ("then", 5, ""),
            ("then", 6, "frame lost"),
            ("then", 7, ""),
        ]
        assert frames[0].readings == {"die_c": 50.0}
        for frame, original in zip(frames, recorded, strict=True):
            assert (frame.image is None) == (original.image is None)
            if frame.image is not None and original.image is not None:
                assert np.array_equal(frame.image, original.image)


def test_a_video_comes_frame_by_frame(tmp_path: Path) -> None:
    path = tmp_path / "belt.avi"
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for level in (20, 120, 220):
        video.write(np.full((48, 64, 3), (level, 0, 0), np.uint8))  # blue, as OpenCV orders it
    video.release()
    frames = replay(path)
    assert len(frames) == 3
    for frame, level in zip(frames, (20, 120, 220), strict=True):
        assert frame.image is not None
        assert np.abs(frame.image.astype(int) - (0, 0, level)).max() < 12


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 50, b"\xff\xd8\xff"])
def test_a_corrupt_picture_is_a_part_with_a_fault(tmp_path: Path, content: bytes) -> None:
    write_picture(tmp_path / "a.png", noise(1))
    (tmp_path / "b.png").write_bytes(content)
    write_picture(tmp_path / "c.png", noise(3))
    frames = replay(tmp_path, FITTING)
    assert [frame.image is None for frame in frames] == [False, True, False]
    assert frames[1].fault.startswith("corrupt frame: ")


def test_a_first_picture_of_another_size_is_refused(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", noise(1, (8, 13)))
    with pytest.raises(InputError, match="frame is 13x8 pixels, the model expects 12x8 pixels"):
        ReplaySource(ReplaySettings(tmp_path), FITTING)


def test_nothing_to_replay_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no pictures or recordings in .*: correct \[replay\] path"):
        ReplaySource(ReplaySettings(tmp_path), None)
    with pytest.raises(InputError, match=r"nothing to replay at .*none: correct \[replay\] path"):
        ReplaySource(ReplaySettings(tmp_path / "none"), None)


def test_a_file_that_is_no_video_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "belt.avi").write_bytes(b"no video")
    with pytest.raises(InputError, match=r"is no folder, recording or video that OpenCV reads"):
        ReplaySource(ReplaySettings(tmp_path / "belt.avi"), None)


def test_a_rate_is_kept_and_reading_does_not_wait_longer_than_it_may(tmp_path: Path) -> None:
    for number in range(4):
        write_picture(tmp_path / f"{number}.png", noise(number))
    source = ReplaySource(ReplaySettings(tmp_path, rate_hz=20), None)
    started_s = time.monotonic()
    assert source.read(1) is not None
    assert source.read(0.005) is None
    assert len(read_to_end(source)) == 3
    assert 0.15 <= time.monotonic() - started_s < 2


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(MAX_PICTURE_BYTES + 1)  # a hole: takes no room on the disk
    with pytest.raises(InputError, match="use a smaller picture"):
        read_picture(tmp_path / "a.png")
