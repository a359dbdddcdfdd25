"""A row of the bench as a package that the detection server takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from host.bench.deploy import Span, append_steps, deploy, find_row
from host.bench.problems import OneClass, list_tasks
from host.bench.rows import append_row
from host.bench.runner import GRAPHS, Plan, Variant, prepare_row, run_graph, run_row
from host.bench.table import find_entries
from host.bench.weights import Weights
from host.integers.parity import run_onnxruntime
from host.server.sessions import Model
from protocol.errors import InputError
from protocol.manifest import GOLDEN_NPZ, MODEL_ONNX, load_package


@pytest.fixture(scope="module")
def bench(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A row of PaDiM on drawn oranges; the pictures are in oranges/."""
    folder = tmp_path_factory.mktemp("bench")
    next(iter(list_tasks("rendered:orange", OneClass(), 24, folder / "drawn")))
    (oranges,) = (folder / "drawn").iterdir()
    (task,) = list_tasks(str(oranges.rename(folder / "oranges")), OneClass(), None, folder)
    plan = Plan(weights, folder, "commit", is_tiny=True)
    (entry,) = find_entries("padim")
    append_row(folder, run_row(*prepare_row(entry, task, 0, Variant(), plan), plan, lambda _share: None))
    return folder


def test_the_server_takes_a_deployed_row(bench: Path) -> None:
    row = find_row(bench, "padim", "oranges", 0)
    folder = deploy(row, bench, bench / "oranges", "orange", bench / "models")
    package = load_package(folder)
    assert package.manifest.id == "orange-padim"
    assert package.manifest.preprocess.input_px == (64, 64)
    assert package.manifest.figures["float_image_auroc"] == pytest.approx(row.figures["image_auroc"], abs=0.02)
    model, golden = ((folder / name).read_bytes() for name in (MODEL_ONNX, GOLDEN_NPZ))
    Model(package.manifest, model, golden, threads=1)  # checks the golden vectors
    assert "image AUROC" in (folder / "card.md").read_text()
    challenge = package.manifest.challenge
    assert challenge is not None
    assert len(list(package.load_known_bad())) == challenge.frames > 0


def test_steps_are_the_float_map_rounded(bench: Path) -> None:
    row = find_row(bench, "padim", "oranges", 0)
    graph = onnx.load(bench / GRAPHS / f"{row.key}.onnx")
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    floats = run_graph(graph, images)
    span = Span(float(np.quantile(floats, 0.1)), float(np.quantile(floats, 0.8)))
    expected = ((floats - span.usual) / (span.highest - span.usual) - 1) * 128
    steps = run_onnxruntime(append_steps(graph, span), images)
    assert steps.dtype == np.int8
    assert np.abs(steps - np.clip(expected, -128, 127)).max() <= 0.501
    assert (steps == 127).any()


def test_what_has_no_graph_is_refused(bench: Path) -> None:
    for detector, seed in (("lof", 0), ("padim", 1)):
        with pytest.raises(InputError, match="has not been run"):
            find_row(bench, detector, "oranges", seed)
