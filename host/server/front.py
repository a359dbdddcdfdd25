"""The front: one poll loop between the boards and the workers. It parses headers, never pixels, and never waits."""

from __future__ import annotations

import contextlib
import logging
import queue
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from host.server.admission import BOARDS, FAILED, WITHDRAWN, WORKERS, Admission, key_of
from host.server.cluster import RayCrew
from host.server.crew import Crew
from host.server.dispatch import Dispatcher, Limits, Loss
from host.server.logs import Once, log
from host.server.metrics import REFUSED_BY_WORKER, Metrics
from host.server.models import Scan, Version, scan_models
from host.server.orders import (
    BEAT_EVERY_S,
    CONTROL,
    NAME_BYTES,
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
from host.server.pending import Pending
from protocol.detection import Ping, Pong, RefusalCode, Request, decode_to_server, is_answer, refuse
from protocol.detection import encode as encode_reply
from protocol.errors import InputError, MessageError
from protocol.pictures.jpeg import jpeg_size
from protocol.sockets import Socket
from protocol.supervision import SUPERVISOR, Supervised, Supervisor

TEND_EVERY_S = 0.02
SCAN_EVERY_S = 1.0
KEYS_EVERY_S = 1.0
SCAN_WITHIN_S = 60.0  # the sums of large models are made anew
MAX_PIXELS = 16 << 20  # of a picture: a fraction of a second to decode, which others wait for
MAX_PER_TURN = 64  # messages of one socket that are served before the others have their turn


class Front:
    """`workers` are the ROUTER sockets on which workers come in: the crew's own, and one for other machines."""

    def __init__(
        self,
        *,
        boards: Socket,
        workers: Sequence[Socket],
        models: Path,
        crew: Crew | RayCrew,
        limits: Limits,
        metrics: Metrics,
        admission: Admission | None,
        supervisor: Supervisor = SUPERVISOR,
    ) -> None:
        self._boards, self._workers, self._crew = boards, workers, crew
        self._folder, self._metrics, self._admission = models, metrics, admission
        self._dispatcher = Dispatcher(limits)
        self._max_wait_ms = max(1, int(limits.max_wait_ms))
        self._routes: dict[bytes, Socket] = {}  # a worker's name -> the socket it came in on
        self._greeted: dict[bytes, set[bytes]] = {}  # connections of workers that have only one so far
        self._supervisor = supervisor
        self._scan: Scan = Scan()
        self._scanning: Supervised | None = None
        self._scanned: queue.SimpleQueue[Scan] = queue.SimpleQueue()
        self._tend_at_s = self._beat_at_s = self._scan_at_s = self._keys_at_s = 0.0
        self._said = Once()
        self._poller = zmq.Poller()
        self._watched: set[int] = set()
        self._handlers: dict[Any, Callable[[], None]] = {}
        for socket in workers:  # first of all: a result frees a worker
            self._register(socket, lambda socket=socket: self._serve_workers(socket))  # type: ignore[misc]
        # before their requests: whose connection has gone waits for nothing
        departures = boards.get_monitor_socket(zmq.EVENT_DISCONNECTED | sum(FAILED))
        departures.setsockopt(zmq.LINGER, 0)
        self._register(departures, lambda: self._serve_departures(departures))
        self._register(boards, self._serve_boards)
        if admission is not None:
            self._register(admission.socket, admission.answer)
            for socket in workers:
                monitor = admission.watch(socket)
                self._register(monitor, lambda monitor=monitor: admission.note_failures(monitor))  # type: ignore[misc]
        self._take_over(scan_models(models, Scan()))

    def run(self, stop: Callable[[], bool], beat: Callable[[], None]) -> None:
        while not stop():
            beat()
            self._turn()

    def close(self) -> None:
        self._crew.stop()
        if self._scanning:
            self._scanning.wait(SCAN_WITHIN_S)

    def _register(self, socket: Any, handler: Callable[[], None]) -> None:
        self._poller.register(socket, zmq.POLLIN)
        self._handlers[socket] = handler

    def _turn(self) -> None:
        timeout_ms = self._max_wait_ms if self._dispatcher.queue.count else int(TEND_EVERY_S * 1e3)
        ready = dict(self._poller.poll(timeout_ms))
        for socket, handler in self._handlers.items():
            if socket in ready:
                handler()
        now_s = self._metrics.turned_s = time.monotonic()
        if now_s >= self._tend_at_s or self._watched & ready.keys():
            self._tend(now_s)
        self._send_batches()
        self._send_refusals()

    # ---- boards

    def _serve_departures(self, monitor: Any) -> None:
        while monitor.poll(0):
            event = parse_monitor_message(monitor.recv_multipart())
            if event["event"] == zmq.EVENT_DISCONNECTED:
                self._dispatcher.drop(event["value"])
            elif self._admission is not None:
                self._admission.note_failure(event["event"])

    def _serve_boards(self) -> None:
        for _ in range(MAX_PER_TURN):
            try:
                client, *parts = self._boards.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            if not self._is_withdrawn(BOARDS, client):
                self._serve_board(client, parts)

    def _is_withdrawn(self, domain: bytes, frame: zmq.Frame) -> bool:
        """subtle: ZeroMQ asks who may come in once; a connection then stands for as long as it likes."""
        key = key_of(frame) if self._admission else ""
        if not key or not self._admission or self._admission.lets_in(domain, key):
            return False
        self._admission.note(WITHDRAWN, key)
        return True

    def _serve_board(self, frame: zmq.Frame, parts: Sequence[zmq.Frame]) -> None:
        now_s, client = time.monotonic(), frame.bytes
        try:
            message = decode_to_server([part.buffer for part in parts])
        except MessageError as error:
            self._reply_refusal(client, 0, "bad-message", str(error))
            return
        version = self._dispatcher.catalogue.find(message.model)
        if version is None:
            self._reply_refusal(client, message.id, "unknown-model", f"no model {message.model!r} on this server")
        elif message.model_sha256 not in ("", version.model_sha256):
            text = f"{message.model} on this server is another file: copy the model folder to board and server"
            self._reply_refusal(client, message.id, "other-model", text)
        elif isinstance(message, Ping):
            self._serve_ping(frame, message, version, now_s)
        else:
            self._serve_request(frame, message, parts, version, now_s)

    def _serve_ping(self, frame: zmq.Frame, ping: Ping, version: Version, now_s: float) -> None:
        client = frame.bytes
        has_place = self._dispatcher.catalogue.demand(version, key_of(frame).encode() or client, now_s, is_ping=True)
        ready = self._dispatcher.is_ready(version)
        waiting = "no worker has the model yet" if has_place else "other models take all places"
        text = version.fault or ("" if ready else waiting)
        self._send(self._boards, [client, encode_reply(Pong(ping.id, ready, text))])

    def _serve_request(
        self, frame: zmq.Frame, request: Request, parts: Sequence[zmq.Frame], version: Version, now_s: float
    ) -> None:
        client, (header, pixels) = frame.bytes, parts
        wrong = wrong_size(request, version, pixels)
        if wrong:
            self._reply_refusal(client, request.id, "wrong-size", wrong)
            return
        pending = Pending(
            client=client,
            request=request,
            header=header.bytes,
            pixels=pixels,
            size_bytes=len(pixels),
            version=version,
            arrived_s=now_s,
            expires_s=now_s + request.deadline_ms / 1e3,
            owner=key_of(frame).encode(),
            source=frame.get(zmq.SRCFD),
        )
        self._dispatcher.submit(pending)

    def _reply_refusal(self, client: bytes, number: int, code: RefusalCode, text: str) -> None:
        self._metrics.replies.labels(code).inc()
        self._send(self._boards, [client, refuse(number, code, text)])

    def _send_refusals(self) -> None:
        for refused in self._dispatcher.refusals:
            self._reply_refusal(refused.pending.client, refused.pending.request.id, refused.code, refused.text)
        self._dispatcher.refusals.clear()

    # ---- workers

    def _send_batches(self) -> None:
        self._dispatcher.expire(time.monotonic())
        while job := self._dispatcher.next_batch(time.monotonic()):
            worker, number, batch = job
            order = encode(Batch(number, batch.pendings[0].version.digest, len(batch.pendings)))
            pairs = [part for pending in batch.pendings for part in (pending.header, pending.pixels)]
            self._metrics.batches.observe(len(batch.pendings))
            self._send_worker(worker.name, WORK, [order, *pairs])

    def _send_worker(self, name: bytes, connection: bytes, parts: Sequence[Any]) -> None:
        if not self._send(self._routes[name], [name + connection, *parts]):
            self._lose(name, "cannot be reached")

    def _send(self, socket: Socket, parts: Sequence[Any]) -> bool:
        try:
            socket.send_multipart(parts, zmq.NOBLOCK, copy=False)
        except zmq.ZMQError as error:
            # gone, or does not read: a board times out by itself, a worker is taken for lost
            if error.errno in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                return False
            raise
        return True

    def _serve_workers(self, socket: Socket) -> None:
        for _ in range(MAX_PER_TURN):
            try:
                first, *frames = socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            peer, parts = first.bytes, [frame.bytes for frame in frames]
            if self._is_withdrawn(WORKERS, first):
                self._lose(peer[:-1], "key was withdrawn")
                continue
            try:
                order = decode(parts)
            except MessageError as error:
                if self._said.first((peer, str(error))):
                    log("worker speaks nonsense", level=logging.WARNING, worker=peer.hex(), fault=str(error))
                self._lose(peer[:-1], "speaks nonsense")
                continue
            self._serve_worker(socket, peer, order, parts)

    def _serve_worker(self, socket: Socket, peer: bytes, order: object, parts: Sequence[bytes]) -> None:
        name, now_s = peer[:-1], time.monotonic()
        if isinstance(order, Hello):
            self._greet(socket, peer, now_s)
            return
        worker = self._dispatcher.workers.get(name)
        if worker is None:
            self._metrics.orphans.inc(isinstance(order, Result))
            return
        worker.heard_s = now_s
        if isinstance(order, Result):
            self._forward(self._dispatcher.finish(name, order.number, now_s, order.each_ms), parts[1:], now_s)
        elif isinstance(order, Loaded):
            self._dispatcher.note_loaded(name, order.digest, order.fault)
            log("model loaded", worker=name.hex(), digest=order.digest, fault=order.fault)
            self._tend_at_s = 0.0
        elif isinstance(order, Goodbye):
            self._lose(name, "left")

    def _greet(self, socket: Socket, peer: bytes, now_s: float) -> None:
        name = peer[:-1]
        if len(name) != NAME_BYTES or name in self._dispatcher.workers:
            return
        greeted = self._greeted.setdefault(name, set())
        greeted.add(peer[-1:])
        if greeted == {WORK, CONTROL}:
            del self._greeted[name]
            self._routes[name] = socket
            self._dispatcher.add_worker(name, now_s)
            self._send_worker(name, CONTROL, [encode(Beat())])
            self._tend_at_s = 0.0
            log("worker ready", worker=name.hex())

    def _forward(self, pendings: Sequence[Pending], replies: Sequence[bytes], now_s: float) -> None:
        if len(replies) != 2 * len(pendings):
            self._metrics.orphans.inc()
        for pending, header, anomaly in zip(pendings, replies[::2], replies[1::2], strict=False):
            if now_s >= pending.expires_s:
                self._reply_refusal(pending.client, pending.request.id, "late", "the deadline passed during the work")
                continue
            self._metrics.replies.labels("answered" if is_answer(header) else REFUSED_BY_WORKER).inc()
            self._metrics.seconds.observe(now_s - pending.arrived_s)
            self._send(
                self._boards, [pending.client, header, anomaly] if is_answer(header) else [pending.client, header]
            )

    def _lose(self, name: bytes, how: Loss) -> None:
        if name not in self._dispatcher.workers:
            return
        self._metrics.lost.labels(how).inc()
        log("worker lost", level=logging.INFO if how == "left" else logging.WARNING, worker=name.hex(), how=how)
        self._dispatcher.remove_worker(name, time.monotonic(), died=how != "left")
        del self._routes[name]
        self._crew.kill(name)

    # ---- what is due

    def _tend(self, now_s: float) -> None:
        self._tend_at_s = now_s + TEND_EVERY_S
        for name in self._crew.tend(now_s):
            self._greeted.pop(name, None)
            self._lose(name, "died")
        self._watch_crew()
        for name, how in self._dispatcher.lost_workers(now_s):
            self._lose(name, how)
        if now_s >= self._beat_at_s:
            self._beat_at_s = now_s + BEAT_EVERY_S
            for name in list(self._dispatcher.workers):
                self._send_worker(name, CONTROL, [encode(Beat())])
        if now_s >= self._keys_at_s:
            self._keys_at_s = now_s + KEYS_EVERY_S
            self._reload_keys()
        self._scan_when_due(now_s)
        self._settle_models()
        for worker, load in self._dispatcher.next_loads(now_s):
            if isinstance(load, Version):
                self._send_worker(worker.name, CONTROL, [encode(Load(load.digest)), *load.files])
            else:
                self._send_worker(worker.name, CONTROL, [encode(Unload(load))])
        self._show()

    def _watch_crew(self) -> None:
        """A process's end wakes the loop at once."""
        pidfds = set(self._crew.pidfds())
        for pidfd in self._watched - pidfds:
            self._poller.unregister(pidfd)
        for pidfd in pidfds - self._watched:
            self._poller.register(pidfd, zmq.POLLIN)
        self._watched = pidfds

    def _scan_when_due(self, now_s: float) -> None:
        if self._scanning is None or not self._scanning.is_alive:
            with contextlib.suppress(queue.Empty):  # a scan that failed is named by the supervisor, and tried again
                self._take_over(self._scanned.get_nowait())
            self._scanning = None
        if self._scanning is None and now_s >= self._scan_at_s:
            self._scan_at_s = now_s + SCAN_EVERY_S
            self._scanning = self._supervisor.start(
                "models' scan",
                partial(self._look_through, self._scan),
                silent_s=SCAN_WITHIN_S,
                is_needed=False,
                is_once=True,
            )

    def _look_through(self, known: Scan, _: Supervised) -> None:
        self._scanned.put(scan_models(self._folder, known))

    def _take_over(self, scan: Scan) -> None:
        if scan.fault and scan.fault != self._scan.fault:
            log("models cannot be listed", level=logging.WARNING, fault=scan.fault)
        for path, reading in scan.readings.items():
            if reading.fault and self._scan.readings.get(path) is not reading:
                log("model cannot be read", level=logging.WARNING, folder=str(path), fault=reading.fault)
        self._scan = scan
        for version in self._dispatcher.catalogue.update(scan.versions):
            log("model found", model=version.id, digest=version.digest)

    def _settle_models(self) -> None:
        taken_over, broken = self._dispatcher.settle()
        for version in taken_over:
            self._metrics.swaps.labels("taken over").inc()
            log("model taken over", model=version.id, digest=version.digest)
        for version in broken:
            self._metrics.swaps.labels("broken").inc()
            log("model broken", level=logging.ERROR, model=version.id, digest=version.digest, fault=version.fault)

    def _reload_keys(self) -> None:
        try:
            if self._admission is not None:
                self._admission.reload()
        except InputError as error:
            log("keys cannot be read", level=logging.ERROR, fault=str(error))

    def _show(self) -> None:
        queue = self._dispatcher.queue
        self._metrics.waiting.set(queue.count)
        self._metrics.waiting_bytes.set(queue.size_bytes)
        self._metrics.workers.set(len(self._dispatcher.workers))
        self._metrics.ready = bool(self._dispatcher.workers)


def wrong_size(request: Request, version: Version, pixels: zmq.Frame) -> str:
    """How a request's pixels do not fit its header or its model, from the first bytes alone; empty if they do."""
    how = version.manifest.preprocess
    expected = how.input_px if request.content == "image" else how.frame_px
    if request.shape != expected and (request.content == "image" or not how.takes(request.shape)):
        return f"{request.content} of {request.shape}; {version.id} takes {expected}"
    if request.shape[0] * request.shape[1] > MAX_PIXELS:
        return f"{request.content} of {request.shape} has more than {MAX_PIXELS} pixels"
    raw_bytes = request.shape[0] * request.shape[1] * 3
    if request.encoding == "raw":
        return "" if len(pixels) == raw_bytes else f"{len(pixels)} bytes of pixels, not {raw_bytes}"
    if len(pixels) > raw_bytes:
        return f"JPEG of {len(pixels)} bytes is larger than the raw picture, {raw_bytes}"
    # subtle: before anything is decoded, so that a small file cannot ask for a huge picture
    size = jpeg_size(pixels.buffer)
    return "" if size == request.shape else f"JPEG is {size}, its header says {request.shape}"
