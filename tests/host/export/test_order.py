"""What is refused before any work, and what a failing disk leaves behind."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.progress import Progress

from host.export.__main__ import export
from host.export.order import check_room, claim, fingerprint, parse_order
from host.judging.thresholds import ThresholdRule
from host.learning.checkpoint import Checkpoint
from host.learning.network import Widths
from host.learning.recipe import Recipe
from host.pictures.reading import list_pictures
from protocol.errors import BeltsightError, InputError
from protocol.manifest import Preprocess
from tests.host.export.test_export import REPOSITORY, TINY
from tests.host.pictures.test_pictures import write_pictures

HOW = Preprocess((64, 64), (0, 0, 64, 64), (32, 32))


def refuse(words: list[str], tmp_path: Path) -> str:
    """The message of an export that must be refused and leave nothing."""
    before = sorted(tmp_path.rglob("*"))
    with Progress(disable=True) as progress, pytest.raises(BeltsightError) as caught:
        export(parse_order(["--product", "part", "--out", str(tmp_path / "models"), *words]), progress)
    assert sorted(tmp_path.rglob("*")) == before
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--product", "orange", "--data", "nowhere"], "no folder nowhere"),
        (["--product", "orange", "--data", "rendered", "--recipe", "none.toml"], "none.toml cannot be read"),
        (["--product", "orange", "--data", "rendered", "--seed", "-1"], "seed -1 is outside 0..999"),
        (["--product", "orange", "--data", "rendered", "--seeds", "1,2,1"], "at most 10 different numbers"),
        (["--product", "orange", "--data", "tests", "--out", "LICENSE"], "LICENSE is no folder"),
        (["--product", "../orange", "--data", "rendered"], "must be letters, digits"),
    ],
)
def test_bad_input_is_refused_in_one_line(words: list[str], said: str, tmp_path: Path) -> None:
    assert said in refuse(words, tmp_path)


def test_unreadable_picture_is_named(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", 20)
    (tmp_path / "data" / "000.png").write_bytes(b"no picture")
    assert "000.png is not a picture that can be read" in refuse(["--data", str(tmp_path / "data")], tmp_path)


def test_a_shape_that_the_overlay_cannot_run_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    recipe = tmp_path / "wide.toml"
    recipe.write_text("input_px = 1024\n[widths]\nencoder = [144, 16, 16, 16, 16]\ndecoder = 16\n")
    message = refuse(["--product", "bottle", "--data", "rendered", "--recipe", str(recipe)], tmp_path)
    assert "layer stem: 144 channels of 512 columns; the overlay takes" in message


def test_data_without_good_folder(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data" / "scratched", 20)
    assert "has no folder of good pictures" in refuse(["--data", str(tmp_path / "data")], tmp_path)


def test_data_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("pictures?")
    assert "no folder" in refuse(["--data", str(tmp_path / "data")], tmp_path)


def test_weights_of_another_network(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", 20)
    (tmp_path / "weights.pth").write_bytes(b"not weights")
    words = ["--data", str(tmp_path / "data"), "--backbone-weights", str(tmp_path / "weights.pth")]
    assert "give --backbone-weights torchvision's squeezenet1_1 file" in refuse(words, tmp_path)


def test_too_few_pictures(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", 5)
    message = refuse(["--data", str(tmp_path / "data")], tmp_path)
    assert "has 5 good pictures to train on: at least 16 are needed" in message


def test_package_name_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "part-128").write_text("in the way")
    assert "is there and no folder: remove it, or choose another --id" in refuse(["--data", "rendered"], tmp_path)


def test_a_package_that_another_export_makes_is_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", 20)
    words = ["--data", str(tmp_path / "data")]
    with claim(parse_order(["--product", "part", "--out", str(tmp_path / "models"), *words])):
        assert "another export makes" in refuse(words, tmp_path)
    assert "another export" not in refuse(["--data", "nowhere"], tmp_path)


def test_network_beyond_the_limits(tmp_path: Path) -> None:
    recipe = tmp_path / "large.toml"
    recipe.write_text("[widths]\nencoder = [48, 64, 96, 128, 128]\ndecoder = 48\n")
    message = refuse(["--data", "rendered", "--recipe", str(recipe)], tmp_path)
    assert "M multiply-accumulates a picture, 150 M are allowed at 128x128 pixels: lower [widths]" in message
    recipe.write_text("[widths]\nencoder = [16, 16, 16, 128, 256]\ndecoder = 16\n")
    message = refuse(["--data", "rendered", "--recipe", str(recipe)], tmp_path)
    assert "kB of weights, 1000 kB are allowed: lower [widths]" in message


def test_best_f1_without_validation_pictures_is_refused_before_training(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", 20)
    recipe = tmp_path / "f1.toml"
    recipe.write_text('[threshold]\nmethod = "best-f1"\n')
    message = refuse(["--data", str(tmp_path / "data"), "--recipe", str(recipe)], tmp_path)
    assert "put defective ones into validation/<kind> of the data folder" in message


def test_full_disk_is_seen_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"MB free, the export needs \d+ MB: free some, or choose another --out"):
        check_room(tmp_path, 10**18)
    check_room(tmp_path, 1)


def test_disk_that_fails_during_the_work_leaves_no_package(tmp_path: Path) -> None:
    """A limit on the size of files fails like a full disk. The checkpoints are the first large files."""
    write_pictures(tmp_path / "data", 20)
    (tmp_path / "tiny.toml").write_text(TINY)
    words = ["--product", "part", "--data", str(tmp_path / "data"), "--recipe", str(tmp_path / "tiny.toml")]
    words += ["--out", str(tmp_path / "models")]
    command = ["bash", "-c", 'ulimit -f 20; exec "$@"', "bash", sys.executable, "-m", "host.export", *words]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("beltsight:")]
    assert "File too large" in line
    assert "the same command goes on where it stopped" in line
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "models" / "part-128").exists()


def test_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "float.pt").write_bytes(b"half a file")
    with pytest.raises(InputError, match=r"float\.pt is damaged: delete it, and the training starts anew"):
        Checkpoint(tmp_path, "any").load("float")


def test_seeds_are_different_numbers() -> None:
    words = ["--product", "part", "--data", "rendered"]
    assert parse_order(words).seeds == (0,)
    assert parse_order([*words, "--seeds", "2,0"]).seeds == (2, 0)
    for wrong in ("1,", "1,1", "-1", "x", "1000"):
        with pytest.raises(InputError, match="seed"):
            parse_order([*words, f"--seeds={wrong}"])


def test_only_what_shapes_the_training_makes_its_state_useless(tmp_path: Path) -> None:
    write_pictures(tmp_path, 20, side=16)
    pictures = list_pictures(tmp_path, 0.25)
    order = parse_order(["--product", "part", "--data", str(tmp_path)])
    state = fingerprint(order, 0, pictures, HOW)
    other_rule = Recipe(description="other", threshold=ThresholdRule("max"))
    assert fingerprint(replace(order, recipe=other_rule), 0, pictures, HOW) == state
    assert fingerprint(replace(order, recipe=Recipe(widths=Widths(decoder=32))), 0, pictures, HOW) != state
    assert fingerprint(order, 1, pictures, HOW) != state
    (tmp_path / "weights.pth").write_bytes(b"any")
    assert fingerprint(replace(order, backbone_weights=tmp_path / "weights.pth"), 0, pictures, HOW) != state
