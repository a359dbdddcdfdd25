"""One integer truth on ARM: every engine that a board can have gives the golden maps, the kernels also random ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from board.preprocess import as_input
from host.integers.arithmetic import run
from host.integers.qdq import write_qdq
from protocol.manifest import MANIFEST
from sim.station import ROOT
from tests.armhf import userland
from tests.armhf.networks import random_late_net, random_net

SHIPPED = sorted(path.parent for path in (ROOT / "models").glob(f"*/{MANIFEST}"))
FRAMES = str(Path("tests") / "armhf" / "guest" / "frames.py")
GUEST = ROOT / "tests" / "armhf" / "guest"
NETWORKS = 24


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_the_kernels_give_the_golden_maps(folder: Path) -> None:
    assert "arm-kernels: 3 frames equal" in userland.run(FRAMES, str(folder), "kernels", "3")


@pytest.mark.parametrize("runtime", ["onnxruntime", "opencv"])
def test_what_judges_without_kernels_gives_the_golden_map(runtime: str) -> None:
    """One frame of one model: these take seconds for it here."""
    assert f"arm-{runtime}: 1 frames equal" in userland.run(FRAMES, str(SHIPPED[0]), runtime, "1")


def test_the_kernels_give_the_references_integers_for_random_networks(tmp_path: Path) -> None:
    """With NEON here: its rounding, saturation and odd widths."""
    for seed in range(NETWORKS):
        make = random_late_net if seed % 3 == 0 else random_net
        net, rng = make(seed), np.random.default_rng(1000 + seed)
        image = rng.integers(0, 256, (*net.input_px, 3)).astype(np.uint8)
        (tmp_path / f"{seed}.onnx").write_bytes(write_qdq(net).SerializeToString())
        np.savez(tmp_path / f"{seed}.npz", image=image, map=run(net, as_input(image)[0]))
    assert userland.run(str(GUEST / "networks.py"), str(tmp_path)).split() == ["equal", str(NETWORKS)]
