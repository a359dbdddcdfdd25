"""The page in a real browser: what an operator sees, does with the keyboard, and what axe finds wrong.

Screenshots are kept in build/dashboard/; TUTORIAL.md has review.jpg of them.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from board.sinks.recorder import RecorderSettings, RecorderSink
from host.dashboard.identity import part_key
from host.export.trivial import write_trivial_package
from protocol.broker import BrokerSettings
from protocol.commands import Answer
from protocol.messages import Frame, Trigger, encode_json, rfc3339_now
from protocol.streams import RESULT
from sim.camera import Camera, CameraSettings
from sim.parts import RenderedParts
from sim.station import LOOPBACK, free_port
from tests.examples import VERDICT
from tests.host.dashboard.browsing import (
    SHOTS,
    SIZES,
    fill_login,
    fits,
    needs_chromium,
    open_browser,
    open_tab,
    require_accessible,
)
from tests.host.dashboard.running import (
    PASSWORD,
    USER,
    Client,
    Speaker,
    eventually,
    page_of,
    summary,
    write_config,
)

VIEWS = ("line", "parts", "control", "captures", "help")
FIRST_PAINT_MS = 1000
CAPTURED = 14

pytestmark = needs_chromium


@dataclass
class Shown:
    """A line whose page runs, and what its station says."""

    url: str
    client: Client
    speaker: Speaker
    said: int = 0
    errors: list[str] = field(default_factory=list)  # of scripts and of the policy, in any page

    def judge(self, decision: str, score: float | None, *, reason: str = "") -> int:
        """One more part, with its picture; its id."""
        self.said += 1
        part = self.speaker.part(self.said, decision=decision, score=score, reason=reason, threshold=1.0)
        self.speaker.show(part, level=60 + self.said * 10 % 180)
        self.speaker.say(part)
        return self.said


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, broker: BrokerSettings) -> Iterator[Shown]:
    folder, tap_port = tmp_path_factory.mktemp("shown"), free_port()
    write_trivial_package(folder / "models" / "trivial")
    write_capture(folder / "recordings" / "captures" / "20260101-080000-5f3a09")
    page = page_of(write_config(folder, broker, "shown", tap_port))
    speaker = Speaker(broker, "shown", tap_port)
    with page.run(), speaker.alive():
        shown = Shown(page.url, Client(page.port), speaker)
        speaker.wait_until_seen(shown.client)
        for number in range(30):
            shown.judge(*[("OK", 0.2 + number / 60), ("OK", 0.4), ("REJECT", 1.5 + number / 50)][number % 3])
        shown.judge("UNKNOWN", None, reason="frame lost")
        speaker.say_state("running")
        assert eventually(lambda: len(shown.client.get("/api/latest")) == 31)
        yield shown
        assert shown.errors == []
    speaker.close()


def write_capture(folder: Path) -> None:
    """Oranges, as a station records them; the last one has a defect that the model let through."""
    camera, parts = Camera(CameraSettings(), seed=1), [RenderedParts("orange", 1, share) for share in (0.0, 1.0)]
    recorder = RecorderSink(RecorderSettings("everything", folder))
    for number in range(CAPTURED):
        image = camera.shoot(parts[number == CAPTURED - 1].part(number)).image
        frame = Frame(Trigger("run", number, 0, "clock"), image)
        recorder.publish(frame, replace(VERDICT, part_id=number, decision="OK", score=number / 10), None)
    recorder.close()


@pytest.fixture
def page(browser: Browser, shown: Shown) -> Iterator[Page]:
    with open_page(browser, shown, "desk") as page:
        yield page


@contextlib.contextmanager
def open_page(browser: Browser, shown: Shown, size: str, view: str = "line") -> Iterator[Page]:
    with open_tab(browser, f"{shown.url}#{view}", size, shown.errors) as page:
        keep_running(shown)
        expect(page.locator("#state")).to_have_text("running")
        yield page


def keep_running(shown: Shown) -> None:
    shown.speaker.say_state("running")
    assert eventually(lambda: summary(shown.client)["state"] == "running")


@pytest.mark.parametrize("view", VIEWS)
def test_what_every_view_looks_like_and_what_axe_says(browser: Browser, shown: Shown, view: str) -> None:
    with open_page(browser, shown, "tablet", view) as page:
        for name, (width, height) in SIZES.items():
            page.set_viewport_size({"width": width, "height": height})
            page.wait_for_timeout(1000)  # pictures and scores are drawn twice a second
            page.screenshot(path=SHOTS / f"{view}-{name}.png")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert view != "line" or fits(page), name
        require_accessible(page)


NEXT = {
    "idle": "Look whether the belt runs",
    "degraded": "mend what is named here",
    "alarm": "Do not trust the verdicts",
    "stopped": "Every part is rejected",
    "lost": "Go and look at the line",
}


def band_colour(page: Page) -> str:
    return str(page.evaluate("getComputedStyle(document.getElementById('band')).backgroundColor"))


def test_a_change_of_model_that_is_taken_back_is_said(page: Page, shown: Shown) -> None:
    for obeyed, reason in ((True, ""), (False, "it rejected 20 of its first 20 parts: back to trivial")):
        answer = Answer("order-1", "model", obeyed, reason, rfc3339_now())
        shown.speaker.send(RESULT.name, encode_json(answer))
    said = "The last change of model was taken back: it rejected 20 of its first 20 parts: back to trivial."
    expect(page.locator("#message")).to_have_text(said)
    expect(page.locator("#taken-back")).to_have_text(said)
    shown.speaker.send(RESULT.name, encode_json(Answer("order-2", "model", True, "", rfc3339_now())))
    expect(page.locator("#taken-back")).to_be_hidden()


@pytest.mark.parametrize("state", [*NEXT])
def test_the_state_in_large_letters_with_its_reason(browser: Browser, shown: Shown, state: str) -> None:
    with open_page(browser, shown, "monitor") as page:
        expect(page.locator("#next")).to_be_hidden()
        green = band_colour(page)
        shown.speaker.say_state(state, f"reason of {state}")
        expect(page.locator("#state")).to_have_text(state)
        expect(page.locator("#reason")).to_have_text(f"reason of {state}")
        expect(page.locator("#next")).to_contain_text(NEXT[state])
        assert band_colour(page) != green
        # at three metres letters want 3 m / 200 = 15 mm; on a 24-inch monitor a pixel is 0.277 mm
        height_px = page.evaluate("parseFloat(getComputedStyle(document.getElementById('state')).fontSize)")
        assert height_px * 0.7 * 0.277 > 15
        page.screenshot(path=SHOTS / f"state-{state}.png")
        require_accessible(page)


def test_first_paint_within_a_second(browser: Browser, shown: Shown) -> None:
    def paint_ms() -> float:
        with open_page(browser, shown, "desk") as page:
            entries = "performance.getEntriesByName('first-contentful-paint').map((entry) => entry.startTime)"
            return float(page.evaluate(entries)[0])

    assert min(paint_ms() for _ in range(3)) < FIRST_PAINT_MS  # the best of three: the machine may be busy


def test_a_new_part_comes_on_and_is_told_by_sign_word_and_number(page: Page, shown: Shown) -> None:
    number = shown.judge("REJECT", 2.25)
    tile = page.locator("#strip .tile").first
    expect(tile).to_have_attribute("aria-label", f"part {number}, REJECT, score 2.25")
    expect(tile.locator(".tile-label")).to_have_text("REJECT2.25")
    expect(tile.locator("use")).to_have_attribute("href", "#sign-REJECT")
    expect(page.locator("#last .tile")).to_have_attribute("aria-label", f"part {number}, REJECT, score 2.25")
    expect(page.locator("#chart")).to_have_attribute("aria-label", re.compile("^scores of the last .* threshold 1.00$"))


def test_the_heat_map_goes_with_the_slider_and_has_a_contour(page: Page, shown: Shown) -> None:
    shown.judge("REJECT", 3.0)
    tile = page.locator("#strip .tile").first
    expect(tile).to_have_attribute("aria-label", f"part {shown.said}, REJECT, score 3.00")
    page.locator("#hold").click()
    script = """(canvas) => {
        const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        let [coloured, white] = [0, 0];
        for (let at = 0; at < data.length; at += 4) {
            if (Math.abs(data[at] - data[at + 1]) > 20) coloured += 1;
            if (Math.min(data[at], data[at + 1], data[at + 2]) > 250) white += 1;
        }
        return [coloured, white];
    }"""
    coloured, white = tile.locator("canvas").evaluate(script)
    # the map has 3 × 3 of 8 × 8 pixels at 10 times the threshold; canvas 256 px
    assert 0.1 < coloured / 256**2 < 0.3
    assert white > 100
    page.locator("#opacity").fill("0")
    assert tile.locator("canvas").evaluate(script) == [0, 0]
    page.locator("#opacity").fill("100")
    assert tile.locator("canvas").evaluate(script)[1] > 100


def test_held_parts_stay(page: Page, shown: Shown) -> None:
    first = page.locator("#strip .tile").first
    page.locator("#hold").focus()
    page.keyboard.press("Space")
    expect(page.locator("#hold")).to_have_attribute("aria-pressed", "true")
    label = first.get_attribute("aria-label")
    number = shown.judge("OK", 0.3)
    expect(page.locator("#belt-note")).to_contain_text("held")
    page.wait_for_timeout(1200)
    assert first.get_attribute("aria-label") == label
    page.keyboard.press("Space")
    shown.judge("OK", 0.35)
    expect(first).to_have_attribute("aria-label", f"part {number + 1}, OK, score 0.35")


def test_a_part_in_detail_by_keyboard_alone(page: Page, shown: Shown) -> None:
    page.locator("#hold").click()
    page.locator("#strip .tile").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#detail")).to_be_visible()
    expect(page.locator("#detail-facts")).to_contain_text("threshold 1.00")
    expect(page.locator("#detail-stages")).to_contain_text("infer")
    expect(page.locator("#detail-picture")).to_have_attribute("aria-label", re.compile("picture with heat-map$"))
    assert page.locator("#detail-picture").evaluate("(canvas) => [canvas.width, canvas.height]") == [512, 512]  # 8 × 64
    picture = page.locator("#detail-file").get_attribute("href")
    assert shown.client.ask("GET", str(picture))[1]["content-type"] == "image/jpeg"
    page.wait_for_timeout(300)
    page.screenshot(path=SHOTS / "detail.png")
    require_accessible(page)
    page.keyboard.press("Escape")
    expect(page.locator("#detail")).to_be_hidden()


def test_the_gallery_filters_and_the_table_has_the_same_parts(page: Page, shown: Shown) -> None:
    page.goto(f"{shown.url}#parts")
    expect(page.locator("#gallery .tile[data-decision=UNKNOWN]")).to_have_count(1)
    assert page.locator("#gallery .tile[data-decision=OK]").count() == 0
    page.get_by_role("checkbox", name="UNKNOWN").uncheck()
    page.get_by_label("Score from").fill("1.9")
    assert page.locator("#export").get_attribute("href") == "/api/export.csv?decision=REJECT&lowest=1.9"
    page.get_by_label("Score from").press("Enter")
    expect(page.locator("#gallery .tile[data-decision=UNKNOWN]")).to_have_count(0)
    count = page.locator("#gallery .tile").count()
    assert 0 < count < 12
    with page.expect_download() as download:
        page.locator("#export").click()
    lines = Path(download.value.path()).read_text().strip().splitlines()
    assert len(lines) == 1 + count


def test_a_threshold_is_previewed_confirmed_and_ordered_after_login(page: Page, shown: Shown) -> None:
    page.goto(f"{shown.url}#control")
    expect(page.locator("#threshold")).to_have_value("1")  # the line's own, to begin with
    page.locator("#threshold").fill("0.35")
    expected = shown.client.get("/api/preview?threshold=0.35")
    expect(page.locator("#preview")).to_contain_text(f"{len(expected['to_reject'])} more rejected, 0 more passed")
    expect(page.locator("#preview-parts .tile").first).to_be_visible()
    page.locator("#set-threshold").press("Enter")
    expect(page.locator("#login")).to_be_visible()
    require_accessible(page)
    page.keyboard.type(USER)
    page.keyboard.press("Tab")
    page.keyboard.type("not the password")
    page.keyboard.press("Enter")
    expect(page.locator("#login-error")).to_contain_text("wrong")
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.locator("#confirm")).to_be_visible()
    expect(page.locator("#confirm-text")).to_contain_text("From 1.00 to 0.35")
    page.screenshot(path=SHOTS / "confirm.png")
    require_accessible(page)
    page.keyboard.press("Escape")  # thought better of it
    expect(page.locator("#confirm")).to_be_hidden()
    assert [entry["action"] for entry in audit(page)] == ["login", "login"]
    page.locator("#set-threshold").press("Enter")
    page.locator("#confirm-yes").press("Enter")
    expect(page.locator("#message")).to_contain_text("no answer", timeout=30_000)  # this station is none
    newest = audit(page)[0]
    assert (newest["action"], newest["user"], newest["details"]) == ("threshold", USER, {"value": 0.35})
    expect(page.locator("#audit-rows")).to_contain_text("threshold value 0.35")
    page.locator("#log-out").click()
    expect(page.locator("#audit-rows")).to_have_text("log in to see it")


def audit(page: Page) -> list[dict[str, object]]:
    entries: list[dict[str, object]] = page.evaluate("fetch('/api/audit').then((answer) => answer.json())")
    return entries


def test_a_capture_is_looked_through_by_keyboard(page: Page, shown: Shown) -> None:
    page.goto(f"{shown.url}#captures")
    tiles = page.locator("#captured button")
    expect(tiles).to_have_count(CAPTURED)
    expect(tiles.first).to_have_attribute("aria-label", "drop part 13, score 1.30")  # the strangest
    tiles.first.focus()
    page.keyboard.press("Space")
    expect(tiles.first).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#capture-note")).to_have_text("13 of 14 pictures kept")
    page.screenshot(path=SHOTS / "review.jpg", type="jpeg", quality=80)
    require_accessible(page)
    page.locator("#keep").press("Enter")
    fill_login(page)
    expect(page.locator("#confirm-text")).to_contain_text("13 pictures are written")
    page.locator("#confirm-yes").press("Enter")
    expect(page.locator("#message")).to_have_text("done: 13 pictures kept")


def test_every_view_is_reached_by_tab_and_enter(page: Page) -> None:
    for view in VIEWS[1:]:
        page.locator(f".tabs a[href='#{view}']").focus()
        page.keyboard.press("Enter")
        expect(page.locator(f"#view-{view}")).to_be_visible()
        expect(page.locator(".tabs a[aria-current=page]")).to_have_attribute("href", f"#{view}")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "BUTTON"  # Log in


def test_what_came_over_the_network_is_text_and_never_markup(page: Page, shown: Shown) -> None:
    number = shown.judge("UNKNOWN", None, reason="<img src=x onerror=alert(1)>")
    key = part_key(shown.speaker.part(number).event_id)
    assert eventually(lambda: shown.client.ask("GET", f"/api/parts/{key}")[0] == 200)
    expect(page.locator("#last .tile")).to_have_attribute("aria-label", f"part {number}, UNKNOWN, score –")
    page.locator("#last .tile").click()
    expect(page.locator("#detail-facts")).to_contain_text("<img src=x onerror=alert(1)>")
    assert page.locator("#detail-facts img").count() == 0


def test_a_page_whose_program_has_gone_does_not_show_a_running_line(
    browser: Browser, tmp_path: Path, broker: BrokerSettings
) -> None:
    tap_port = free_port()
    page_program = page_of(write_config(tmp_path, broker, "gone", tap_port))
    speaker = Speaker(broker, "gone", tap_port)
    page = browser.new_page()
    with page_program.run(), speaker.alive():
        speaker.say_state("running")
        page.goto(f"http://{LOOPBACK}:{page_program.port}/")
        expect(page.locator("#state")).to_have_text("running")
    expect(page.locator("#state")).to_have_text("lost")
    expect(page.locator("#reason")).to_contain_text("does not answer")
    with page_program.run(), speaker.alive():
        speaker.say_state("running")
        expect(page.locator("#state")).to_have_text("running")
    page.close()
    speaker.close()
