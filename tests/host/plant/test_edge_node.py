"""The edge node's messages without a broker: numbers, aliases, names, and bytes that are none of ours."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.plant.edge_node import EdgeNode, Names, encode_ndeath, follow
from host.plant.payload import MAX_METRICS, DataType, Metric, decode_command, encode_birth, encode_data
from host.plant.readings import count_values, time_ms
from host.plant.tags import BD_SEQ, LINE_TAGS, REBIRTH
from protocol.errors import MessageError
from protocol.strict import FieldError

NAMES = Names("Works 1", "node")


class Sent(list[tuple[str, bytes]]):
    def publish(self, topic: str, payload: bytes) -> None:
        self.append((topic, payload))

    def kinds(self) -> list[str]:
        return [topic.split("/")[2] for topic, _ in self]


def born(sent: Sent, lines: int, *, is_commanded: bool = True) -> EdgeNode:
    node = EdgeNode(NAMES, sent.publish, lambda: 1_000, is_commanded=is_commanded)
    node.give_birth(0, [node.device(f"line{number}") for number in range(lines)])
    return node


def seq_of(payload: bytes) -> int:
    """Field 3 of the payload, a varint, which our encoder writes last."""
    at = payload.rindex(b"\x18") + 1
    low = payload[at]
    return low if low < 0x80 else (low & 0x7F) | payload[at + 1] << 7


def test_numbers_follow_each_other_through_255() -> None:
    assert [follow(number) for number in (0, 1, 254, 255)] == [1, 2, 255, 0]


@given(st.lists(st.sampled_from(["data", "note", "bear", "bury", "rebirth"]), min_size=1, max_size=600))
def test_whatever_happens_the_numbers_have_no_gap(steps: list[str]) -> None:
    sent = Sent()
    node = born(sent, 1)
    device = node.device("line0")
    actions: dict[str, Callable[[int], None]] = {
        "data": lambda count: node.note_device(device, {"Counts/Parts": count}, count),
        "note": lambda count: node.note({"Bridge/Lines": count}),
        "bear": lambda _: node.bear(device),
        "bury": lambda _: node.bury(device),
        "rebirth": lambda _: node.give_birth(0, [device]),
    }
    for count, step in enumerate(steps, 1):
        actions[step](count)
    expected = 0
    for kind, (_, payload) in zip(sent.kinds(), sent, strict=True):
        expected = 0 if kind == "NBIRTH" else follow(expected)
        assert seq_of(payload) == expected


def test_nothing_is_sent_of_what_is_not_born() -> None:
    sent = Sent()
    node = EdgeNode(NAMES, sent.publish, lambda: 1_000, is_commanded=False)
    device = node.device("line1")
    node.note({"Bridge/Lines": 1})
    node.note_device(device, {"State": "running"}, 1)
    assert sent == []
    node.give_birth(0, [device])
    node.lose()
    node.note_device(device, {"State": "degraded"}, 2)
    node.report_past(device, {"State": "degraded"}, 2)
    assert sent.kinds() == ["NBIRTH", "DBIRTH"]


@pytest.mark.parametrize("lines", [1, 3, 200])
def test_aliases_are_each_metrics_own_in_the_whole_edge_node(lines: int) -> None:
    sent = Sent()
    born(sent, lines)
    written = [metric for _, payload in sent for metric in parse(payload)]
    aliases = [alias for name, alias in written if name != REBIRTH.name]
    assert None not in aliases
    assert len(set(aliases)) == len(aliases) > lines * len(LINE_TAGS)


def parse(payload: bytes) -> list[tuple[str, int | None]]:
    return [(metric.name, metric.alias) for metric in decode_command(payload)]


@pytest.mark.parametrize("name", ["", "a/b", "a+", "#", "\n", "x" * 65])
def test_names_that_no_topic_takes_are_refused(name: str) -> None:
    with pytest.raises(FieldError, match="must be printable"):
        Names(name, "node")
    with pytest.raises(FieldError, match="must be printable"):
        Names("group", name)


def test_a_topic_has_a_device_for_device_messages_alone() -> None:
    assert NAMES.topic("NDATA") == "spBv1.0/Works 1/NDATA/node"
    assert NAMES.topic("DDATA", "line1") == "spBv1.0/Works 1/DDATA/node/line1"


def test_ndeath_has_a_single_metric_and_neither_time_nor_number() -> None:
    """Field 1 of the payload is its time, 2 a metric, 3 its number; bytes by the protobuf encoding's tables."""
    payload = encode_ndeath(7, 5)
    assert payload[0] == 0x12
    assert payload[1] == len(payload) - 2, "one metric, and nothing after it"
    (metric,) = decode_command(payload)
    assert (metric.name, metric.value) == (BD_SEQ.name, 7)


@given(st.binary(max_size=300))
def test_bytes_of_strangers_are_commands_or_refused(data: bytes) -> None:
    with contextlib.suppress(MessageError):
        for metric in decode_command(data):
            assert metric.value is None or isinstance(metric.value, bool | int | float | str)


def test_too_much_is_refused() -> None:
    many = [Metric("m", DataType.INT64, 1, 1)] * (MAX_METRICS + 1)
    with pytest.raises(MessageError, match="at most 256 are read"):
        decode_command(encode_birth(many, 1, 0))
    with pytest.raises(MessageError, match="at most 65536 are read"):
        decode_command(encode_data([Metric("m", DataType.STRING, "x" * 70_000, 1)], 1, 0))


def test_negative_numbers_go_as_two_s_complement() -> None:
    (metric,) = decode_command(encode_birth([Metric("m", DataType.INT64, -2, 1)], 1, 0))
    assert metric.value == 2**64 - 2


@pytest.mark.parametrize("text", ["", "yesterday", "2026-01-01", "2026-13-01T00:00:00Z", "9" * 40])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(MessageError, match="must be like"):
        time_ms(text)


def test_times_are_utc_milliseconds() -> None:
    assert time_ms("2026-01-01T00:00:00.250Z") == 1_767_225_600_250


@pytest.mark.parametrize(
    "report",
    [
        "1",
        "[",
        "[" * 60_000,
        '{"parts": -1}',
        '{"parts": 1.5}',
        '{"parts": true}',
        '{"ok": 1e400}',
        '{"parts_per_s": NaN}',
    ],
)
def test_a_health_report_that_is_none_is_refused(report: str) -> None:
    with pytest.raises(MessageError):
        count_values(report.encode())
