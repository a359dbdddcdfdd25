"""Known-bad parts that a package is given: of every kind, found by its own integers, the same at every making."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from host.export.challenge import GENERATOR, MOST_REAL, draw_known_bad, make_challenge
from host.export.renewal import keep_the_rest
from host.learning.heldout import DEFECTS
from host.learning.synthetic import Sources
from host.learning.textures import make_bank
from host.pictures.reading import Images, list_pictures
from protocol.known_bad import decode_known_bad
from protocol.manifest import Preprocess

PX, FRAME_PX = 64, (96, 160)
HOW = Preprocess(FRAME_PX, (0, 32, 96, 96), (PX, PX))  # the image is a shrunken crop


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Light discs on a dark ground; two labelled scratches for the threshold, one to test with."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    kinds = {"train/good": 20, "validation/good": 6, "validation/scratch": 6, "test/scratch": 1}
    for kind, count in kinds.items():
        (folder / kind).mkdir(parents=True)
        for number in range(count):
            picture = rng.integers(10, 20, (*FRAME_PX, 3), np.uint8)
            cv2.circle(picture, (80, 48), 34, (150, 160, 170), -1)
            cv2.imwrite(str(folder / kind / f"{number}.png"), picture)
    return folder


def brightness_change(images: Images) -> NDArray[np.float64]:
    """Finds whatever differs from the usual disc."""
    usual = np.asarray(images[0], np.int16)
    return np.array([np.abs(image - usual).max() for image in images], np.float64)


def test_frames_of_every_kind_are_made_and_measured_and_the_same_again(folder: Path) -> None:
    pictures = list_pictures(folder, 0.25)
    challenge, packed = make_challenge(pictures, HOW, brightness_change, 1000.0, seed=3)
    assert challenge.kinds[GENERATOR] == 8
    assert all(challenge.kinds[kind] == 2 for kind in DEFECTS)
    assert challenge.kinds["real scratch"] == MOST_REAL
    assert (challenge.frames, challenge.found, challenge.least_share) == (24, 0, 0.0)
    frames = list(decode_known_bad(packed, challenge.goods, challenge.frames, HOW.frame_px))
    assert [frame.shape for frame in frames] == [(*FRAME_PX, 3)] * 24
    assert make_challenge(pictures, HOW, brightness_change, 1000.0, seed=3) == (challenge, packed)


def test_a_defect_is_inside_the_crop_and_can_be_seen(folder: Path) -> None:
    good = np.asarray(cv2.imread(str(folder / "validation" / "good" / "0.png")), np.uint8)
    small = np.asarray(cv2.resize(good[:, 32:128], (PX, PX)), np.uint8)
    drawn = draw_known_bad([good], Sources(make_bank(0), small[np.newaxis]), HOW, 0)
    for frame, kind in zip(drawn.bad, drawn.kinds, strict=True):
        change = np.abs(frame.astype(np.int16) - good)
        assert change[:, :32].max() == change[:, 128:].max() == 0, kind
        assert change[:, 32:128].max() > 8, kind


def test_the_rest_of_a_manifest_stays_byte_for_byte(tmp_path: Path) -> None:
    """A whole number that was written as one is not rewritten as a float."""
    before, written = tmp_path / "before.json", tmp_path / "written.json"
    text = '{\n  "format": 1,\n  "threshold": {\n    "value": 1\n  },\n  "files": {},\n  "provenance": {}\n}\n'
    before.write_text(text)
    fresh = {"format": 1, "threshold": {"value": 1.0, "new": 0.0}, "challenge": None, "files": {}, "provenance": {}}
    written.write_text(json.dumps(fresh))
    keep_the_rest(before, written, ("challenge", "provenance", "files"))
    assert written.read_text() == text.replace('"provenance": {}', '"provenance": {},\n  "challenge": null')


def test_pictures_to_test_with_are_never_among_them(folder: Path, tmp_path: Path) -> None:
    without = tmp_path / "pictures"
    shutil.copytree(folder, without)
    shutil.rmtree(without / "test")
    made = [make_challenge(list_pictures(where, 0.25), HOW, brightness_change, 9.0, 0) for where in (folder, without)]
    assert made[0] == made[1]
