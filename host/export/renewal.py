"""Change what a finished package says of itself: its network, golden vectors and threshold stay as they are."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from host.export.order import RENDERED
from host.export.package import publish, write_files
from protocol.manifest import MANIFEST, Manifest, Package


@contextlib.contextmanager
def open_unfinished(package: Package) -> Iterator[Path]:
    """An empty folder on the package's file system; it is removed again."""
    unfinished = package.folder.with_name(f".{package.folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        yield unfinished
    finally:
        shutil.rmtree(unfinished)


def rewrite(
    package: Package, unfinished: Path, manifest: Manifest, changed: Mapping[str, bytes], keys: Sequence[str]
) -> None:
    """With other contents of some files and other values of some `keys` of the manifest, by one rename."""
    files = {name: package.path(name).read_bytes() for name in package.manifest.files}
    write_files(unfinished / "package", manifest, {**files, **changed})
    keep_the_rest(package.folder / MANIFEST, unfinished / "package" / MANIFEST, keys)
    publish(unfinished / "package", package.folder)


def keep_the_rest(before: Path, written: Path, keys: Sequence[str]) -> None:
    """What is not among the keys stays in the manifest as it stood there: to a reader 1 and 1.0 differ."""
    content = json.loads(before.read_bytes())
    fresh = json.loads(written.read_bytes())
    content |= {key: fresh[key] for key in keys}
    written.write_text(json.dumps(content, indent=2) + "\n")


def name_data(data: str) -> str:
    """Folders by their names, since they lie elsewhere on other machines."""
    return data if data == RENDERED else Path(data).resolve().name
