"""What a person sees: the live panel, the plain lines, the picture of the last parts."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rich.console import Console

from protocol.errors import InputError
from protocol.messages import Verdict
from protocol.tap import TapPart
from sim.gallery import Gallery, draw_parts, draw_tile
from sim.score import summarize
from sim.station import free_port
from sim.view import Scenery, View, print_summary


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


def test_a_plain_line_is_not_said_twice() -> None:
    screen = io.StringIO()
    with View(Console(file=screen, width=100), Scenery("a title", "a hint", 10)) as view:
        view.show(VERDICTS, TRUTH, "running")
        view.show(VERDICTS, TRUTH, "running", is_last=True)
        view.show(VERDICTS, TRUTH, "degraded: why", is_last=True)
    assert screen.getvalue().count("3/10 parts") == 2


def test_why_a_line_stands_still_is_said_in_every_plain_line() -> None:
    screen = io.StringIO()
    with View(Console(file=screen, width=100), Scenery("a title", "a hint", 10)) as view:
        view.show([], {}, "stopped: no space left [on] device")
    assert "0/10 parts" in screen.getvalue()
    assert "stopped: no space left [on] device" in screen.getvalue()


def summary_text(**changes: Any) -> str:
    plain = summarize(TRUTH, VERDICTS, duration_s=1.0, duplicates=0, health={})
    screen = io.StringIO()
    print_summary(Console(file=screen, width=100), replace(plain, **changes))
    return " ".join(screen.getvalue().split())


def test_the_summary_says_what_crossed_and_what_was_missed() -> None:
    crossed = {"OK": 1, "REJECT": 1, "UNKNOWN": 1}
    text = summary_text(crossed_open=crossed, good_stopped=2, crossed_wrongly=(1, 2), missed={7: "mould"})
    assert "crossed an open gate OK 1, REJECT 1, UNKNOWN 1: parts 1, 2 should not have" in text
    assert "good parts stopped 2" in text
    assert "judged OK by mistake part 7 (mould)" in text
    many = summary_text(missed=dict.fromkeys(range(8), "rot"))
    assert "part 4 (rot) and 3 more" in many
    assert "crossed" not in many
    assert "judged OK by mistake" not in summary_text()


def test_figures_of_few_parts_say_so() -> None:
    assert "false rejects 0.0%, but only 2 of 3 parts were judged image AUROC 1.0000, but only 2 of" in summary_text()
    assert "only" not in summary_text(ok=1, reject=2, unknown=0)


def test_the_summary_says_when_the_belt_is_too_fast() -> None:
    assert "gate deadlines missed 3 of 3: the belt is too fast" in summary_text(missed_deadlines=3)
    assert "the line at the end stopped: disk full" in summary_text(state="stopped: disk full")
    assert "the line at the end" not in summary_text(state="running")


def test_the_picture_keeps_the_missed_parts(tmp_path: Path) -> None:
    """Long gone from the last parts, and marked."""
    gallery = Gallery(f"tcp://127.0.0.1:{free_port()}", lambda part: "mould" if part.part_id == 1 else "")
    image = np.full((64, 64, 3), 90, np.uint8)
    try:
        for number in range(30):
            gallery.keep(TapPart(number, verdict(number, "OK", 0.2), image, None, 1.0))
        gallery.save(tmp_path / "parts.png")
    finally:
        gallery.close()
    picture = cv2.imread(str(tmp_path / "parts.png"))
    tile = draw_tile(TapPart(1, verdict(1, "OK", 0.2), image, None, 1.0), "mould")
    assert picture is not None
    assert picture.shape[0] == 3 * tile.shape[0]  # a row of missed parts, then the last twelve
    assert np.array_equal(picture[: tile.shape[0], : tile.shape[1], ::-1], tile)


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
