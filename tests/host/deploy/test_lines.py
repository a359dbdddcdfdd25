"""Lines over the broker, and the fleet's table: whose answer it was, and what is known of each line."""

from __future__ import annotations

from pathlib import Path

import pytest

from host.deploy.__main__ import parse_options
from host.deploy.fleet import draw_fleet, gather
from host.deploy.lines import Lines, Report
from protocol.broker import BrokerSettings, close_broker, connect_broker
from protocol.commands import Answer
from protocol.reports import HealthReport, LineCondition, LineState, Percentiles
from protocol.streams import RESULT, topic
from sim.station import LINE, LOOPBACK, SITE, free_port, start_broker
from tests.survival.broker import MOSQUITTO

NOW = "2026-01-01T08:00:30.000Z"


@pytest.mark.skipif(not MOSQUITTO, reason="mosquitto is not installed")
def test_an_answer_is_told_from_anothers_and_from_rubbish(tmp_path: Path) -> None:
    broker = BrokerSettings(LOOPBACK, free_port())
    with start_broker(tmp_path, broker.port), Lines(broker, SITE) as lines:
        speaker, _ = connect_broker(broker, "speaker", prepare=lambda _: None)
        try:
            for words in ("rubbish", *(f'{{"id": "{number}", "command": "model"' for number in ("another", "own"))):
                more = ', "obeyed": false, "reason": "why", "time": "2026-01-01T08:00:30.000Z"}'
                speaker.publish(topic(RESULT, SITE, LINE), words + more, qos=1)
            answer = lines.answer("own", 20.0)
            assert answer is not None
            assert (answer.id, answer.reason) == ("own", "why")
            assert lines.answer("own", 0.1) is None
        finally:
            close_broker(speaker)


def state_of(state: LineCondition, reason: str = "", signed_by: str = "") -> LineState:
    return LineState(state, reason, "orange", NOW, "0123456789abcdef", signed_by)


def test_a_row_for_each_line_in_order_with_its_latest_words() -> None:
    seen: list[tuple[str, Report]] = [
        ("plant/line2", state_of("running", signed_by="maker")),
        (
            "plant/line2",
            HealthReport(NOW, parts=8, reject=2, unknown=1, stages_ms={"infer": Percentiles(5.2, 9.0, 9.5)}),
        ),
        ("plant/line1", state_of("stopped", "switched off")),
        ("plant/line2", Answer("7", "pause", True, "", NOW)),
        ("plant/line2", state_of("degraded", "fpga failed", "maker")),
        ("plant/line3", HealthReport(NOW)),
    ]
    table = draw_fleet(gather(seen))
    rows = list(zip(*(column.cells for column in table.columns), strict=True))
    assert rows == [
        ("plant/line1", "stopped: switched off", "orange", "0123456789ab", "nobody", "", "", "", ""),
        ("plant/line2", "degraded: fpga failed", "orange", "0123456789ab", "maker", "8", "25.0%", "1", "5.2"),
        ("plant/line3", "?", "?", "?", "?", "0", "", "0", ""),
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--to", "plant/line1"], "deploy takes a model's folder, or --config"),
        (["models/two", "--config", "line.toml", "--to", "plant/line1"], "deploy takes a model's folder, or --config"),
        (["--config", "line.toml", "--to", "plant/line1"], "--config goes over --ssh"),
        (["models/two"], "--to"),
    ],
)
def test_options_that_do_not_go_together(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    monkeypatch.setattr("sys.argv", ["beltsight", "deploy", *words])
    with pytest.raises(SystemExit, match="2"):
        parse_options()
    assert said in capsys.readouterr().err
