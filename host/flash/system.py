"""What the official image gets beside the station: its units, the way in for its owner, and hardening."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from host.flash.ext4 import Ext4
from host.flash.hardening import UNITS, first_entries, lasting_entries
from host.flash.payload import Entry, file, folder, link
from host.flash.station import Profile
from protocol.errors import InputError

OWN_UNITS = (
    "beltsight.service",
    "beltsight-install.service",
    "beltsight-clock.service",
    "beltsight-hostkeys.service",
)
HOST_KEYS = "/etc/ssh"
_PUBLIC_KEY = re.compile(r"(ssh-(ed25519|rsa)|ecdsa-sha2-\S+|sk-\S+) [A-Za-z0-9+/=]{40,}( .*)?")


def lasting(root: Path, profile: Profile, ssh_key: str | None) -> Iterator[Entry]:
    """What flashing writes and each update puts in order again."""
    image = root / "board" / "image"
    for unit in OWN_UNITS:
        yield file(f"{UNITS}/{unit}", (image / unit).read_bytes())
        yield link(f"{UNITS}/multi-user.target.wants/{unit}", f"{UNITS}/{unit}")
    if ssh_key:
        yield folder("/root/.ssh", 0o700)
        yield file("/root/.ssh/authorized_keys", f"{ssh_key}\n".encode(), 0o600)
    if profile == "production":
        yield from lasting_entries(image)


def at_first(root: Path, profile: Profile, system: Ext4) -> Iterator[Entry]:
    """What only flashing writes."""
    if profile == "production":
        yield from first_entries(root / "board" / "image", system)


def shared_host_keys(system: Ext4) -> list[str]:
    """The ssh host keys that every copy of the image has in common."""
    return [f"{HOST_KEYS}/{name}" for name in system.entries(HOST_KEYS) if name.startswith("ssh_host_")]


def load_ssh_key(path: Path) -> str:
    """One public key in OpenSSH's form. Raises: InputError."""
    try:
        text = path.read_text(errors="replace").strip()
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}): give --ssh-key your public key") from None
    if "PRIVATE KEY" in text:
        raise InputError(f"{path} is a private key, which never leaves its owner: give {path}.pub")
    if not _PUBLIC_KEY.fullmatch(text):
        raise InputError(f"{path} is no public ssh key: give --ssh-key a file like ~/.ssh/id_ed25519.pub")
    return text
