"""From nothing to a judging line: the first parts on the belt teach the model, and nothing passes before it judges."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from host.export.trivial import write_trivial_package
from host.teaching.backbone import make_backbone
from host.teaching.store import Origin, write_backbone
from protocol.errors import EXIT_BAD_INPUT
from protocol.manifest import load_package
from tests.host.teaching.goods import draw_noise
from tests.host.teaching.weights import random_state

ROOT = Path(__file__).resolve().parents[2]
INPUT_PX, TAUGHT_BY, PARTS = 32, 6, 40


def convey(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "sim" / "conveyor.py"), "--product", "bottle", "--seed", "3"]
    command += ["--models", str(folder / "models"), "--model", "first", "--run-folder", str(folder / "run")]
    command += ["--backbones", str(folder / "backbones"), "--verdicts", str(folder / "verdicts.jsonl"), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_the_first_parts_teach_the_model_that_judges_the_others(tmp_path: Path) -> None:
    write_trivial_package(tmp_path / "models" / "first")
    image = draw_noise()[:INPUT_PX, :INPUT_PX]
    net = make_backbone(random_state(), INPUT_PX)
    write_backbone(tmp_path / "backbones" / "random", net, Origin("random", "0" * 64, "nobody's"), image[None])
    done = convey(tmp_path, "--teach", str(TAUGHT_BY), "--parts", str(PARTS), "--rate", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    verdicts = [json.loads(line) for line in (tmp_path / "verdicts.jsonl").read_text().splitlines()]
    assert [verdict["part_id"] for verdict in verdicts] == list(range(PARTS))
    before = [verdict for verdict in verdicts if verdict["model_id"] == "first"]
    after = verdicts[len(before) :]
    assert len(before) >= TAUGHT_BY
    assert {verdict["decision"] for verdict in before} == {"UNKNOWN"}
    assert all(verdict["reason"].startswith("learning bottle-") for verdict in before)
    assert after, "the taught model judges before the belt ends"
    (taught,) = {verdict["model_id"] for verdict in after}
    assert "OK" in {verdict["decision"] for verdict in after}
    package = load_package(tmp_path / "run" / "models" / taught)
    assert package.manifest.product == "brightness", "that of the model before: nobody said another"
    assert f"of {TAUGHT_BY} good pictures" in package.manifest.threshold.method


def test_without_a_backbone_it_says_how_to_make_one(tmp_path: Path) -> None:
    write_trivial_package(tmp_path / "models" / "first")
    done = convey(tmp_path, "--teach", "10")
    assert done.returncode == EXIT_BAD_INPUT
    assert done.stderr.strip().endswith("has none: make one with `beltsight backbone`")
    assert done.stderr.count("\n") == 1
    assert "give 5 to 200, and fewer than --parts" in convey(tmp_path, "--teach", "60").stderr
