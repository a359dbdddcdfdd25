"""Pictures of parts drawn by the simulated belt, which runs as a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from host.learning.recipe import Rendered
from protocol.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[2]
DRAWING_LIMIT_S = 600.0
# Far from the small seeds that people give the belt: what a model is shown later was never in its training.
TRAIN_SEEDS, TEST_SEEDS = 1_000_000, 2_000_000
SEEDS_PER_EXPORT = 1000


def draw_pictures(product: str, how: Rendered, seed: int, folder: Path, advance: Callable[[int], None]) -> None:
    """Fill `folder` in MVTec's layout, or leave it alone if an earlier run has. `advance` is told the parts drawn.

    Each belt has a surface and a camera noise of its own. Raises: InputError if the belt cannot draw the product.
    """
    if folder.is_dir():
        return
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    drawn = 0
    for first_seed, total, share in (
        (TRAIN_SEEDS, how.train_parts, 0.0),
        (TEST_SEEDS, how.test_parts, how.test_defect_share),
    ):
        for belt in range(how.belts):
            parts = total // how.belts + (belt < total % how.belts)
            _capture(product, parts, first_seed + seed * SEEDS_PER_EXPORT + belt, share, partial)
            drawn += parts
            advance(drawn)
    os.replace(partial, folder)


def _capture(product: str, parts: int, seed: int, defect_share: float, out: Path) -> None:
    command = [sys.executable, "-m", "sim.capture", "--product", product, "--parts", str(parts), "--seed", str(seed)]
    command += ["--defect-share", str(defect_share), "--out", str(out.resolve())]
    try:
        done = subprocess.run(  # noqa: S603 (our own program, no shell)
            command, cwd=REPOSITORY, capture_output=True, text=True, timeout=DRAWING_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        problem = f"drawing {parts} parts took over {DRAWING_LIMIT_S:g} s"
        raise InputError(f"{problem}: lower their number in the recipe") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"parts of product {product!r} cannot be drawn: {reason}")
