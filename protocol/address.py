"""HOST:PORT, as options and configurations write it; an IPv6 address stands in brackets, `[::1]:1883`."""

from __future__ import annotations

import re

from protocol.errors import InputError

_ADDRESS = re.compile(r"(\[[^\[\]\s]+\]|[^\[\]:\s]+)(?::(\d{1,5}))?", re.ASCII)


def parse_address(text: str, port: int | None = None) -> tuple[str, int] | None:
    """Host, without brackets, and a port of 0..65535, `port` where the text has none; None for what is no address.

    >>> parse_address("[::1]:1883")
    ('::1', 1883)
    """
    found = _ADDRESS.fullmatch(text)
    number = port if found is None or found[2] is None else int(found[2])
    if found is None or number is None or number > 65535:
        return None
    return found[1].strip("[]"), number


def split_address(text: str, example_port: int) -> tuple[str, int]:
    """Host, without brackets, and a port of 0..65535. Raises: InputError."""
    address = parse_address(text)
    if address is None:
        raise InputError(f"{text!r:.80} is no HOST:PORT: use the form 127.0.0.1:{example_port}")
    return address
