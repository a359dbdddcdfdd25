"""Commands as they are made; tests/board/test_commands.py has those that are refused and obeyed."""

from __future__ import annotations

import time

import pytest

from protocol.commands import ORDERS, Order, decode_command, make_order
from protocol.messages import encode_json
from protocol.strict import FieldError

FIELDS: dict[str, dict[str, object]] = {
    "threshold": {"value": 1.75},
    "capture": {"parts": 200},
    "challenge": {"parts": 3},
    "teach": {"parts": 10, "model": "bottle-taught"},
    "model": {"model": "orange-new", "url": "http://host:8000/orange-new"},
}


@pytest.mark.parametrize("name", ORDERS)
def test_what_was_made_is_understood_and_expires_in_time(name: str) -> None:
    before_s = time.time()
    order = make_order(name, "7d3e", 20.0, FIELDS.get(name, {}))
    assert decode_command(name, encode_json(order)) == order
    assert (type(order), order.id) == (ORDERS[name], "7d3e")
    assert before_s + 19.9 < order.expires_s() < time.time() + 20.1


@pytest.mark.parametrize(
    ("name", "order_id", "fields"),
    [
        ("pause", "7d 3e", {}),
        ("pause", "7d3e", {"value": 1.0}),
        ("threshold", "7d3e", {}),
        ("threshold", "7d3e", {"value": float("nan")}),
        ("model", "7d3e", {"model": "größe"}),
    ],
)
def test_what_a_line_would_refuse_is_not_made(name: str, order_id: str, fields: dict[str, object]) -> None:
    with pytest.raises(FieldError):
        make_order(name, order_id, 20.0, fields)


def test_id_and_expiry_are_not_taken_from_the_fields() -> None:
    order: Order = make_order("pause", "7d3e", 20.0, {"id": "another", "expires": "2026-01-01T08:00:30Z"})
    assert order.id == "7d3e"
    assert order.expires_s() > time.time()
