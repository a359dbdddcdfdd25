"""What the detection server costs beside bare ONNX Runtime in a loop: `beltsight bench server`.

The bare loop has the picture in memory, does the integer normalisation and runs the same model on one thread; for the
frame it also preprocesses. It has no network, queue, deadline, second process or retry. Latency: bare and served
pictures alternate, so that both see the same machine. Throughput: bare loops in as many processes as the server has
workers. The front and all boards run on this machine too: where each core has a worker, they take their time from the
workers.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from board.preprocess import preprocess
from host.export.package import make_golden, write_graphs, write_package
from host.export.trivial import brightness_net
from host.server.sessions import Model
from protocol.detection import Answer, Ping, Pong, Refusal, Request, decode_to_board, encode
from protocol.errors import InputError, run_main
from protocol.keys import client_options, load_public, load_secret, write_key_pair
from protocol.manifest import (
    FORMAT,
    GOLDEN_NPZ,
    MODEL_ONNX,
    AnomalyMap,
    Manifest,
    Package,
    Preprocess,
    Threshold,
    load_package,
)
from protocol.sockets import NO_OPTIONS, Options, Socket, open_socket
from sim.station import LOOPBACK, ROOT, free_port

MODELS = ROOT / "models"
MODEL = "bottle-128"
FRAME_MODEL = "frame-480"
FRAME_PX = (480, 640)
DISTINCT = 16
BATCHES = (1, 2, 4, 8)
SEED = 1
READY_WITHIN_S = 30.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="beltsight bench server", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=int, default=500, help="for each latency (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each throughput (default: %(default)s)")
    parser.add_argument("--chaos-s", type=float, default=60.0, help="a worker is killed each second (default: 60)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = write_models(folder / "models")
        console.print(f"load of the machine before: {os.getloadavg()[0]:.2f}", highlight=False)
        console.print(measure_latencies(folder, models, options.pictures))
        for workers in sorted({1, options.workers}):
            console.print(measure_throughputs(folder, models, workers, options.seconds))
        console.print(measure_chaos(folder, models, options.workers, options.chaos_s))
        console.print(f"load of the machine after: {os.getloadavg()[0]:.2f}", highlight=False)
    return 0


# ---- models, servers


def write_models(folder: Path) -> Path:
    """The shipped model, and the trivial one for frames of 640 × 480, so that preprocessing stands out."""
    folder.mkdir()
    (folder / MODEL).symlink_to(MODELS / MODEL)
    net, how = brightness_net(), Preprocess(FRAME_PX, (0, 0, *FRAME_PX), (128, 128))
    manifest = Manifest(
        format=FORMAT,
        id=FRAME_MODEL,
        product="brightness",
        preprocess=how,
        map=AnomalyMap((8, 8), 2.0**-7, 4),
        threshold=Threshold(0.25, "chosen"),
        files={},
    )
    write_package(folder / FRAME_MODEL, manifest, write_graphs(net), make_golden(noise(1, *FRAME_PX), how, net), {})
    return folder


def noise(count: int, height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(SEED).integers(0, 256, (count, height, width, 3), np.uint8)


@dataclass(frozen=True)
class Server:
    endpoint: str
    keys: Options
    child: subprocess.Popen[bytes]

    def workers(self) -> list[int]:
        children = Path(f"/proc/{self.child.pid}/task").glob("*/children")
        return [int(pid) for path in children for pid in path.read_text().split()]


@contextlib.contextmanager
def run_server(
    folder: Path, models: Path, workers: int, *more: str, encrypted: bool = False, batch: int = 4
) -> Iterator[Server]:
    endpoint = f"tcp://{LOOPBACK}:{free_port()}"
    command = [sys.executable, "-m", "host.server", "--models", str(models), "--bind", endpoint]
    command += ["--workers", str(workers), "--max-batch", str(batch), "--metrics", f"{LOOPBACK}:{free_port()}", *more]
    keys = NO_OPTIONS
    if encrypted:
        for name in ("server", "board"):
            write_key_pair(folder / "keys", name)
        command += ["--key", str(folder / "keys" / "server.secret"), "--allow", str(folder / "keys")]
        keys = client_options(
            load_public(folder / "keys" / "server.public"), load_secret(folder / "keys" / "board.secret")
        )
    child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        server = Server(endpoint, keys, child)
        for model in (MODEL, FRAME_MODEL):
            wait_until_ready(server, model)
        time.sleep(1.0)  # the other workers load it too
        yield server
    finally:
        child.terminate()
        child.wait()


def connect(server: Server) -> Socket:
    return open_socket(
        "DEALER", server.endpoint, bind=False, high_water_mark=8, timeout_ms=5000, options=dict(server.keys)
    )


def wait_until_ready(server: Server, model: str) -> None:
    until_s = time.monotonic() + READY_WITHIN_S
    with connect(server) as socket:
        while time.monotonic() < until_s:
            socket.send(encode(Ping(1, model)))
            if socket.poll(1000):
                reply, _ = decode_to_board(socket.recv_multipart())
                if isinstance(reply, Pong) and reply.ready:
                    return
            time.sleep(0.05)
    raise InputError("the server does not get ready: run it by hand and read its log")


def load_model(package: Package) -> Model:
    graph, golden = package.path(MODEL_ONNX).read_bytes(), package.path(GOLDEN_NPZ).read_bytes()
    return Model(package.manifest, graph, golden, threads=1)


# ---- latency


def measure_latencies(folder: Path, models: Path, pictures: int) -> Table:
    table = make_table("Latency on an idle server, p50 in ms", "picture", "bare", "served", "added", "ratio", "wanted")
    for encrypted in (False, True):
        with run_server(folder, models, 1, encrypted=encrypted) as server:
            how = "CURVE" if encrypted else "plain"
            for model, sides, content in ((MODEL, (128, 128), "image"), (FRAME_MODEL, FRAME_PX, "frame")):
                bare_ms, served_ms = alternate(server, load_package(models / model), content, sides, pictures)
                name = f"{sides[1]}×{sides[0]}×3, {how}"
                wanted = "added ≤ 1.0" if (content, encrypted) == ("image", False) else ""
                added = served_ms - bare_ms
                table.add_row(
                    name, f"{bare_ms:.2f}", f"{served_ms:.2f}", f"{added:.2f}", f"{served_ms / bare_ms:.2f}", wanted
                )
    return table


def alternate(
    server: Server, package: Package, content: Any, sides: tuple[int, int], pictures: int
) -> tuple[float, float]:
    """p50 in ms of a bare picture and of a served one; every map is compared."""
    model, how, images = load_model(package), package.manifest.preprocess, noise(DISTINCT, *sides)
    bare_ms, served_ms = [], []
    with connect(server) as socket:
        for number in range(1, pictures + 1):
            image = images[number % DISTINCT]
            started_s = time.perf_counter()
            expected = model.infer([preprocess(image, how) if content == "frame" else image])[0]
            judged_s = time.perf_counter()
            request = Request(number, package.manifest.id, 5000.0, sides, content)
            socket.send_multipart([encode(request), image.data.cast("B")])
            reply, anomaly = decode_to_board(socket.recv_multipart())
            served_ms.append((time.perf_counter() - judged_s) * 1e3)
            bare_ms.append((judged_s - started_s) * 1e3)
            check(reply, anomaly, number, expected)
    return float(np.median(bare_ms)), float(np.median(served_ms))


def check(reply: object, anomaly: NDArray[np.int8] | None, number: int, expected: NDArray[np.int8]) -> None:
    if not isinstance(reply, Answer) or reply.id != number or not np.array_equal(anomaly, expected):  # type: ignore[arg-type]
        raise InputError(f"the server gave another map than the bare loop: {reply!r:.200}")


# ---- throughput


def measure_throughputs(folder: Path, models: Path, workers: int, seconds: float) -> Table:
    bare = {batch: run_bare(models, workers, batch, seconds / 2) for batch in BATCHES}
    best = max(bare, key=lambda batch: bare[batch])
    table = make_table(
        f"Pictures/s of 128×128×3, {workers} worker(s) with --max-batch {BATCHES[-1]}; "
        f"bare: loops in {workers} process(es) at their best batch, {best}",
        "boards", "bare", "served", "ratio", "wanted", "slowest board / mean", "wanted",
    )  # fmt: skip
    with run_server(folder, models, workers, batch=BATCHES[-1]) as server:
        for boards in (1, 4, 16, 64):
            load = Load(server, boards, load_model(load_package(models / MODEL)), deadline_s=5.0)
            load.run(1.0)
            load.answered.clear()
            started_s = time.monotonic()
            load.run(seconds)
            rate = sum(load.answered.values()) / (time.monotonic() - started_s)
            load.close()
            share = min(load.answered[board] for board in range(boards)) / (sum(load.answered.values()) / boards)
            wanted_rate = "≥ 0.90" if boards == 64 and workers < (os.cpu_count() or 1) else ""
            wanted_share = "≥ 0.70" if boards == 64 else ""
            ratio = rate / bare[best]
            table.add_row(
                str(boards),
                f"{bare[best]:.0f}",
                f"{rate:.0f}",
                f"{ratio:.2f}",
                wanted_rate,
                f"{share:.2f}",
                wanted_share,
            )
    return table


def run_bare(models: Path, processes: int, batch: int, seconds: float) -> float:
    """Pictures/s of all processes together."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes) as pool:
        jobs = [(models / MODEL, batch, seconds)] * processes
        return sum(pool.starmap(bare_loop, jobs, chunksize=1))


def bare_loop(folder: Path, batch: int, seconds: float) -> float:
    model, images = load_model(load_package(folder)), list(noise(batch, 128, 128))
    for _ in range(5):
        model.infer(images)
    count, started_s = 0, time.monotonic()
    while time.monotonic() - started_s < seconds:
        model.infer(images)
        count += batch
    return count / (time.monotonic() - started_s)


@dataclass
class Load:
    """Boards in this process, each with one request on its way at a time; every reply is checked against the truth."""

    server: Server
    boards: int
    model: Model
    deadline_s: float
    answered: Counter[int] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    timed_out: int = 0
    asked: int = 0
    unexpected: int = 0  # answered twice, or after the deadline
    wrong: int = 0
    slowest_s: float = 0.0

    def __post_init__(self) -> None:
        self._images = noise(DISTINCT, 128, 128)
        self._maps = [self.model.infer([image])[0].tobytes() for image in self._images]
        self._open: dict[int, tuple[int, float]] = {}  # board -> number on its way, when it was asked
        self._numbers = Counter[int]()
        self._poller = zmq.Poller()
        self._sockets = [connect(self.server) for _ in range(self.boards)]
        self._boards = {socket: board for board, socket in enumerate(self._sockets)}
        for socket in self._sockets:
            self._poller.register(socket, zmq.POLLIN)

    def run(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        swept_s = 0.0
        while (now_s := time.monotonic()) < until_s:
            if now_s - swept_s > 0.05:
                swept_s = now_s
                self._sweep(now_s)
            for socket, _ in self._poller.poll(20):
                self._receive(socket, self._boards[socket])

    @property
    def on_their_way(self) -> int:
        return len(self._open)

    def close(self) -> None:
        for socket in self._sockets:
            socket.close(0)

    def _sweep(self, now_s: float) -> None:
        """Give up what is past its deadline; ask for those who wait for nothing."""
        for board in range(self.boards):
            asked = self._open.get(board)
            if asked and now_s - asked[1] > self.deadline_s:
                self.timed_out += 1
                asked = None
            if not asked:
                self._ask(board)

    def _ask(self, board: int) -> None:
        self._numbers[board] += 1
        number = self._numbers[board]
        image = self._images[self._picture(board, number)]
        request = Request(number, MODEL, self.deadline_s * 1e3, (128, 128))
        self._sockets[board].send_multipart([encode(request), image.data.cast("B")])
        self._open[board] = (number, time.monotonic())
        self.asked += 1

    def _receive(self, socket: Socket, board: int) -> None:
        reply, anomaly = decode_to_board(socket.recv_multipart())
        number, asked_s = self._open.get(board, (0, 0.0))
        if reply.id != number:
            self.unexpected += isinstance(reply, Answer)
            return
        del self._open[board]
        self.slowest_s = max(self.slowest_s, time.monotonic() - asked_s)
        if isinstance(reply, Answer) and anomaly is not None:
            self.answered[board] += 1
            self.wrong += anomaly.tobytes() != self._maps[self._picture(board, number)]
        elif isinstance(reply, Refusal):
            self.refused[reply.code] += 1
        self._ask(board)

    def _picture(self, board: int, number: int) -> int:
        """Neighbours have different pictures, so that a map gone astray shows."""
        return (board + number * 7) % DISTINCT


# ---- chaos


def measure_chaos(folder: Path, models: Path, workers: int, seconds: float) -> Table:
    table = make_table(
        f"A worker killed every second for {seconds:.0f} s, {workers} workers, 16 boards, deadline 2 s",
        "figure",
        "value",
    )
    with run_server(folder, models, workers) as server:
        load = Load(server, 16, load_model(load_package(models / MODEL)), deadline_s=2.0)
        kills, until_s = 0, time.monotonic() + seconds
        while time.monotonic() < until_s:
            load.run(1.0)
            for pid in server.workers()[:1]:
                os.kill(pid, signal.SIGKILL)
                kills += 1
        load.run(1.0)
        load.close()
        rows = {
            "workers killed": kills,
            "requests": load.asked,
            "answered": sum(load.answered.values()),
            "refused, typed": dict(load.refused) or 0,
            "timed out": load.timed_out,
            "on their way at the end": load.on_their_way,
            "answered twice or too late": load.unexpected,
            "with another's map": load.wrong,
            "slowest answer, ms": round(load.slowest_s * 1e3),
            "the server still runs": server.child.poll() is None,
        }
    for name, value in rows.items():
        table.add_row(name, str(value))
    return table


def make_table(title: str, *headings: str) -> Table:
    table = Table(title=title)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left")
    return table


if __name__ == "__main__":
    sys.exit(run_main(main))
