"""Every detector of the table, end to end at a tiny size, on real pictures where they are beside the repository.

Each on one of four sets in turn, so that detectors which share their code see all of them.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from host.bench.detector import Given, pool
from host.bench.problems import OneClass, Task, list_tasks
from host.bench.table import Entry, find_entries, list_entries, make
from host.bench.weights import Weights
from host.judging.evaluation import image_auroc
from tests.host.bench.test_detectors import FEW, ROOT, TOO_LARGE, check_row, need_packages, run_tiny

SHARED = ROOT.parent / "shared" / "data"
SETS = ("mnist.npz", "mvtec-bottle", "orange-web", "cifar10-subset.npz")
WITHOUT_MASKS = ("pg-detector", "tl-detector", "patch-cnn")
CASES = [
    pytest.param(data, entry, id=f"{data}-{entry.name}")
    for entry, data in zip(list_entries(), itertools.cycle(SETS), strict=False)
]


@pytest.fixture(scope="module")
def real(request: pytest.FixtureRequest, out: Path) -> Task:
    data = SHARED / request.param
    if not data.exists():
        pytest.skip(f"no {data.name} beside the repository")
    return next(iter(list_tasks(str(data), OneClass((3,)), FEW, out)))


@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("without_cost")  # which is seen on drawn parts
@pytest.mark.parametrize(("real", "entry"), CASES, indirect=["real"])
def test_on_real_pictures(entry: Entry, real: Task, weights: Weights, out: Path) -> None:
    need_packages(entry)
    row = run_tiny(entry, real, weights, out)
    if entry.weights == TOO_LARGE:
        assert f"no weights of {TOO_LARGE}" in row.skipped
    elif entry.name in WITHOUT_MASKS and real.name != "mvtec-bottle":
        assert "needs masks" in row.skipped
    else:
        check_row(row, entry)


def test_padim_finds_the_defects_of_real_bottles(out: Path) -> None:
    """On 60 + 40 pictures; on all of them it reaches more."""
    if not (SHARED / "mvtec-bottle").is_dir():
        pytest.skip("no mvtec-bottle beside the repository")
    (task,) = list_tasks(str(SHARED / "mvtec-bottle"), OneClass(), 60, out)
    (entry,) = find_entries("padim")
    bottles, made = task.load(entry.input_px), make(entry, {"channels": 50})
    detector = made.build(made.settings, Given(0, entry.input_px, 3, Weights(SHARED / "weights")))
    detector.fit(bottles.goods, lambda _share: None)
    scores = pool(detector.score_map(bottles.test), detector.pools)
    assert image_auroc(scores, bottles.defective) >= 0.985
