"""A lamp that is off or an exposure that jumped: no score then."""

from __future__ import annotations

import numpy as np
import pytest

from board.models.light import CALM_PARTS, Light
from protocol.manifest import Calibration, Distribution

USUAL = Calibration(20, {"brightness": Distribution(67.0, 4.4, (60.0, 67.0, 74.0))})


@pytest.mark.parametrize(("level", "is_usual"), [(67, True), (40, True), (120, True), (10, False), (200, False)])
def test_only_what_is_far_off_is_a_fault(level: int, is_usual: bool) -> None:
    light = Light(USUAL)
    image = np.full((64, 64, 3), level, np.uint8)
    assert (light.fault(image) == "") == is_usual
    assert (light.trouble == "") == is_usual


def test_it_is_said_until_the_light_is_as_usual_for_a_while() -> None:
    light, good = Light(USUAL), np.full((64, 64, 3), 67, np.uint8)
    assert light.trouble == ""
    assert light.fault(np.zeros((64, 64, 3), np.uint8)) == (
        "picture's mean is 0, 14 to 161 is usual: check lamp and exposure"
    )
    for _ in range(CALM_PARTS - 1):
        assert light.fault(good) == ""
        assert light.trouble
    light.fault(good)
    assert light.trouble == ""


def test_without_a_calibration_every_light_is_right() -> None:
    assert Light(None).fault(np.zeros((8, 8, 3), np.uint8)) == ""
