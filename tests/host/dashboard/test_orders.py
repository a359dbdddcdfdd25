"""Orders from the page to a real station, and the review of what it captured.

Screenshots are kept in build/dashboard/; TUTORIAL.md has capture.jpg of them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from playwright.sync_api import expect

from board.records.recording import read_recording
from host.export.trivial import write_trivial_package
from protocol.messages import Trigger, clock_id
from protocol.pictures.reader import read_picture
from protocol.sockets import Socket, open_socket
from protocol.wire import encode_message, encode_raw_frame
from sim.station import LOOPBACK, free_port, start_board, start_broker
from tests.examples import grey_frame, trivial_station
from tests.host.dashboard.browsing import SHOTS, fill_login, needs_chromium, open_browser, open_tab
from tests.host.dashboard.running import USER, Client, eventually, page_of

GREY, BRIGHT = 140, 250  # scores of about 0.09 and 0.95; the model's threshold is 0.25


@dataclass
class Belt:
    socket: Socket
    run: str
    sent: int = 0

    def convey(self, level: int) -> int:
        """One part of this brightness; its id."""
        trigger = Trigger(self.run, self.sent, time.monotonic_ns(), clock_id())
        self.sent += 1
        self.socket.send_multipart(encode_message(trigger))
        self.socket.send_multipart(encode_raw_frame(trigger, grey_frame(level), {}))
        return trigger.part_id


@dataclass
class Line:
    folder: Path
    client: Client
    belt: Belt

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.client.port}/"

    def judge(self, level: int) -> dict[str, Any]:
        """The history's row of one more part."""
        number = self.belt.convey(level)
        found: list[dict[str, Any]] = []

        def is_there() -> bool:
            found[:] = [part for part in self.client.get("/api/latest") if part["part_id"] == number]
            return bool(found)

        assert eventually(is_there)
        return found[0]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    folder = tmp_path_factory.mktemp("line")
    for name, threshold in (("trivial", 0.25), ("stern", 0.05)):
        write_trivial_package(folder / "models" / name, threshold=threshold)
    settings = trivial_station(folder, free_port())
    with start_broker(folder, settings.mqtt_port), start_board(settings):
        page = page_of(folder / "line.toml")
        with page.run():
            client = Client(page.port)
            endpoint = f"tcp://{LOOPBACK}:{settings.belt_port}"
            with open_socket("PUSH", endpoint, bind=False, high_water_mark=50, timeout_ms=5000) as socket:
                line = Line(folder, client, Belt(socket, f"page-{time.monotonic_ns()}"))
                assert line.judge(GREY)["decision"] == "OK"
                client.log_in()
                yield line


def order(line: Line, name: str, **fields: Any) -> tuple[int, Any]:
    return line.client.post(f"/api/orders/{name}", fields)


def test_pause_and_resume(line: Line) -> None:
    assert order(line, "pause") == (200, {"done": "pause"})
    paused = line.judge(GREY)
    assert (paused["decision"], paused["score"]) == ("UNKNOWN", None)
    assert "paused" in paused["reason"]
    assert order(line, "resume")[0] == 200
    assert line.judge(GREY)["decision"] == "OK"


def test_the_threshold(line: Line) -> None:
    score = line.judge(GREY)["score"]
    assert order(line, "threshold", value=score)[0] == 200
    judged = line.judge(GREY)
    assert (judged["decision"], judged["threshold"]) == ("REJECT", score)
    assert order(line, "threshold", value=0.25)[0] == 200
    assert line.judge(GREY)["decision"] == "OK"


def test_another_model(line: Line) -> None:
    assert [model["id"] for model in line.client.get("/api/models")] == ["stern", "trivial"]
    status, answer = order(line, "model", model="none-of-that-name")
    assert status == 409
    assert "none-of-that-name" in answer["error"]
    assert line.judge(GREY)["model_id"] == "trivial"
    assert order(line, "model", model="stern")[0] == 200
    judged = line.judge(GREY)
    assert (judged["model_id"], judged["decision"]) == ("stern", "REJECT")
    assert order(line, "rollback") == (200, {"done": "rollback"})
    assert line.judge(GREY)["model_id"] == "trivial"


def test_every_order_is_in_the_audit_log_with_its_outcome(line: Line) -> None:
    order(line, "threshold", value=0.3)
    order(line, "model", model="nowhere")
    order(line, "threshold", value=0.25)
    newest = line.client.get("/api/audit")[:3]
    assert [entry["action"] for entry in newest] == ["threshold", "model", "threshold"]
    assert {entry["user"] for entry in newest} == {USER}
    assert newest[2]["details"] == {"value": 0.3}
    assert newest[2]["outcome"] == "done"
    assert newest[1]["outcome"].startswith("refused: ")


def test_good_parts_are_captured_looked_through_and_kept(line: Line) -> None:
    assert order(line, "capture", parts=6)[0] == 200
    levels = [130, 132, 134, 136, 138, 150]
    for level in [*levels[:3], BRIGHT, *levels[3:]]:
        line.judge(level)
    (capture,) = line.client.get("/api/captures")
    assert capture["reviewed"] is None
    name = capture["name"]
    assert eventually(lambda: len(line.client.get(f"/api/captures/{name}")) == len(levels))
    pictures = line.client.get(f"/api/captures/{name}")
    scores = [picture["score"] for picture in pictures]
    assert scores == sorted(scores, reverse=True)  # the strangest first
    strangest = pictures[0]["number"]
    status, headers, jpeg = line.client.ask("GET", f"/captures/{name}/{strangest}.jpg")
    assert (status, headers["content-type"]) == (200, "image/jpeg")
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert abs(int(picture.mean()) - 150) <= 1
    assert line.client.ask("GET", f"/captures/{name}/99.jpg")[0] == 400
    for dropped in ({}, {"dropped": ["1"]}, {"dropped": 1}):
        assert line.client.post(f"/api/captures/{name}/review", dropped)[0] == 400
    assert line.client.post(f"/api/captures/{name}/review", {"dropped": [0]}) == (200, {"kept": 5})
    assert line.client.post(f"/api/captures/{name}/review", {"dropped": [strangest]}) == (200, {"kept": 5})
    folder = line.folder / "recordings" / "captures" / name
    kept = sorted(int(read_picture(path).mean()) for path in (folder / "reviewed").glob("*.png"))
    assert kept == levels[:-1]
    (recording,) = folder.glob("*.beltrec")
    assert len(list(read_recording(recording))) == len(levels)  # nothing of the recording itself is lost
    assert line.client.get("/api/captures")[0]["reviewed"] == 5


def test_the_stations_state_is_shown(line: Line) -> None:
    status, _, body = line.client.ask("GET", "/api/session")
    assert (status, json.loads(body)["user"]) == (200, USER)


@needs_chromium
def test_orders_are_pressed_confirmed_and_obeyed(line: Line) -> None:
    errors: list[str] = []
    with open_browser() as browser, open_tab(browser, f"{line.url}#control", "desk", errors) as tab:

        def press(button: str, said: str) -> None:
            tab.locator(button).click()
            tab.locator("#confirm-yes").click()
            expect(tab.locator("#message")).to_contain_text(said)

        tab.locator("#log-in").click()
        fill_login(tab)
        expect(tab.locator("#user")).to_have_text(USER)

        tab.locator("#capture-parts").fill("3")
        tab.locator("#capture").click()
        expect(tab.locator("#confirm-text")).to_have_text("The next 3 parts that are OK are recorded.")
        tab.screenshot(path=SHOTS / "capture.jpg", type="jpeg", quality=80)
        tab.locator("#confirm-yes").click()
        expect(tab.locator("#message")).to_have_text("done: capture")
        expect(tab.locator("#capture-left")).to_have_text("Under way: 3 good parts are still to come.")
        for _ in range(3):
            line.judge(GREY)
        expect(tab.locator("#capture-left")).to_have_text("")

        press("#pause", "done: pause")
        expect(tab.locator("#state")).to_have_text("stopped")
        expect(tab.locator("#reason")).to_contain_text("paused")
        press("#resume", "done: resume")
        expect(tab.locator("#state")).to_have_text("running")

        tab.locator("#model").select_option("stern")
        press("#set-model", "the new model judges, on trial")
        expect(tab.locator("#fig-model")).to_have_text("stern")
        line.judge(GREY)
        expect(tab.locator("#threshold")).to_have_value("0.05")  # of the new model, to begin with
        press("#rollback", "the model before judges again")
        expect(tab.locator("#fig-model")).to_have_text("trivial")
        expect(tab.locator("#audit-rows tr").first).to_contain_text("rollback")
    assert errors == []
