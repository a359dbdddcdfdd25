"""A model's calibration says how the good pictures that it accepts look to the board."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from board.drift.picture_statistics import PICTURE_STATISTICS, SCORE, measure_picture
from host.export.calibration import FEWEST_PICTURES, calibrate, draw_calibration
from protocol.manifest import Calibration

THRESHOLD = 1.0


@pytest.fixture(scope="module")
def calibration(rendered: NDArray[np.uint8]) -> Calibration:
    made = calibrate(rendered, np.linspace(0, 2, len(rendered)), THRESHOLD)
    assert made is not None
    return made


def test_pictures_that_the_model_rejects_are_left_out(calibration: Calibration, rendered: NDArray[np.uint8]) -> None:
    accepted = rendered[np.linspace(0, 2, len(rendered)) < THRESHOLD]
    brightness = [measure_picture(image)["brightness"] for image in accepted]
    assert calibration.pictures == len(accepted) < len(rendered)
    assert calibration.statistics["brightness"].mean == pytest.approx(np.mean(brightness))
    assert calibration.statistics["brightness"].deviation == pytest.approx(np.std(brightness, ddof=1))
    assert calibration.statistics[SCORE].quantiles[2] < THRESHOLD


def test_every_statistic_is_there(calibration: Calibration) -> None:
    assert set(calibration.statistics) == {*PICTURE_STATISTICS, SCORE}
    for statistic in calibration.statistics.values():
        low, middle, high = statistic.quantiles
        assert low < middle < high


@pytest.mark.parametrize(("good", "is_made"), [(FEWEST_PICTURES - 1, False), (FEWEST_PICTURES, True)])
def test_too_few_pictures_make_none(rendered: NDArray[np.uint8], good: int, is_made: bool) -> None:
    scores = np.where(np.arange(len(rendered)) < good, 0.0, THRESHOLD)
    assert (calibrate(rendered, scores, THRESHOLD) is not None) == is_made


def test_the_sheet_goes_from_dark_to_bright(rendered: NDArray[np.uint8]) -> None:
    sheet = cv2.imdecode(np.frombuffer(draw_calibration(rendered), np.uint8), cv2.IMREAD_COLOR)
    assert sheet is not None
    tiles = [tile.mean() for tile in np.split(sheet, 8, axis=1)]
    assert tiles[0] < tiles[-1]
    assert sheet.shape == (128, 8 * 128, 3)
