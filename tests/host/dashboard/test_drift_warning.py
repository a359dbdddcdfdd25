"""A lamp that fades, from the station's own observer to the eyes of the operator.

Screenshots are kept in build/dashboard/; TUTORIAL.md has drift.jpg of them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser, expect

from board.drift.sheet import ROW_PX, SHEET_SUFFIX, TILE_PX
from board.drift.watch import DriftSettings, DriftWatch
from protocol.broker import BrokerSettings
from protocol.drift import DriftReport, encode_drift
from protocol.manifest import load_package
from protocol.messages import Frame, Trigger
from protocol.streams import DRIFT
from sim.camera import Camera, CameraSettings
from sim.parts import RenderedParts
from sim.station import ROOT, free_port
from tests.host.dashboard.browsing import SHOTS, SIZES, fits, needs_chromium, open_browser, open_tab, require_accessible
from tests.host.dashboard.running import Page, Speaker, eventually, page_of, write_config

MODEL = "orange-256"
STEADY, LONGEST = 30, 300  # parts
LAMP_DIMS = 3.0  # of its light in 1000 parts


@dataclass
class Station:
    """Judges oranges by a shipped model's figures, and watches how they look."""

    folder: Path
    speaker: Speaker
    reports: list[DriftReport] = field(default_factory=list)
    judged: int = 0

    def __post_init__(self) -> None:
        package = load_package(ROOT / "models" / MODEL)
        settings = DriftSettings(folder=self.folder / "drift", parts_per_s=10_000)
        self._camera = Camera(CameraSettings(lamp_dims=LAMP_DIMS, ages_from=STEADY), seed=1)
        self._parts = RenderedParts("orange", seed=1, defect_share=0.0)
        self._threshold = package.manifest.threshold.value
        self._scores = package.manifest.calibration
        self._rng = np.random.default_rng(1)
        self._watch = DriftWatch(settings, lambda: package, self._tell)

    def _tell(self, report: DriftReport) -> None:
        """As board/sinks/mqtt.py does."""
        self.reports.append(report)
        self.speaker.send(DRIFT.name, encode_drift(report), retain=True)

    def judge(self) -> None:
        """One more orange, which is good; until it was looked at."""
        image = self._camera.shoot(self._parts.part(self.judged)).image
        self.judged += 1
        assert self._scores is not None
        usual = self._scores.statistics["score"]
        score = float(self._rng.normal(usual.mean, usual.deviation / 2))
        own = {"decision": "OK", "score": score, "threshold": self._threshold, "model_id": MODEL}
        part = self.speaker.part(self.judged, **own)
        self.speaker.show_image(part, image, strange=False)
        self.speaker.say(part)
        self._watch.publish(Frame(Trigger(part.run, part.part_id, 0, "clock"), image), part, None)
        until_s = time.monotonic() + 10
        while self._watch.counters()["drift_parts"] < self.judged and time.monotonic() < until_s:
            time.sleep(0.001)

    @property
    def is_drifting(self) -> bool:
        return self.reports[-1].state == "drifting"

    def close(self) -> None:
        self._watch.close()


@pytest.fixture
def page(tmp_path: Path, broker: BrokerSettings) -> Iterator[tuple[Page, Station]]:
    tap_port = free_port()
    page = page_of(write_config(tmp_path, broker, "fading", tap_port))
    speaker = Speaker(broker, "fading", tap_port)
    with contextlib.closing(speaker), page.run(), speaker.alive():
        speaker.wait_until_seen(page.client)
        speaker.say_state("running", model_id=MODEL)
        with contextlib.closing(Station(tmp_path, speaker)) as station:
            assert eventually(lambda: bool(station.reports))
            yield page, station


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@needs_chromium
def test_a_lamp_that_fades_is_seen_with_its_pictures(browser: Browser, page: tuple[Page, Station]) -> None:
    program, station = page
    errors: list[str] = []
    with open_tab(browser, program.url, "desk", errors) as tab:
        for _ in range(STEADY):
            station.judge()
        expect(tab.locator("#strip .tile").first).to_be_visible()
        assert not station.is_drifting
        expect(tab.locator("#drift")).to_be_hidden()
        while not station.is_drifting and station.judged < LONGEST:
            station.judge()
        expect(tab.locator("#drift-text")).to_contain_text("brightness fell by")
        expect(tab.locator("#drift-text")).to_contain_text("clean or renew the lamp")
        for name, (width, height) in SIZES.items():
            tab.set_viewport_size({"width": width, "height": height})
            tab.wait_for_timeout(1000)
            tab.screenshot(path=SHOTS / f"drift-{name}.png")
            assert fits(tab), name
        require_accessible(tab)

        tab.set_viewport_size({"width": 1280, "height": 800})
        tab.locator("#show-drift").press("Enter")
        expect(tab.locator("#drift-dialog")).to_be_visible()
        picture = tab.locator("#drift-picture")
        eventually_wide = "(image) => image.decode().then(() => image.naturalWidth)"
        assert picture.evaluate(eventually_wide) == 1024
        (sheet,) = (station.folder / "drift").glob(f"*{SHEET_SUFFIX}")
        assert station.reports[-1].sheet == sheet.name
        assert program.client.ask("GET", "/api/drift.jpg")[2] == sheet.read_bytes()
        tab.screenshot(path=SHOTS / "drift.jpg", type="jpeg", quality=80)
        require_accessible(tab)
        tab.keyboard.press("Escape")
        expect(tab.locator("#drift-dialog")).to_be_hidden()
    assert errors == []


def test_where_the_station_is_another_machine_the_page_has_pictures_too(page: tuple[Page, Station]) -> None:
    program, station = page
    (station.folder / "models").mkdir()
    (station.folder / "models" / MODEL).symlink_to(ROOT / "models" / MODEL)
    while not station.is_drifting and station.judged < LONGEST:
        station.judge()
    assert eventually(lambda: program.client.ask("GET", "/api/drift.jpg")[0] == 200)
    for sheet in (station.folder / "drift").iterdir():
        sheet.unlink()
    status, headers, jpeg = program.client.ask("GET", "/api/drift.jpg")
    assert (status, headers["content-type"]) == (200, "image/jpeg")
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    then, now = picture[-TILE_PX - ROW_PX - TILE_PX : -TILE_PX - ROW_PX], picture[-TILE_PX:]
    assert 0.5 < now.mean() / then.mean() < 0.9  # as the lamp has faded
    (station.folder / "models" / MODEL).unlink()
    assert program.client.ask("GET", "/api/drift.jpg")[0] == 404
