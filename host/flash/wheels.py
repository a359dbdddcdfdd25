"""The wheels that the board installs without a network: a pinned list, a cache, and a download where there is one."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

from protocol.errors import InputError

LISTING = "wheels.txt"
# What the board's pip takes: Python 3.10 on 32-bit ARM with glibc 2.35.
_PLATFORMS = ("manylinux_2_35_armv7l", "manylinux_2_31_armv7l", "manylinux_2_17_armv7l", "linux_armv7l")
_DOWNLOAD_WITHIN_S = 900


def load_wheels(listing: Path, cache: Path) -> dict[str, bytes]:
    """Content by file name: every wheel in the pinned list, and the list as `wheels.txt`. Raises: InputError."""
    try:
        pinned = listing.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {listing} ({error.strerror}): correct --wheel-list") from None
    wanted = _decode_listing(pinned.decode(errors="replace"))
    if set(wanted) - set(_by_sha256(cache)):
        _download(listing, cache)
    found = _by_sha256(cache)
    missing = [name for digest, name in wanted.items() if digest not in found]
    if missing:
        raise InputError(
            f"{cache} lacks {', '.join(missing)} with the SHA-256 in {listing.name}: copy the folder from a machine "
            "with internet, where beltsight flash has filled it"
        )
    return {LISTING: pinned, **{found[digest].name: found[digest].read_bytes() for digest in wanted}}


def _decode_listing(text: str) -> dict[str, str]:
    """Requirement by SHA-256, from pip's own form with one requirement a line."""
    rows = re.findall(r"^([\w.-]+==\S+)\s+--hash=sha256:([0-9a-f]{64})\s*$", text, re.MULTILINE)
    return {digest: name for name, digest in rows}


def _by_sha256(cache: Path) -> dict[str, Path]:
    paths = sorted(cache.glob("*.whl")) if cache.is_dir() else []
    return {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in paths}


def _download(listing: Path, cache: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--retries", "1"]
    command += ["--no-deps", "--require-hashes", "--only-binary=:all:", "--dest", str(cache), "-r", str(listing)]
    command += [
        "--python-version",
        "3.10",
        "--implementation",
        "cp",
        "--abi",
        "cp310",
        "--abi",
        "abi3",
        "--abi",
        "none",
    ]
    command += [part for platform in _PLATFORMS for part in ("--platform", platform)]
    try:
        cache.mkdir(parents=True, exist_ok=True)
        # What it could not fetch is seen when the cache is read again.
        subprocess.run(command, capture_output=True, timeout=_DOWNLOAD_WITHIN_S, check=False)  # noqa: S603 - pip
    except subprocess.TimeoutExpired:
        raise InputError(f"the download into {cache} does not end: copy the wheels there by hand") from None
    except OSError as error:
        raise InputError(f"cannot use {cache} ({error.strerror}): give --wheels another folder") from None
