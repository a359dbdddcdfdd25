"""A worker: runs models for the front, one batch after the other. Started by a crew (host/server/crew.py).

The main thread computes; a second one keeps the control connection, on which the front hears that the worker lives and
hands it models while it computes. What goes wrong beyond one request ends the process: another is started for it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import zmq

from host.last_words import EXIT_UNWANTED
from host.server.orders import (
    BEAT_EVERY_S,
    CONTROL,
    LOST_AFTER_S,
    WORK,
    Batch,
    Beat,
    Goodbye,
    Hello,
    Load,
    Loaded,
    Result,
    Unload,
    decode,
    encode,
)
from protocol.console import STDERR
from protocol.detection import Answer, Request, decode_to_server, refuse
from protocol.detection import encode as encode_reply
from protocol.errors import BeltsightError, EngineError, MessageError, run_main
from protocol.keys import client_options, load_public, load_secret
from protocol.manifest import MODEL_ONNX, decode_manifest
from protocol.sockets import Options, Socket, open_socket
from protocol.supervision import SUPERVISOR, Supervised
from protocol.wire import Buffer

MAX_MODEL_BYTES = 2 << 30
POLL_MS = 200
GREETED_WITHIN_S = 10.0  # then another process tries: a refused handshake ends a socket for good


class Worker:
    def __init__(self, endpoint: str, name: bytes, keys: Options, threads: int) -> None:
        self._parent = os.getppid()
        self._threads = threads
        self._models: dict[str, Any] = {}  # digest -> host.server.sessions.Model
        self._work = open_connection(endpoint, name + WORK, keys)
        self._control = open_connection(endpoint, name + CONTROL, keys)
        self._over = threading.Event()
        self._leaving = threading.Event()

    def run(self) -> int:
        """Until told to leave, or the front is lost, or the parent is gone: the exit code."""
        # None: it loads models, as large as they are; the front gives up a worker that says nothing
        control = SUPERVISOR.start("control", self._serve_control, silent_s=None)
        control.let_end()  # it ends the worker
        self._work.send(encode(Hello()))
        while not self._over.is_set() and os.getppid() == self._parent:
            if self._work.poll(POLL_MS):
                self._serve_batch(self._work.recv_multipart(copy=False))
        self._over.set()
        control.wait(LOST_AFTER_S)
        self._work.close(0)
        if control.ended:
            STDERR.write(f"beltsight: worker: its control connection {control.trouble}")
        return EXIT_UNWANTED if control.ended else 0

    def leave(self, _number: int, _frame: FrameType | None) -> None:
        self._leaving.set()

    def _serve_control(self, _: Supervised) -> None:
        """A thread of its own, with a socket of its own."""
        beat_at_s, lost_at_s = 0.0, time.monotonic() + GREETED_WITHIN_S
        self._control.send(encode(Hello()))
        try:
            while not self._over.is_set():
                now_s = time.monotonic()
                if now_s > lost_at_s:
                    break
                # subtle: while there is no front, beats would fill the queue and then hold up this thread
                if (now_s >= beat_at_s or self._leaving.is_set()) and self._control.poll(0, zmq.POLLOUT):
                    self._control.send(encode(Goodbye() if self._leaving.is_set() else Beat()))
                    beat_at_s = now_s + BEAT_EVERY_S
                if self._leaving.is_set():
                    break
                if self._control.poll(100):
                    self._obey(self._control.recv_multipart())
                    lost_at_s = time.monotonic() + LOST_AFTER_S
        finally:
            self._over.set()
            self._control.close(200 if self._leaving.is_set() else 0)

    def _obey(self, parts: Sequence[bytes]) -> None:
        order = decode(parts)
        if isinstance(order, Load):
            self._control.send(encode(Loaded(order.digest, self._load(order.digest, *parts[1:]))))
        elif isinstance(order, Unload):
            self._models.pop(order.digest, None)

    def _load(self, digest: str, manifest: bytes, onnx: bytes, golden: bytes) -> str:
        """What is wrong with the model; empty if it can be run."""
        from host.server.sessions import Model  # noqa: PLC0415 - ONNX Runtime only once there is work

        try:
            self._models[digest] = Model(decode_manifest(manifest), onnx, golden, self._threads)
        except BeltsightError as error:
            return str(error)
        return ""

    def _serve_batch(self, frames: Sequence[zmq.Frame]) -> None:
        parts = [frame.buffer for frame in frames]
        started_s = time.monotonic()
        order = decode(parts)
        if not isinstance(order, Batch):
            return
        replies, each_ms = judge(self._models.get(order.digest), parts[1:], started_s)
        result = encode(Result(order.number, elapsed_ms(started_s), each_ms))
        self._work.send_multipart([result, *replies])


def judge(model: Any, pairs: Sequence[Buffer], started_s: float) -> tuple[list[Buffer], tuple[float, ...]]:
    """Reply headers, each followed by its map or nothing; and what each request took, in ms: its decoding, and its part
    of the rest. `model` is a host.server.sessions.Model.
    """
    # subtle: by place in the batch, for the requests of two boards may have equal headers
    replies: list[list[Buffer] | None] = []
    requests, images = [], []
    decoding_ms: list[float] = []
    for header, pixels in zip(pairs[::2], pairs[1::2], strict=True):
        began_s = time.monotonic()
        request = decode_to_server((header, pixels))
        if not isinstance(request, Request):
            raise MessageError("a batch of something else than requests")
        try:
            images.append(model.image(request, pixels))
            requests.append(request)
            replies.append(None)
        except MessageError as error:
            replies.append([refuse(request.id, "undecodable", str(error)), b""])
        decoding_ms.append(elapsed_ms(began_s))
    judged = iter(infer(model, requests, images, started_s))
    parts = [part for reply in replies for part in (reply or next(judged))]
    rest_ms = (elapsed_ms(started_s) - sum(decoding_ms)) / len(decoding_ms)
    return parts, tuple(round(own_ms + rest_ms, 3) for own_ms in decoding_ms)


def infer(model: Any, requests: list[Request], images: list[Any], started_s: float) -> list[list[Buffer]]:
    if not images:
        return []
    try:
        maps = model.infer(images)
    except EngineError as error:
        return [[refuse(request.id, "broken-model", str(error)), b""] for request in requests]
    sha256, shape, infer_ms = model.manifest.files[MODEL_ONNX], model.manifest.map.shape, elapsed_ms(started_s)
    answers = (Answer(request.id, sha256, shape, len(images), infer_ms) for request in requests)
    return [[encode_reply(answer), anomaly.tobytes()] for answer, anomaly in zip(answers, maps, strict=True)]


def elapsed_ms(since_s: float) -> float:
    return round((time.monotonic() - since_s) * 1e3, 3)


def open_connection(endpoint: str, routing_id: bytes, keys: Options) -> Socket:
    options = {
        zmq.ROUTING_ID: routing_id,
        zmq.MAXMSGSIZE: MAX_MODEL_BYTES,
        zmq.HEARTBEAT_IVL: 1000,
        zmq.HEARTBEAT_TIMEOUT: 3000,
        **keys,
    }
    # sends wait for a front that reads; a front that does not is lost, and with it the worker
    return open_socket("DEALER", endpoint, bind=False, high_water_mark=16, timeout_ms=5000, options=options)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m host.server.worker")
    parser.add_argument("--connect", required=True)
    parser.add_argument("--name", required=True, help="16 hexadecimal digits")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--server-key", type=Path)
    parser.add_argument("--key", type=Path)
    options = parser.parse_args()
    keys = client_options(load_public(options.server_key), load_secret(options.key)) if options.server_key else {}
    worker = Worker(options.connect, bytes.fromhex(options.name), keys, options.threads)
    signal.signal(signal.SIGTERM, worker.leave)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which then stops its workers
    return worker.run()


if __name__ == "__main__":
    sys.exit(run_main(main))
