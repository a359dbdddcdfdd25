"""A picture of the last parts with their heat-maps, drawn from the board's tap."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from protocol.errors import InputError, MessageError
from protocol.messages import Decision
from protocol.sockets import open_socket
from protocol.tap import TapPart, decode_tap

TILE_PX = 192
CAPTION_PX = 30
COLUMNS = 6
ROWS = 2
POLL_MS = 100
GREEN, RED, AMBER = (60, 160, 70), (205, 50, 45), (215, 165, 30)
COLOURS: dict[Decision, tuple[int, int, int]] = {"OK": GREEN, "REJECT": RED, "UNKNOWN": AMBER}

Picture = NDArray[np.uint8]


class Gallery:
    """Collects parts from the tap in a thread until `close`."""

    def __init__(self, endpoint: str) -> None:
        self._parts: deque[TapPart] = deque(maxlen=COLUMNS * ROWS)
        self._stopping = threading.Event()
        self._socket = open_socket("SUB", endpoint, bind=False, high_water_mark=8, timeout_ms=POLL_MS)
        self._thread = threading.Thread(target=self._run, name="gallery", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()
        self._socket.close(0)

    def save(self, path: Path) -> None:
        """Write the picture as PNG. Raises: InputError if nothing was seen or the file cannot be written."""
        parts = list(self._parts)
        if not parts:
            raise InputError("--picture: the tap showed no part")
        if not cv2.imwrite(str(path), cv2.cvtColor(draw_parts(parts), cv2.COLOR_RGB2BGR)):
            raise InputError(f"cannot write {path}: name a .png in a folder that exists")

    def _run(self) -> None:
        while not self._stopping.is_set():
            if self._socket.poll(POLL_MS):
                with contextlib.suppress(MessageError):
                    self._parts.append(decode_tap(self._socket.recv_multipart()))


def draw_parts(parts: list[TapPart]) -> Picture:
    """Tiles in rows: the part under its heat-map, the contour at the threshold, decision and score below."""
    tiles = [draw_tile(part) for part in parts]
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % COLUMNS)
    rows = [np.hstack(tiles[start : start + COLUMNS]) for start in range(0, len(tiles), COLUMNS)]
    return np.vstack(rows)


def draw_tile(part: TapPart) -> Picture:
    verdict = part.verdict
    tile = np.full((TILE_PX + CAPTION_PX, TILE_PX, 3), 255, np.uint8)
    if part.image is not None:
        tile[:TILE_PX] = cv2.resize(part.image, (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA)
    if part.anomaly is not None:
        tile[:TILE_PX] = lay_heat(tile[:TILE_PX], part.anomaly * part.map_scale, verdict.threshold)
    tile[TILE_PX:] = COLOURS[verdict.decision]
    score = "" if verdict.score is None else f"  {verdict.score:.2f}"
    caption = f"{verdict.part_id}  {verdict.decision}{score}"
    cv2.putText(tile, caption, (8, TILE_PX + 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return np.pad(tile, ((3, 3), (3, 3), (0, 0)), constant_values=255)


def lay_heat(picture: Picture, anomaly: NDArray[np.floating], threshold: float) -> Picture:
    """The picture with what lies near and above the threshold tinted, and the threshold's contour drawn."""
    smooth = cv2.resize(anomaly.astype(np.float32), picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    span = max(abs(threshold), 1e-6)
    heat = np.clip((smooth - threshold) / span + 0.5, 0, 1)
    colours = cv2.cvtColor(cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB)
    share = (0.4 * np.clip(heat * 2, 0, 1))[..., np.newaxis]
    tinted = np.ascontiguousarray(picture * (1 - share) + colours * share, dtype=np.uint8)
    contours, _ = cv2.findContours((smooth >= threshold).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(tinted, contours, -1, (255, 255, 255), 1, cv2.LINE_AA)
    return tinted
