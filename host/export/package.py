"""Write a model package into a folder, and make it appear at its place by one rename."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from board.overlay.program import PROGRAM_BIN, encode_file
from board.preprocess import preprocess
from host.compiler.compilation import compile_net
from host.integers.arithmetic import IntegerNet
from host.integers.carried import write_carried
from host.integers.parity import check_parity, run_numpy, run_onnxruntime, run_opencv, run_qonnx
from host.integers.qdq import write_qdq
from host.integers.qonnx_graph import write_qonnx
from host.pictures.reading import Images
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


def check_engines(net: IntegerNet, graphs: Graphs, images: Images) -> None:
    """Raises: NotExactError naming the engine that differs."""
    answers = {
        "ONNX Runtime": run_onnxruntime(graphs.model, images),
        "OpenCV": run_opencv(graphs.carried, images),
        "qonnx": run_qonnx(graphs.qonnx, net, images),
    }
    check_parity(run_numpy(net, images), answers)


def write_graphs(net: IntegerNet) -> Graphs:
    """Raises: UnsupportedError if the overlay cannot run the network."""
    return Graphs(write_qdq(net), write_carried(net), write_qonnx(net), encode_file(compile_net(net).program))


def make_golden(frames: NDArray[np.uint8], how: Preprocess, net: IntegerNet) -> Golden:
    """The reference's answers to frames uint8 (n, H, W, 3)."""
    images = np.stack([preprocess(frame, how) for frame in frames])
    return Golden(frames, images, run_numpy(net, images))


def write_package(folder: Path, manifest: Manifest, graphs: Graphs, golden: Golden, extra: dict[str, bytes]) -> None:
    """A package that every engine can run. `extra` are files by their names."""
    models = {MODEL_ONNX: graphs.model, CARRIED_ONNX: graphs.carried, MODEL_QONNX: graphs.qonnx}
    files = {name: graph.SerializeToString(deterministic=True) for name, graph in models.items()}
    files |= {PROGRAM_BIN: graphs.program, GOLDEN_NPZ: encode_golden(golden)}
    write_files(folder, manifest, files | extra)


def write_files(folder: Path, manifest: Manifest, files: Mapping[str, bytes]) -> None:
    """Fill an empty folder; `manifest.files` is replaced by what was written."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    digests = {name: file_sha256(folder / name) for name in sorted(files)}
    (folder / MANIFEST).write_bytes(encode_manifest(replace(manifest, files=digests)))


def encode_golden(golden: Golden, tolerance: int = 0) -> bytes:
    """`tolerance` in map steps: what a network in floating point may be off on another processor."""
    file = io.BytesIO()
    arrays = {"frames": golden.frames, "images": golden.images, "maps": golden.maps}
    if tolerance:
        arrays["tolerance"] = np.array(tolerance, np.uint8)
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def publish(folder: Path, target: Path) -> None:
    """Rename a complete package to its place; a package that was there before is replaced."""
    replaced = folder.with_name("replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if target.exists():
        os.replace(target, replaced)
    os.replace(folder, target)
    shutil.rmtree(replaced, ignore_errors=True)
