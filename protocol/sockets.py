"""ZeroMQ sockets as Beltsight opens them: bounded, never lingering unless asked, errors in our words."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import zmq

from protocol.errors import InputError

Kind = Literal["PUSH", "PULL", "PUB", "SUB", "DEALER", "ROUTER"]
Socket = zmq.Socket[Any]
Options = Mapping[int, int | bytes]  # ZeroMQ's own socket options, such as keys (protocol/keys.py)
NO_OPTIONS: Options = MappingProxyType({})
MAX_MESSAGE_BYTES = 64 << 20


def open_socket(
    kind: Kind,
    endpoint: str,
    *,
    bind: bool,
    high_water_mark: int,
    linger_ms: int = 0,
    timeout_ms: int = 0,
    options: Options = NO_OPTIONS,
) -> Socket:
    """A socket on the process-wide context. `timeout_ms` bounds every send and receive.

    Raises: InputError if the endpoint is malformed or taken.
    """
    # subtle: libzmq keeps 16 bits of a port, so that 99999 would quietly become 34463
    port = endpoint.rpartition(":")[2]
    if port.isdigit() and int(port[:6]) > 65535:
        raise InputError(f"{endpoint} has a port beyond 65535: correct the endpoint")
    socket: Socket = zmq.Context.instance().socket(getattr(zmq, kind))
    socket.setsockopt(zmq.LINGER, linger_ms)
    socket.setsockopt(zmq.SNDHWM, high_water_mark)
    socket.setsockopt(zmq.RCVHWM, high_water_mark)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
    socket.setsockopt(zmq.SNDTIMEO, timeout_ms)
    socket.setsockopt(zmq.RCVTIMEO, timeout_ms)
    if kind == "SUB":
        socket.setsockopt(zmq.SUBSCRIBE, b"")
    for option, value in options.items():
        socket.setsockopt(option, value)
    try:
        socket.bind(endpoint) if bind else socket.connect(endpoint)
    except zmq.ZMQError as error:
        socket.close(0)
        raise InputError(_explain(error, endpoint)) from None
    return socket


def _explain(error: zmq.ZMQError, endpoint: str) -> str:
    if error.errno == zmq.EADDRINUSE:
        return f"{endpoint} is taken: stop the process that holds it, or choose another port"
    return f"cannot open {endpoint!r} ({error.strerror}): use the form tcp://127.0.0.1:5560"
