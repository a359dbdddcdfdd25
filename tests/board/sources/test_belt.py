"""Frames over a real socket: every part comes out once and in order, whatever is lost, corrupt or forged."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from board.seams import Ahead, LastPart
from board.sources.belt import FELL_BACK, BeltSettings, BeltSource
from board.sources.numbering import MAX_FILLED
from protocol.errors import InputError
from protocol.messages import Frame, Trigger, clock_id
from protocol.pictures.jpeg import jpeg_size
from protocol.sockets import open_socket
from protocol.wire import Buffer, EndOfRun, FrameHeader, FrameMessage, Motion, Passage, encode_message, encode_raw_frame

TIMEOUT_MS = 100.0
PATIENCE_S = 3.0
Seen = list[tuple[int, str]]  # part ids and faults


def grey(level: int, shape: tuple[int, int] = (6, 8)) -> NDArray[np.uint8]:
    return np.full((*shape, 3), level, np.uint8)


class Station:
    """A belt source and the socket of a belt that feeds it."""

    def __init__(
        self, endpoint: str, last: LastPart | None = None, ahead: Ahead | None = None, queue_frames: int = 1000
    ) -> None:
        settings = BeltSettings(endpoint, queue_frames=queue_frames, frame_timeout_ms=TIMEOUT_MS)
        self.source = BeltSource(settings, last, ahead)
        self._push = open_socket("PUSH", endpoint, bind=False, high_water_mark=0, linger_ms=0, timeout_ms=2000)

    def close(self) -> None:
        self._push.close(0)
        self.source.close()

    def send(self, parts: Sequence[Buffer]) -> None:
        self._push.send_multipart(parts)

    def trigger(self, part_id: int, run: str = "run", age_ms: float = 0, clock: str | None = None) -> Trigger:
        t_ns = time.monotonic_ns() - int(age_ms * 1e6)
        trigger = Trigger(run, part_id, t_ns, clock_id() if clock is None else clock)
        self.send(encode_message(trigger))
        return trigger

    def frame(self, trigger: Trigger, image: NDArray[np.uint8] | None = None) -> None:
        self.send(encode_raw_frame(trigger, grey(trigger.part_id % 256) if image is None else image, {}))

    def part(self, part_id: int, run: str = "run") -> None:
        self.frame(self.trigger(part_id, run))

    def jpeg(self, part_id: int, data: bytes, shape: tuple[int, int]) -> None:
        header = FrameHeader(self.trigger(part_id), shape, "jpeg")
        self.send(encode_message(FrameMessage(header, data)))

    def end(self, parts: int, run: str = "run") -> None:
        self.send(encode_message(EndOfRun(run, parts)))

    def read(self, count: int) -> list[Frame]:
        """The next frames; then, for a moment, no other."""
        frames = [frame for _ in range(count) if (frame := self.source.read(PATIENCE_S)) is not None]
        assert len(frames) == count
        assert self.source.read(0.02) is None
        return frames

    def seen(self, count: int) -> Seen:
        return [(frame.trigger.part_id, frame.fault) for frame in self.read(count)]


@pytest.fixture
def station(endpoint: str) -> Iterator[Station]:
    with contextlib.closing(Station(endpoint)) as opened:
        yield opened


def test_parts_come_in_order_with_their_pictures(station: Station) -> None:
    for part_id in range(5):
        station.part(part_id)
    frames = station.read(5)
    assert [frame.trigger.part_id for frame in frames] == [0, 1, 2, 3, 4]
    for part_id, frame in enumerate(frames):
        assert frame.image is not None
        assert np.array_equal(frame.image, grey(part_id))


def test_trigger_and_readings_travel_with_the_frame(station: Station) -> None:
    trigger = station.trigger(3)
    image = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    station.send(encode_raw_frame(trigger, image, {"die_c": 51.5}))
    (frame,) = station.read(1)
    assert (frame.trigger, frame.readings, frame.fault) == (trigger, {"die_c": 51.5}, "")
    assert frame.image is not None
    assert np.array_equal(frame.image, image)
    assert frame.image.flags.c_contiguous


def test_a_frame_whose_trigger_was_lost_is_a_part(station: Station) -> None:
    station.part(0)
    station.frame(Trigger("run", 1, time.monotonic_ns(), clock_id()))
    station.part(2)
    assert station.seen(3) == [(0, ""), (1, ""), (2, "")]


def test_a_frame_that_does_not_come_is_lost_after_the_timeout(station: Station) -> None:
    started_s = time.monotonic()
    station.trigger(0)
    assert station.seen(1) == [(0, "frame lost")]
    assert time.monotonic() - started_s >= TIMEOUT_MS / 1e3


def test_a_frame_that_comes_after_it_was_given_up_is_not_a_second_part(station: Station) -> None:
    trigger = station.trigger(0)
    assert station.seen(1) == [(0, "frame lost")]
    station.frame(trigger)
    station.part(1)
    assert station.seen(1) == [(1, "")]
    assert station.source.refused_messages == 1


def test_a_frame_from_before_its_trigger_is_no_picture_of_its_part(station: Station) -> None:
    trigger = station.trigger(0)
    station.frame(replace(trigger, t_ns=trigger.t_ns - 1_000_000))
    station.part(1)
    assert station.seen(2) == [(0, "stale frame: its stamp lies before its part's trigger"), (1, "")]


def test_the_next_frame_shows_that_one_was_lost(station: Station) -> None:
    station.trigger(0)
    station.part(1)
    assert station.seen(2) == [(0, "frame lost"), (1, "")]


def test_a_frame_that_waited_behind_a_slow_line_is_not_lost(station: Station) -> None:
    station.frame(station.trigger(0, age_ms=10 * TIMEOUT_MS))
    time.sleep(0.2)  # it is to have arrived; a socket does not tell
    assert station.seen(1) == [(0, "")]


def test_a_gap_in_the_count_is_lost_parts(station: Station) -> None:
    station.part(0)
    station.part(4)
    assert station.seen(5) == [(0, ""), (1, "frame lost"), (2, "frame lost"), (3, "frame lost"), (4, "")]


def test_after_a_restart_the_parts_that_passed_meanwhile_are_lost_parts(endpoint: str) -> None:
    with contextlib.closing(Station(endpoint, LastPart("run", 3))) as station:
        station.trigger(3, age_ms=1e4)
        station.part(6)
        assert station.seen(3) == [(4, "frame lost"), (5, "frame lost"), (6, "")]


def test_after_a_restart_the_end_of_the_run_tells_of_them_too(endpoint: str) -> None:
    with contextlib.closing(Station(endpoint, LastPart("run", 3))) as station:
        station.end(6)
        assert station.seen(2) == [(4, "frame lost"), (5, "frame lost")]


def test_after_a_restart_another_run_counts_from_anew(endpoint: str) -> None:
    with contextlib.closing(Station(endpoint, LastPart("old", 3))) as station:
        station.part(0)
        station.end(5, "old")
        assert station.seen(2) == [(0, ""), (4, "frame lost")]


def test_a_jump_beyond_reason_is_counted_and_said_but_no_flood_of_verdicts(station: Station) -> None:
    station.part(0)
    station.part(MAX_FILLED + 2)
    assert station.seen(2) == [(0, ""), (MAX_FILLED + 2, "")]
    counters = station.source.counters()
    assert (counters["part_gaps"], counters["parts_missing"]) == (1, MAX_FILLED + 1)
    complaint = station.source.complaint()
    assert complaint is not None
    assert complaint.reason.startswith("part numbers jumped, repeated or began again")


@pytest.mark.parametrize(
    ("numbers", "runs"),
    [
        ([1, 2, 3, 1, 2, 3], ["run"] * 3 + ["run#2"] * 3),
        ([65534, 65535, 0, 1], ["run"] * 2 + ["run#2"] * 2),
        ([3, 4, 2**40, 5, 6], ["run"] * 3 + ["run#2"] * 2),
        ([0, 1, 9000, 9001, 2, 3], ["run"] * 4 + ["run#2"] * 2),
        ([3, 3, 3, 4], ["run", "run#2", "run#3", "run#3"]),
        ([3, 2, 1], ["run", "run#2", "run#3"]),
    ],
    ids=["again", "wrapped", "one far off", "jump and back", "stuck", "backwards"],
)
def test_whatever_the_count_does_each_trigger_has_one_verdict(
    station: Station, numbers: list[int], runs: list[str]
) -> None:
    for number in numbers:
        station.part(number)
    frames = station.read(len(numbers))
    assert [(frame.trigger.run, frame.trigger.part_id) for frame in frames] == list(zip(runs, numbers, strict=True))
    assert all(frame.image is not None for frame in frames)
    assert station.source.complaint() is not None


def test_a_count_that_began_again_with_older_stamps_has_a_verdict_for_each_too(endpoint: str) -> None:
    """None of them OK: where such a part is, nobody knows, and the gate is closed for both places."""
    gate = Gate()
    with contextlib.closing(Station(endpoint, ahead=gate)) as station:
        for age_ms, number in enumerate((5, 6, 7, 0, 1, 2)):
            station.frame(station.trigger(number, age_ms=10.0 * age_ms))
        frames = station.read(6)
        assert [(frame.trigger.run, frame.trigger.part_id) for frame in frames] == [
            *(("run", number) for number in (5, 6, 7)),
            *(("run#2", number) for number in (0, 1, 2)),
        ]
        assert [frame.fault for frame in frames] == ["", *[FELL_BACK] * 5]
        assert gate.told == [("part", number) for number in (5, 6, 6, 7, 7, 0, 0, 1, 1, 2, 2)]
        assert station.source.complaint() is not None


@pytest.mark.parametrize(("clock", "faults"), [(clock_id(), ["", FELL_BACK, FELL_BACK]), ("", [""] * 3)])
def test_a_clock_that_stands_says_of_no_part_but_the_first_where_it_is(
    station: Station, clock: str, faults: list[str]
) -> None:
    """Where there is none, parts count from their arrival."""
    now_ns = time.monotonic_ns() if clock else 0
    for number in range(3):
        station.frame(Trigger("run", number, now_ns, clock))
    assert [frame.fault for frame in station.read(3)] == faults


def test_a_maker_without_a_clock_may_count_round(station: Station) -> None:
    numbers = [*range(256), *range(4)]
    for number in numbers:
        station.send(encode_message(Trigger("run", number, 0, "")))
    frames = station.read(len(numbers))
    runs = ["run"] * 256 + ["run#2"] * 4
    assert [(frame.trigger.run, frame.trigger.part_id) for frame in frames] == list(zip(runs, numbers, strict=True))


def test_a_trigger_that_was_overtaken_is_no_second_part(station: Station) -> None:
    first, second, third = (Trigger("run", number, time.monotonic_ns(), clock_id()) for number in range(3))
    for trigger in (first, third, second):
        station.send(encode_message(trigger))
    assert station.seen(3) == [(0, "frame lost"), (1, "frame lost"), (2, "frame lost")]
    assert station.source.counters()["refused_repeated"] == 1


def test_a_count_that_began_again_goes_on_after_a_restart(endpoint: str) -> None:
    with contextlib.closing(Station(endpoint, LastPart("run#2", 3))) as station:
        station.trigger(3, age_ms=1e4)
        station.part(5)
        frames = station.read(2)
        assert [(f.trigger.run, f.trigger.part_id, f.fault) for f in frames] == [
            ("run#2", 4, "frame lost"),
            ("run#2", 5, ""),
        ]


def test_interleaved_runs_do_not_end_each_other(station: Station) -> None:
    triggers = [station.trigger(number, run) for number in range(20) for run in ("a", "b")]
    for trigger in triggers:
        station.frame(trigger)
    frames = station.read(40)
    assert [(f.trigger.run, f.trigger.part_id, f.fault) for f in frames] == [(t.run, t.part_id, "") for t in triggers]
    assert station.source.complaint() is None


def test_the_count_may_begin_anywhere(station: Station) -> None:
    station.part(1000)
    assert station.seen(1) == [(1000, "")]


def test_a_part_that_is_told_again_is_no_second_one(station: Station) -> None:
    trigger = station.trigger(0)
    station.frame(trigger)
    station.frame(trigger)
    station.send(encode_message(trigger))
    station.part(1)
    assert station.seen(2) == [(0, ""), (1, "")]
    counters = station.source.counters()
    assert (counters["refused_late_frames"], counters["refused_repeated"], counters["refused_messages"]) == (1, 1, 2)
    assert station.source.complaint() is not None


def test_a_new_run_counts_from_anew_and_the_old_ones_part_is_still_waited_for(station: Station) -> None:
    station.part(0, "old")
    lost, late = station.trigger(1, "old"), station.trigger(2, "old")
    station.part(0, "new")
    station.frame(late)
    station.end(5, "old")
    station.part(1, "new")
    frames = station.read(7)
    assert [(frame.trigger.run, frame.trigger.part_id, frame.fault) for frame in frames] == [
        ("old", 0, ""),
        ("new", 0, ""),
        ("old", lost.part_id, "frame lost"),
        ("old", late.part_id, ""),
        ("old", 3, "frame lost"),
        ("old", 4, "frame lost"),
        ("new", 1, ""),
    ]


def test_the_end_of_a_run_tells_of_parts_that_never_came(station: Station) -> None:
    station.part(0)
    station.trigger(1)
    station.end(4)
    assert station.seen(4) == [(0, ""), (1, "frame lost"), (2, "frame lost"), (3, "frame lost")]


def test_the_end_of_a_run_of_which_nothing_came(station: Station) -> None:
    station.end(2, "silent")
    assert station.seen(2) == [(0, "frame lost"), (1, "frame lost")]


def test_the_end_of_a_run_tells_of_parts_that_came_to_a_station_that_died_with_them(station: Station) -> None:
    station.part(2)
    station.end(3)
    station.end(3)
    assert station.seen(3) == [(2, ""), (0, "frame lost"), (1, "frame lost")]


def test_the_end_of_a_whole_run_adds_nothing(station: Station) -> None:
    station.part(0)
    station.end(1)
    station.end(1)
    station.end(0, "empty")
    assert station.seen(1) == [(0, "")]


class Gate:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []
        self.seen_ns = 0

    def expect(self, trigger: Trigger) -> None:
        self.told.append(("part", trigger.part_id))

    def seen_until(self, t_ns: int) -> None:
        self.seen_ns = t_ns

    def at_gate(self, t_ns: int) -> None:
        self.told.append(("passage", t_ns))

    def moved(self, position_um: int, t_ns: int) -> None:
        assert t_ns <= time.monotonic_ns()
        self.told.append(("motion", position_um))


def wait_until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.002)


def test_the_gate_hears_of_a_trigger_before_anybody_reads_its_picture(endpoint: str) -> None:
    gate = Gate()
    with contextlib.closing(Station(endpoint, ahead=gate)) as station:
        station.part(0)
        station.send(encode_message(Motion("run", 700, time.monotonic_ns(), clock_id())))
        passed = Passage("run", time.monotonic_ns(), clock_id())
        station.send(encode_message(passed))
        station.trigger(2)
        wait_until(lambda: len(gate.told) == 5)
        assert gate.told == [("part", 0), ("motion", 700), ("passage", passed.t_ns), ("part", 1), ("part", 2)]


def test_the_gate_knows_until_when_it_has_heard_of_all(endpoint: str) -> None:
    gate = Gate()
    with contextlib.closing(Station(endpoint, ahead=gate)):
        asked_ns = time.monotonic_ns()
        wait_until(lambda: gate.seen_ns > asked_ns)
        assert gate.seen_ns < time.monotonic_ns() - BeltSettings().transit_ms * 1e6 + 1e6


def test_while_the_belt_is_held_back_the_gate_is_not_told_that_it_knows_all(endpoint: str) -> None:
    gate = Gate()
    with contextlib.closing(Station(endpoint, ahead=gate, queue_frames=2)) as station:
        for number in range(4):
            station.part(number)
        wait_until(lambda: ("part", 1) in gate.told)
        time.sleep(0.05)  # whatever was on its way has come
        seen_ns = gate.seen_ns
        time.sleep(0.1)
        assert gate.seen_ns == seen_ns
        assert station.seen(4) == [(number, "") for number in range(4)]


def test_times_of_another_machine_are_replaced_by_the_arrival(station: Station) -> None:
    station.frame(station.trigger(0, age_ms=-1e9, clock="another machine"))
    (frame,) = station.read(1)
    assert frame.trigger.clock == clock_id()
    assert abs(time.monotonic_ns() - frame.trigger.t_ns) < PATIENCE_S * 1e9


def test_a_time_in_the_future_is_not_believed(station: Station) -> None:
    """A part that has yet to trigger would hold up all that follow, and the gate."""
    station.trigger(0, age_ms=-1e9)
    (frame,) = station.read(1)
    assert frame.fault == "frame lost"
    assert frame.trigger.t_ns <= time.monotonic_ns()


GARBAGE: list[list[bytes]] = [
    [b""],
    [b"hello"],
    [b"BS\1\1{}"],
    [b"BS\1\2{}", b"x"],
    [b"BS\1\3" + b'{"run":"","parts":1}'],
    [b"BS\1\3" + b'{"run":"run","parts":-1}'],
    [b"BS\1\3" + b'{"run":"run","parts":1' + b"0" * 400 + b"}"],
    [b"BS\1\1" + b"[" * 4000],
    [
        b"BS\1\1"
        + json.dumps(asdict(Trigger("run", 1, 0, ""))).encode().replace(b'"t_ns": 0', b'"t_ns": 1' + b"0" * 400)
    ],
    [b"a", b"b", b"c"],
    [b"x" * 100_000],
]


@pytest.mark.parametrize("parts", GARBAGE)
def test_garbage_is_counted_and_the_line_goes_on(station: Station, parts: list[bytes]) -> None:
    station.part(0)
    station.send(parts)
    station.part(1)
    assert station.seen(2) == [(0, ""), (1, "")]
    assert station.source.refused_messages == 1
    assert station.source.complaint() is not None


def test_what_cannot_be_read_may_have_been_a_part_and_closes_the_gate(endpoint: str) -> None:
    gate = Gate()
    with contextlib.closing(Station(endpoint, ahead=gate)) as station:
        beyond = encode_message(Trigger("run", 2**53, time.monotonic_ns(), clock_id()))
        station.send([bytes(part).replace(b"9007199254740992", b"9007199254740993") for part in beyond])
        wait_until(lambda: gate.told == [("part", 1)])
        assert station.source.complaint() is not None


@pytest.mark.parametrize("count", [0, 1, 6 * 8 * 3 - 1, 6 * 8 * 3 + 1])
def test_a_header_that_lies_about_its_pixels_is_a_corrupt_frame(station: Station, count: int) -> None:
    header = FrameHeader(station.trigger(0), (6, 8), "raw", {"die_c": 1.0})
    station.send(encode_message(FrameMessage(header, b"x" * count)))
    (frame,) = station.read(1)
    assert frame.image is None
    assert frame.fault.startswith("corrupt frame: ")
    assert frame.readings == {"die_c": 1.0}


# ---- JPEG


def encode_jpeg(image: NDArray[np.uint8]) -> bytes:
    ok, data = cv2.imencode(".jpg", image[:, :, ::-1])
    assert ok
    return data.tobytes()


def claim_size(jpeg: bytes, height: int, width: int) -> bytes:
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + jpeg[at + 4 :]


def hide_size(jpeg: bytes, seen: tuple[int, int]) -> bytes:
    """A marker without a length before the frame header: who skips by length reads another header, further on."""
    sides = b"".join(side.to_bytes(2, "big") for side in seen)
    decoy = b"\xff\xc0\x00\x11\x08" + sides + b"\x03" + bytes(9)
    body = jpeg[2:].replace(jpeg[2 : jpeg.index(b"\xff\xc0")], b"", 1)
    skipped = int.from_bytes(body[:2], "big")
    return jpeg[:2] + b"\xff\x01" + body + bytes(skipped - len(body)) + decoy


def test_a_jpeg_frame_is_decoded_to_rgb(station: Station) -> None:
    image = np.zeros((16, 24, 3), np.uint8)
    image[:, :, 0], image[:, 12:, 2] = 200, 100
    station.jpeg(0, encode_jpeg(image), (16, 24))
    (frame,) = station.read(1)
    assert frame.image is not None
    assert frame.image.shape == (16, 24, 3)
    assert np.abs(frame.image[2:14, 2:10].astype(int) - (200, 0, 0)).max() < 12
    assert frame.image.flags.c_contiguous
    assert frame.decode_ms > 0


JPEG = encode_jpeg(grey(90, (16, 24)))


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (encode_jpeg(grey(90, (24, 16))), "JPEG frame is (24, 16), its header says (16, 24)"),
        (b"", "JPEG frame is None"),
        (b"\xff\xd8", "JPEG frame is None"),
        (JPEG[: JPEG.index(b"\xff\xda")], "JPEG ends before its picture"),
        (JPEG[:-3], "JPEG ends before its end marker"),
        (JPEG[:-3] + JPEG[-2:], "JPEG ends before its last block"),
        (b"\x89PNG" + JPEG, "JPEG frame is None"),
        (claim_size(JPEG, 60000, 60000), "JPEG frame is (60000, 60000), its header says (16, 24)"),
        (claim_size(JPEG, 4096, 4096), "JPEG frame is (4096, 4096), its header says (16, 24)"),
        (hide_size(claim_size(JPEG, 4000, 4000), (16, 24)), "JPEG frame is None"),
    ],
    ids=[
        "turned",
        "empty",
        "start only",
        "header only",
        "cut",
        "cut and ended",
        "no JPEG",
        "bomb",
        "large",
        "hidden bomb",
    ],
)
def test_a_jpeg_that_is_not_what_its_header_says_is_a_corrupt_frame(station: Station, data: bytes, fault: str) -> None:
    """The fault shows that a bomb is refused by its size, before anything is decoded."""
    station.jpeg(0, data, (16, 24))
    station.part(1)
    first, second = station.read(2)
    assert first.fault.startswith(f"corrupt frame: {fault}")
    assert first.image is None
    assert second.image is not None


def test_a_hidden_frame_header_is_not_seen() -> None:
    """Decoders would have found the other one first."""
    assert jpeg_size(JPEG) == (16, 24)
    assert jpeg_size(hide_size(claim_size(JPEG, 20000, 20000), (16, 24))) is None


def test_any_mixture_gives_each_part_exactly_once(station: Station) -> None:
    """Parts, lost frames, lost triggers and garbage in a random order."""
    random = np.random.default_rng(3)
    kinds = random.choice(["whole", "no frame", "no trigger", "nothing"], 200)
    for part_id, kind in enumerate(kinds):
        if kind in ("whole", "no frame"):
            trigger = station.trigger(part_id)
        else:
            trigger = Trigger("run", part_id, time.monotonic_ns(), clock_id())
        if kind in ("whole", "no trigger"):
            station.frame(trigger)
        if part_id % 7 == 0:
            station.send(GARBAGE[part_id % len(GARBAGE)])
    station.end(len(kinds))
    first = int(np.argmax(kinds != "nothing"))  # of those before it only the end tells
    expected = [(i, "" if kind in ("whole", "no trigger") else "frame lost") for i, kind in enumerate(kinds)]
    seen = station.seen(len(kinds))
    assert sorted(seen) == expected
    assert [part for part in seen if part[0] >= first] == expected[first:]


def test_a_taken_port_says_what_to_do(station: Station, endpoint: str) -> None:
    assert station
    with pytest.raises(InputError, match="is taken: stop the process that holds it"):
        BeltSource(BeltSettings(endpoint))
