"""From a folder of pictures to a package that a station takes, and what is said of pictures that cannot teach."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from board.preprocess import preprocess
from board.score import score_map
from host.integers.parity import run_onnxruntime
from host.pictures.reading import Images
from host.teaching.backbone import make_backbone
from host.teaching.inspection import check_products, draw_parts, list_good
from host.teaching.store import LICENCE_TXT, Origin, write_backbone
from host.teaching.teach import Order, main, make_package, parse_camera
from protocol.errors import EXIT_BAD_INPUT, InputError, run_main
from protocol.manifest import MANIFEST, MODEL_ONNX, encode_manifest, load_package
from tests.host.teaching.goods import SCENE_PX, draw_noise, draw_scenes, photograph, write_pictures
from tests.host.teaching.weights import random_state

INPUT_PX, PICTURES, PARTS = 32, 8, 12


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbone")
    proof = np.stack([draw_noise()[:INPUT_PX, :INPUT_PX]])
    net = make_backbone(random_state(), INPUT_PX)
    write_backbone(folder / "random", net, Origin("random", "0" * 64, "nobody's"), proof)
    return folder / "random"


def order(pictures: Path, backbone: Path, camera_px: tuple[int, int] | None = None) -> Order:
    return Order("scene", pictures, backbone, pictures.parent / "models", "scene-taught", camera_px)


def test_a_package_of_rendered_bottles(backbone: Path, tmp_path: Path) -> None:
    """Weights are random, so only what is no bottle at all is surely seen. A station then runs it as any other."""
    goods = photograph("bottle", PICTURES + 4, seed=3)
    twice = [*goods[:PICTURES], goods[0]]
    strange = photograph("orange", 1, seed=3)[0]
    write_pictures(tmp_path / "set" / "train" / "good", twice)
    write_pictures(tmp_path / "set" / "test" / "good", goods[PICTURES:])
    write_pictures(tmp_path / "set" / "test" / "orange", [strange])
    folder = make_package(order(tmp_path / "set", backbone))
    package = load_package(folder)
    manifest, golden = package.manifest, package.load_golden()
    images = np.stack([preprocess(picture, manifest.preprocess) for picture in (*goods[PICTURES:], strange)])
    model = onnx.load(str(package.path(MODEL_ONNX)))
    *good, bad = (score_map(anomaly, manifest.map) for anomaly in run_onnxruntime(model, images))
    assert sorted(good)[1] < manifest.threshold.value <= bad
    assert np.array_equal(run_onnxruntime(model, golden.images), golden.maps)
    assert manifest.figures == {"image_auroc": 1.0}
    assert manifest.fitness
    assert manifest.fitness.measured["defects_found"] == 1.0
    assert f"on {PICTURES} held-out good pictures" in manifest.threshold.method, "a copy does not count"
    check_proofs(folder)
    run_line(folder, tmp_path / "run")


def run_line(folder: Path, run: Path) -> None:
    """The fake belt with this model, though random weights are unfit for it."""
    package = load_package(folder)
    (folder / MANIFEST).write_bytes(encode_manifest(replace(package.manifest, fitness=None)))
    command = [sys.executable, "-m", "sim.conveyor", "--product", "bottle", "--parts", str(PARTS), "--seed", "3"]
    command += ["--models", str(folder.parent), "--model", folder.name, "--run-folder", str(run)]
    command += ["--as-fast-as-possible", "--verdicts", str(run.parent / "verdicts.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    verdicts = [json.loads(line) for line in (run.parent / "verdicts.jsonl").read_text().splitlines()]
    assert [verdict["part_id"] for verdict in verdicts] == list(range(PARTS))
    assert {verdict["model_id"] for verdict in verdicts} == {folder.name}
    assert {verdict["decision"] for verdict in verdicts} <= {"OK", "REJECT"}


def check_proofs(folder: Path) -> None:
    """What a station wants to know of any package: a verdict, known-bad parts that are found, a calibration."""
    package = load_package(folder)
    manifest, card = package.manifest, (folder / "card.md").read_text()
    assert manifest.fitness
    assert manifest.fitness.describe().split(":")[0] in card
    assert manifest.challenge
    assert manifest.calibration
    model = onnx.load(str(package.path(MODEL_ONNX)))
    images = np.stack([preprocess(frame, manifest.preprocess) for frame in package.load_known_bad()])
    scores = [score_map(anomaly, manifest.map) for anomaly in run_onnxruntime(model, images)]
    assert sum(score >= manifest.threshold.value for score in scores) == manifest.challenge.found
    assert manifest.threshold.method in card
    assert (folder / LICENCE_TXT).is_file()
    assert not list(folder.parent.glob(".*"))


def copy_with_noise(picture: Images, count: int) -> list[Images]:
    rng = np.random.default_rng(0)
    return [np.clip(picture + rng.normal(0, 1, picture.shape), 0, 255).astype(np.uint8) for _ in range(count)]


def compress(picture: Images) -> list[Images]:
    """JPEG, of a picture eight times as large: one scene that was kept again and again."""
    large = cv2.resize(picture, None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
    files = (cv2.imencode(".jpg", large, [cv2.IMWRITE_JPEG_QUALITY, quality])[1] for quality in range(70, 96, 5))
    return [np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR), np.uint8) for file in files]


def bad_sets() -> dict[str, tuple[list[Images], str]]:
    goods = draw_scenes(PICTURES)
    other = np.full((SCENE_PX, SCENE_PX + 8, 3), 90, np.uint8)
    white = np.full_like(goods[0], 255)
    return {
        "two pictures": (goods[:2], "has 2 pictures of good parts: take 5 or more"),
        "all the same": ([goods[0]] * 6, "are alike: they show 1 different parts; take 5 or more"),
        "nearly the same": (copy_with_noise(goods[0], 6), "are alike: they show 1 different parts"),
        "compressed anew": (compress(goods[0]), "are alike: they show 1 different parts"),
        "a few, each twice": ([*goods[:3], *goods[:3]], "are alike: they show 3 different parts"),
        "over-exposed": ([*goods, white], "08.png is over-exposed: shorten the exposure"),
        "of several sizes": ([*goods, other], "of several sizes: take all with the line's camera"),
        "two products": ([*goods, draw_noise()], "two products: 08.png differ from the others"),
    }


@pytest.mark.parametrize("case", bad_sets())
def test_pictures_that_cannot_teach_are_refused_in_one_line(case: str, backbone: Path, tmp_path: Path) -> None:
    pictures, says = bad_sets()[case]
    with pytest.raises(InputError, match=says) as refused:
        make_package(order(write_pictures(tmp_path / "good", pictures), backbone))
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "models").exists()


def test_pictures_of_another_camera_are_refused(backbone: Path, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "good", draw_scenes(PICTURES))
    with pytest.raises(InputError, match="have 48x48 pixels, the line's camera gives 640x480: take them with that"):
        make_package(order(folder, backbone, parse_camera("640x480")))
    with pytest.raises(InputError, match="--camera '640' is no size"):
        parse_camera("640")


def test_bad_input_is_one_line_and_exit_code_2(
    backbone: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = write_pictures(tmp_path / "good", draw_scenes(2))
    words = ["--product", "scene", "--pictures", str(folder), "--backbone", str(backbone)]
    assert run_main(partial(main, words)) == EXIT_BAD_INPUT
    said = capfd.readouterr().err
    assert said.strip().endswith("better ten, of different parts")
    assert said.count("\n") == 1


def test_some_of_the_pictures_are_drawn_by_chance() -> None:
    paths = [Path(f"{number}.png") for number in range(20)]
    assert draw_parts(paths, None, 0) == paths
    assert draw_parts(paths, 8, 0) == draw_parts(paths, 8, 0) != draw_parts(paths, 8, 1)
    assert len(set(draw_parts(paths, 8, 0))) == 8
    with pytest.raises(InputError, match="--parts 21 of 20 pictures cannot be taken: give 5 to 20"):
        draw_parts(paths, 21, 0)


def test_test_pictures_and_defective_ones_do_not_teach(tmp_path: Path) -> None:
    write_pictures(tmp_path / "train" / "good", draw_scenes(6))
    write_pictures(tmp_path / "test" / "good", draw_scenes(3))
    write_pictures(tmp_path / "test" / "broken", draw_scenes(3))
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
