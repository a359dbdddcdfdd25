"""A drift of the accepted parts' looks is told with its evidence; no decision waits for it or depends on it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from board.drift.picture_statistics import SCORE
from board.drift.sheet import SHEET_SUFFIX
from board.drift.watch import DriftSettings, DriftWatch
from host.export.calibration import calibrate, draw_calibration
from protocol.drift import DriftReport, decode_drift, encode_drift
from protocol.errors import MessageError
from protocol.manifest import CALIBRATION_JPG, AnomalyMap, Calibration, Manifest, Package, Preprocess, Threshold
from protocol.messages import Frame, Trigger
from tests.examples import VERDICT

WITHIN_S = 10.0
SIDE_PX = 48
GOOD, SCORES = 120, (0.2, 0.05)
SETTINGS = DriftSettings(parts_per_s=10_000, max_sheets=3)


def draw(rng: np.random.Generator, *, light: float = 1.0, blur_px: float = 0.0, red: float = 1.0) -> NDArray[np.uint8]:
    """A grainy grey part, uint8 (h, w, 3); parts differ by 4 % in their brightness."""
    image: NDArray[np.float64] = 90 + 30 * rng.standard_normal((SIDE_PX, SIDE_PX, 1)) * np.ones(3)
    image *= light * (1 + 0.04 * rng.standard_normal()) * np.array([red, 1, 1]) * (1 + 0.01 * rng.standard_normal(3))
    if blur_px:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), blur_px), np.float64)
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def good() -> NDArray[np.uint8]:
    rng = np.random.default_rng(1)
    return np.stack([draw(rng) for _ in range(GOOD)])


@pytest.fixture(scope="module")
def calibration(good: NDArray[np.uint8]) -> Calibration:
    made = calibrate(good, np.random.default_rng(2).normal(*SCORES, GOOD), 1.0)
    assert made is not None
    return made


@pytest.fixture
def manifest(calibration: Calibration, good: NDArray[np.uint8], tmp_path: Path) -> Manifest:
    """Of a model folder `tmp_path`/models/grain that holds the row of good parts."""
    folder = tmp_path / "models" / "grain"
    folder.mkdir(parents=True)
    (folder / CALIBRATION_JPG).write_bytes(draw_calibration(good))
    return Manifest(
        format=1,
        id="grain",
        product="grain",
        preprocess=Preprocess((SIDE_PX, SIDE_PX), (0, 0, SIDE_PX, SIDE_PX), (SIDE_PX, SIDE_PX)),
        map=AnomalyMap((4, 4), 2.0**-6, 1),
        threshold=Threshold(1.0, "chosen"),
        files={CALIBRATION_JPG: "0" * 64},
        calibration=calibration,
    )


class Station:
    """What the line does with its observer."""

    def __init__(self, manifest: Manifest, folder: Path, settings: DriftSettings = SETTINGS) -> None:
        self.manifest, self.folder = manifest, folder / "drift"
        self.reports: list[DriftReport] = []
        self._rng = np.random.default_rng(3)
        self.watch = DriftWatch(
            replace(settings, folder=self.folder),
            lambda: Package(folder / "models" / "grain", self.manifest),
            self.reports.append,
        )
        wait_for(lambda: bool(self.reports))

    def judge(self, parts: int, *, score: float = 0.0, decision: Any = "OK", model: str = "", **looks: Any) -> None:
        """Parts with these looks; waits until each was looked at."""
        for _ in range(parts):
            before = self.watch.counters()["drift_parts"]
            value = float(self._rng.normal(*SCORES)) + score
            verdict = replace(VERDICT, decision=decision, score=value, model_id=model or self.manifest.id)
            self.watch.publish(Frame(Trigger("run", 1, 0, ""), draw(self._rng, **looks)), verdict, None)
            time.sleep(0.0002)  # twice the time that has to lie between two parts
            if decision == "OK" and (not model or model == self.manifest.id):
                wait_for(lambda: self.watch.counters()["drift_parts"] not in (before, 0))  # noqa: B023

    @property
    def sheets(self) -> list[Path]:
        return sorted(self.folder.glob(f"*{SHEET_SUFFIX}"))


def wait_for(ready: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while not ready():
        assert time.monotonic() < deadline_s
        time.sleep(0.0005)


@pytest.fixture
def station(manifest: Manifest, tmp_path: Path) -> Iterator[Station]:
    opened = Station(manifest, tmp_path)
    yield opened
    opened.watch.close()


def test_parts_as_they_were_are_steady(station: Station) -> None:
    station.judge(600)
    assert [report.state for report in station.reports] == ["steady"]
    assert station.watch.counters() == {"drift_parts": 600, "drift_skipped": 0, "drift_warnings": 0, "drifting": 0}
    assert not station.sheets


@pytest.mark.parametrize(
    ("looks", "statistic", "says"),
    [
        ({"light": 0.92}, "brightness", "brightness fell by .* clean or renew the lamp"),
        ({"light": 1.08}, "brightness", "brightness rose by .* stray light"),
        ({"blur_px": 0.5}, "sharpness", "sharpness fell by .* focus the lens"),
        ({"red": 1.05}, "red_share", "red share rose by .* white balance"),
        ({"score": 0.1}, SCORE, "score rose by .* has the product changed"),
    ],
)
def test_each_drift_is_told_by_its_name_and_remedy(
    station: Station, looks: dict[str, Any], statistic: str, says: str
) -> None:
    station.judge(100)
    station.judge(150, **looks)
    report = station.reports[-1]
    assert report.state == "drifting"
    moved = {entry.statistic: entry for entry in report.moved}
    assert statistic in moved
    assert abs(moved[statistic].sigmas) > 0.9
    assert (station.folder / report.sheet).is_file()
    assert re.search(says, report.text), report.text
    assert station.watch.counters()["drift_warnings"] >= 1
    assert decode_drift(encode_drift(report)) == report


def test_the_sheet_shows_calibration_and_latest_parts(station: Station) -> None:
    station.judge(200, light=0.9)
    sheet = cv2.imread(str(station.folder / station.reports[-1].sheet))
    assert sheet is not None
    calibration, latest = sheet[44:172], sheet[194:322]  # a line of text and the row's title above each
    assert latest.mean() == pytest.approx(0.9 * calibration.mean(), rel=0.04)
    reddest = (sheet[322:, 512:, 2].astype(int) - sheet[322:, 512:, 1]).max()
    assert reddest > 100  # the mark of what is beyond its limit


def test_a_drift_that_goes_on_is_told_again_and_its_end_too(station: Station) -> None:
    station.judge(150, light=0.93)
    first = station.reports[-1]
    station.judge(200, light=0.8)
    farther = station.reports[-1]
    station.judge(300)
    assert farther.moved[0].sigmas < first.moved[0].sigmas - 0.9
    assert station.reports[-1].state == "steady"
    assert station.reports[-1].text == ""
    assert station.watch.counters()["drifting"] == 0


def test_only_accepted_parts_count(station: Station) -> None:
    station.judge(300, light=0.5, decision="REJECT")
    station.judge(300, light=0.5, decision="UNKNOWN")
    station.judge(1)
    assert station.watch.counters()["drift_parts"] == 1


def test_sheets_are_bounded_and_other_files_left_alone(station: Station) -> None:
    station.folder.mkdir()
    (station.folder / "notes.txt").write_text("mine")
    for light in (0.85, 1.0, 1.15, 1.0, 0.85, 1.0, 1.15):
        station.judge(220, light=light)
    drifting = [report.sheet for report in station.reports if report.state == "drifting"]
    assert len(drifting) > SETTINGS.max_sheets
    assert [path.name for path in station.sheets] == drifting[-SETTINGS.max_sheets :]
    assert (station.folder / "notes.txt").read_text() == "mine"


def test_a_folder_that_takes_no_sheet_does_not_silence_the_warning(
    station: Station, capfd: pytest.CaptureFixture[str]
) -> None:
    station.folder.write_text("a file where the folder should be")
    station.judge(150, light=0.9)
    assert station.reports[-1].state == "drifting"
    assert station.reports[-1].sheet == ""
    assert "correct [drift] folder" in capfd.readouterr().err


def test_another_model_is_another_calibration(station: Station) -> None:
    station.judge(150, light=0.9)
    before = station.reports[-1]
    assert before.state == "drifting"
    station.manifest = replace(station.manifest, id="other")
    station.judge(1, light=0.9)
    assert station.reports[-1].state == "steady"
    assert station.reports[-1].model_id == "other"
    station.judge(3, model="grain")  # judged by the model before, on its way until now
    station.judge(1)
    assert station.watch.counters()["drift_parts"] == 2


def test_a_model_without_calibration_switches_it_off(manifest: Manifest, tmp_path: Path) -> None:
    station = Station(replace(manifest, calibration=None), tmp_path)
    try:
        station.watch.publish(Frame(Trigger("run", 1, 0, ""), None, "lost"), VERDICT, None)
        assert station.reports[0].state == "off"
        assert station.watch.counters()["drift_parts"] == 0
    finally:
        station.watch.close()


def test_statistics_of_a_later_program_are_left_alone(manifest: Manifest, tmp_path: Path) -> None:
    calibration = manifest.calibration
    assert calibration is not None
    later = {**calibration.statistics, "moisture": calibration.statistics[SCORE]}
    station = Station(replace(manifest, calibration=replace(calibration, statistics=later)), tmp_path)
    try:
        station.judge(3)
        assert station.reports[-1].state == "steady"
    finally:
        station.watch.close()


def test_the_line_never_waits(manifest: Manifest, tmp_path: Path) -> None:
    """Handing a part over takes microseconds also when the thread is busy; what it cannot take is counted."""
    station = Station(manifest, tmp_path)
    frame = Frame(Trigger("run", 1, 0, ""), draw(np.random.default_rng(1)))
    verdict = replace(VERDICT, decision="OK", model_id="grain")
    try:
        spent_ms = []
        for _ in range(2000):
            started_ns = time.perf_counter_ns()
            station.watch.publish(frame, verdict, None)
            spent_ms.append((time.perf_counter_ns() - started_ns) / 1e6)
        assert np.percentile(spent_ms, 50) < 0.5
        assert station.watch.skipped > 0
    finally:
        station.watch.close()


def test_no_more_parts_are_looked_at_than_wanted(manifest: Manifest, tmp_path: Path) -> None:
    station = Station(manifest, tmp_path, replace(SETTINGS, parts_per_s=0.1))
    try:
        station.judge(1)
        for _ in range(50):
            verdict = replace(VERDICT, decision="OK", model_id="grain")
            station.watch.publish(Frame(Trigger("run", 1, 0, ""), draw(np.random.default_rng(1))), verdict, None)
        time.sleep(0.2)
        assert station.watch.counters()["drift_parts"] == 1
        assert station.watch.skipped == 0  # not due: nothing was lost
    finally:
        station.watch.close()


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"state": "wet"}'])
def test_bytes_that_are_no_report_are_refused(data: bytes) -> None:
    with pytest.raises(MessageError):
        decode_drift(data)
