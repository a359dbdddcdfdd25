"""What a production card switches off in the official image, after the list in `board/image/hardening.toml`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from host.flash.ext4 import Ext4
from host.flash.payload import Entry, file, link
from protocol.errors import InputError
from protocol.strict import build

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

UNITS = "/etc/systemd/system"
SHADOW = "/etc/shadow"


@dataclass(frozen=True)
class Hardening:
    lock_passwords: tuple[str, ...]
    masked: tuple[str, ...]  # units
    files: dict[str, str]  # path on the card -> file beside the list


def load_hardening(folder: Path) -> Hardening:
    return build(Hardening, tomllib.loads((folder / "hardening.toml").read_text()))


def lasting_entries(folder: Path) -> Iterator[Entry]:
    """What each update puts in order again."""
    hardening = load_hardening(folder)
    for unit in hardening.masked:
        yield link(f"{UNITS}/{unit}", "/dev/null")
    for path, name in hardening.files.items():
        yield file(path, (folder / name).read_bytes())


def first_entries(folder: Path, system: Ext4) -> Iterator[Entry]:
    """What is done once: whoever sets a password on his board later keeps it. Raises: InputError."""
    shadow, status = system.read(SHADOW), system.stat(SHADOW)
    if shadow is None or status is None:
        raise InputError(f"{system.path} has no {SHADOW}: give the official image, unchanged")
    locked = lock_passwords(shadow.decode(), load_hardening(folder).lock_passwords)
    yield Entry(SHADOW, status.mode & 0o7777, locked.encode(), user=status.user, group=status.group)


def lock_passwords(shadow: str, users: tuple[str, ...]) -> str:
    r"""shadow(5) with a password that nothing matches for each of the users; the known hash does not stay.

    >>> lock_passwords("root:$y$j9T$x:19000:0:99999:7:::\n", ("root",))
    'root:!:19000:0:99999:7:::\n'

    Raises: InputError for a user that is not there: the image is then not the one that the list was made for.
    """
    lines = [line.split(":") for line in shadow.splitlines()]
    absent = set(users) - {fields[0] for fields in lines}
    if absent:
        raise InputError(f"{SHADOW} has no user {', '.join(sorted(absent))}: give the official image, unchanged")
    return "".join(":".join([f[0], "!", *f[2:]] if f[0] in users else f) + "\n" for f in lines)
