"""Problems, thresholds, figures, rows and the report: what makes a comparison fair."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from host.bench.cost import measure_cost
from host.bench.detector import Images, Maps, pool
from host.bench.figures import best_accuracy, decide, measure_maps, trivial_f1
from host.bench.limits import RULES, has_region, largest_area, set_level
from host.bench.problems import OneClass, Problem, list_tasks, split_labelled
from host.bench.published import PUBLISHED, find_published
from host.bench.report import REPORT_HTML, REPORT_MD, write_report
from host.bench.rows import ROWS_JSONL, Row, append_row, load_rows
from host.bench.table import find_entries, list_entries, make
from host.bench.tables import list_tables
from host.judging.thresholds import Evidence, ThresholdRule, set_threshold
from protocol.errors import InputError
from protocol.manifest import AnomalyMap
from tests.host.bench.heavy import Heavy

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten classes that their grey level tells apart: x_train holds 40 pictures of each, x_test 10."""
    rng = np.random.default_rng(0)
    arrays = {}
    for name, each in (("train", 40), ("test", 10)):
        labels = np.repeat(np.arange(10), each).astype(np.uint8)
        arrays[f"y_{name}"] = labels
        level = 20 * labels[:, None, None] + rng.integers(0, 10, (len(labels), 28, 28))
        arrays[f"x_{name}"] = level.astype(np.uint8)
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def load(digits: Path, one_class: OneClass, most: int | None = None) -> Problem:
    (task,) = list_tasks(str(digits), one_class, most, digits.parent)
    return task.load(28)


def make_problem(defective: NDArray[np.bool_], side: int = 8) -> Problem:
    count = len(defective)
    masks = [np.zeros((32, 32), np.bool_) for _ in range(count)]
    for mask, is_bad in zip(masks, defective, strict=True):
        mask[4:14, 6:18] = is_bad
    blank = np.zeros((count, side, side, 3), np.uint8)
    known = np.ones(count, np.bool_)
    return Problem("made", "d" * 64, 3, blank, blank, blank, defective, masks, known)


def make_maps(defective: NDArray[np.bool_]) -> Maps:
    maps = RNG.normal(size=(len(defective), 8, 8)).astype(np.float32)
    maps[defective, 1:3, 1:4] += 3
    return maps


def levels(images: Images) -> set[int]:
    """Which classes are among them."""
    return {int(one) for one in np.unique(images[:, 14, 14, 0] // 20)}


def test_one_class_is_normal(digits: Path) -> None:
    problem = load(digits, OneClass((3,)))
    assert problem.name == "digits:3"
    assert problem.channels == 1
    assert levels(problem.goods) == levels(problem.held_out) == {3}
    assert (len(problem.goods), len(problem.held_out), len(problem.test)) == (36, 4, 100)
    assert levels(problem.test[~problem.defective]) == {3}
    assert levels(problem.test[problem.defective]) == set(range(10)) - {3}
    assert not {one.tobytes() for one in problem.goods} & {one.tobytes() for one in problem.held_out}


def test_one_class_is_the_anomaly(digits: Path) -> None:
    problem = load(digits, OneClass((3,), "anomalous"))
    assert problem.name == "digits:not-3"
    assert levels(problem.goods) == set(range(10)) - {3}
    assert levels(problem.test[problem.defective]) == {3}


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_contamination_replaces_a_share_of_the_training_set_alone(digits: Path, share: float) -> None:
    clean = load(digits, OneClass((3,)))
    problem = load(digits, OneClass((3,), contamination=(share,)))
    foreign = problem.goods[:, 14, 14, 0] // 20 != 3
    assert len(problem.goods) == len(clean.goods)
    assert foreign.sum() == round(share * len(clean.goods))
    assert levels(problem.held_out) == {3}
    assert np.array_equal(problem.test, clean.test)
    assert problem.digest == clean.digest if share == 0 else problem.digest != clean.digest


def test_fewer_pictures_are_half_defective(digits: Path) -> None:
    problem = load(digits, OneClass((3,)), most=12)
    assert (len(problem.goods), len(problem.test), problem.defective.sum()) == (12, 12, 6)


def test_what_is_labelled_is_not_measured_and_the_same_for_all() -> None:
    defective = np.arange(40) % 4 == 0
    numbered = make_problem(defective)
    numbered.test[:] = np.arange(40, dtype=np.uint8)[:, None, None, None]
    labelled, rest = split_labelled(numbered)
    seen, measured = labelled.images[:, 0, 0, 0], rest.test[:, 0, 0, 0]
    assert sorted([*seen, *measured]) == list(range(40))
    assert (len(seen), labelled.defective.sum()) == (12, 3)
    assert [bool(mask.any()) for mask in labelled.masks] == labelled.defective.tolist()
    assert np.array_equal(rest.defective, defective[measured])
    again, _ = split_labelled(numbered)
    assert np.array_equal(again.images, labelled.images)


@pytest.mark.parametrize("text", ["", "not an archive"])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.npz").write_text(text)
    with pytest.raises(InputError, match="x_train"):
        next(iter(list_tasks(str(tmp_path / "x.npz"), OneClass(), None, tmp_path)))


def test_thresholds_agree_with_the_products_own() -> None:
    """On integer maps, where both rules are exact."""
    good = RNG.normal(0, 15, (12, 24, 24)).round().astype(np.int8)
    evidence, meaning = Evidence(good, good[:0], good[:0]), AnomalyMap((24, 24), 1.0, 1)
    area = largest_area(good.astype(np.float32))
    floats = good.astype(np.float32)
    ours = {rule: set_level(floats, rule) for rule in RULES}
    theirs = {
        "max-area": set_threshold(evidence, ThresholdRule("max-area", area), meaning),
        "k-sigma": set_threshold(evidence, ThresholdRule("k-sigma", 3.0, "pixels"), meaning),
        "quantile": set_threshold(evidence, ThresholdRule("quantile", 0.95, "pixels"), meaning),
        "maximum": set_threshold(evidence, ThresholdRule("max", of="pixels"), meaning),
    }
    assert area == 1
    assert ours["max-area"] == theirs["max-area"].value
    assert ours["k-sigma"] == pytest.approx(theirs["k-sigma"].value)
    assert ours["quantile"] == theirs["quantile"].value - 1  # theirs lies a step above
    assert good.max() < ours["maximum"] <= theirs["maximum"].value
    assert not any(has_region(one, ours["max-area"], area) for one in floats)
    assert any(has_region(one, ours["max-area"] - 1, area) for one in floats)


def test_thresholds_know_nothing_of_the_test() -> None:
    defective = np.arange(24) % 2 == 0
    problem, held_out, test = make_problem(defective), make_maps(np.zeros(16, np.bool_)), make_maps(defective)
    figures = measure_maps(problem, held_out, test, "maximum")
    for rule in ("maximum", "quantile", "k-sigma"):
        level = set_level(pool(held_out, "maximum"), rule)
        rejected = pool(test, "maximum") >= level
        assert figures[f"{rule}:image_f1"] == pytest.approx(f1_score(defective, rejected))
    easier = np.where(defective[:, None, None], test + 50, test).astype(np.float32)
    others = measure_maps(problem, held_out, easier, "maximum")
    for rule in RULES:
        assert others[f"{rule}:false_reject_rate"] == figures[f"{rule}:false_reject_rate"]
        assert others[f"{rule}:image_recall"] == 1


def test_figures_are_scikit_learns() -> None:
    defective = np.arange(24) % 3 == 0
    problem, held_out, test = make_problem(defective), make_maps(np.zeros(8, np.bool_)), make_maps(defective)
    figures = measure_maps(problem, held_out, test, "mean")
    scores = test.mean(axis=(1, 2))
    assert figures["image_auroc"] == pytest.approx(roc_auc_score(defective, scores))
    assert figures["trivial_f1"] == pytest.approx(f1_score(defective, np.ones(24)))
    best = max(accuracy_score(defective, scores >= level) for level in [*scores, np.inf])
    assert best_accuracy(scores.astype(np.float64), defective) == pytest.approx(best)
    large = np.stack([cv2.resize(one, (32, 32), interpolation=cv2.INTER_LINEAR) for one in test])
    expected = roc_auc_score(np.stack(list(problem.masks)).ravel(), large.ravel())
    assert figures["pixel_auroc"] == pytest.approx(expected, abs=1e-4)
    shifted = measure_maps(problem, 7 * held_out - 3, 7 * test - 3, "mean")
    for key, value in figures.items():
        assert shifted[key] == pytest.approx(value, abs=2e-3), key  # no figure depends on a map's scale


def test_a_few_decisions() -> None:
    defective = np.array([True, True, True, False, False])
    rejected = np.array([True, True, False, True, False])
    figures = decide(rejected, defective)
    assert figures["image_f1"] == pytest.approx(f1_score(defective, rejected))
    assert (figures["image_recall"], figures["false_reject_rate"]) == (2 / 3, 1 / 2)
    assert trivial_f1(defective) == pytest.approx(f1_score(defective, np.ones(5)))


@pytest.mark.parametrize(
    "defective", [[False] * 9 + [True], [True] * 9 + [False], [False] * 6, [True] * 6, [True, False]]
)
def test_what_cannot_be_measured_is_no_figure_and_a_dash(defective: list[bool]) -> None:
    labels = np.array(defective)
    problem, held_out = make_problem(labels), make_maps(np.zeros(1, np.bool_))  # of one picture: no deviation
    figures = measure_maps(problem, held_out, make_maps(labels), "maximum")
    assert all(np.isfinite(value) for value in figures.values())
    assert ("image_auroc" in figures) == ("image_best_f1" in figures) == (0 < labels.sum() < len(labels))
    assert ("quantile:image_recall" in figures) == labels.any()
    assert ("quantile:false_reject_rate" in figures) == (not labels.all())
    assert "labelled_30_f1" not in figures  # whichever picture sets the threshold, one kind is missing elsewhere
    assert not any(key.startswith("k-sigma:image") for key in figures)
    row = Row("k", "padim", "one", 0, {}, 64, "d", "c", figures=figures | {"image_aupr": float("nan")})
    text = str(list_tables([row, replace(row, seed=1), replace(row, variant="other")]))
    assert "nan" not in text
    assert "–" in text


def test_precision_of_nothing_rejected_is_not_there() -> None:
    figures = decide(np.zeros(4, np.bool_), np.array([True, True, False, False]))
    assert figures == {"image_f1": 0, "image_accuracy": 0.5, "image_recall": 0, "false_reject_rate": 0}


def test_a_labelled_threshold_is_measured_on_other_pictures() -> None:
    """Where the labelled part is told apart by chance alone, the rest must not profit."""
    defective = np.arange(60) % 2 == 0
    problem = make_problem(defective)
    labelled, rest = split_labelled(
        replace(problem, test=np.arange(60, dtype=np.uint8).repeat(192).reshape(60, 8, 8, 3))
    )
    test = RNG.normal(size=(60, 1, 1)).astype(np.float32)
    test[labelled.images[:, 0, 0, 0], 0, 0] += 100 * labelled.defective  # only these are easy
    figures = measure_maps(problem, test[:4], test, "maximum")
    measured = rest.test[:, 0, 0, 0]
    assert test[measured].max() < 50  # the threshold, between 0 and 100, rejects nothing of the rest
    assert figures["labelled_30_f1"] < 0.2
    assert "pixel_auroc" not in figures


def test_cost_is_that_of_one_picture_in_a_process_of_its_own() -> None:
    cost = measure_cost(Heavy(), np.zeros((3, 8, 8, 3), np.uint8))
    assert 20 <= cost["time_ms"] < 2000
    assert 95e6 < cost["peak_bytes"] < 130e6
    assert cost["parameters"] == cost["macs"] == 0


def make_row(key: str = "a", **changes: object) -> Row:
    defective = np.arange(24) % 3 == 0
    figures = measure_maps(make_problem(defective), make_maps(np.zeros(8, np.bool_)), make_maps(defective), "maximum")
    row = Row(key, "padim", "mvtec-bottle", 0, {"bank": 3}, 64, "abcdef", "0123456789", figures=figures)
    points = [[0.0, 1.0, 1.0], [2.0, 3.0, 0.0]]
    curves = {"roc": [[0.0, 0.0], [1.0, 1.0]], "pr": [[0.0, 1.0], [1.0, 0.5]], "tsne": points}
    whole: dict[str, Any] = {"curves": curves, "cost": {"time_ms": 1.25, "macs": 2e6}, **changes}
    return replace(row, **whole)


def test_rows_come_back_and_the_last_of_a_key_counts(tmp_path: Path) -> None:
    append_row(tmp_path, make_row(skipped="no weights"))
    append_row(tmp_path, make_row("b"))
    append_row(tmp_path, make_row())
    rows = load_rows(tmp_path)
    assert list(rows) == ["a", "b"]
    assert rows["a"] == make_row(figures=rows["a"].figures)
    assert len((tmp_path / ROWS_JSONL).read_text().splitlines()) == 3


def test_a_row_that_was_cut_short_is_left_out_and_overwritten(tmp_path: Path) -> None:
    append_row(tmp_path, make_row())
    path = tmp_path / ROWS_JSONL
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:50])
    assert list(load_rows(tmp_path)) == ["a"]
    append_row(tmp_path, make_row("b"))
    assert list(load_rows(tmp_path)) == ["a", "b"]


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / ROWS_JSONL).write_text('{"key": 3}\n')
    with pytest.raises(InputError, match=r"rows\.jsonl:1"):
        load_rows(tmp_path)


def test_the_report_says_what_is_compared(tmp_path: Path) -> None:
    (tmp_path / "galleries").mkdir()
    (tmp_path / "galleries/a.png").write_bytes(b"\x89PNG picture")
    skipped = make_row("b", detector="lof", skipped="no <weights>", curves={})
    rows = [make_row(pictures={"gallery": "galleries/a.png"}), skipped]
    write_report(tmp_path, rows)
    markdown, page = ((tmp_path / name).read_text() for name in (REPORT_MD, REPORT_HTML))
    for text in (markdown, page):
        assert "0.9940" in text  # what PaDiM's library reports for bottle
        assert "trivial F1" in text
        assert f"{rows[0].figures['image_auroc']:.4f}" in text
        assert "0123456789" in text
        assert "abcdef" in text
    assert "no &lt;weights&gt;" in page
    assert page.count("<svg") == 3
    assert "data:image/png;base64," in page
    assert "http" not in page.replace("http://www.w3.org", "")  # self-contained
    for rule in RULES:
        assert f"| padim | {rule} |" in markdown


def test_pictures_that_must_not_be_passed_on_can_be_left_out(tmp_path: Path) -> None:
    rows = [make_row(pictures={"gallery": "galleries/a.png"})]
    write_report(tmp_path, rows, galleries=False)
    markdown, page = ((tmp_path / name).read_text() for name in (REPORT_MD, REPORT_HTML))
    assert "a.png" not in markdown
    assert "<img" not in page
    assert page.count("<svg") == 3


def test_those_that_were_taught_are_counted_apart(tmp_path: Path) -> None:
    fewer = {**make_row().figures, "test_good": 11.0, "test_defective": 5.0}
    write_report(tmp_path, [make_row("a", detector="catboost", figures=fewer), make_row("b")])
    assert (
        "16 good and 8 defective test pictures. "
        "30 % of them teach those that learn from labels; measured on the other 11 and 5: catboost."
    ) in (tmp_path / REPORT_MD).read_text()


def test_ganomaly_stands_above_what_its_authors_report(tmp_path: Path) -> None:
    rows = [
        make_row(
            f"{digit}",
            detector="ganomaly",
            problem=f"mnist:not-{digit}",
            figures={**figures(0.5 + 0.01 * digit), "course_best_auroc": 0.7 + 0.01 * digit},
        )
        for digit in range(10)
    ]
    write_report(tmp_path, rows)
    markdown = (tmp_path / REPORT_MD).read_text()
    assert "## mnist, the class anomalous: image AUROC by class" in markdown
    assert "| not-9 | mean of 10 |" in markdown
    assert "| ganomaly | 0.5000 | 0.5100 |" in markdown
    assert "| ganomaly, best while training | 0.7000 | 0.7100 |" in markdown
    assert "| ganomaly, as published | 0.8810 | 0.6750 |" in markdown
    assert "| 0.5580 | 0.7946 | GANomaly, Akçay et al. 2018, MNIST; a digit is the anomaly" in markdown
    of_auroc, _, of_others = markdown.partition("best accuracy by class")
    assert "as published" in of_auroc
    assert "as published" not in of_others


def test_a_class_report_has_means_and_contamination(tmp_path: Path) -> None:
    rows = [
        make_row(f"{name}{seed}", detector="ae-conv-mse", problem=name, seed=seed, figures=figures(0.5 + 0.1 * seed))
        for name in ("mnist:0", "mnist:1", "mnist:0+10%")
        for seed in (0, 1)
    ]
    write_report(tmp_path, rows)
    markdown = (tmp_path / REPORT_MD).read_text()
    assert (
        "| ae-conv-mse | 0.5500 | 0.5500 | 0.5500 | 0.935 (the best autoencoder's mean over the digits) |" in markdown
    )
    assert "image AUROC by contamination" in markdown
    assert "| ae-conv-mse | 0.5500 | 0.5500 |" in markdown


def figures(auroc: float) -> dict[str, float]:
    return {**make_row().figures, "image_auroc": auroc}


def test_several_seeds_have_a_mean_and_a_worst(tmp_path: Path) -> None:
    write_report(tmp_path, [make_row(str(seed), seed=seed, figures=figures(0.9 + 0.02 * seed)) for seed in range(3)])
    assert "| padim | mvtec-bottle | 3 | 0.9200 | 0.9000 | 0.9400 |" in (tmp_path / REPORT_MD).read_text()


def test_an_ablation_is_told_against_its_base(tmp_path: Path) -> None:
    rows = [make_row(figures=figures(0.9)), make_row("b", variant="bank of 8", figures=figures(0.95))]
    write_report(tmp_path, rows)
    assert "| padim | mvtec-bottle | bank of 8 | 0.9500 | +0.0500 |" in (tmp_path / REPORT_MD).read_text()


def test_published_figures_are_found_by_method() -> None:
    found = find_published("padim-mobilenet_v1", "mvtec-bottle")
    assert found is not None
    assert found.value == 0.994
    assert find_published("padim", "orange-web") is None
    ganomaly = [PUBLISHED["ganomaly", f"mnist:not-{digit}"].value for digit in range(10)]
    assert np.mean(ganomaly) == pytest.approx(0.7946)


def test_the_table_has_every_detector_once_and_its_settings_exist() -> None:
    entries = list_entries()
    assert len({entry.name for entry in entries}) == len(entries) == 55
    for entry in entries:
        make(entry, entry.tiny)
        for changes in entry.ablations.values():
            assert make(entry, changes).settings != make(entry, {}).settings
    assert [entry.name for entry in find_entries("padim,ae-mlp-*")][:2] == ["padim", "ae-mlp-mse"]


def test_settings_that_are_not_there_are_refused() -> None:
    (entry,) = find_entries("padim")
    with pytest.raises(InputError, match="it has network, channels"):
        make(entry, {"colour": 3})
    with pytest.raises(InputError, match="must be int"):
        make(entry, {"channels": "many"})
    with pytest.raises(InputError, match="--list"):
        find_entries("padim,nothing")


def test_rows_are_plain_json(tmp_path: Path) -> None:
    append_row(tmp_path, make_row())
    stored = json.loads((tmp_path / ROWS_JSONL).read_text())
    assert {"seed", "data", "commit", "settings", "figures"} <= stored.keys()
