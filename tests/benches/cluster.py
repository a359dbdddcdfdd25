"""What workers placed by Ray cost beside local ones: `beltsight bench cluster`.

One worker each, one picture at a time, on one machine: Ray's worker is reached over TCP, a local one over a Unix
socket. Bare and served pictures alternate, as in `beltsight bench server`. "kill": from the SIGKILL of the only worker
to the next answer.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from host.server.cluster import import_ray
from protocol.detection import Answer, Request, decode_to_board, encode
from protocol.errors import InputError, run_main
from protocol.manifest import load_package
from sim.station import LOOPBACK, free_port
from tests.benches.server import MODEL, Server, alternate, connect, make_table, noise, run_server, write_models

STORE_BYTES = 80 << 20  # Ray's least; nothing of ours lies in it
ANSWERED_WITHIN_S = 60.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="beltsight bench cluster", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=int, default=500, help="for each latency (default: %(default)s)")
    options = parser.parse_args()
    import_ray()
    table = make_table(
        f"One worker, {MODEL}", "worker", "start, s", "p50 bare, ms", "p50 served, ms", "added, ms", "kill, s"
    )
    console = Console()
    console.print(f"load of the machine before: {os.getloadavg()[0]:.2f}", highlight=False)
    with tempfile.TemporaryDirectory() as name:
        models = write_models(Path(name) / "models")
        table.add_row("local", *measure(Path(name), models, options.pictures, Server.workers))
        started_s = time.monotonic()
        with run_cluster() as address:
            console.print(f"a Ray cluster of one node, up in {time.monotonic() - started_s:.1f} s", highlight=False)
            where = ["--cluster", "ray", "--cluster-address", address]
            where += ["--workers-bind", f"tcp://{LOOPBACK}:{free_port()}"]
            table.add_row("Ray actor", *measure(Path(name), models, options.pictures, actors, *where))
    console.print(table)
    return 0


def measure(
    folder: Path, models: Path, pictures: int, workers: Callable[[Server], list[int]], *where: str
) -> tuple[str, ...]:
    started_s = time.monotonic()
    with run_server(folder, models, 1, *where) as server:
        start_s = time.monotonic() - started_s - 1.0  # which it waits when all are ready
        bare_ms, served_ms = alternate(server, load_package(models / MODEL), "image", (128, 128), pictures)
        killed_s = time.monotonic()
        os.kill(workers(server)[0], signal.SIGKILL)
        ask_until_answered(server)
        kill_s = time.monotonic() - killed_s
    return f"{start_s:.1f}", f"{bare_ms:.2f}", f"{served_ms:.2f}", f"{served_ms - bare_ms:.2f}", f"{kill_s:.1f}"


def ask_until_answered(server: Server) -> None:
    """One request after the other, as many as it takes. Raises: InputError."""
    until_s = time.monotonic() + ANSWERED_WITHIN_S
    image = noise(1, 128, 128)[0]
    with connect(server) as socket:
        for number in range(1, 1000):
            socket.send_multipart([encode(Request(number, MODEL, 60_000.0, (128, 128))), image.data.cast("B")])
            if socket.poll(max(0, int((until_s - time.monotonic()) * 1e3))):
                reply, _ = decode_to_board(socket.recv_multipart())
                if isinstance(reply, Answer):
                    return
    raise InputError("no worker came back: run the server by hand and read its log")


@contextlib.contextmanager
def run_cluster() -> Iterator[str]:
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": STORE_BYTES}
    cluster: Any = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield cluster.address
    finally:
        cluster.shutdown()


def actors(_server: Server) -> list[int]:
    """Process ids; Ray names the process of an actor by its class."""
    return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if is_actor(path)]


def is_actor(cmdline: Path) -> bool:
    try:
        return b"ray::RayWorker" in cmdline.read_bytes()
    except OSError:  # a process that ended meanwhile
        return False


if __name__ == "__main__":
    sys.exit(run_main(main))
