"""What a person sees: the live panel, the plain lines, the picture of the last parts."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from protocol.errors import InputError
from protocol.messages import Verdict
from protocol.tap import TapPart
from sim.gallery import Gallery, draw_parts
from sim.station import free_port
from sim.view import Scenery, View


def verdict(part_id: int, decision: str, score: float | None) -> Verdict:
    return Verdict(
        "e", "s", "l", "r", part_id, decision, score, 1.0, "frame lost" if score is None else "", "arm-onnxruntime",  # type: ignore[arg-type]
        "m", False, False, "t", 5.0, {},
    )  # fmt: skip


VERDICTS = [verdict(0, "OK", 0.2), verdict(1, "REJECT", 2.5), verdict(2, "UNKNOWN", None)]
TRUTH = {0: "", 1: "mould", 2: "bruise"}


def show(*, terminal: bool) -> str:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=terminal, width=100)
    with View(console, Scenery("a title", "a hint", 10)) as view:
        view.show(VERDICTS, TRUTH, "running", is_last=True)
    return screen.getvalue()


def test_the_live_panel_tells_counts_truth_and_the_newest_part() -> None:
    text = show(terminal=True)
    for said in ("a title", "a hint", "3/10 parts", "OK 1", "REJECT 1", "UNKNOWN 1", "running", "(frame lost)"):
        assert said in text
    assert "1 of 2 defects caught, 0 of 1 good rejected" in text


def test_without_a_terminal_there_are_plain_lines() -> None:
    text = show(terminal=False)
    assert "3/10 parts   OK 1, REJECT 1, UNKNOWN 1" in text
    assert "\x1b" not in text


def test_the_picture_marks_what_lies_above_the_threshold() -> None:
    anomaly = np.full((8, 8), -40, np.int8)
    anomaly[2:4, 2:4] = 100
    image = np.full((64, 64, 3), 90, np.uint8)
    good, bad, lost = (
        TapPart(0, VERDICTS[0], image, np.full((8, 8), -40, np.int8), 2.0**-5),
        TapPart(1, VERDICTS[1], image, anomaly, 2.0**-5),
        TapPart(2, VERDICTS[2], None, None, 2.0**-5),
    )
    picture = draw_parts([good, bad, lost])
    tile = picture.shape[1] // 6
    unmarked, marked = picture[:150, :tile], picture[:150, tile : 2 * tile]
    hot = marked[..., 0].astype(int) - marked[..., 2]  # red minus blue
    assert hot.max() > 100
    assert (unmarked[..., 0].astype(int) - unmarked[..., 2]).max() < 20
    spot = np.argwhere(hot > 100).mean(axis=0) / tile
    assert spot == pytest.approx((3 / 8, 3 / 8), abs=0.06)


def test_a_picture_of_nothing_is_refused(tmp_path: Path) -> None:
    gallery = Gallery(f"tcp://127.0.0.1:{free_port()}")
    try:
        with pytest.raises(InputError, match="showed no part"):
            gallery.save(tmp_path / "parts.png")
    finally:
        gallery.close()
    assert not list(tmp_path.iterdir())


def test_the_picture_is_a_png_that_opens(tmp_path: Path) -> None:
    picture = draw_parts([TapPart(0, VERDICTS[0], np.zeros((64, 64, 3), np.uint8), None, 1.0)])
    assert cv2.imwrite(str(tmp_path / "p.png"), picture)
    read = cv2.imread(str(tmp_path / "p.png"))
    assert read is not None
    assert read.shape == picture.shape
