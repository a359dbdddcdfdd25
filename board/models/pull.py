"""Fetch a signed model package over HTTP, for stations that nobody logs into.

What comes is believed for its signature, not for where it came from: the manifest is verified first, and names every
other file with its SHA-256. The package appears by one rename, or not at all.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from board.disk import sync_file, sync_folder
from board.models.fetch import Patience, receive
from protocol.errors import InputError
from protocol.manifest import MANIFEST, MAX_MANIFEST_BYTES, Manifest, decode_manifest
from protocol.signing import SIGNATURE, SIGNATURE_BYTES, TrustedKeys

MAX_FILE_BYTES = 64 << 20
MAX_FILES = 64


@dataclass(frozen=True)
class Bounds:
    stalled_s: float = 10.0  # without a byte
    within_s: float = 300.0  # all of it
    spare_bytes: int = 32 << 20  # that stay free on the card


def pull_package(url: str, model_id: str, folder: Path, trusted: TrustedKeys, bounds: Bounds = Bounds()) -> Path:
    """The package's folder, `folder`/`model_id`; one that is there already is left as it is.

    Raises: InputError, ManifestError, saying what could not be fetched or believed.
    """
    target = folder / model_id
    if target.is_dir():
        return target
    incoming = folder / f".incoming-{model_id}"
    shutil.rmtree(incoming, ignore_errors=True)  # of a station that was cut off
    try:
        incoming.mkdir(parents=True)
        _fill(incoming, url, model_id, trusted, bounds)
        os.replace(incoming, target)
        sync_folder(folder)
    except OSError as error:
        raise InputError(f"cannot keep the model in {folder} ({error.strerror}): make room there") from None
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
    return target


def _fill(incoming: Path, url: str, model_id: str, trusted: TrustedKeys, bounds: Bounds) -> None:
    patience = Patience(bounds.stalled_s, bounds.within_s, time.monotonic() + bounds.within_s)
    fetch = functools.partial(_fetch, url, incoming, bounds, patience)
    fetch(name=SIGNATURE, limit_bytes=SIGNATURE_BYTES)
    fetch(name=MANIFEST, limit_bytes=MAX_MANIFEST_BYTES)
    data = (incoming / MANIFEST).read_bytes()
    trusted.require_signed(incoming, data)
    manifest = decode_manifest(data)
    _require_fitting(manifest, url, model_id)
    for name, sha256 in manifest.files.items():
        if fetch(name=name, limit_bytes=MAX_FILE_BYTES) != sha256:
            raise InputError(f"{url}/{name} is not the file that was signed: copy the model folder there again")
    sync_folder(incoming)


def _require_fitting(manifest: Manifest, url: str, model_id: str) -> None:
    if manifest.id != model_id:
        raise InputError(f"{url} holds {manifest.id}, not {model_id}: correct the command")
    if len(manifest.files) > MAX_FILES:
        raise InputError(f"{url} has {len(manifest.files)} files; at most {MAX_FILES} are fetched")


def _fetch(url: str, folder: Path, bounds: Bounds, patience: Patience, *, name: str, limit_bytes: int) -> str:
    """The file's SHA-256. Raises: InputError; OSError if it cannot be kept."""
    digest, size = hashlib.sha256(), 0
    with (folder / name).open("wb") as file:
        for chunk in receive(url, name, patience):
            size += len(chunk)
            if size > limit_bytes:
                raise InputError(f"{url}/{name} is larger than {limit_bytes} bytes")
            if shutil.disk_usage(folder).free < bounds.spare_bytes:
                spare = f"{bounds.spare_bytes >> 20} MiB"
                raise InputError(f"{folder.parent} has less than {spare} free: remove old models")
            file.write(chunk)
            digest.update(chunk)
        sync_file(file)
    return digest.hexdigest()
