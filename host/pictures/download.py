"""Download one file over HTTP: goes on where an earlier try stopped, bounded in size, checked before it counts."""

from __future__ import annotations

import hashlib
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO

from host.pictures.catalogue import Source
from protocol.errors import InputError

TIMEOUT_S = 30.0  # without a byte
CHUNK_BYTES = 1 << 18
PARTIAL_CONTENT, RANGE_NOT_SATISFIABLE = 206, 416

Advance = Callable[[int, int], None]  # told the bytes that are there and, where known, those that there will be


def download(source: Source, folder: Path, advance: Advance) -> Path:
    """The file, complete and checked, in `folder`; an interrupted download leaves `<name>.part` to go on from.

    Raises: InputError if it cannot be had or is not what it should be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / source.file_name
    if not target.is_file():
        partial = target.with_name(target.name + ".part")
        _fetch(source, partial, advance)
        _check(source, partial, target.with_name(target.name + ".sha256"))
        os.replace(partial, target)
    return target


def _fetch(source: Source, partial: Path, advance: Advance) -> None:
    """All bytes into `partial`, from where it ends."""
    try:
        response, start = _open(source.url, partial)
        with response, partial.open("r+b" if start else "wb") as file:
            file.seek(start)
            _copy(source, response, file, advance)
    except urllib.error.URLError as error:
        reason = f"HTTP {error.code}" if isinstance(error, urllib.error.HTTPError) else error.reason
        raise InputError(f"{source.url} cannot be had ({reason}): try again later; what is there is kept") from None
    except (TimeoutError, HTTPException, ConnectionError) as error:
        raise _stopped(source, partial, str(error) or type(error).__name__) from None


def _open(url: str, partial: Path) -> tuple[HTTPResponse, int]:
    """A response, and the byte of the file that it starts with."""
    there = partial.stat().st_size if partial.is_file() else 0
    tag = partial.with_name(partial.name + ".tag")
    request = urllib.request.Request(url, headers={"User-Agent": "beltsight"})  # noqa: S310 - from the catalogue
    if there and tag.is_file():
        # subtle: only the very file that the first part came from may be continued
        request.add_header("Range", f"bytes={there}-")
        request.add_header("If-Range", tag.read_text())
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code != RANGE_NOT_SATISFIABLE:
            raise
        partial.unlink()  # longer than the file: begin anew
        return _open(url, partial)
    if response.status == PARTIAL_CONTENT:
        return response, _first_byte(response, url)
    tag.unlink(missing_ok=True)
    # A weak tag (W/…) does not promise the same bytes.
    etag = response.headers.get("ETag", "")
    if etag and not etag.startswith("W/"):
        tag.write_text(etag)
    elif response.headers.get("Last-Modified"):
        tag.write_text(response.headers["Last-Modified"])
    return response, 0


def _first_byte(response: HTTPResponse, url: str) -> int:
    found = re.fullmatch(r"bytes (\d+)-\d+/(?:\d+|\*)", response.headers.get("Content-Range", ""))
    if found is None:
        raise InputError(f"{url}: the server answers a part of the file without saying which: delete *.part")
    return int(found[1])


def _copy(source: Source, response: HTTPResponse, file: BinaryIO, advance: Advance) -> None:
    there = file.tell()
    total = there + int(response.headers.get("Content-Length", 0))
    while True:
        if max(there, total) > source.largest_bytes:
            raise InputError(
                f"{source.url} is larger than the {source.largest_bytes / 1e6:.0f} MB that were expected: "
                "it is not the file of the catalogue"
            )
        chunk = response.read(CHUNK_BYTES)
        if not chunk:
            break
        file.write(chunk)
        there += len(chunk)
        advance(there, total)
    file.truncate()
    if there < total:
        raise _stopped(source, Path(file.name), f"{there} of {total} bytes came")


def _stopped(source: Source, partial: Path, reason: str) -> InputError:
    return InputError(f"the download of {source.url} stopped ({reason}): the same command goes on from {partial}")


def _check(source: Source, path: Path, record: Path) -> None:
    """Against the catalogue's checksum, or against what the first download had. A wrong file is deleted."""
    kind, _, expected = (source.checksum or "sha256:").partition(":")
    found = file_digest(path, kind)
    if not expected and record.is_file():
        expected = record.read_text().strip()
    if expected and found != expected:
        path.unlink()
        raise InputError(f"{source.url} has {kind} {found}, expected {expected}: it was deleted; try again")
    if not source.checksum:
        record.write_text(found + "\n")


def file_digest(path: Path, kind: str) -> str:
    digest = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
