"""How a part is named in the history, in addresses of the page, and in file names."""

from __future__ import annotations

import hashlib
import re

_KEY = re.compile(r"[0-9a-f]{32}", re.ASCII)


def part_key(event_id: str) -> str:
    """32 hexadecimal digits: whatever an event id has in it, nothing of it reaches a path.

    >>> len(part_key("../../etc/passwd"))
    32
    """
    return hashlib.sha256(event_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def is_part_key(text: str) -> bool:
    return bool(_KEY.fullmatch(text))
