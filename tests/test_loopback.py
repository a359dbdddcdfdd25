"""What is not told otherwise listens, and connects, on this machine alone."""

from __future__ import annotations

import sys

import pytest

from board.config import LineConfig, load_config
from host.server.__main__ import parse_options
from protocol.keys import is_loopback
from sim.station import ROOT


@pytest.mark.parametrize("config", [LineConfig("model"), load_config(ROOT / "board" / "line.toml")])
def test_the_stations_sockets(config: LineConfig) -> None:
    assert is_loopback(config.belt.endpoint)
    assert not config.tap.endpoint or is_loopback(config.tap.endpoint)
    assert not config.metrics.listen or is_loopback(f"tcp://{config.metrics.listen}")
    assert is_loopback(f"tcp://{config.broker.host}:{config.broker.port}")
    assert is_loopback(config.engines.remote.endpoint)


def test_the_servers_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["server"])
    options = parse_options()
    assert is_loopback(options.bind)
    assert is_loopback(f"tcp://{options.metrics}")
    assert not options.workers_bind
