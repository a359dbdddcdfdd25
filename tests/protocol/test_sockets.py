"""Sockets deliver, are bounded in time, and say in our words why they do not open."""

from __future__ import annotations

import time

import pytest
import zmq

from protocol.errors import InputError
from protocol.sockets import open_socket


def test_a_message_goes_through(endpoint: str) -> None:
    with (
        open_socket("PULL", endpoint, bind=True, high_water_mark=4, timeout_ms=5000) as pull,
        open_socket("PUSH", endpoint, bind=False, high_water_mark=4, linger_ms=1000) as push,
    ):
        push.send_multipart([b"a", b"b"])
        assert pull.recv_multipart() == [b"a", b"b"]


def test_a_taken_port_says_what_to_do(endpoint: str) -> None:
    advice = f"{endpoint} is taken: stop the process that holds it, or choose another port"
    with open_socket("PULL", endpoint, bind=True, high_water_mark=1), pytest.raises(InputError, match=advice):
        open_socket("PUB", endpoint, bind=True, high_water_mark=1)


@pytest.mark.parametrize("endpoint", ["", "5560", "tcp://", "tcp://127.0.0.1:x", "udp://127.0.0.1:1"])
def test_what_is_no_endpoint_says_its_form(endpoint: str) -> None:
    with pytest.raises(InputError, match=r"use the form tcp://127\.0\.0\.1:5560"):
        open_socket("PULL", endpoint, bind=True, high_water_mark=1)


def test_receiving_ends_at_the_deadline(endpoint: str) -> None:
    with open_socket("PULL", endpoint, bind=True, high_water_mark=1, timeout_ms=50) as pull:
        started_s = time.monotonic()
        with pytest.raises(zmq.Again):
            pull.recv()
        assert 0.04 < time.monotonic() - started_s < 2


def test_nothing_is_queued_without_a_reader(endpoint: str) -> None:
    with open_socket("PUSH", endpoint, bind=True, high_water_mark=1) as push, pytest.raises(zmq.Again):
        push.send(b"nobody takes this")


def test_a_port_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InputError, match="port beyond 65535"):
        open_socket("PULL", "tcp://127.0.0.1:99999", bind=True, high_water_mark=1)
