"""The command itself, as a process: a package appears whole, or not at all."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from board.overlay.golden import run_program
from board.overlay.program import PROGRAM_BIN, decode_file
from board.preprocess import preprocess
from host.export.card import CARD_MD, insert_verdict, write_challenge, write_verdict
from host.export.challenge import renew
from host.export.verdict import judge_again
from host.integers.parity import run_onnxruntime, run_opencv
from host.learning.recipe import load_recipe
from protocol.errors import InputError
from protocol.fitness import Fitness
from protocol.known_bad import CHALLENGE_BIN
from protocol.manifest import CALIBRATION_JPG, CARRIED_ONNX, MANIFEST, MODEL_ONNX, file_sha256, load_package

REPOSITORY = Path(__file__).resolve().parents[3]
TINY = """
description = "tiny test network"
float_steps = 4
quantized_steps = 2
pairs = 2
[widths]
encoder = [16, 16, 16, 16, 16]
decoder = 16
head = 16
[rendered]
train_parts = 48
test_parts = 12
belts = 2
"""


def run_export(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "host.export", *words]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    (folder / "tiny.toml").write_text(TINY)
    recipe = str(folder / "tiny.toml")
    order = ["--product", "bottle", "--data", "rendered", "--recipe", recipe, "--out", str(folder), "--seeds", "3,1"]
    done = run_export(*order)
    assert done.returncode == 3, done.stderr  # of a network that learned nothing
    assert done.stdout.splitlines()[-1].startswith("verdict: unfit: it finds ")
    assert "image AUROC" in done.stdout
    assert "| stem | 64 × 64 | 3→16 | 5 | 4.9 |" in done.stderr  # the cost table, before the training
    return folder


def test_package_is_whole(models: Path) -> None:
    package = load_package(models / "bottle-128")
    manifest = package.manifest
    assert not (models / ".bottle-128.unfinished").exists()
    assert manifest.product == "bottle"
    assert manifest.preprocess.frame_px == (256, 256)
    assert manifest.map.shape == (32, 32)
    assert manifest.figures["test_good"] + manifest.figures["test_defective"] == 12
    assert 0 <= manifest.figures["aupro"] <= 1
    assert "integer_loss" in manifest.figures
    assert manifest.provenance["seed"] == "3"
    assert manifest.cost["overlay_cycles"] > 10_000
    assert manifest.calibration is not None
    assert manifest.calibration.pictures <= manifest.figures["held_out_pictures"]
    assert package.path(CALIBRATION_JPG).stat().st_size > 5_000
    total_bytes = sum(path.stat().st_size for path in package.folder.iterdir())
    assert total_bytes < 2_500_000


def test_several_seeds_give_mean_and_worst(models: Path) -> None:
    figures = load_package(models / "bottle-128").manifest.figures
    assert figures["seeds"] == 2
    assert figures["image_auroc.worst"] <= figures["image_auroc.mean"]
    other = 2 * figures["image_auroc.mean"] - figures["image_auroc"]
    assert figures["image_auroc.worst"] == pytest.approx(min(other, figures["image_auroc"]))


def test_card_says_what_was_measured_and_how_to_make_it_again(models: Path) -> None:
    package = load_package(models / "bottle-128")
    card, manifest = package.path("card.md").read_text(), package.manifest
    assert "tiny test network" in card
    assert card.startswith("# bottle-128\n\n**Verdict: unfit.** No station takes it unless told to.\n\n- unfit: ")
    assert "\n\nWhat to do: try " in card
    assert manifest.fitness is not None
    assert manifest.fitness.grade == "unfit"
    assert {"probe:spot", "held_out_rejected:upper", "defects_found:lower"} < set(manifest.fitness.measured)
    assert "| bottle-128 | mean of 2 seeds | worst |" in card
    milliseconds = package.manifest.cost["macs"] / 0.67e6
    assert f"about {milliseconds:.0f} ms a frame" in card
    kinds = [name.split(":")[1] for name in manifest.figures if name.startswith("test_defective:")]
    assert kinds
    for kind in kinds:
        assert f"| {kind} | {manifest.figures[f'test_defective:{kind}']:.0f} | " in card
    command = "--product bottle --data rendered --recipe recipe.toml --id bottle-128 --seeds 3,1"
    assert f"scripts/export.sh {command}\n" in card
    assert load_recipe(package.path("recipe.toml")) == load_recipe(models / "tiny.toml")


def test_a_later_verdict_replaces_the_one_before() -> None:
    first, second = Fitness("fit", (), {"held_out_rejected": 0.0}), Fitness("fit")
    card = insert_verdict("# one\n\nwhat it is\n", first, None)
    assert card == f"# one\n\n{write_verdict(first)}\n\nwhat it is\n"
    assert insert_verdict(card, second, first) == card


def test_golden_vectors_are_what_the_graphs_answer(models: Path) -> None:
    package = load_package(models / "bottle-128")
    golden = package.load_golden()
    images = np.stack([preprocess(frame, package.manifest.preprocess) for frame in golden.frames])
    assert np.array_equal(images, golden.images)
    assert not np.array_equal(golden.images[0], golden.images[1])
    assert np.array_equal(run_onnxruntime(onnx.load(str(package.path(MODEL_ONNX))), images), golden.maps)
    assert np.array_equal(run_opencv(onnx.load(str(package.path(CARRIED_ONNX))), images), golden.maps)


def test_the_overlays_program_gives_the_golden_maps(models: Path) -> None:
    package = load_package(models / "bottle-128")
    program, golden = decode_file(package.path(PROGRAM_BIN).read_bytes()), package.load_golden()
    for image, expected in zip(golden.images, golden.maps, strict=True):
        assert np.array_equal(run_program(program, image)[0], expected)


def test_graphs_are_readable_by_older_runtimes(models: Path) -> None:
    for name in (MODEL_ONNX, CARRIED_ONNX):
        model = onnx.load(str(models / "bottle-128" / name))
        assert model.ir_version <= 11
        assert model.opset_import[0].version <= 21


@pytest.fixture(scope="module")
def unlabelled(models: Path, rendered: NDArray[np.uint8]) -> Path:
    """A package made of a capture of good parts from the line."""
    (models / "flat").mkdir()
    for number, image in enumerate(rendered[:20]):
        cv2.imwrite(str(models / "flat" / f"{number}.png"), image)
    recipe, data = str(models / "tiny.toml"), str(models / "flat")
    done = run_export("--product", "mix", "--data", data, "--recipe", recipe, "--out", str(models / "other"))
    assert done.returncode == 3, done.stderr
    assert "has not been measured" in done.stdout
    assert "warning:" not in done.stderr
    return models / "other" / "mix-128"


def test_folder_without_labels(unlabelled: Path) -> None:
    """A package, but no claim about defects."""
    manifest = load_package(unlabelled).manifest
    assert set(manifest.figures) == {"train_pictures", "held_out_pictures", "test_good", "test_defective"}
    command = "scripts/export.sh --product mix --data flat --recipe recipe.toml --id mix-128 --seed 0"
    assert manifest.provenance["command"] == command


def test_older_package_gets_what_its_export_would_have_given(models: Path, unlabelled: Path, tmp_path: Path) -> None:
    """Known-bad parts, then the verdict; what else it says stays."""
    made, older = load_package(unlabelled), make_older(unlabelled, tmp_path / "mix-128")
    data = str(models / "flat")
    with pytest.raises(InputError, match="has no known-bad parts: give it some with `beltsight known-bad`"):
        judge_again(load_package(older), data)
    assert renew(load_package(older), data, seed=0) == made.manifest.challenge
    assert judge_again(load_package(older), data) == made.manifest.fitness
    judged = load_package(older)
    assert (judged.manifest.challenge, judged.manifest.fitness) == (made.manifest.challenge, made.manifest.fitness)
    assert judged.manifest.provenance["verdict"] == "scripts/beltsight verdict mix-128 --data flat"
    body = made.path(CARD_MD).read_text().rstrip()
    assert judged.path(CARD_MD).read_text().startswith(f"{body}\n- challenge: `scripts/beltsight known-bad mix-128 ")
    assert sorted(path.name for path in older.iterdir()) == sorted(path.name for path in made.folder.iterdir())


def make_older(package: Path, folder: Path) -> Path:
    """A copy without verdict and known-bad parts."""
    shutil.copytree(package, folder)
    made = load_package(package).manifest
    card = (folder / CARD_MD).read_text().replace(write_verdict(made.fitness) + "\n\n", "")
    if made.challenge is not None:
        card = card.replace(write_challenge(made.challenge) + "\n\n", "")
    (folder / CARD_MD).write_text(card)
    (folder / CHALLENGE_BIN).unlink()
    manifest = json.loads((folder / MANIFEST).read_bytes())
    del manifest["fitness"], manifest["challenge"], manifest["files"][CHALLENGE_BIN]
    manifest["files"][CARD_MD] = file_sha256(folder / CARD_MD)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


def test_known_bad_parts_and_verdict_are_of_the_pictures_that_made_the_package(models: Path, unlabelled: Path) -> None:
    fewer = models / "fewer"
    shutil.copytree(models / "flat", fewer, ignore=shutil.ignore_patterns("7.png"))
    package, problem = load_package(unlabelled), "holds other pictures than mix-128 was made from: give --data those"
    with pytest.raises(InputError, match=problem):
        renew(package, str(fewer), seed=0)
    with pytest.raises(InputError, match=problem):
        judge_again(package, str(fewer))


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    """`test_order` has more of it, without a process each."""
    done = run_export("--out", str(tmp_path / "models"), "--product", "car", "--data", "rendered")
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("beltsight:")]
    assert "parts of product 'car' cannot be drawn" in line
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("models/[!.]*"))
