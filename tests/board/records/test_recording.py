"""What the recorder keeps, a replay gives back bit for bit; a damaged file is refused and never misread."""

from __future__ import annotations

import contextlib
import shutil
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from board.records.recording import MAGIC, MAX_BODY_BYTES, Record, encode_record, read_recording
from board.sinks.capture import CaptureSink
from board.sinks.recorder import RecorderSettings, RecorderSink
from protocol.commands import Capture
from protocol.errors import InputError, MessageError
from protocol.messages import Decision, Frame, Location, Trigger, Verdict

WITHIN_S = 5.0
MIB = 1 << 20


def picture(height: int, width: int, seed: int = 0) -> Frame:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    trigger = Trigger("run", seed, 123456789 + seed, "clock")
    return Frame(trigger, image, readings={"die_c": 51.5}, location=Location(3, 1.5, -2.0))


def lost(part_id: int) -> Frame:
    return Frame(Trigger("run", part_id, 0, ""), None, "frame lost")


def check_same(record: Record, frame: Frame, verdict: Verdict) -> None:
    assert record.verdict == verdict
    assert (record.frame.trigger, record.frame.fault) == (frame.trigger, frame.fault)
    assert (record.frame.readings, record.frame.location) == (frame.readings, frame.location)
    if frame.image is None:
        assert record.frame.image is None
    else:
        assert record.frame.image is not None
        assert np.array_equal(record.frame.image, frame.image)


def write(path: Path, *records: bytes) -> Path:
    path.write_bytes(MAGIC + b"".join(records))
    return path


def test_frames_and_verdicts_come_back_bit_for_bit(tmp_path: Path, verdict: Verdict) -> None:
    frames = [picture(4, 6, 1), lost(2), picture(9, 2, 3)]
    verdicts = [replace(verdict, part_id=frame.trigger.part_id) for frame in frames]
    path = write(tmp_path / "a.beltrec", *map(encode_record, frames, verdicts))
    for record, frame, one in zip(read_recording(path), frames, verdicts, strict=True):
        check_same(record, frame, one)


def test_a_picture_that_is_not_contiguous_is_recorded_as_it_looks(tmp_path: Path, verdict: Verdict) -> None:
    frame = picture(4, 6)
    assert frame.image is not None
    turned = Frame(frame.trigger, frame.image[::-1, ::2])
    (record,) = read_recording(write(tmp_path / "a.beltrec", encode_record(turned, verdict)))
    check_same(record, turned, verdict)


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 100, -1])
def test_a_torn_last_record_is_left_out(tmp_path: Path, verdict: Verdict, kept: int) -> None:
    whole = encode_record(picture(4, 6), verdict)
    path = write(tmp_path / "a.beltrec", whole, whole[:kept])
    assert len(list(read_recording(path))) == 1


def test_a_flipped_byte_is_never_read_as_a_record(tmp_path: Path, verdict: Verdict) -> None:
    frame = picture(3, 4)
    whole = encode_record(frame, verdict)
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 0x10
        path = write(tmp_path / "a.beltrec", whole, bytes(damaged), whole)
        records: list[Record] = []
        with contextlib.suppress(InputError):
            records.extend(read_recording(path))
        assert len(records) == 1, at
        check_same(records[0], frame, verdict)


def test_a_damaged_body_says_what_to_do(tmp_path: Path, verdict: Verdict) -> None:
    whole = bytearray(encode_record(picture(3, 4), verdict))
    whole[-1] ^= 1
    path = write(tmp_path / "a.beltrec", bytes(whole))
    with pytest.raises(InputError, match=r"a\.beltrec: damaged record \(checksum\): delete the file or cut it there"):
        list(read_recording(path))


@pytest.mark.parametrize("content", [b"", b"BELTREC2", b"picture", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_recording_says_what_to_do(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.beltrec"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not a recording of this version: record again"):
        list(read_recording(path))


def test_a_record_that_claims_to_be_huge_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.beltrec", struct.pack("<II", MAX_BODY_BYTES + 1, 0))
    with pytest.raises(InputError, match="damaged record of"):
        list(read_recording(path))


HEADER = b'{"trigger":{"run":"r","part_id":0,"t_ns":0,"clock":""},"shape":[%d,%d]}'


@pytest.mark.parametrize(("height", "width"), [(1, 2), (-1, -1), (5000, 1), (2**40, 2**40), (0, 7)])
def test_a_header_that_lies_about_its_picture_is_refused(
    tmp_path: Path, verdict: Verdict, height: int, width: int
) -> None:
    record = encode_record(picture(1, 1), verdict)[8:]
    json_at = 4 + struct.unpack_from("<I", record)[0]
    header = HEADER % (height, width)
    body = struct.pack("<I", len(header)) + header + record[json_at:]
    path = write(tmp_path / "a.beltrec", struct.pack("<II", len(body), zlib.crc32(body)) + body)
    with pytest.raises(InputError, match="damaged record"):
        list(read_recording(path))


LENGTHS = st.integers(0, 40) | st.integers(0, 2**32 - 1)


@given(st.binary(max_size=60), LENGTHS, LENGTHS)
def test_any_body_with_a_right_checksum_is_refused(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes, first: int, second: int
) -> None:
    body = struct.pack("<I", first) + tail[:20] + struct.pack("<I", second) + tail[20:]
    path = tmp_path_factory.getbasetemp() / "fuzz.beltrec"
    write(path, struct.pack("<II", len(body), zlib.crc32(body)) + body)
    with pytest.raises(InputError):
        list(read_recording(path))


@given(st.binary(max_size=100))
def test_any_bytes_are_refused_or_empty(tmp_path_factory: pytest.TempPathFactory, tail: bytes) -> None:
    path = write(tmp_path_factory.getbasetemp() / "fuzz.beltrec", tail)
    with contextlib.suppress(InputError):
        assert list(read_recording(path)) == []


# ---- the recorder


def read_all(folder: Path) -> list[Record]:
    return [record for path in sorted(folder.glob("*.beltrec")) for record in read_recording(path)]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def publish_all(recorder: RecorderSink, frames: list[Frame], verdict: Verdict) -> None:
    for frame in frames:
        recorder.publish(frame, replace(verdict, part_id=frame.trigger.part_id), None)
    recorder.close()


def test_everything_is_kept_in_order(tmp_path: Path, verdict: Verdict) -> None:
    frames = [picture(8, 8, 0), lost(1), picture(8, 8, 2)]
    publish_all(RecorderSink(RecorderSettings("everything", tmp_path / "new" / "folder")), frames, verdict)
    for record, frame in zip(read_all(tmp_path / "new" / "folder"), frames, strict=True):
        check_same(record, frame, replace(verdict, part_id=frame.trigger.part_id))


def test_rejected_keeps_all_but_the_good(tmp_path: Path, verdict: Verdict) -> None:
    recorder = RecorderSink(RecorderSettings("rejected", tmp_path))
    decisions: tuple[Decision, ...] = ("OK", "REJECT", "UNKNOWN", "OK")
    for part_id, decision in enumerate(decisions):
        recorder.publish(picture(2, 2, part_id), replace(verdict, decision=decision, part_id=part_id), None)
    recorder.close()
    assert [record.verdict.part_id for record in read_all(tmp_path)] == [1, 2]


def test_files_rotate_and_the_oldest_go_first(tmp_path: Path, verdict: Verdict) -> None:
    settings = RecorderSettings("everything", tmp_path, max_bytes=2 * MIB, file_bytes=MIB, queue_parts=100)
    publish_all(RecorderSink(settings), [picture(256, 512, part_id) for part_id in range(14)], verdict)
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == 2
    assert max(sizes) <= MIB
    assert sum(sizes) <= 2 * MIB
    assert [record.verdict.part_id for record in read_all(tmp_path)] == [10, 11, 12, 13]


def test_a_slow_disk_costs_recordings_and_not_time(tmp_path: Path, verdict: Verdict) -> None:
    recorder = RecorderSink(RecorderSettings("everything", tmp_path, queue_parts=1))
    frame, count = picture(1024, 1024), 30
    started_s = time.monotonic()
    for _ in range(count):
        recorder.publish(frame, verdict, None)
    assert time.monotonic() - started_s < 1
    recorder.close()
    assert recorder.dropped > 0
    assert len(read_all(tmp_path)) == count - recorder.dropped


def test_a_folder_that_vanishes_costs_recordings_and_not_the_line(tmp_path: Path, verdict: Verdict) -> None:
    settings = RecorderSettings("everything", tmp_path / "card", max_bytes=2 * MIB, file_bytes=MIB, queue_parts=4)
    recorder = RecorderSink(settings)
    shutil.rmtree(tmp_path / "card")
    for part_id in range(20):
        recorder.publish(picture(512, 512, part_id), verdict, None)
    wait_until(lambda: recorder.dropped == 19)  # the first went into the file that was open
    (tmp_path / "card").mkdir()
    publish_all(recorder, [picture(512, 512, 20)], verdict)
    assert [record.frame.trigger.part_id for record in read_all(tmp_path / "card")][-1] == 20


def test_a_folder_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot record in .*: correct \[recorder\] folder"):
        RecorderSink(RecorderSettings("everything", tmp_path / "file" / "folder"))


def test_recordings_leave_the_disk_its_spare_bytes(tmp_path: Path, verdict: Verdict) -> None:
    """Counted, not written: outbox and log need the room, the line goes on."""
    free = iter([10 * MIB, 10 * MIB, MIB, MIB, 10 * MIB])
    settings = RecorderSettings("everything", tmp_path, spare_bytes=2 * MIB)
    recorder = RecorderSink(settings, free=lambda _: next(free))
    publish_all(recorder, [picture(64, 64, part_id) for part_id in range(5)], verdict)
    assert recorder.dropped == 2
    assert [record.frame.trigger.part_id for record in read_all(tmp_path)] == [0, 1, 4]


def test_captures_share_one_budget(tmp_path: Path, verdict: Verdict) -> None:
    captures = CaptureSink(RecorderSettings(folder=tmp_path, max_bytes=4 * MIB, file_bytes=MIB, queue_parts=100))
    captures.begin(Capture("1", "2026-01-01T00:00:30Z", 8))
    for part_id in range(8):
        captures.publish(picture(256, 512, part_id), replace(verdict, decision="OK"), None)
    wait_until(lambda: sum(path.stat().st_size for path in tmp_path.rglob("*.beltrec")) > 3 * MIB - 1000)
    with pytest.raises(MessageError, match=r"captures take . MiB: remove some from .*, or raise"):
        captures.begin(Capture("2", "2026-01-01T00:00:30Z", 8))
