"""The evidence of a drift as one picture: what moved, good parts of the calibration, the latest accepted parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from board.drift.control_chart import CLIP_SIGMAS, ControlChart
from protocol.errors import InputError
from protocol.manifest import CALIBRATION_JPG, Package
from protocol.pictures.reader import read_picture

Image = NDArray[np.uint8]
LATEST = 8
TILE_PX = 128
WIDTH_PX = LATEST * TILE_PX
ROW_PX = 22
SHEET_SUFFIX = ".drift.jpg"
JPEG_QUALITY = 90
WHITE, GREY, RED, GREEN = (255, 255, 255), (110, 110, 110), (230, 60, 50), (70, 170, 80)


class SheetFolder:
    """Bounded: the oldest sheets go first. Other files in the folder are left alone."""

    def __init__(self, folder: Path, max_sheets: int) -> None:
        self._folder, self._max_sheets = folder, max_sheets
        self._sheets = 0

    def keep(self, sheet: bytes) -> str:
        """The file's name. Raises: OSError."""
        self._sheets += 1
        stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%f")
        name = f"{stamp}-{self._sheets:04d}{SHEET_SUFFIX}"
        self._folder.mkdir(parents=True, exist_ok=True)
        kept = sorted(self._folder.glob(f"*{SHEET_SUFFIX}"))
        for path in kept[: max(0, len(kept) + 1 - self._max_sheets)]:
            path.unlink()
        (self._folder / name).write_bytes(sheet)
        return name


def draw_sheet(
    package: Package, charts: Mapping[str, ControlChart], latest: Sequence[Image], lines: Sequence[str]
) -> bytes:
    """JPEG. `latest` are the network's images uint8 (h, w, 3) of up to 8 accepted parts."""
    rows = [_write(f"{package.manifest.id}: {line}") for line in lines]
    calibration = _read_calibration(package)
    if calibration is not None:
        rows += [_write("good parts when the model was made, dark to bright"), calibration]
    rows += [_write("the latest accepted parts"), _join(latest)]
    rows += [_draw_chart(name, chart) for name, chart in charts.items()]
    picture = cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


def _read_calibration(package: Package) -> Image | None:
    if CALIBRATION_JPG not in package.manifest.files:
        return None
    try:
        row = read_picture(package.path(CALIBRATION_JPG))
    except InputError:  # removed since the start: the warning is worth more than its row
        return None
    return np.asarray(cv2.resize(row, (WIDTH_PX, TILE_PX), interpolation=cv2.INTER_AREA), np.uint8)


def _join(latest: Sequence[Image]) -> Image:
    row = np.zeros((TILE_PX, WIDTH_PX, 3), np.uint8)
    for place, image in enumerate(latest):
        tile = cv2.resize(image, (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA)
        row[:, place * TILE_PX : (place + 1) * TILE_PX] = tile
    return row


def _write(text: str) -> Image:
    row = np.zeros((ROW_PX, WIDTH_PX, 3), np.uint8)
    text = text.replace("±", "+-")  # OpenCV's font has plain letters only
    cv2.putText(row, text, (6, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.4, WHITE, 1, cv2.LINE_AA)
    return row


def _draw_chart(name: str, chart: ControlChart) -> Image:
    """A scale of ±4 sigmas: what is allowed, and where the average is."""
    average = f"{chart.average:.4g}, calibrated {chart.calibrated.mean:.4g} ± {chart.calibrated.deviation:.2g}"
    row = _write(f"{name.replace('_', ' ')} {average}")
    middle, per_sigma = WIDTH_PX * 3 // 4, WIDTH_PX / 4 / CLIP_SIGMAS - 2
    left, right, at = (round(middle + sigmas * per_sigma) for sigmas in (-chart.limit, chart.limit, chart.sigmas))
    cv2.line(row, (middle, 2), (middle, ROW_PX - 3), GREY)
    cv2.rectangle(row, (left, 6), (right, ROW_PX - 7), GREY)
    cv2.circle(row, (at, ROW_PX // 2), 5, RED if chart.is_beyond else GREEN, cv2.FILLED, cv2.LINE_AA)
    return row
