"""The real program over HTTP, with a real broker: what it reads, keeps and gives out, and what it refuses."""

from __future__ import annotations

import contextlib
import csv
import http.client
import io
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import paho.mqtt.client as mqtt
import pytest
from prometheus_client.parser import text_string_to_metric_families

from host.dashboard.acts import MAX_BODY_BYTES
from host.dashboard.identity import part_key
from host.dashboard.preview import PREVIEWED
from protocol.broker import BrokerSettings, close_broker, connect_broker
from protocol.drift import DriftReport, DriftState, encode_drift
from sim.station import LOOPBACK, free_port
from tests.host.dashboard.running import (
    PASSWORD,
    SITE,
    USER,
    Client,
    Page,
    Speaker,
    eventually,
    page_of,
    summary,
    write_config,
)


@dataclass
class Bench:
    page: Page
    client: Client
    speaker: Speaker
    broker: BrokerSettings

    def parts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.client.get("/api/latest")
        return found

    def ids(self) -> list[int]:
        return [part["part_id"] for part in self.parts()]


@contextlib.contextmanager
def set_up(folder: Path, broker: BrokerSettings, line: str) -> Iterator[Bench]:
    """A page that is not started yet, and a station to speak to it."""
    tap_port = free_port()
    page = page_of(write_config(folder, broker, line, tap_port))
    speaker = Speaker(broker, line, tap_port)
    yield Bench(page, Client(page.port), speaker, broker)
    speaker.close()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, broker: BrokerSettings) -> Iterator[Bench]:
    """One page for the tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "recordings" / "captures").mkdir(parents=True)  # so that there is something to lead out of
    with set_up(folder, broker, "shared") as bench, bench.page.run():
        yield bench


def test_the_page_and_its_files_come_from_this_host_alone(bench: Bench) -> None:
    status, headers, body = bench.client.ask("GET", "/")
    assert status == 200
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    for name in ("style.css", "main.js", "icon.svg"):
        assert f"/page/{name}".encode() in body
        status, headers, content = bench.client.ask("GET", f"/page/{name}")
        assert status == 200
        assert b"//cdn" not in content
    assert bench.client.ask("GET", "/page/main.js")[1]["content-type"].startswith("text/javascript")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_a_name_that_was_made_to_point_here_gets_nothing(bench: Bench, host: str) -> None:
    status, _, body = bench.client.ask("GET", "/api/latest", headers={"Host": host})
    assert status == 421
    assert b"--name" in body


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8080", "[::1]:8080", "10.1.2.3"])
def test_this_hosts_own_names(bench: Bench, host: str) -> None:
    assert bench.client.ask("GET", "/api/session", headers={"Host": host})[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/page/../../../../etc/passwd",
        "/page/%2e%2e/%2e%2e/%2e%2e/protocol/errors.py",
        "/page/..%2f__main__.py",
        "/page//etc/passwd",
        "/pictures/../passwords.jpg",
        "/pictures/..%2f..%2fpasswords.map",
        "/pictures/%00.jpg",
        "/captures/..%2f/0.jpg",
        "/captures/../0.jpg",
        "/api/captures/..",
        "/api/captures/%2e%2e%2f",
        "/api/parts/../../passwords",
    ],
)
def test_no_path_leads_out(bench: Bench, path: str) -> None:
    status, _, body = bench.client.ask("GET", path)
    assert status in (400, 404), body[:80]
    for secret in (b"root:", b"scrypt", b"import"):
        assert secret not in body


def test_verdicts_come_in_once_and_go_out_live(bench: Bench) -> None:
    spoken = bench.speaker.part(1)
    for _ in range(3):
        bench.speaker.say(spoken)
    bench.speaker.say(bench.speaker.part(2, decision="OK", score=0.1))
    assert eventually(lambda: 2 in bench.ids())
    assert bench.ids().count(1) == 1
    before = summary(bench.client)["shift"]["REJECT"]
    bench.speaker.say(spoken)
    bench.speaker.say(bench.speaker.part(3))
    assert eventually(lambda: 3 in bench.ids())
    assert summary(bench.client)["shift"]["REJECT"] == before + 1


def test_an_open_page_is_told_of_a_part(bench: Bench) -> None:
    connection = http.client.HTTPConnection(LOOPBACK, bench.page.port, timeout=20)
    connection.request("GET", "/api/events")
    with contextlib.closing(connection), connection.getresponse() as stream:
        assert stream.getheader("Content-Type", "").startswith("text/event-stream")
        stream.readline()
        bench.speaker.say(bench.speaker.part(70, score=0.75))
        for line in stream:
            if line == b"event: parts\n":
                (part,) = json.loads(stream.readline().removeprefix(b"data: "))
                break
    assert (part["part_id"], part["decision"], part["score"], part["has_picture"]) == (70, "REJECT", 0.75, False)


def test_what_is_no_verdict_of_this_line_is_left_out(bench: Bench) -> None:
    for payload in (b"", b"{}", b"[" * 10_000, b'{"event_id": 1}', json.dumps({"x": "\ud800"}).encode()):
        bench.speaker.send("verdict", payload)
    bench.speaker.send("state", b'{"state": "excellent"}')
    bench.speaker.send("health", b"[]")
    bench.speaker.send("cmd/result", b"{}")
    bench.speaker.say(bench.speaker.part(80, line="line9"))
    bench.speaker.say(bench.speaker.part(81, event_id="a\0b"))
    bench.speaker.say(bench.speaker.part(82))
    assert eventually(lambda: 82 in bench.ids())
    assert not {80, 81} & set(bench.ids())


def test_picture_and_map_of_the_tap(bench: Bench) -> None:
    spoken = bench.speaker.part(90)
    key = part_key(spoken.event_id)

    def is_shown() -> bool:
        bench.speaker.show(spoken, level=200)  # again: the subscription takes a moment
        return bench.client.ask("GET", f"/pictures/{key}.jpg")[0] == 200

    assert eventually(is_shown)
    _, headers, jpeg = bench.client.ask("GET", f"/pictures/{key}.jpg")
    assert headers["content-type"] == "image/jpeg"
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape == (64, 64, 3)
    assert abs(int(picture.mean()) - 200) <= 1
    status, _, values = bench.client.ask("GET", f"/pictures/{key}.map")
    assert status == 200
    assert int.from_bytes(values[:2], "little") == int.from_bytes(values[2:4], "little") == 8
    assert np.frombuffer(values, np.float64, 1, 4)[0] == 0.25
    assert np.frombuffer(values, np.int8, offset=12).max() == 40
    bench.speaker.say(spoken)
    assert eventually(lambda: 90 in bench.ids())
    detail = bench.client.get(f"/api/parts/{key}")
    assert (detail["has_jpg"], detail["has_map"]) == (True, True)
    assert detail["stages_ms"] == {"infer": 8.25}
    assert bench.client.ask("GET", f"/pictures/{'0' * 32}.jpg")[0] == 404
    assert bench.client.ask("GET", f"/pictures/{key}.txt")[0] == 404


def test_the_table_for_a_spreadsheet(bench: Bench) -> None:
    bench.speaker.say(bench.speaker.part(100, decision="UNKNOWN", score=None, reason='=1+1, "odd"\nline'))
    assert eventually(lambda: 100 in bench.ids())
    status, headers, body = bench.client.ask("GET", "/api/export.csv?decision=UNKNOWN")
    assert status == 200
    assert "attachment" in headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(body.decode(), newline="")))
    row = next(row for row in rows if row["part_id"] == "100")
    assert (row["decision"], row["score"], row["reason"]) == ("UNKNOWN", "", '\'=1+1, "odd"\nline')
    assert {row["decision"] for row in rows} == {"UNKNOWN"}


@pytest.mark.parametrize(
    "query",
    ["decision=MAYBE", "lowest=much", "lowest=nan", "begin=today", "count=0", "count=501", "count=-1", "before=x"],
)
def test_what_is_no_question_is_refused_in_one_line(bench: Bench, query: str) -> None:
    status, _, body = bench.client.ask("GET", f"/api/parts?{query}")
    assert status == 400
    assert json.loads(body)["error"].startswith(query.partition("=")[0])


def test_the_preview_looks_at_the_last_500_parts(tmp_path: Path, broker: BrokerSettings) -> None:
    with set_up(tmp_path, broker, "preview") as bench, bench.page.run():
        for number in range(PREVIEWED + 1):
            score = 9.0 if number == 0 else number / 1000
            bench.speaker.say(bench.speaker.part(number, decision="REJECT" if number == 0 else "OK", score=score))
        bench.speaker.say_state("running")
        assert eventually(lambda: bench.ids()[-1:] == [PREVIEWED])
        preview = bench.client.get("/api/preview?threshold=0.4")
        assert (preview["parts"], preview["rejects_now"], preview["rejects_then"]) == (500, 0, 101)
        assert len(preview["to_reject"]) == 101
        assert preview["to_reject"][0] == part_key("preview-400")
        assert bench.client.ask("GET", "/api/preview?threshold=nan")[0] == 400


def test_what_was_said_while_the_page_was_away_is_not_lost(tmp_path: Path, broker: BrokerSettings) -> None:
    with set_up(tmp_path, broker, "away") as bench:
        with bench.page.run():
            bench.speaker.say(bench.speaker.part(1))
            assert eventually(lambda: bench.ids() == [1])
        for number in range(2, 300):
            bench.speaker.say(bench.speaker.part(number))
        with bench.page.run():
            assert eventually(lambda: len(bench.ids()) == 299)
            assert bench.ids() == list(range(1, 300))
            assert sum(shift["REJECT"] for shift in bench.client.get("/api/shifts")) == 299


def test_a_history_that_cannot_be_written_loses_nothing_either(tmp_path: Path, broker: BrokerSettings) -> None:
    with set_up(tmp_path, broker, "locked") as bench:
        with bench.page.run():
            bench.speaker.say(bench.speaker.part(1))
            assert eventually(lambda: bench.ids() == [1])
            lock = sqlite3.connect(tmp_path / "page" / "history.sqlite", isolation_level=None)
            lock.execute("BEGIN EXCLUSIVE")
            for number in range(2, 30):
                bench.speaker.say(bench.speaker.part(number))
            assert eventually(lambda: "history cannot be written" in summary(bench.client)["trouble"], 40)
        lock.execute("ROLLBACK")  # the page has ended, and the broker still has what was not on the disk
        lock.close()
        with bench.page.run():
            assert eventually(lambda: bench.ids() == list(range(1, 30)))
            assert summary(bench.client)["trouble"] == ""


def test_the_state_is_what_the_station_says(tmp_path: Path, broker: BrokerSettings) -> None:
    with set_up(tmp_path, broker, "states") as bench, bench.page.run():
        assert eventually(lambda: "announced" in summary(bench.client)["reason"])
        for state, reason in (
            ("running", ""),
            ("degraded", "fpga: no answer"),
            ("stopped", "paused"),
            ("lost", "gone"),
        ):
            bench.speaker.say_state(state, reason)
            assert eventually(lambda: summary(bench.client)["state"] == state)  # noqa: B023 - asked at once
            assert summary(bench.client)["reason"] == reason


def test_a_drift_is_a_warning_with_its_picture(tmp_path: Path, broker: BrokerSettings) -> None:
    with set_up(tmp_path, broker, "drift") as bench, bench.page.run():

        def warn(sheet: str, text: str = "it is darker: look at the lamp", state: DriftState = "drifting") -> int:
            report = DriftReport(state, text, (), 100, sheet, "trivial", "2026-01-01T00:00:00.000Z")
            bench.speaker.send("drift", encode_drift(report))
            assert eventually(lambda: summary(bench.client)["drift"] == (text if state == "drifting" else ""))
            status, headers, _ = bench.client.ask("GET", "/api/drift.jpg")
            assert status == 404 or headers["content-type"] == "image/jpeg"
            return status

        assert warn("1.jpg") == 404
        (tmp_path / "drift").mkdir()
        (tmp_path / "drift" / "1.jpg").write_bytes(b"\xff\xd8")
        (tmp_path / "2.jpg").write_bytes(b"\xff\xd8")
        assert warn("1.jpg", "another text") == 200
        assert warn("../2.jpg", "a third text") == 404
        assert warn(str(tmp_path / "2.jpg"), "a fourth text") == 404
        assert warn("", state="steady") == 404


def test_a_login_is_slow_to_guess_and_gives_a_cookie_that_scripts_do_not_see(
    tmp_path: Path, broker: BrokerSettings
) -> None:
    with set_up(tmp_path, broker, "login") as bench, bench.page.run():
        right = json.dumps({"user": USER, "password": PASSWORD}).encode()
        kind = {"Content-Type": "application/json"}
        status, headers, _ = bench.client.ask("POST", "/api/login", right, kind)
        assert status == 200
        flags = {flag.strip().lower() for flag in headers["set-cookie"].split(";")[1:]}
        assert {"httponly", "samesite=strict", "path=/"} <= flags
        assert bench.client.get("/api/session") == {"user": "", "token": ""}
        bench.client.log_in()
        assert bench.client.get("/api/session")["user"] == USER
        assert bench.client.post("/api/logout", {})[0] == 200
        assert bench.client.get("/api/session")["user"] == ""
        for _ in range(5):
            assert bench.client.post("/api/login", {"user": USER, "password": "a guess of it"})[0] == 403
        status, headers, _ = bench.client.ask("POST", "/api/login", right, kind)
        assert status == 429
        assert 0 < int(headers["retry-after"]) <= 62
        outcomes = [entry["outcome"] for entry in audit_of(tmp_path)]
        assert outcomes.count("refused") == 5


def audit_of(folder: Path) -> list[dict[str, Any]]:
    with contextlib.closing(sqlite3.connect(folder / "page" / "history.sqlite")) as database:
        rows = database.execute("SELECT user, action, details, outcome FROM audit ORDER BY seq").fetchall()
    return [dict(zip(("user", "action", "details", "outcome"), row, strict=True)) for row in rows]


def heard_commands(broker: BrokerSettings, line: str, opened: contextlib.ExitStack) -> list[str]:
    """Topics of the commands that reach the broker from now on."""
    heard: list[str] = []

    def prepare(client: mqtt.Client) -> None:
        client.on_message = lambda _client, _data, message: heard.append(message.topic)

    topic = f"beltsight/{SITE}/{line}/cmd/#"
    client, _ = connect_broker(broker, f"ear-{line}", topics=[topic], prepare=prepare)
    opened.callback(close_broker, client)
    return heard


def test_nobody_orders_without_login_token_and_own_page(tmp_path: Path, broker: BrokerSettings) -> None:
    with set_up(tmp_path, broker, "orders") as bench, bench.page.run(), contextlib.ExitStack() as opened:
        heard = heard_commands(broker, "orders", opened)
        stranger = Client(bench.page.port)
        for path in ("/api/orders/pause", "/api/captures/x/review", "/api/logout"):
            assert stranger.post(path, {})[0] == 401
        assert stranger.ask("GET", "/api/audit")[0] == 401
        bench.client.log_in()
        token, bench.client.token = bench.client.token, ""
        assert bench.client.post("/api/orders/pause", {})[0] == 403
        assert bench.client.post("/api/captures/x/review", {"dropped": []})[0] == 403
        bench.client.token = "guess"
        assert bench.client.post("/api/orders/pause", {})[0] == 403
        bench.client.token = token
        assert bench.client.post("/api/orders/pause", {}, Origin="http://evil.example")[0] == 403
        assert bench.client.post("/api/orders/pause", {}, **{"Content-Type": "text/plain"})[0] == 415
        for name, fields in (
            ("explode", {}),
            ("threshold", {}),
            ("threshold", {"value": "high"}),
            ("threshold", {"value": 1, "id": "x"}),
            ("capture", {"parts": 0}),
            ("capture", {"parts": 1.5}),
            ("model", {"model": "../x"}),
            ("pause", {"value": 1}),
        ):
            assert bench.client.post(f"/api/orders/{name}", fields)[0] in (400, 404), (name, fields)
        assert bench.client.post("/api/orders/pause", {"x": "x" * MAX_BODY_BYTES})[0] == 413
        assert heard == []
        status, answer = bench.client.post("/api/orders/pause", {})  # and nobody answers
        assert status == 504
        assert "no answer" in answer["error"]
        assert heard == [f"beltsight/{SITE}/orders/cmd/pause"]
        (entry,) = [entry for entry in audit_of(tmp_path) if entry["action"] == "pause"]
        assert entry["user"] == USER
        assert entry["outcome"].startswith("no answer")


def test_what_cannot_be_written_down_is_not_done(tmp_path: Path, broker: BrokerSettings) -> None:
    with set_up(tmp_path, broker, "audit") as bench, bench.page.run(), contextlib.ExitStack() as opened:
        heard = heard_commands(broker, "audit", opened)
        bench.client.log_in()
        with contextlib.closing(sqlite3.connect(tmp_path / "page" / "history.sqlite")) as database:
            database.execute("DROP TABLE audit")
        status, answer = bench.client.post("/api/orders/pause", {})
        assert status == 503
        assert "nothing was done" in answer["error"]
        assert not eventually(lambda: bool(heard), within_s=1.0)


def test_the_state_is_shown_while_the_history_cannot_be_read(tmp_path: Path, broker: BrokerSettings) -> None:
    with set_up(tmp_path, broker, "unreadable") as bench, bench.page.run():
        with contextlib.closing(sqlite3.connect(tmp_path / "page" / "history.sqlite")) as database:
            database.execute("ALTER TABLE totals RENAME TO away")
            assert eventually(lambda: "history cannot be read" in summary(bench.client)["trouble"])
            bench.speaker.say_state("running")
            assert eventually(lambda: summary(bench.client)["state"] == "running")
            assert summary(bench.client)["shift"] is None
            assert bench.client.ask("GET", "/api/shifts")[0] == 503
            database.execute("ALTER TABLE away RENAME TO totals")
        assert eventually(lambda: summary(bench.client)["trouble"] == "")


def test_it_ends_when_asked_although_pages_are_open(tmp_path: Path, broker: BrokerSettings) -> None:
    with set_up(tmp_path, broker, "ending") as bench:
        with bench.page.run():
            connection = http.client.HTTPConnection(LOOPBACK, bench.page.port, timeout=30)
            connection.request("GET", "/api/events")
            stream = connection.getresponse()
            stream.readline()
        connection.close()  # `run` waits ten seconds, and then kills
        assert "Traceback" not in (tmp_path / "page.log").read_text()


def test_what_prometheus_reads(bench: Bench) -> None:
    def counts() -> dict[str, float]:
        status, headers, body = bench.client.ask("GET", "/metrics")
        assert status == 200
        assert headers["content-type"].startswith("text/plain")
        families = text_string_to_metric_families(body.decode())
        return {sample.name: sample.value for family in families for sample in family.samples}

    before = counts()
    spoken = bench.speaker.part(200)
    for _ in range(3):
        bench.speaker.say(spoken)
    bench.speaker.send("verdict", b"none")

    def risen(name: str) -> float:
        return counts()[f"beltsight_page_{name}"] - before[f"beltsight_page_{name}"]

    assert eventually(lambda: risen("verdicts_duplicate_total") == 2)
    assert eventually(lambda: risen("messages_refused_total") == 1)
    assert risen("verdicts_stored_total") == 1
    assert counts()["beltsight_page_broker_connected"] == 1
    assert counts()["beltsight_page_resident_bytes"] > 1e7
