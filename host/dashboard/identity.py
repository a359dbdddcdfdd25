"""How a part is named in the history, in addresses of the page, and in file names; and the page at the broker."""

from __future__ import annotations

import hashlib
import re
import secrets
from pathlib import Path

from protocol.errors import InputError
from protocol.streams import client_id

NAME_FILE = "client-id"
_KEY = re.compile(r"[0-9a-f]{32}", re.ASCII)


def part_key(event_id: str) -> str:
    """32 hexadecimal digits: whatever an event id has in it, nothing of it reaches a path.

    >>> len(part_key("../../etc/passwd"))
    32
    """
    return hashlib.sha256(event_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def is_part_key(text: str) -> bool:
    return bool(_KEY.fullmatch(text))


def read_name(folder: Path, site: str, line: str) -> str:
    """What the broker knows this page by, the same at each start, and another for each folder: two pages of one line
    have each verdict both. A folder of an older version goes on with what was kept for that. Raises: InputError.
    """
    path = folder / NAME_FILE
    try:
        if path.is_file():
            return path.read_text().strip()
        is_older = (folder / "pictures").is_dir()
        name = f"beltsight-dashboard-{site}-{line}" if is_older else client_id("page", site, line, secrets.token_hex(4))
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(name + "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot use {path} ({error}): make it writable, or name another --folder") from None
    return name
