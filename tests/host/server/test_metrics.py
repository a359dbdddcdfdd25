"""What is counted is there at 0 before it happens: a series that is born at 1 has no increase."""

from __future__ import annotations

from typing import get_args

import pytest
from prometheus_client import generate_latest

from host.server.dispatch import Loss
from host.server.metrics import Metrics
from protocol.detection import RefusalCode

OUTCOMES = ("answered", "refused by worker", *get_args(RefusalCode))


@pytest.mark.parametrize(
    "sample",
    [
        *(f'beltsight_workers_lost_total{{how="{loss}"}}' for loss in get_args(Loss)),
        *(f'beltsight_replies_total{{outcome="{code}"}}' for code in OUTCOMES),
        *(f'beltsight_model_versions_total{{how="{fate}"}}' for fate in ("taken over", "broken")),
    ],
)
def test_series_begin_at_0(sample: str) -> None:
    assert f"{sample} 0.0" in generate_latest(Metrics().registry).decode().splitlines()
