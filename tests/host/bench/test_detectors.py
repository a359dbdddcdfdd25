"""Every detector of the table, end to end at a tiny size, on parts that the belt draws; and the command."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from host.bench.__main__ import parse_options, run_bench
from host.bench.cost import share_libraries
from host.bench.problems import OneClass, Task, list_tasks
from host.bench.report import REPORT_HTML, REPORT_MD
from host.bench.rows import Row, load_rows
from host.bench.runner import Plan, Variant, list_variants, prepare_row, run_row
from host.bench.table import Entry, find_entries, list_entries
from host.bench.weights import Weights
from protocol.errors import EXIT_BAD_INPUT, InputError

ROOT = Path(__file__).resolve().parents[3]
FEW = 16  # pictures
PACKAGES = {"anomalib_set": ("anomalib",), "lof": ("pyod",), "cblof": ("pyod",), "xgbod": ("pyod", "xgboost")}
SCALARS = (  # score whole pictures
    "ganomaly",
    "anomalib-dfkde",
    "anomalib-dfkde-squeezenet1_1",
    "lof",
    "cblof",
    "xgbod",
    "xgboost",
    "catboost",
)
WITHOUT_GRAPH = ("anomalib", "lof", "cblof", "xg", "catboost")
TOO_LARGE = "wide_resnet50_2"  # to be drawn at random for a test


@pytest.fixture(scope="module")
def drawn(out: Path) -> Task:
    share_libraries(entry.module for entry in list_entries())
    (task,) = list_tasks("rendered:bottle", OneClass(), FEW, out / "drawn")
    return task


def need_packages(entry: Entry) -> None:
    """What an extra brings may be missing; nothing else may."""
    method = str(entry.settings.get("method", entry.module))
    for package in PACKAGES.get(method, (method,) if entry.module == "baselines" else ()):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: an extra of the bench")


def run_tiny(entry: Entry, task: Task, weights: Weights, out: Path, seed: int = 0, **planned: Any) -> Row:
    plan = Plan(weights, out, "commit", is_tiny=True, **planned)
    return run_row(*prepare_row(entry, task, seed, Variant(), plan), plan, lambda _share: None)


def check_row(row: Row, entry: Entry) -> None:
    assert not row.skipped
    assert 0 <= row.figures["image_auroc"] <= 1
    assert row.figures["trivial_f1"] == pytest.approx(2 / 3, abs=0.1)
    assert {"maximum:image_f1", "quantile:image_f1", "k-sigma:image_f1"} <= row.figures.keys()
    assert ("max-area:image_f1" in row.figures) == (entry.name not in SCALARS)
    if entry.name.startswith(WITHOUT_GRAPH):
        assert row.export == "none"
    else:
        assert float(row.export.rpartition(" ")[2]) < 1e-3


@pytest.mark.filterwarnings("default")  # what the extras' libraries warn of is theirs
@pytest.mark.parametrize("entry", list_entries(), ids=lambda entry: entry.name)
def test_on_drawn_parts(entry: Entry, drawn: Task, weights: Weights, out: Path) -> None:
    need_packages(entry)
    row = run_tiny(entry, drawn, weights, out)
    if entry.weights == TOO_LARGE:
        assert f"no weights of {TOO_LARGE}" in row.skipped
        return
    check_row(row, entry)
    assert row.cost["time_ms"] > 0
    assert row.cost["stored_bytes"] > 1000
    assert ("pixel_auroc" in row.figures) == (entry.name not in SCALARS)
    assert ("gallery" in row.pictures) == (entry.name not in SCALARS)
    assert ("tsne" in row.curves) == entry.name.startswith("ssl")
    if entry.name not in SCALARS:
        assert (out / row.pictures["gallery"]).read_bytes().startswith(b"\x89PNG")


CHEAP = (
    "padim,patchcore,ae-vae-mse,ganomaly,patch-ganomaly,pg-detector,patch-cnn,patch-ae,"
    "anomalib-padim-squeezenet1_1,anomalib-patchcore-squeezenet1_1,anomalib-stfpm-squeezenet1_1,cblof"
)


@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("without_cost")  # which no seed decides
@pytest.mark.parametrize("entry", find_entries(CHEAP), ids=lambda entry: entry.name)
def test_a_seed_decides_everything(entry: Entry, drawn: Task, weights: Weights, out: Path) -> None:
    need_packages(entry)
    first, again, other = (run_tiny(entry, drawn, weights, out, seed) for seed in (0, 0, 1))
    assert first.figures == again.figures
    assert first.key == again.key != other.key
    assert first.figures != other.figures


@pytest.mark.parametrize("entry", find_entries("ganomaly,ae-vae-mse,padim"), ids=lambda entry: entry.name)
def test_following_a_training_does_not_change_it(entry: Entry, drawn: Task, weights: Weights, out: Path) -> None:
    times = 3
    settings = {} if entry.name == "padim" else {"epochs": 4}
    plain, followed = (run_tiny(entry, drawn, weights, out, settings=settings, follow=follow) for follow in (0, times))
    assert followed.key != plain.key
    figures = dict(followed.figures)
    if entry.name == "padim":  # knows nothing before its only step
        assert "course" not in followed.curves
    else:
        course = np.array(followed.curves["course"])
        assert len(course) == times
        assert (np.diff(course[:, 0]) > 0).all()
        assert course[-1].tolist() == [1.0, plain.figures["image_auroc"]]
        assert figures.pop("course_best_auroc") == course[:, 1].max()
    assert figures == plain.figures


@pytest.mark.parametrize("entry", list_entries(), ids=lambda entry: entry.name)
def test_without_weights_a_row_says_so_and_measures_nothing(entry: Entry, drawn: Task, out: Path) -> None:
    if not entry.weights:
        pytest.skip("needs no weights")
    row = run_tiny(entry, drawn, Weights(None), out)
    assert f"no weights of {entry.weights}" in row.skipped
    assert not row.figures


def bench(words: str, out: Path) -> None:
    run_bench(parse_options([*words.split(), "--out", str(out)]))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(2, dtype=np.uint8), 40)
    pictures = np.where(labels[:, None, None] > 0, 180, 60) + rng.integers(0, 60, (80, 28, 28))
    path = tmp_path_factory.mktemp("digits") / "digits.npz"
    np.savez(path, x_train=pictures.astype(np.uint8), y_train=labels, x_test=pictures.astype(np.uint8), y_test=labels)
    return path


def test_a_bench_goes_on_where_it_stopped(digits: Path, tmp_path: Path) -> None:
    whole = f"--data {digits} --classes 0,1 --tiny --detectors ae-mlp-mse,padim"
    bench(whole.replace(",padim", ""), tmp_path)
    kept = (tmp_path / "rows.jsonl").read_bytes()
    bench(whole, tmp_path)
    content = (tmp_path / "rows.jsonl").read_bytes()
    assert content.startswith(kept)
    rows = load_rows(tmp_path)
    assert [row.problem for row in rows.values() if not row.skipped] == ["digits:0", "digits:1"]
    assert len(rows) == len(content.splitlines()) == 4
    bench(whole, tmp_path)  # padim has no weights still: it is tried again, what is measured is not
    again = load_rows(tmp_path)
    assert {key: row for key, row in again.items() if not row.skipped} == {
        key: row for key, row in rows.items() if not row.skipped
    }
    assert "image AUROC by class" in (tmp_path / REPORT_MD).read_text()
    assert "Not run" in (tmp_path / REPORT_HTML).read_text()


def test_an_ablation_changes_one_thing_at_a_time(digits: Path, tmp_path: Path) -> None:
    bench(f"--data {digits} --classes 0 --tiny --detectors ae-mlp-mse --ablate", tmp_path)
    rows = list(load_rows(tmp_path).values())
    assert [row.variant for row in rows] == ["", "latent 8", "latent 64", "flips and turns"]
    assert len({row.key for row in rows}) == 4
    assert [row.settings["latent"] for row in rows] == [32, 8, 64, 32]
    assert "| ae-mlp-mse | digits:0 | latent 8 |" in (tmp_path / REPORT_MD).read_text()


def test_every_entry_has_its_plain_variant_first() -> None:
    for entry in list_entries():
        assert list_variants(entry, ablates=False) == [Variant()]
        assert list_variants(entry, ablates=True)[0] == Variant()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--tiny", "no --data"),
        ("--data nowhere --tiny", "no folder nowhere"),
        ("--data nowhere.npz", "nowhere.npz"),
        ("--data rendered --detectors padin", "'padin'"),
        ("--data rendered --weights nowhere", "--weights"),
        ("--data rendered --seeds 1,x", "seed x"),
        ("--data rendered --contamination 101", "0..100"),
        ("--data rendered --classes a", "--classes"),
        ("--data rendered --pictures 3", "at least 8"),
        ("--data rendered --follow -1", "0 to 1000"),
        ("--data rendered --set epochs", "NAME=VALUE"),
        ("--data rendered --set colour=3", "no setting 'colour'"),
    ],
)
def test_bad_input_is_one_line(words: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said.replace("'", ".")) as caught:
        bench(words, tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_the_command_ends_with_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "host.bench", "--data", str(tmp_path / "nothing")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == EXIT_BAD_INPUT
    assert done.stderr.startswith("beltsight: no folder")
    assert done.stderr.count("\n") == 1
