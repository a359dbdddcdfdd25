"""What the rows say, as tables of text."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from host.bench.limits import RULES
from host.bench.published import find_published
from host.bench.rows import Row

KEY_DIGITS = 6  # enough to find a row's settings
NOT_MEASURED = "–"
CLASS_MARK = ":"  # in the name of a problem that a class of a labelled set makes


@dataclass(frozen=True)
class Table:
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    remark: str = ""


FIGURES = {
    "image_auroc": "image AUROC",
    "course_best_auroc": "best while training",
    "image_aupr": "image AUPR",
    "image_best_f1": "best F1",
    "labelled_30_f1": "F1, 30 % labels",
    "labelled_30_trivial_f1": "trivial F1 there",
    "trivial_f1": "trivial F1",
    "image_best_accuracy": "best accuracy",
    "trivial_accuracy": "trivial accuracy",
    "pixel_auroc": "pixel AUROC",
    "pixel_aupr": "pixel AUPR",
    "aupro": "AUPRO",
    "pixel_best_dice": "best Dice",
    "pixel_best_iou": "best IoU",
    "trivial_dice": "trivial Dice",
}
AT_LEVEL = {
    "image_f1": "F1",
    "image_precision": "precision",
    "image_recall": "recall",
    "image_accuracy": "accuracy",
    "false_reject_rate": "good rejected",
    "pixel_dice": "Dice",
    "pixel_iou": "IoU",
}
SOURCE = ("input px", "seed", "data", "commit", "row")


def list_tables(rows: Sequence[Row]) -> list[Table]:
    """`rows` in the order in which they are shown."""
    measured, skipped = [row for row in rows if not row.skipped], [row for row in rows if row.skipped]
    plain = [row for row in measured if not row.variant]
    tables = [*_classes(plain), *_contamination(plain)]
    for problem in dict.fromkeys(row.problem for row in plain):
        here = [row for row in plain if row.problem == problem]
        tables += [_figures(problem, here), _thresholds(problem, here), _costs(problem, here)]
    tables += [*_seeds(plain), *_ablations(measured)]
    if measured:
        settings = [(row.key[:KEY_DIGITS], row.detector, row.variant, json.dumps(row.settings)) for row in measured]
        tables.append(Table("Settings", ("row", "detector", "changed", "settings"), settings))
    if skipped:
        reasons = dict.fromkeys((row.detector, row.problem, row.skipped) for row in skipped)
        tables.append(Table("Not run", ("detector", "problem", "why"), list(reasons)))
    return tables


def _figures(problem: str, rows: Sequence[Row]) -> Table:
    keys = [key for key in FIGURES if any(key in row.figures for row in rows)]
    published = any(find_published(row.detector, problem) for row in rows)
    columns = ["detector", *(["published", "of what"] if published else []), *(FIGURES[key] for key in keys), *SOURCE]
    lines = []
    for row in rows:
        found = find_published(row.detector, problem)
        said = [_number(found.value), f"{found.figure}: {found.source}; {found.protocol}"] if found else ["", ""]
        values = [_number(row.figures.get(key)) for key in keys]
        lines.append([row.detector, *(said if published else []), *values, *_source(row)])
    return Table(problem, columns, lines, _count_pictures(rows))


def _count_pictures(rows: Sequence[Row]) -> str:
    """Detectors that learn from labels, and what they are compared with, are measured on fewer pictures."""
    most = max((row.figures for row in rows), key=_test_pictures)
    remark = f"{most['test_good']:.0f} good and {most['test_defective']:.0f} defective test pictures."
    fewer = [row.detector for row in rows if _test_pictures(row.figures) < _test_pictures(most)]
    if not fewer:
        return remark
    fewest = min((row.figures for row in rows), key=_test_pictures)
    others = f"the other {fewest['test_good']:.0f} and {fewest['test_defective']:.0f}"
    names = ", ".join(dict.fromkeys(fewer))
    return f"{remark} 30 % of them teach those that learn from labels; measured on {others}: {names}."


def _test_pictures(figures: Mapping[str, float]) -> float:
    return figures["test_good"] + figures["test_defective"]


def _thresholds(problem: str, rows: Sequence[Row]) -> Table:
    lines = [_at_level(row, rule) for row in rows for rule in RULES if f"{rule}:image_f1" in row.figures]
    columns = ("detector", "threshold", *AT_LEVEL.values(), "trivial F1", "trivial Dice", *SOURCE)
    remark = "Of pictures by their scores, of pixels by the maps' values; max-area looks at regions in both."
    return Table(f"{problem}: at four thresholds", columns, lines, remark)


def _at_level(row: Row, rule: str) -> list[str]:
    keys = [*(f"{rule}:{key}" for key in AT_LEVEL), "trivial_f1", "trivial_dice"]
    return [row.detector, rule, *(_number(row.figures.get(key)) for key in keys), *_source(row)]


def _costs(problem: str, rows: Sequence[Row]) -> Table:
    columns = ("detector", "fit s", "ms a picture", "peak MB", "M MACs", "parameters", "stored MB", "ONNX", *SOURCE)
    lines = [
        [
            row.detector,
            _number(row.cost.get("fit_s"), 1),
            _number(row.cost.get("time_ms"), 2),
            _number(row.cost.get("peak_bytes"), 1, 1e-6),
            _number(row.cost.get("macs"), 1, 1e-6),
            _number(row.cost.get("parameters"), 0),
            _number(row.cost.get("stored_bytes"), 2, 1e-6),
            row.export,
            *_source(row),
        ]
        for row in rows
    ]
    remark = "MACs are those of torch; what scikit-learn and gradient-boosted trees count is not among them."
    return Table(f"{problem}: cost", columns, lines, remark)


def _seeds(rows: Sequence[Row]) -> list[Table]:
    """How much of a figure is chance."""
    lines = []
    whole = [row for row in rows if CLASS_MARK not in row.problem]
    for detector, problem in dict.fromkeys((row.detector, row.problem) for row in whole):
        here = [row.figures for row in whole if (row.detector, row.problem) == (detector, problem)]
        found = [figures["image_auroc"] for figures in here if "image_auroc" in figures]
        if len(found) > 1:
            summary = (float(np.mean(found)), min(found), max(found))
            lines.append([detector, problem, str(len(found)), *map(_number, summary)])
    columns = ("detector", "problem", "rows", "mean", "worst", "best")
    return [Table("Image AUROC over seeds and settings", columns, lines)] if lines else []


def _classes(rows: Sequence[Row]) -> list[Table]:
    """AUROC and accuracy of each class of a labelled set, mean over seeds, and the mean over the classes."""
    tables = []
    for family in _families(rows, lambda row: CLASS_MARK in row.problem and "+" not in row.problem):
        here = [row for row in rows if _family(row.problem) == family and "+" not in row.problem]
        for key, title in (("image_auroc", "image AUROC"), ("image_best_accuracy", "best accuracy")):
            tables.append(_by_class(family, here, key, title))
    return tables


def _by_class(family: str, rows: Sequence[Row], key: str, title: str) -> Table:
    problems = sorted({row.problem for row in rows})
    short = [problem.partition(CLASS_MARK)[2] for problem in problems]
    lines = []
    for detector in dict.fromkeys(row.detector for row in rows):
        means = [_mean(rows, detector, problem, key) for problem in problems]
        found = find_published(detector, f"{family.partition(CLASS_MARK)[0]}:mean") if "not-" not in family else None
        said = f"{found.value:.3f} ({found.source})" if found and key == found.figure else ""
        lines.append([detector, *map(_number, means), _number(_mean_of_all(means)), said])
        best = [_mean(rows, detector, problem, "course_best_auroc") for problem in problems]
        if key == "image_auroc" and any(value is not None for value in best):
            lines.append([f"{detector}, best while training", *map(_number, best), _number(_mean_of_all(best)), ""])
        lines += _as_published(detector, problems, key)
    columns = ("detector", *short, f"mean of {len(problems)}", "published")
    name = family.replace(f"{CLASS_MARK}not-", ", the class anomalous")
    return Table(f"{name}: {title} by class", columns, lines, "Means over the seeds; rows below say seed and commit.")


def _as_published(detector: str, problems: Sequence[str], key: str) -> list[list[str]]:
    """One line, or none; its last word is how the figures came about."""
    found = [find_published(detector, problem) for problem in problems]
    stated = [one if one and one.figure == key else None for one in found]
    origin = next(filter(None, stated), None)
    if not origin:
        return []
    values = [one.value if one else None for one in stated]
    said = f"{origin.source}; {origin.protocol}"
    return [[f"{detector}, as published", *map(_number, values), _number(_mean_of_all(values)), said]]


def _mean_of_all(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def _contamination(rows: Sequence[Row]) -> list[Table]:
    tables = []
    for family in _families(rows, lambda row: "+" in row.problem):
        here = [row for row in rows if _family(row.problem) == family]
        shares = sorted({_share(row.problem) for row in here})
        lines = []
        for detector in dict.fromkeys(row.detector for row in here):
            means = (_mean_at(here, detector, share) for share in shares)
            lines.append([detector, *map(_number, means)])
        columns = ("detector", *(f"{share} %" for share in shares))
        remark = "Mean over classes and seeds; share of the training set that is anomalous."
        tables.append(Table(f"{family}: image AUROC by contamination", columns, lines, remark))
    return tables


def _mean_at(rows: Sequence[Row], detector: str, share: int) -> float | None:
    found = [row.figures for row in rows if (row.detector, _share(row.problem)) == (detector, share)]
    values = [figures["image_auroc"] for figures in found if "image_auroc" in figures]
    return float(np.mean(values)) if values else None


def _ablations(rows: Sequence[Row]) -> list[Table]:
    lines = []
    for row in (row for row in rows if row.variant):
        base = _mean([one for one in rows if not one.variant and one.seed == row.seed], row.detector, row.problem)
        value = row.figures.get("image_auroc")
        change = NOT_MEASURED if base is None or value is None else f"{value - base:+.4f}"
        lines.append([row.detector, row.problem, row.variant, _number(value), change, *_source(row)])
    columns = ("detector", "problem", "changed", "image AUROC", "difference", *SOURCE)
    return [Table("Ablations", columns, lines)] if lines else []


def _families(rows: Iterable[Row], is_one: Callable[[Row], bool]) -> list[str]:
    return sorted({_family(row.problem) for row in rows if is_one(row)})


def _family(problem: str) -> str:
    """ "mnist:3+10%" is of "mnist", "mnist:not-3" of "mnist:not-": which part the class has."""
    name, mark, rest = problem.partition(CLASS_MARK)
    return name + (f"{mark}not-" if rest.startswith("not-") else "")


def _share(problem: str) -> int:
    return int(problem.partition("+")[2].removesuffix("%") or 0)


def _mean(rows: Sequence[Row], detector: str, problem: str, key: str = "image_auroc") -> float | None:
    here = [row.figures for row in rows if (row.detector, row.problem) == (detector, problem)]
    values = [figures[key] for figures in here if key in figures]
    return float(np.mean(values)) if values else None


def _source(row: Row) -> tuple[str, ...]:
    commit = row.commit[:10] + ("-dirty" if "dirty" in row.commit else "")
    return str(row.input_px), str(row.seed), row.data, commit, row.key[:KEY_DIGITS]


def _number(value: float | None, digits: int = 4, unit: float = 1.0) -> str:
    """Rows of before hold numbers that are none, where one could not be measured."""
    return NOT_MEASURED if value is None or not math.isfinite(value) else f"{value * unit:.{digits}f}"
