"""Every decoder of bytes from outside: how it is fed, the one error that it may raise, and examples to begin with."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from board.config import decode_config
from board.overlay import isa
from board.overlay.errors import ProgramError
from board.overlay.program import DIGEST_BYTES, decode_file, encode_file
from board.pictures import decode_pixels
from board.records.outbox import part_of
from board.records.recording import MAGIC, encode_record, read_recording
from board.sinks.delivery import mark_late
from host.compiler.compilation import compile_net
from host.export.trivial import brightness_net
from host.plant.inbox import Arrival
from host.plant.payload import DataType, Metric, encode_birth, encode_data
from host.plant.payload import decode_command as decode_sparkplug
from host.plant.readings import count_values, decode_verdict_of, time_ms
from host.plant.tags import LINE_TAGS, Tags, verdict_values
from protocol.commands import ORDERS, decode_command
from protocol.detection import Answer, Ping, Request, decode_to_board, decode_to_server, encode
from protocol.drift import DriftReport, Moved, decode_drift, encode_drift
from protocol.errors import BeltsightError, ConfigError, InputError, ManifestError, MessageError
from protocol.known_bad import MAX_CHALLENGE_FRAMES, decode_known_bad, encode_known_bad
from protocol.manifest import (
    FORMAT,
    AnomalyMap,
    Calibration,
    Challenge,
    Distribution,
    Manifest,
    Preprocess,
    Threshold,
    decode_manifest,
    encode_manifest,
)
from protocol.messages import Frame, Trigger, decode_verdict, encode_verdict
from protocol.pictures.reader import read_picture
from protocol.tap import TapPart, decode_tap, encode_tap
from protocol.wire import EndOfRun, FrameHeader, FrameMessage, Motion, Passage, decode_message, encode_message
from tests.examples import VERDICT

ROOT = Path(__file__).resolve().parents[2]
BETWEEN_PARTS = b"\xfe\xef|"  # of a multipart message, in one input
REBIRTH_REQUEST = Metric("Node Control/Rebirth", DataType.BOOLEAN, True, 1)
SHAPE = (24, 32)
PIXELS = np.random.default_rng(1).integers(0, 256, (*SHAPE, 3), np.uint8)
JPEG, PNG, BMP = (cv2.imencode(form, PIXELS)[1].tobytes() for form in (".jpg", ".png", ".bmp"))
JPEG_RESTARTS = cv2.imencode(".jpg", PIXELS, [cv2.IMWRITE_JPEG_RST_INTERVAL, 2])[1].tobytes()
TRIGGER = Trigger("run", 7, 12345, "clock")
BELT_MESSAGES = (
    TRIGGER,
    Trigger("run", 8, 23456, "clock", position_um=-1000),
    EndOfRun("run", 9),
    Motion("run", 5000, 12345, "clock"),
    Passage("run", 34567, "clock"),
)
MANIFEST = Manifest(
    format=FORMAT,
    id="orange-256",
    product="orange",
    preprocess=Preprocess((256, 320), (0, 32, 256, 256), (128, 128)),
    map=AnomalyMap((8, 8), 2.0**-7, 4),
    threshold=Threshold(0.25, "chosen"),
    files={"model.onnx": "0" * 64},
    challenge=Challenge(3, 2, {"dent": 2, "cut": 1}, 3, 1.0),
    calibration=Calibration(40, {"score": Distribution(0.1, 0.02, (0.07, 0.1, 0.13))}),
)
DRIFT = DriftReport(
    "drifting",
    "brightness fell",
    (Moved("brightness", -1.2, 61.0, 67.0, 4.5),),
    300,
    "a.jpg",
    "orange-256",
    "2026-01-01",
)


@dataclass(frozen=True)
class Decoder:
    feed: Callable[[bytes], object]
    refusal: type[BeltsightError]
    seeds: Sequence[bytes]


def join(parts: Sequence[bytes | bytearray | memoryview]) -> bytes:
    return BETWEEN_PARTS.join(bytes(part) for part in parts)


def in_parts(decode: Callable[[list[bytes]], object]) -> Callable[[bytes], object]:
    return lambda data: decode(data.split(BETWEEN_PARTS))


def feed_file(read: Callable[[Path], object]) -> Callable[[bytes], object]:
    handle, name = tempfile.mkstemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
    path = Path(name)

    def feed(data: bytes) -> object:
        os.ftruncate(handle, 0)
        os.pwrite(handle, data, 0)
        return read(path)

    return feed


def feed_program(data: bytes) -> object:
    """With the digest that belongs to it, which no fuzzer finds."""
    return decode_file(data + hashlib.sha256(data).digest())


def feed_record(data: bytes) -> bytes:
    """One record with the checksum that belongs to it."""
    return MAGIC + struct.pack("<II", len(data), zlib.crc32(data)) + data


def feed_stored(data: bytes) -> object:
    """Out of an outbox that was damaged: nothing is refused."""
    part_of(data)
    return mark_late(data)


def feed_command(parts: list[bytes]) -> object:
    """The topic's last level, and the payload."""
    return decode_command(parts[0].decode("latin-1"), b"".join(parts[1:]))


def feed_known_bad(data: bytes) -> object:
    """What a manifest announces of it is bounded too."""
    goods, frames, height, width = (1 + byte for byte in data[:4].ljust(4, b"\1"))
    return list(decode_known_bad(data[4:], goods, frames % MAX_CHALLENGE_FRAMES, (height, width)))


def known_bad_seeds() -> list[bytes]:
    announced = bytes([0, 1, SHAPE[0] - 1, SHAPE[1] - 1])  # one good, two known-bad ones
    return [announced + encode_known_bad([PIXELS], [PIXELS + 1, PIXELS * 2])]


def feed_plant(data: bytes) -> object:
    """A verdict on its way through the bridge, into the plant's words."""
    verdict = decode_verdict_of(Arrival(VERDICT.line, "verdict", data, is_retained=False))
    return encode_data(Tags(LINE_TAGS, 1, 0).past(verdict_values(verdict), time_ms(verdict.time)), 0, 0)


def command_seeds() -> list[bytes]:
    order = {"id": "7d3e", "expires": "2026-01-01T08:00:30Z"}
    values: dict[str, dict[str, object]] = {
        "threshold": {"value": 1.5},
        "capture": {"parts": 9},
        "challenge": {"parts": 3},
        "teach": {"parts": 10, "model": "m"},
        "model": {"model": "m"},
    }
    payloads = {name: json.dumps(order | values.get(name, {})).encode() for name in ORDERS}
    return [join([name.encode(), payload]) for name, payload in payloads.items()]


def program_seeds() -> list[bytes]:
    return [encode_file(compile_net(brightness_net()).program)[:-DIGEST_BYTES]]


def record_seeds() -> list[bytes]:
    head = 8  # length and checksum
    return [encode_record(Frame(TRIGGER, image), VERDICT)[head:] for image in (None, PIXELS)]


def open_decoders() -> dict[str, Decoder]:
    recording = feed_file(lambda path: list(read_recording(path)))
    frame = encode_message(FrameMessage(FrameHeader(TRIGGER, SHAPE, "jpeg", {"die_c": 1.0}), JPEG))
    request, answer = Request(1, "m", 50.0, SHAPE), Answer(1, "", (2, 2), 1, 2.5)
    return {
        "wire": Decoder(
            in_parts(decode_message),
            MessageError,
            [join(frame), *(join(encode_message(message)) for message in BELT_MESSAGES)],
        ),
        "server-request": Decoder(
            in_parts(decode_to_server), MessageError, [join([encode(request), b"pixels"]), encode(Ping(1, "m"))]
        ),
        "server-answer": Decoder(in_parts(decode_to_board), MessageError, [join([encode(answer), b"abcd"])]),
        "verdict": Decoder(decode_verdict, MessageError, [encode_verdict(VERDICT)]),
        "drift": Decoder(decode_drift, MessageError, [encode_drift(DRIFT)]),
        "tap": Decoder(
            in_parts(decode_tap),
            MessageError,
            [join(encode_tap(TapPart(3, VERDICT, PIXELS, np.zeros((8, 8), np.int8), 0.5)))],
        ),
        "command": Decoder(in_parts(feed_command), MessageError, command_seeds()),
        "plant-verdict": Decoder(feed_plant, MessageError, [encode_verdict(VERDICT)]),
        "plant-health": Decoder(count_values, MessageError, [b'{"time":"2026-01-01T08:00:30.000Z","parts":7}']),
        "plant-command": Decoder(decode_sparkplug, MessageError, [encode_birth([REBIRTH_REQUEST], 1, 0)]),
        "stored": Decoder(feed_stored, MessageError, [encode_verdict(VERDICT)]),
        "manifest": Decoder(decode_manifest, ManifestError, [encode_manifest(MANIFEST)]),
        "known-bad": Decoder(feed_known_bad, ManifestError, known_bad_seeds()),
        "config": Decoder(
            lambda data: decode_config(data, "line.toml"),
            ConfigError,
            [(ROOT / "board" / "line.toml").read_bytes(), b'model = "m"\n[gate]\nwindow_mm = 3\n'],
        ),
        "instructions": Decoder(
            isa.decode_program, ProgramError, [isa.encode_program([isa.LoadTile(rows=3), isa.End()])]
        ),
        "program": Decoder(feed_program, ProgramError, program_seeds()),
        "recording": Decoder(lambda data: recording(feed_record(data)), InputError, record_seeds()),
        "recording-file": Decoder(recording, InputError, [feed_record(seed) for seed in record_seeds()]),
        "jpeg": Decoder(lambda data: decode_pixels("jpeg", SHAPE, data), MessageError, [JPEG, JPEG_RESTARTS]),
        "picture": Decoder(feed_file(read_picture), InputError, [JPEG, PNG, BMP]),
    }


def try_one(decoder: Decoder, data: bytes) -> None:
    """Raises: whatever it raises that is not its refusal."""
    with contextlib.suppress(decoder.refusal):
        decoder.feed(data)
