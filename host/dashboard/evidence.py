"""How good parts look now beside how they looked when the model was made: the picture of a drift."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from board.drift.sheet import LATEST, draw_sheet
from board.preprocess import preprocess
from host.dashboard.desk import Desk
from host.dashboard.search import Filter
from protocol.errors import InputError, ManifestError
from protocol.manifest import Manifest, load_package
from protocol.pictures.reader import read_picture

LOOKED_THROUGH = 200  # parts, for some with a picture
_SHEET = re.compile(r"[\w][\w.-]{0,100}\.jpg", re.ASCII)


def find_evidence(desk: Desk) -> bytes | None:
    """JPEG: the station's own sheet where it lies on this machine, else one of what this program has seen; or None."""
    drift = desk.station.drift
    sheet = desk.drift_dir / drift.sheet
    if _SHEET.fullmatch(drift.sheet) and sheet.is_file():
        return sheet.read_bytes()
    folders = {path.name: path for path in desk.models_dir.glob("*")}  # subtle: the name comes from the network
    if drift.model_id not in folders:
        return None
    try:
        package = load_package(folders[drift.model_id])
    except ManifestError:
        return None
    latest = list(islice(_latest(desk, package.manifest), LATEST))
    return draw_sheet(package, {}, latest[::-1], drift.text.split("; ")) if latest else None


def _latest(desk: Desk, manifest: Manifest) -> Iterator[NDArray[np.uint8]]:
    """What the network saw of accepted parts, the newest first. Raises: SQLAlchemyError."""
    for part in desk.history.search(Filter(decisions=("OK",), model_id=manifest.id), LOOKED_THROUGH):
        path = desk.pictures.path(part["key"], "jpg")
        if path:
            with contextlib.suppress(InputError):  # it has just left its shelf, or is a frame of another size
                yield preprocess(read_picture(path, manifest.preprocess.depth_bits), manifest.preprocess)
