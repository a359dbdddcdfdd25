"""The detection server: boards send pictures over ZeroMQ and get anomaly maps back.

beltsight server --models models --bind tcp://127.0.0.1:5555
beltsight server --models models --bind tcp://*:5555 --key keys/server.secret --allow keys/boards
beltsight server --models models --workers-bind tcp://127.0.0.1:5556 --cluster ray --workers 16
beltsight server --join tcp://server:5556 --server-key keys/server.public --key keys/worker.secret
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import zmq

from host.last_words import LastWords
from host.server.admission import BOARDS, WORKERS, Admission
from host.server.cluster import MOST_WORKERS, RayCrew
from host.server.crew import Crew, Keys
from host.server.dispatch import Limits
from host.server.front import Front
from host.server.logs import log, start_logging
from host.server.metrics import Metrics, serve_metrics
from protocol.address import split_address
from protocol.console import occupy_standard_files
from protocol.errors import InputError, run_main
from protocol.keys import client_options, is_loopback, load_public, load_secret, server_options
from protocol.sockets import Options, Socket, open_socket
from protocol.supervision import SUPERVISOR

DEFAULTS = Limits()
SILENT_S = 2.0  # of the poll loop
UNREAD_REPLIES = 1000  # more than one board can be owed


def main() -> int:
    occupy_standard_files()
    options = parse_options()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    start_logging()
    SUPERVISOR.see_everything()
    words = LastWords(lambda text: log("threads", level=logging.ERROR, what=text), stop.set)
    with SUPERVISOR.keep_watch(words.act):
        if options.join:
            run_joined(options, stop)
        else:
            run_front(options, stop)
    return words.exit_code


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="beltsight server", description="Judge pictures for many boards, over ZeroMQ."
    )
    add = parser.add_argument
    add("--models", type=Path, default=Path("models"), help="folder of model packages (default: %(default)s)")
    add("--bind", default="tcp://127.0.0.1:5555", help="where boards connect (default: %(default)s)")
    add("--workers", type=int, default=os.cpu_count() or 1, help="worker processes (default: one a core)")
    add("--threads", type=int, default=1, help="threads of each worker (default: %(default)s)")
    add("--workers-bind", help="where workers of other machines join, e.g. tcp://*:5556")
    add("--cluster", choices=("ray",), help="have Ray place the workers: they come in at --workers-bind")
    add("--cluster-address", default="auto", help="of the Ray cluster (default: the one that this machine is in)")
    add("--join", help="be workers of the server at this endpoint, nothing else")
    add("--key", type=Path, help="own secret key (beltsight keys): connections are encrypted")
    add("--allow", type=Path, help="folder of the boards' public keys")
    add("--allow-workers", type=Path, help="folder of the joining workers' public keys")
    add("--server-key", type=Path, help="with --join: the server's public key")
    add("--workers-key", type=Path, help="with --cluster and --key: the workers' secret key")
    add("--plain-anywhere", action="store_true", help="speak unencrypted beyond this machine: anybody may listen")
    add("--metrics", default="127.0.0.1:9464", help="HOST:PORT of /metrics, /healthz, /readyz (default: %(default)s)")
    add("--max-batch", type=int, default=DEFAULTS.max_batch, help="pictures judged together (default: %(default)s)")
    add("--max-wait-ms", type=float, default=DEFAULTS.max_wait_ms, help="for a full batch while all workers are busy")
    add("--queue", type=int, default=DEFAULTS.queue_total, help="requests that may wait (default: %(default)s)")
    add("--queue-per-board", type=int, default=DEFAULTS.queue_per_client, help="of one board (default: %(default)s)")
    add(
        "--batch-s", type=float, default=DEFAULTS.batch_s, help="a worker slower than this hangs (default: %(default)s)"
    )
    options = parser.parse_args()
    if options.workers < 0 or options.threads < 1:
        parser.error("--workers must be 0 or more, --threads 1 or more")
    if options.cluster and (not options.workers_bind or options.join or options.workers >= MOST_WORKERS):
        parser.error(f"--cluster needs --workers-bind, goes without --join, and has at most {MOST_WORKERS - 1} workers")
    if not 1 <= options.max_batch <= 64 or options.queue < 1 or options.queue_per_board < 1:
        parser.error("--max-batch must be 1..64, --queue and --queue-per-board 1 or more")
    return options


def run_front(options: argparse.Namespace, stop: threading.Event) -> None:
    """Raises: InputError for what cannot be used."""
    if not options.models.is_dir():
        raise InputError(f"no folder {options.models}: give --models the folder of the model packages")
    metrics = Metrics()
    limits = Limits(
        max_batch=options.max_batch,
        max_wait_ms=options.max_wait_ms,
        queue_total=options.queue,
        queue_per_client=options.queue_per_board,
        batch_s=options.batch_s,
    )
    with contextlib.ExitStack() as opened:
        http = serve_metrics(metrics, *split_address(options.metrics, 9464))
        opened.callback(http.close)
        # a folder that only this user can enter: who is in there is one of ours
        folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="beltsight-"))
        admission = open_admission(options, metrics)
        if admission:
            opened.callback(admission.close)
        local = f"ipc://{folder}/workers"
        workers = [open_workers(opened, local, {})]
        if options.workers_bind:
            keys = encryption(options, options.workers_bind, options.allow_workers, WORKERS)
            workers.append(open_workers(opened, options.workers_bind, keys))
        boards = open_boards(opened, options.bind, encryption(options, options.bind, options.allow, BOARDS))
        crew = open_cluster(options) if options.cluster else Crew(local, options.workers, options.threads)
        front = Front(
            boards=boards,
            workers=workers,
            models=options.models,
            crew=crew,
            limits=limits,
            metrics=metrics,
            admission=admission,
        )
        opened.callback(front.close)
        log("server runs", bind=options.bind, encrypted=bool(options.key), workers=options.workers)
        with SUPERVISOR.watch("front", silent_s=SILENT_S) as loop:
            front.run(stop.is_set, loop.beat)


def open_cluster(options: argparse.Namespace) -> RayCrew:
    """Raises: InputError for a cluster, a key or an endpoint that cannot be used."""
    keys: Options = {}
    if options.key:
        if options.workers_key is None:
            raise InputError("--cluster with --key needs --workers-key: make one with `beltsight keys`")
        keys = client_options(load_secret(options.key).public, load_secret(options.workers_key))
    return RayCrew(options.workers_bind, options.workers, options.threads, keys=keys, address=options.cluster_address)


def run_joined(options: argparse.Namespace, stop: threading.Event) -> None:
    """Keep workers for a server elsewhere. Raises: InputError."""
    keys = None
    if options.key and options.server_key:
        load_secret(options.key), load_public(options.server_key)
        keys = Keys(options.server_key.resolve(), options.key.resolve())
    elif not (is_loopback(options.join) or options.plain_anywhere):
        raise InputError(f"{options.join} is another machine: give --server-key and --key, or --plain-anywhere")
    crew = Crew(options.join, options.workers, options.threads, keys)
    log("workers join", server=options.join, encrypted=keys is not None, workers=options.workers)
    while not stop.wait(0.1):
        for name in crew.tend(time.monotonic()):
            log("worker ended", worker=name.hex())
    crew.stop()


def open_admission(options: argparse.Namespace, metrics: Metrics) -> Admission | None:
    folders = {BOARDS: options.allow, WORKERS: options.allow_workers}
    folders = {domain: folder for domain, folder in folders.items() if folder is not None}
    return Admission(folders, metrics) if options.key else None


def encryption(options: argparse.Namespace, endpoint: str, allow: Path | None, domain: bytes) -> Options:
    """Raises: InputError for an endpoint that others can reach and that is neither encrypted nor meant to be plain."""
    if options.key:
        if allow is None:
            raise InputError(f"--key without a folder of keys that may come in at {endpoint}: see --help on --allow")
        return server_options(load_secret(options.key), domain)
    if not (is_loopback(endpoint) or options.plain_anywhere):
        raise InputError(f"{endpoint} can be reached by others: give --key and --allow, or --plain-anywhere")
    return {}


def open_boards(opened: contextlib.ExitStack, endpoint: str, keys: Options) -> Socket:
    """Boards that vanish are forgotten after seconds; what they do not read is dropped beyond `UNREAD_REPLIES`."""
    options = {zmq.HEARTBEAT_IVL: 1000, zmq.HEARTBEAT_TIMEOUT: 3000, zmq.SNDHWM: UNREAD_REPLIES, **keys}
    # a board may have this many pictures on their way beside those that are queued
    return opened.enter_context(open_socket("ROUTER", endpoint, bind=True, high_water_mark=8, options=options))


def open_workers(opened: contextlib.ExitStack, endpoint: str, keys: Options) -> Socket:
    options = {zmq.HEARTBEAT_IVL: 1000, zmq.HEARTBEAT_TIMEOUT: 3000, zmq.ROUTER_MANDATORY: 1, **keys}
    return opened.enter_context(open_socket("ROUTER", endpoint, bind=True, high_water_mark=64, options=options))


if __name__ == "__main__":
    sys.exit(run_main(main))
