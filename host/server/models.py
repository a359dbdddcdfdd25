"""Which models the folder holds, read whole and checked; looked at again and again, so that a new one is found."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from protocol.errors import ManifestError
from protocol.manifest import GOLDEN_NPZ, MANIFEST, MODEL_ONNX, Manifest, decode_manifest, require_as_exported

MAX_FILE_BYTES = 512 << 20
MAX_ALL_BYTES = 4 << 30  # of all models together: they are held in memory
MAX_MODELS = 256
Stamp = tuple[tuple[str, int, int, int, int], ...]


@dataclass(eq=False)
class Version:
    """One state of a model's folder. Its bytes travel to the workers, which therefore need no folder of their own."""

    manifest: Manifest
    files: tuple[bytes, bytes, bytes]  # manifest.json, model.onnx, golden.npz
    digest: str  # SHA-256 of manifest.json, which names the digests of all other files
    users: int = 0  # requests that wait for it or are worked on
    fault: str = ""  # why no worker can run it

    @property
    def id(self) -> str:
        return self.manifest.id

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.files))

    @property
    def model_sha256(self) -> str:
        return self.manifest.files[MODEL_ONNX]


@dataclass(frozen=True)
class Reading:
    """What was read from one model's folder when its files had this stamp."""

    stamp: Stamp
    version: Version | None
    fault: str = ""


@dataclass(frozen=True)
class Scan:
    readings: Mapping[Path, Reading] = field(default_factory=dict)
    fault: str = ""  # why the folder itself cannot be listed

    @property
    def versions(self) -> dict[str, Version]:
        """By id; of two folders with one id the first counts."""
        found: dict[str, Version] = {}
        for _, reading in sorted(self.readings.items()):
            if reading.version is not None:
                found.setdefault(reading.version.id, reading.version)
        return found


def scan_models(folder: Path, last: Scan) -> Scan:
    """Read what has changed since `last`; the rest is taken over. Slow for large models: not for the poll loop.

    Others write to the folder meanwhile: what cannot be read is said, and left out until it changes. While the folder
    itself cannot be listed, what was known stays.
    """
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        return replace(last, fault=f"cannot list {folder} ({error.strerror}): its models stay as they were")
    stamps = {path: stamp for path in paths if (stamp := _stamp(path)) is not None}
    readings: dict[Path, Reading] = {}
    left_bytes = MAX_ALL_BYTES
    for path, stamp in list(stamps.items())[:MAX_MODELS]:
        before = last.readings.get(path)
        readings[path] = reading = before if before and before.stamp == stamp else _read(path, stamp, left_bytes)
        left_bytes -= reading.version.size_bytes if reading.version else 0
    return Scan(readings)


def read_version(folder: Path) -> Version:
    """Raises: ManifestError. What is checked is what was read, not what the folder holds a moment later."""
    manifest_json = _read_bounded(folder / MANIFEST)
    manifest = decode_manifest(manifest_json)
    onnx, golden = (_read_checked(folder, name, manifest) for name in (MODEL_ONNX, GOLDEN_NPZ))
    return Version(manifest, (manifest_json, onnx, golden), hashlib.sha256(manifest_json).hexdigest())


def _read(folder: Path, stamp: Stamp, most_bytes: int) -> Reading:
    try:
        version = read_version(folder)
    except ManifestError as error:
        return Reading(stamp, None, str(error))
    if version.size_bytes > most_bytes:
        return Reading(
            stamp, None, f"{folder}: all models together have more than {MAX_ALL_BYTES >> 20} MiB: remove some"
        )
    return Reading(stamp, version)


def _read_checked(folder: Path, name: str, manifest: Manifest) -> bytes:
    data = _read_bounded(folder / name)
    require_as_exported(folder / name, data, manifest.files.get(name))
    return data


def _read_bounded(path: Path) -> bytes:
    """Raises: ManifestError, also for what is no file: a FIFO would be waited for, a device never end."""
    try:
        # subtle: a FIFO is opened without waiting for who writes to it, and is then seen for what it is
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ManifestError(f"{path} is no file: copy the whole model folder again")
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}: copy the whole model folder again") from None
    if len(data) > MAX_FILE_BYTES:
        raise ManifestError(f"{path} has more than {MAX_FILE_BYTES} bytes: export a smaller model")
    return data


def _stamp(folder: Path) -> Stamp | None:
    """Differs whenever one of the files was written, replaced, added, removed or opened to us; None: no model's folder.

    The folder is not listed: it may be one that we may enter and not read.
    """
    stamps = []
    for name in (MANIFEST, MODEL_ONNX, GOLDEN_NPZ):
        try:
            status = (folder / name).stat()
        except (FileNotFoundError, NotADirectoryError):
            if name == MANIFEST:
                return None
            stamps.append((name, 0, 0, 0, 0))
        except OSError as error:
            stamps.append((name, error.errno or 0, 0, 0, 0))
        else:
            stamps.append((name, status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino))
    return tuple(stamps)
