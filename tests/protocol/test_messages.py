"""Verdicts and triggers as JSON: what is written is read, what is not a message is refused."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import MessageError
from protocol.messages import (
    MAX_JSON_BYTES,
    MAX_PART_ID,
    Location,
    Trigger,
    Verdict,
    clock_id,
    decode_json,
    decode_verdict,
    encode_verdict,
    new_run,
    rfc3339_now,
)
from protocol.strict import FieldError


def test_verdict_and_back(verdict: Verdict) -> None:
    for one in (verdict, replace(verdict, score=None, late=True, location=Location(3, 1.5, -2.0))):
        assert decode_verdict(encode_verdict(one)) == one


def test_a_verdict_is_never_written_with_a_number_json_does_not_have(verdict: Verdict) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode_verdict(replace(verdict, score=float("nan")))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("decision", "GOOD", "Verdict: decision: must be one of 'OK', 'REJECT', 'UNKNOWN'"),
        ("score", "0.5", "Verdict: score: must be a number"),
        ("part_id", 1.5, "Verdict: part_id: must be a whole number"),
        ("degraded", 0, "Verdict: degraded: must be true or false"),
        ("stages_ms", {"infer": None}, r"Verdict: stages_ms\.infer: must be a number"),
        ("location", {"frame": 1}, r"Verdict: location\.x_px: missing"),
        ("colour", "red", "Verdict: colour: unknown key"),
    ],
)
def test_a_verdict_that_does_not_fit_is_refused(verdict: Verdict, key: str, value: object, message: str) -> None:
    with pytest.raises(MessageError, match=message):
        decode_verdict(json.dumps({**asdict(verdict), key: value}).encode())


def test_not_a_number_in_json_is_refused(verdict: Verdict) -> None:
    data = encode_verdict(verdict).replace(b'"score":0.5', b'"score":NaN')
    with pytest.raises(MessageError, match="score: must be a finite number"):
        decode_verdict(data)


def test_a_huge_message_is_not_parsed() -> None:
    with pytest.raises(MessageError, match="at most"):
        decode_verdict(b" " * (MAX_JSON_BYTES + 1))


@pytest.mark.parametrize("data", [b"[" * 60_000, b"\xff", b"", b"9" * 5000, b'{"part_id":' + b"9" * 5000 + b"}"])
def test_what_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises(MessageError):
        decode_verdict(data)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(MessageError):
        decode_verdict(data)


@pytest.mark.parametrize(
    ("run", "part_id", "t_ns"),
    [
        ("", 0, 0),
        ("x" * 65, 0, 0),
        ("a\nb", 0, 0),
        ("run", -1, 0),
        ("run", MAX_PART_ID + 1, 0),
        ("run", 0, -1),
        ("run", 0, 10**400),
    ],
)
def test_impossible_triggers_are_refused(run: str, part_id: int, t_ns: int) -> None:
    with pytest.raises(FieldError):
        Trigger(run, part_id, t_ns, "clock")
    with pytest.raises(MessageError):
        decode_json(Trigger, json.dumps({"run": run, "part_id": part_id, "t_ns": t_ns, "clock": ""}).encode())


def test_the_clock_is_this_boots() -> None:
    assert clock_id() == clock_id() != ""


def test_runs_differ() -> None:
    assert len({new_run() for _ in range(100)}) == 100


def test_times_are_rfc_3339_in_utc() -> None:
    text = rfc3339_now()
    assert text.endswith("Z")
    then = datetime.fromisoformat(text.replace("Z", "+00:00"))
    assert abs((datetime.now(timezone.utc) - then).total_seconds()) < 5
