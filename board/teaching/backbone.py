"""A backbone's folder: graphs and a program that give features; `backbone.json` names them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from protocol.errors import InputError
from protocol.manifest import file_sha256
from protocol.strict import FieldError, build, require

FORMAT = 1
BACKBONE_JSON = "backbone.json"
MAKE_AGAIN = "make it again with `beltsight backbone`"


@dataclass(frozen=True)
class BackboneManifest:
    format: int
    name: str
    input_px: int
    weights_sha256: str  # of the file that it was made from
    files: dict[str, str]  # name -> SHA-256 in hexadecimal

    def __post_init__(self) -> None:
        require(self.format == FORMAT, "format", f"must be {FORMAT}")


@dataclass(frozen=True)
class BackboneFolder:
    """Its files were checked against the manifest."""

    folder: Path
    manifest: BackboneManifest
    sha256: str  # of backbone.json, which names all files: two with the same give the same features

    def path(self, name: str) -> Path:
        """Raises: InputError if it has none of that name."""
        if name not in self.manifest.files:
            raise InputError(f"{self.folder} has no {name}: {MAKE_AGAIN}")
        return self.folder / name


def load_folder(folder: Path) -> BackboneFolder:
    """Raises: InputError for a folder that is none, or whose files are not those that were written."""
    try:
        content = (folder / BACKBONE_JSON).read_bytes()
        manifest = build(BackboneManifest, json.loads(content))
    except OSError:
        raise InputError(
            f"no backbone at {folder}: make one with `beltsight backbone`, or correct --backbone"
        ) from None
    except (ValueError, RecursionError, FieldError) as error:
        raise InputError(f"{folder / BACKBONE_JSON}: {error!s:.100}: {MAKE_AGAIN}") from None
    for file, digest in manifest.files.items():
        if not (folder / file).is_file() or file_sha256(folder / file) != digest:
            raise InputError(f"{folder / file} is not the file that was written: {MAKE_AGAIN}")
    return BackboneFolder(folder, manifest, hashlib.sha256(content).hexdigest())


def find_folder(backbones: Path, sha256: str) -> BackboneFolder:
    """The one of a folder of backbones that a model was taught on. Raises: InputError."""
    for path in sorted(backbones.glob(f"*/{BACKBONE_JSON}")):
        if file_sha256(path) == sha256:
            return load_folder(path.parent)
    raise InputError(
        f"the backbone that this model was taught on (its {BACKBONE_JSON} has the SHA-256 {sha256[:12]}…) is not in "
        f"{backbones}: copy it there, or correct [engines] backbones"
    )
