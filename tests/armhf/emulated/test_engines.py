"""One integer truth on ARM: every engine that a board can have gives the golden maps, the kernels also random ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from board.preprocess import as_input
from host.integers import run
from host.qdq import write_qdq
from protocol.manifest import MANIFEST
from sim.station import ROOT
from tests.armhf import userland
from tests.armhf.networks import random_net

SHIPPED = sorted(path.parent for path in (ROOT / "models").glob(f"*-128/{MANIFEST}"))
GUEST = ROOT / "tests" / "armhf" / "guest"
NETWORKS = 24


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
@pytest.mark.parametrize(
    ("runtime", "name"), [("kernels", "arm-kernels"), ("onnxruntime", "arm-onnxruntime"), ("opencv", "arm-opencv")]
)
def test_an_engine_gives_the_golden_maps(runtime: str, name: str, folder: Path) -> None:
    frames = 3 if runtime == "kernels" else 1  # the others take seconds a frame here
    said = userland.run(str(GUEST / "frames.py"), str(folder), runtime, str(frames))
    assert f"{name}: {frames} frames equal" in said


def test_the_kernels_give_the_references_integers_for_random_networks(tmp_path: Path) -> None:
    """With NEON here: its rounding, saturation and odd widths."""
    for seed in range(NETWORKS):
        net, rng = random_net(seed), np.random.default_rng(1000 + seed)
        image = rng.integers(0, 256, (*net.input_px, 3)).astype(np.uint8)
        (tmp_path / f"{seed}.onnx").write_bytes(write_qdq(net).SerializeToString())
        np.savez(tmp_path / f"{seed}.npz", image=image, map=run(net, as_input(image)[0]))
    assert userland.run(str(GUEST / "networks.py"), str(tmp_path)).split() == ["equal", str(NETWORKS)]
