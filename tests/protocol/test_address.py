"""HOST:PORT as it is written in options and configurations."""

from __future__ import annotations

import pytest

from protocol.address import parse_address, split_address
from protocol.errors import InputError


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:1883", "127.0.0.1", 1883),
        ("line-1.plant:0", "line-1.plant", 0),
        ("[::1]:65535", "::1", 65535),
    ],
)
def test_a_host_and_its_port(text: str, host: str, port: int) -> None:
    assert split_address(text, 8080) == parse_address(text, 7) == (host, port)


@pytest.mark.parametrize("text", ["broker", "[::1]"])
def test_a_port_may_be_left_out_where_there_is_a_usual_one(text: str) -> None:
    assert parse_address(text, 1883) == (text.strip("[]"), 1883)
    assert parse_address(text) is None


NONE = (
    *("", ":", ":1883", "host:", "host:x", "host:-1", "host:65536", "host:000001", "host:１８", "a b:1", "host:1\n"),
    *("::1:1883", "[::1", "[]:1", "[::1]1883"),
)


@pytest.mark.parametrize("text", NONE)
def test_what_is_no_address(text: str) -> None:
    assert parse_address(text, 1883) is None
    with pytest.raises(InputError, match=r"is no HOST:PORT: use the form 127\.0\.0\.1:8080$"):
        split_address(text, 8080)
