"""The AsyncAPI document: up to date, valid, complete, and as strict as the decoders."""

from __future__ import annotations

import dataclasses
import gzip
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator, FormatChecker

from protocol.asyncapi import BOUNDS, MESSAGES, OPEN_ENDED, make_document
from protocol.commands import ORDERS, decode_command
from protocol.drift import DriftReport, Moved, encode_drift
from protocol.errors import MessageError
from protocol.messages import encode_verdict
from protocol.streams import STREAMS, Stream
from tests.examples import VERDICT

DOCUMENT = make_document()
COMMITTED = Path(__file__).resolve().parents[2] / "protocol" / "asyncapi.json"
# The AsyncAPI initiative's own JSON Schema (Apache-2.0): schemas/3.0.0.json of @asyncapi/specs 6.11.1, without spaces
OFFICIAL = Path(__file__).with_name("asyncapi-3.0.0.json.gz")


def validator(name: str) -> Draft7Validator:
    """Of the messages of one dataclass."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    return Draft7Validator(schema, format_checker=FormatChecker())


def test_the_committed_document_is_up_to_date() -> None:
    advice = "the messages have changed: python -m protocol.asyncapi > protocol/asyncapi.json"
    assert json.loads(COMMITTED.read_text(encoding="utf-8")) == json.loads(json.dumps(DOCUMENT)), advice


def test_it_is_valid_by_the_schema_of_asyncapi_3_0() -> None:
    official = Draft7Validator(json.loads(gzip.decompress(OFFICIAL.read_bytes())))
    official.validate(json.loads(COMMITTED.read_text(encoding="utf-8")))
    broken = json.loads(json.dumps(DOCUMENT))
    broken["operations"]["send-verdict"]["action"] = "shout"
    assert not official.is_valid(broken)


def test_every_stream_over_mqtt_has_its_message() -> None:
    addresses = {channel["address"] for channel in DOCUMENT["channels"].values()}
    assert addresses == {f"beltsight/{{site}}/{{line}}/{topic}" for topic in MESSAGES}
    assert {topic for topic in MESSAGES if not topic.startswith("cmd/") or topic == "cmd/result"} | {"cmd"} == {
        stream.name for stream in STREAMS if stream.over == "mqtt"
    }


def test_a_stream_without_a_message_is_refused() -> None:
    with pytest.raises(KeyError, match="gossip"):
        make_document([*STREAMS, Stream("gossip", "mqtt", "", may_lose=True)])


def test_operations_say_who_speaks_and_how() -> None:
    operations = DOCUMENT["operations"]
    assert operations["send-verdict"]["bindings"]["mqtt"] == {"qos": 1, "retain": False, "bindingVersion": "0.2.0"}
    assert operations["send-state"]["bindings"]["mqtt"]["retain"]
    assert operations["receive-cmd-pause"]["action"] == "receive"
    assert not [key for key, operation in operations.items() if not key.startswith(operation["action"])]


def test_every_reference_leads_somewhere() -> None:
    def references(node: object) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [found for value in node.values() for found in references(value)]
        return [found for item in node for found in references(item)] if isinstance(node, list) else []

    found = references(DOCUMENT)
    assert found
    for reference in found:
        node: Any = DOCUMENT
        for key in reference.removeprefix("#/").split("/"):
            node = node[key]


def test_bounds_and_exceptions_name_fields_that_are_there() -> None:
    classes = DOCUMENT["components"]["schemas"]
    assert set(BOUNDS) | OPEN_ENDED <= set(classes)
    for name, bounds in BOUNDS.items():
        assert set(bounds) <= set(classes[name]["properties"]), name


@pytest.mark.parametrize("schema", sorted(DOCUMENT["components"]["schemas"]))
def test_each_schema_is_one(schema: str) -> None:
    content = DOCUMENT["components"]["schemas"][schema]
    Draft7Validator.check_schema(content)
    assert content["additionalProperties"] is (schema in OPEN_ENDED)


def test_texts_come_from_the_comments() -> None:
    properties = DOCUMENT["components"]["schemas"]["Verdict"]["properties"]
    assert properties["reason"]["description"] == "why UNKNOWN, else empty"
    assert DOCUMENT["components"]["schemas"]["Pause"]["properties"]["id"]["description"].startswith("unique")
    assert DOCUMENT["components"]["schemas"]["Pause"]["description"] == "Every part is rejected from now on."


def test_a_verdict_is_valid() -> None:
    validator("Verdict").validate(json.loads(encode_verdict(VERDICT)))
    validator("Verdict").validate(json.loads(encode_verdict(replace(VERDICT, score=None, decision="UNKNOWN"))))


def test_a_drift_report_with_what_moved_is_valid() -> None:
    moved = Moved("brightness", 5.5, 90.0, 128.0, 7.0)
    report = DriftReport("drifting", "the lamp is dimmer", (moved,), 300, "sheet.png", "m", "2026-01-01T00:00:00.000Z")
    validator("DriftReport").validate(json.loads(encode_drift(report)))
    assert not validator("DriftReport").is_valid(json.loads(encode_drift(replace(report, moved=({"sigmas": 1},)))))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"decision": "MAYBE"},
        {"part_id": 2**53 + 1},
        {"part_id": "7"},
        {"part_id": -1},
        {"time": "yesterday"},
        {"time": "2026-01-01T00:00:00+01:00"},
        {"score": "high"},
        {"extra": 1},
        {"event_id": ""},
        {"readings": {"die_c": None}},
        {"location": {"frame": 1}},
        {"run": "x" * 65},
    ],
)
def test_what_is_no_verdict_is_not(change: dict[str, object]) -> None:
    assert not validator("Verdict").is_valid(asdict(VERDICT) | change)


@pytest.mark.parametrize("key", [f.name for f in dataclasses.fields(VERDICT) if f.default is dataclasses.MISSING])
def test_a_verdict_without_a_key_is_none(key: str) -> None:
    if key not in ("readings",):  # which has a default
        assert not validator("Verdict").is_valid({k: v for k, v in asdict(VERDICT).items() if k != key})


ORDER_KEYS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["7d3e", "", "a b", "x" * 64, "x" * 65, "ä", 7, None]),
        "expires": st.sampled_from(["2026-01-01T08:00:30Z", "2026-01-01T08:00:30.125Z", "2026-13-01T08:00:30Z", ""]),
        "value": st.sampled_from([1.7, 2, True, "1", None]),
        "confirmed": st.sampled_from([True, False, 1, None]),
        "even_if_unfit": st.sampled_from([True, 1]),
        "parts": st.sampled_from([1, 100, 101, 200, 10_000, 10_001, 0, -1, True, 1.5]),
        "extra": st.just(1),
    },
)


@given(st.sampled_from(["pause", "resume", "threshold", "capture", "challenge"]), ORDER_KEYS)
def test_the_schema_takes_what_the_decoder_takes(name: str, order: dict[str, object]) -> None:
    try:
        decode_command(name, json.dumps(order).encode())
        is_taken = True
    except MessageError:
        is_taken = False
    assert validator(ORDERS[name].__name__).is_valid(order) == is_taken
