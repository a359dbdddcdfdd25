"""The budgets on the board's processor, by estimate: 250 ms a frame, 2 s to load a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol.manifest import MANIFEST
from sim.station import ROOT
from tests.armhf.estimate import estimate, write_table

SHIPPED = sorted(path.parent for path in (ROOT / "models").glob(f"*-128/{MANIFEST}"))[:1]  # all have one shape


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_a_shipped_model_keeps_to_its_time(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = estimate(folder, "kernels")
    with capsys.disabled():
        print("\n" + write_table([one]))
    assert one.frame_ms <= 250
    assert one.load_s <= 2
    assert one.frame.vector * 32 >= one.macs  # a multiplication of 8 products and more: fewer cannot have done the work
