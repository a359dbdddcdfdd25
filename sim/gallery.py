"""A picture of the last parts with their heat-maps, and of those missed before, drawn from the board's tap."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from protocol.errors import InputError, MessageError
from protocol.messages import Decision, Verdict
from protocol.sockets import open_socket
from protocol.supervision import SUPERVISOR, Supervised
from protocol.tap import TapPart, decode_tap

TILE_PX = 192
CAPTION_PX = 30
COLUMNS = 6
ROWS = 2
POLL_MS = 100
GREEN, RED, AMBER = (60, 160, 70), (205, 50, 45), (215, 165, 30)
COLOURS: dict[Decision, tuple[int, int, int]] = {"OK": GREEN, "REJECT": RED, "UNKNOWN": AMBER}
SILENT_S = 5.0

Picture = NDArray[np.uint8]


class Gallery:
    """Collects parts from the tap in a thread until `close`."""

    def __init__(self, endpoint: str, missed: Callable[[Verdict], str] = lambda _: "") -> None:
        """`missed` names the defect of a part that was judged OK by mistake."""
        self._missed = missed
        self._missed_parts: list[TapPart] = []  # the first ones
        self._parts: deque[TapPart] = deque(maxlen=COLUMNS * ROWS)
        self._stopping = threading.Event()
        self._socket = open_socket("SUB", endpoint, bind=False, high_water_mark=8, timeout_ms=POLL_MS)
        self._thread = SUPERVISOR.start("gallery", self._run, silent_s=SILENT_S)

    def close(self) -> None:
        self._thread.stop(self._stopping.set, SILENT_S)
        self._socket.close(0)

    def save(self, path: Path) -> None:
        """Write the picture as PNG. Raises: InputError if nothing was seen or the file cannot be written."""
        last = list(self._parts)
        if not last:
            raise InputError("--picture: the tap showed no part")
        picture = draw_parts(last, self._missed)
        if self._missed_parts:
            picture = np.vstack([draw_parts(self._missed_parts, self._missed), picture])
        written, png = cv2.imencode(path.suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        try:
            path.write_bytes(png.tobytes())
        except OSError as error:
            raise InputError(f"cannot write {path} ({error.strerror}): name a .png in a folder that exists") from None
        if not written:
            raise InputError(f"cannot write {path}: name a .png")

    def _run(self, supervised: Supervised) -> None:
        while not self._stopping.is_set():
            supervised.beat()
            if self._socket.poll(POLL_MS):
                with contextlib.suppress(MessageError):
                    self.keep(decode_tap(self._socket.recv_multipart()))

    def keep(self, part: TapPart) -> None:
        """A missed part stays when it would leave the last ones."""
        if len(self._parts) == COLUMNS * ROWS and len(self._missed_parts) < COLUMNS:
            leaving = self._parts[0]
            self._missed_parts += [leaving] if self._missed(leaving.verdict) else []
        self._parts.append(part)


def draw_parts(parts: list[TapPart], missed: Callable[[Verdict], str] = lambda _: "") -> Picture:
    """Tiles in rows: the part under its heat-map, the contour at the threshold, decision and score below."""
    tiles = [draw_tile(part, missed(part.verdict)) for part in parts]
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % COLUMNS)
    rows = [np.hstack(tiles[start : start + COLUMNS]) for start in range(0, len(tiles), COLUMNS)]
    return np.vstack(rows)


def draw_tile(part: TapPart, missed: str = "") -> Picture:
    """`missed`: the defect that was judged OK."""
    verdict = part.verdict
    tile = np.full((TILE_PX + CAPTION_PX, TILE_PX, 3), 255, np.uint8)
    if part.image is not None:
        tile[:TILE_PX] = cv2.resize(part.image, (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA)
    if part.anomaly is not None:
        tile[:TILE_PX] = lay_heat(tile[:TILE_PX], part.anomaly * part.map_scale, verdict.threshold)
    tile[TILE_PX:] = AMBER if missed else COLOURS[verdict.decision]
    score = "" if verdict.score is None else f"  {verdict.score:.2f}"
    caption = f"{verdict.part_id}  {verdict.decision}{score}" + (f"  {missed}!" if missed else "")
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
