"""From a folder of pictures to a package that a station takes, and what is said of pictures that cannot teach."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest

from board.preprocess import preprocess
from board.score import score_map
from host.integers.parity import run_onnxruntime
from host.pictures.reading import Images, encode_png
from host.teaching.inspection import check_products, list_good
from host.teaching.make_backbone import draw_proof, make
from host.teaching.store import LICENCE_TXT
from host.teaching.teach import Lesson, make_package
from protocol.errors import InputError
from protocol.manifest import MODEL_ONNX, load_package
from tests.host.teaching.weights import random_state, write_state

SIDE_PX, INPUT_PX, PICTURES = 48, 32, 8


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbone")
    weights = write_state(random_state(), folder / "random.pth")
    return make(weights, INPUT_PX, folder, hashlib.sha256(weights.read_bytes()).hexdigest())


def draw_goods(count: int = PICTURES) -> list[Images]:
    rng = np.random.default_rng(1)
    scene = draw_proof(SIDE_PX)[0].astype(np.int16)
    noise = (rng.integers(-12, 13, scene.shape) for _ in range(count))
    return [(scene + one).clip(0, 255).astype(np.uint8) for one in noise]


def write_pictures(folder: Path, pictures: list[Images]) -> Path:
    folder.mkdir()
    for number, picture in enumerate(pictures):
        (folder / f"{number:02}.png").write_bytes(encode_png(picture))
    return folder


def lesson(pictures: Path, backbone: Path) -> Lesson:
    return Lesson("scene", pictures, backbone, pictures.parent / "models", "scene-taught")


def test_a_package_finds_what_was_never_seen(backbone: Path, tmp_path: Path) -> None:
    goods = draw_goods(PICTURES + 2)
    folder = make_package(lesson(write_pictures(tmp_path / "good", goods[:PICTURES]), backbone))
    package = load_package(folder)
    manifest, golden = package.manifest, package.load_golden()
    strange = goods[0].copy()
    strange[8:40, 8:40] = 255 - strange[8:40, 8:40]
    images = np.stack([preprocess(picture, manifest.preprocess) for picture in (*goods[PICTURES:], strange)])
    model = onnx.load(str(package.path(MODEL_ONNX)))
    *good, bad = (score_map(anomaly, manifest.map) for anomaly in run_onnxruntime(model, images))
    assert max(good) < manifest.threshold.value <= bad
    assert np.array_equal(run_onnxruntime(model, golden.images), golden.maps)
    assert manifest.threshold.method.endswith("8 good pictures, each judged by the others")
    assert manifest.calibration is not None
    assert (folder / LICENCE_TXT).is_file()
    assert not list(folder.parent.glob(".*"))


def bad_sets() -> dict[str, tuple[list[Images], str]]:
    goods = draw_goods()
    other = np.full((SIDE_PX, SIDE_PX + 8, 3), 90, np.uint8)
    return {
        "two pictures": (goods[:2], "has 2 pictures of good parts: take 5 or more"),
        "all alike": ([goods[0]] * 6, "all 6 pictures are alike: take each of another part"),
        "over-exposed": ([*goods, np.full_like(goods[0], 255)], "08.png is over-exposed: shorten the exposure"),
        "another camera": ([*goods, other], "of several sizes: take all with one camera"),
        "two products": ([*goods, draw_proof(SIDE_PX)[2]], "two products: 08.png differ from the others"),
    }


@pytest.mark.parametrize("case", bad_sets())
def test_pictures_that_cannot_teach_are_refused_in_one_line(case: str, backbone: Path, tmp_path: Path) -> None:
    pictures, says = bad_sets()[case]
    with pytest.raises(InputError, match=says) as refused:
        make_package(lesson(write_pictures(tmp_path / "good", pictures), backbone))
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "models").exists()


def test_test_pictures_and_defective_ones_do_not_teach(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    write_pictures(tmp_path / "train" / "good", draw_goods(6))
    write_pictures(tmp_path / "test" / "good", draw_goods(3))
    write_pictures(tmp_path / "test" / "broken", draw_goods(3))
    assert len(list_good(tmp_path)) == 6


def test_two_heaps_of_features_are_two_products() -> None:
    rng = np.random.default_rng(0)
    heap = rng.integers(-20, 20, (10, 80, 2, 2)).astype(np.int8)
    paths = [Path(f"{number}.png") for number in range(10)]
    check_products(paths, heap)
    shifted = heap.copy()
    shifted[:3] += 60
    with pytest.raises(InputError, match=r"two products: 0\.png, 1\.png, 2\.png differ"):
        check_products(paths, shifted)
