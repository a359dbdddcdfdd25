"""One row: build, teach, fit, score, measure."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, InvalidGraph, NotImplemented
from sklearn.manifold import TSNE

from board.preprocess import as_input
from host.bench.cost import measure_cost
from host.bench.course import Course
from host.bench.detector import (
    Advance,
    Detector,
    Embedding,
    Given,
    Images,
    Maps,
    MissingError,
    Stepwise,
    Taught,
    localizes,
    pool,
)
from host.bench.figures import draw_curves, has_both, measure_maps
from host.bench.gallery import draw_gallery
from host.bench.problems import Problem, Task, split_labelled
from host.bench.rows import Row
from host.bench.table import Entry, Made, make
from host.bench.weights import Weights
from host.export.order import hash_values
from host.integers.arithmetic import IMAGE
from host.pictures.reading import digest

COMPARED = 3  # pictures that the exported graph must judge alike
PLOTTED = 600  # pictures of a t-SNE plot
GRAPHS, GALLERIES = "onnx", "galleries"


@dataclass(frozen=True)
class Variant:
    """What an ablation changes of a detector; by default nothing."""

    name: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    is_augmented: bool = False  # good pictures are also shown flipped and turned


@dataclass(frozen=True)
class Plan:
    """What is the same for all rows of a command."""

    weights: Weights
    out: Path
    commit: str
    is_tiny: bool
    settings: Mapping[str, Any] = field(default_factory=dict)  # given on the command line
    follow: int = 0  # how often the test's AUROC is measured while a detector trains


def list_variants(entry: Entry, ablates: bool) -> list[Variant]:
    if not ablates:
        return [Variant()]
    changed = [Variant(name, settings) for name, settings in entry.ablations.items()]
    return [Variant(), *changed, Variant("flips and turns", is_augmented=True)]


def prepare_row(entry: Entry, task: Task, seed: int, variant: Variant, plan: Plan) -> tuple[Row, Made, Problem]:
    """The row without figures; its key says whether it has been run. Raises: InputError."""
    input_px = entry.tiny_px if plan.is_tiny else entry.small_px if task.is_small else entry.input_px
    tiny = entry.tiny if plan.is_tiny else {}
    made = make(entry, {**tiny, **plan.settings, **variant.settings})
    problem = task.load(input_px)
    settings = asdict(made.settings)
    path = plan.weights.find(entry.weights) if entry.weights else None
    if path is not None:
        settings["weights_sha256"] = digest([path])[:12]
    made_of = [entry.name, problem.name, problem.digest, seed, settings, input_px, variant.is_augmented]
    row = Row(
        key=hash_values(*made_of, *([plan.follow] if plan.follow else []))[:16],
        detector=entry.name,
        problem=problem.name,
        seed=seed,
        settings=settings,
        input_px=input_px,
        data=problem.digest[:12],
        commit=plan.commit,
        variant=variant.name,
    )
    return row, made, _augment(problem) if variant.is_augmented else problem


def run_row(row: Row, made: Made, problem: Problem, plan: Plan, advance: Advance) -> Row:
    """The row with its figures, or with the reason why it has none."""
    torch.manual_seed(row.seed)
    try:
        detector = made.build(made.settings, Given(row.seed, row.input_px, problem.channels, plan.weights))
    except MissingError as missing:
        return replace(row, skipped=str(missing))
    if isinstance(detector, Taught):
        labelled, problem = split_labelled(problem)
        if not has_both(problem.defective):
            return replace(row, skipped="its labels take the only good or defective test picture: label more pictures")
        try:
            detector.teach(labelled)
        except MissingError as missing:
            return replace(row, skipped=str(missing))
    course = Course(detector, problem, plan.follow if isinstance(detector, Stepwise) else 0, advance)
    started_s = time.perf_counter()
    detector.fit(problem.goods, course)
    fit_s = time.perf_counter() - started_s - course.spent_s
    held_out, test = detector.score_map(problem.held_out), detector.score_map(problem.test)
    if not (np.isfinite(held_out).all() and np.isfinite(test).all()):
        return replace(row, skipped="its scores are not finite: the training diverged, lower its learning rate")
    figures, curves = measure_maps(problem, held_out, test, detector.pools), _draw(detector, problem, test)
    if course.points:
        curves["course"] = [*course.points, [1.0, figures["image_auroc"]]]
        figures["course_best_auroc"] = max(auroc for _, auroc in curves["course"])
    return replace(
        row,
        pools=detector.pools,
        figures=figures,
        curves=curves,
        cost={"fit_s": fit_s, **measure_cost(detector, problem.test)},
        export=_export(detector, problem.test, plan.out / GRAPHS / f"{row.key}.onnx"),
        pictures=_paint(problem, held_out, test, plan.out / GALLERIES / f"{row.key}.png"),
    )


def _augment(problem: Problem) -> Problem:
    goods = problem.goods
    turned = [goods, goods[:, :, ::-1], goods[:, ::-1], np.rot90(goods, 1, (1, 2)), np.rot90(goods, 3, (1, 2))]
    return replace(problem, goods=np.ascontiguousarray(np.concatenate(turned)))


def _draw(detector: Detector, problem: Problem, test: Maps) -> dict[str, list[list[float]]]:
    curves = draw_curves(pool(test, detector.pools), problem.defective)
    if isinstance(detector, Embedding):
        seen = np.random.default_rng(0).permutation(len(problem.test))[:PLOTTED]
        vectors = detector.embed(problem.test[seen])
        perplexity = min(30.0, (len(seen) - 1) / 3)
        points = TSNE(perplexity=perplexity, random_state=0, init="pca").fit_transform(vectors)
        labels = problem.defective[seen]
        curves["tsne"] = [
            [round(float(x), 2), round(float(y), 2), float(is_bad)]
            for (x, y), is_bad in zip(points, labels, strict=True)
        ]
    return curves


def _export(detector: Detector, images: Images, path: Path) -> str:
    """What became of the graph, in words; the largest difference is a share of the map's span."""
    graph = detector.export()
    if graph is None:
        return "none"
    content = graph.SerializeToString()
    expected = detector.score_map(images[:COMPARED])
    try:
        got = run_graph(graph, images[:COMPARED])
    except (Fail, InvalidArgument, InvalidGraph, NotImplemented) as error:
        return f"refused by ONNX Runtime: {str(error).splitlines()[0]:.80}"
    span = float(expected.max() - expected.min()) or 1.0
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return f"{len(content) / 1e6:.2f} MB, off by {float(np.abs(got - expected).max()) / span:.1e}"


def run_graph(graph: onnx.ModelProto, images: Images) -> Maps:
    """Of an exported graph, one picture at a time, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.stack([session.run(None, {IMAGE: as_input(image)})[0][0, 0] for image in images])


def _paint(problem: Problem, held_out: Maps, test: Maps, path: Path) -> dict[str, str]:
    if not localizes(test):
        return {}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(draw_gallery(problem, held_out, test))
    return {"gallery": f"{GALLERIES}/{path.name}"}
