"""Which models the folder holds, read whole and checked; looked at again and again, so that a new one is found."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from protocol.errors import ManifestError
from protocol.manifest import GOLDEN_NPZ, MANIFEST, MODEL_ONNX, Manifest, decode_manifest, require_as_exported

MAX_FILE_BYTES = 512 << 20
MAX_MODELS = 256
Stamp = tuple[tuple[str, int, int, int], ...]


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

    @property
    def versions(self) -> dict[str, Version]:
        """By id; of two folders with one id the first counts."""
        found: dict[str, Version] = {}
        for _, reading in sorted(self.readings.items()):
            if reading.version is not None:
                found.setdefault(reading.version.id, reading.version)
        return found


def scan_models(folder: Path, last: Scan) -> Scan:
    """Read what has changed since `last`; the rest is taken over. Slow for large models: not for the poll loop."""
    readings = {}
    for path in sorted(folder.glob(f"*/{MANIFEST}"))[:MAX_MODELS]:
        stamp, before = _stamp(path.parent), last.readings.get(path.parent)
        readings[path.parent] = before if before and before.stamp == stamp else _read(path.parent, stamp)
    return Scan(readings)


def read_version(folder: Path) -> Version:
    """Raises: ManifestError. What is checked is what was read, not what the folder holds a moment later."""
    try:
        manifest_json = _read_bounded(folder / MANIFEST)
        manifest = decode_manifest(manifest_json)
        onnx, golden = (_read_checked(folder, name, manifest) for name in (MODEL_ONNX, GOLDEN_NPZ))
    except OSError as error:
        raise ManifestError(f"{error.filename}: {error.strerror}: copy the whole model folder again") from None
    return Version(manifest, (manifest_json, onnx, golden), hashlib.sha256(manifest_json).hexdigest())


def _read(folder: Path, stamp: Stamp) -> Reading:
    try:
        return Reading(stamp, read_version(folder))
    except ManifestError as error:
        return Reading(stamp, None, str(error))


def _read_checked(folder: Path, name: str, manifest: Manifest) -> bytes:
    data = _read_bounded(folder / name)
    require_as_exported(folder / name, data, manifest.files.get(name))
    return data


def _read_bounded(path: Path) -> bytes:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ManifestError(f"{path} has more than {MAX_FILE_BYTES} bytes: export a smaller model")
    return path.read_bytes()


def _stamp(folder: Path) -> Stamp:
    """Differs whenever a file was written, replaced, added or removed."""
    stamps = []
    for path in sorted(folder.iterdir()):
        try:
            status = path.stat()
        except OSError:  # removed since it was listed: the next look finds another stamp
            continue
        stamps.append((path.name, status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(stamps)
