"""Workers as Ray actors: Ray places them on the machines of a cluster and starts them again; pictures go by ZeroMQ.

Each machine has Beltsight installed (`pip install '.[server,cluster]'` in the clone) and is in the cluster (`ray
start`). Actors that no machine has room for wait until one has: a cluster with Ray's autoscaler grows for them.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
from typing import Any

from host.server.orders import NAME_BYTES
from host.server.worker import Worker
from protocol.errors import InputError
from protocol.sockets import Options

INDEX_BYTES, LIFE_BYTES = 2, 3
CONNECT_WITHIN_S = 3.0
MOST_WORKERS = 1 << 8 * INDEX_BYTES


class RayWorker:
    """An actor's whole life is one worker's."""

    def serve(self, endpoint: str, post: bytes, keys: Options, threads: int) -> None:
        """`post` begins the worker's name, the rest is new in each life, so that the front knows one from the other."""
        try:
            Worker(endpoint, post + secrets.token_bytes(LIFE_BYTES), keys, threads).run()
        finally:
            # subtle: a method that returns or raises is done for good; of a process that ends, Ray starts the next
            os._exit(1)


class RayCrew:
    """In the place of `host.server.crew.Crew`."""

    def __init__(self, endpoint: str, size: int, threads: int, *, keys: Options, address: str) -> None:
        """`endpoint` is where the front's workers come in; `*` in it becomes this machine's address in the cluster.

        Raises: InputError without Ray or without a cluster at `address`.
        """
        self._ray = ray = import_ray()
        if address != "auto":
            require_listener(address)
        stop = signal.getsignal(signal.SIGTERM)  # which Ray would replace
        try:
            ray.init(address=address, log_to_driver=False, logging_level="error")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InputError(f"no Ray cluster at {address} ({first_words(error)}): ray start --head") from None
        signal.signal(signal.SIGTERM, stop)
        reachable = endpoint.replace("*", ray.util.get_node_ip_address())
        # without bound: a worker that dies and a machine that is lost are no reason to go on with fewer
        actor = ray.remote(num_cpus=threads, max_restarts=-1, max_task_retries=-1)(RayWorker)
        self._actors: dict[bytes, Any] = {}
        tag = secrets.token_bytes(NAME_BYTES - INDEX_BYTES - LIFE_BYTES)
        for index in range(size):
            post = tag + index.to_bytes(INDEX_BYTES, "big")
            self._actors[post] = actor.options(scheduling_strategy="SPREAD").remote()
            self._actors[post].serve.remote(reachable, post, dict(keys), threads)

    def tend(self, now_s: float) -> list[bytes]:  # noqa: ARG002
        """Nothing to do: Ray starts who is missing, and the front hears who is silent."""
        return []

    def kill(self, name: bytes) -> None:
        """End a worker that hangs; Ray then starts another. Names of others are none of ours."""
        actor = self._actors.get(name[:-LIFE_BYTES])
        if actor is not None:
            self._ray.kill(actor, no_restart=False)

    def pidfds(self) -> list[int]:
        return []

    def stop(self) -> None:
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._ray.shutdown()


def import_ray() -> Any:
    """Raises: InputError."""
    try:
        import ray  # noqa: PLC0415 - only where workers are Ray's
        import ray.util  # noqa: PLC0415
    except ImportError as error:
        raise InputError(f"Ray is not installed ({error}): pip install '.[cluster]' in the clone") from None
    return ray


def require_listener(address: str) -> None:
    """Ray itself would try for a minute. Raises: InputError."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), CONNECT_WITHIN_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(f"no Ray cluster at {address} ({error}): ray start --head there, or correct it") from None


def first_words(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:100]
