"""Write a model package into a folder, and make it appear at its place by one rename."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from board.overlay.program import PROGRAM_BIN, encode_file
from board.preprocess import preprocess
from host.carried import write_carried
from host.compiler.compilation import compile_net
from host.integers import IntegerNet
from host.parity import run_numpy
from host.qdq import write_qdq
from host.qonnx_graph import write_qonnx
from protocol.manifest import (
    CARRIED_ONNX,
    GOLDEN_NPZ,
    MANIFEST,
    MODEL_ONNX,
    Golden,
    Manifest,
    Preprocess,
    encode_manifest,
    file_sha256,
)

MODEL_QONNX = "model.qonnx"


@dataclass(frozen=True)
class Graphs:
    """One network in the forms that the package carries: three graphs, and the overlay's program as a file."""

    model: onnx.ModelProto
    carried: onnx.ModelProto
    qonnx: onnx.ModelProto
    program: bytes


def write_graphs(net: IntegerNet) -> Graphs:
    """Raises: UnsupportedError if the overlay cannot run the network."""
    return Graphs(write_qdq(net), write_carried(net), write_qonnx(net), encode_file(compile_net(net).program))


def make_golden(frames: NDArray[np.uint8], how: Preprocess, net: IntegerNet) -> Golden:
    """The reference's answers to frames uint8 (n, H, W, 3)."""
    images = np.stack([preprocess(frame, how) for frame in frames])
    return Golden(frames, images, run_numpy(net, images))


def write_package(folder: Path, manifest: Manifest, graphs: Graphs, golden: Golden, extra: dict[str, bytes]) -> None:
    """Fill an empty folder; `manifest.files` is replaced by what was written. `extra` are files by their names."""
    folder.mkdir(parents=True)
    for name, graph in ((MODEL_ONNX, graphs.model), (CARRIED_ONNX, graphs.carried), (MODEL_QONNX, graphs.qonnx)):
        (folder / name).write_bytes(graph.SerializeToString(deterministic=True))
    (folder / PROGRAM_BIN).write_bytes(graphs.program)
    np.savez_compressed(folder / GOLDEN_NPZ, frames=golden.frames, images=golden.images, maps=golden.maps)
    for name, content in extra.items():
        (folder / name).write_bytes(content)
    files = {path.name: file_sha256(path) for path in sorted(folder.iterdir())}
    (folder / MANIFEST).write_bytes(encode_manifest(replace(manifest, files=files)))


def publish(folder: Path, target: Path) -> None:
    """Rename a complete package to its place; a package that was there before is replaced."""
    replaced = folder.with_name("replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if target.exists():
        os.replace(target, replaced)
    os.replace(folder, target)
    shutil.rmtree(replaced, ignore_errors=True)
