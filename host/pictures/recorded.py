"""Pictures out of the line's recordings: what a capture holds can be trained on as it is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from board.records.recording import RECORDING_SUFFIX, Record, read_recording
from host.pictures.reading import encode_png
from protocol.errors import InputError


def list_recordings(folder: Path) -> list[Path]:
    """Oldest first; those of folders below it, too."""
    return sorted(folder.rglob(f"*{RECORDING_SUFFIX}"))


def read_recordings(folder: Path) -> Iterator[Record]:
    """Those that have a picture. Raises: InputError if there are none, or one is damaged."""
    files = list_recordings(folder)
    if not files:
        raise InputError(
            f"{folder} has no recordings (*{RECORDING_SUFFIX}): give the recorder's folder, or a capture's"
        )
    for path in files:
        yield from (record for record in read_recording(path) if record.frame.image is not None)


def unpack_good(recordings: Path, folder: Path) -> None:
    """Fill `folder` with the frames of parts that were OK, as PNG, or leave it alone if an earlier run has.

    Raises: InputError.
    """
    if folder.is_dir():
        return
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for number, record in enumerate(read_recordings(recordings)):
        if record.verdict.decision == "OK" and record.frame.image is not None:
            name = f"{number:06d}-part{record.verdict.part_id}.png"
            (partial / name).write_bytes(encode_png(record.frame.image))
    os.replace(partial, folder)
