"""Topics are what MQTT allows, and no two streams share one."""

from __future__ import annotations

import pytest

from protocol.streams import STATE, STREAMS, VERDICT, command_topic, is_topic_level, topic


def test_topics_are_below_site_and_line() -> None:
    assert topic(VERDICT, "plant", "line1") == "beltsight/plant/line1/verdict"
    assert command_topic("plant", "line1", "pause") == "beltsight/plant/line1/cmd/pause"


def test_each_stream_has_a_name_of_its_own() -> None:
    assert len({stream.name for stream in STREAMS}) == len(STREAMS)


def test_what_must_not_be_lost_is_acknowledged_or_held_back() -> None:
    for stream in STREAMS:
        assert stream.may_lose or stream.over == "zmq" or stream.qos >= 1
    assert STATE.retain


@pytest.mark.parametrize("name", ["plant", "line-1", "Halle_3", "é"])
def test_plain_names_can_stand_in_a_topic(name: str) -> None:
    assert is_topic_level(name)


@pytest.mark.parametrize("name", ["", "a/b", "+", "#", "$SYS", "a b", "a\0", "a\n", "x" * 65])
def test_what_mqtt_reserves_cannot(name: str) -> None:
    assert not is_topic_level(name)
