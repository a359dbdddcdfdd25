"""A backbone's folder: its graphs, the overlay's program, golden features, the licence; `backbone.json` names them."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from board.overlay.golden import run_program
from board.overlay.program import PROGRAM_BIN, decode_file
from board.teaching.backbone import (
    BACKBONE_JSON,
    FORMAT,
    MAKE_AGAIN,
    BackboneFolder,
    BackboneManifest,
    load_folder,
)
from host.compiler.reader import load_qdq
from host.export.package import MODEL_QONNX, Graphs, write_graphs
from host.integers.arithmetic import Int8, IntegerNet
from host.integers.parity import (
    check_parity,
    features_numpy,
    features_onnxruntime,
    features_opencv,
    features_qonnx,
)
from protocol.errors import InputError
from protocol.manifest import CARRIED_ONNX, GOLDEN_NPZ, MODEL_ONNX, file_sha256

LICENCE_TXT = "LICENCE-backbone.txt"
NEEDED = {MODEL_ONNX, CARRIED_ONNX, MODEL_QONNX, PROGRAM_BIN, GOLDEN_NPZ, LICENCE_TXT}

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Origin:
    name: str
    weights_sha256: str
    licence: str


@dataclass(frozen=True)
class Backbone:
    files: BackboneFolder
    net: IntegerNet
    licence: str


def write_backbone(folder: Path, net: IntegerNet, origin: Origin, images: Images) -> None:
    """Fill a new folder. `images` uint8 (n, h, w, 3) are what the engines have to agree on.

    Raises: NotExactError, naming the engine that differs.
    """
    graphs = write_graphs(net)
    features = prove(net, graphs, images)
    contents = {
        MODEL_ONNX: graphs.model.SerializeToString(deterministic=True),
        CARRIED_ONNX: graphs.carried.SerializeToString(deterministic=True),
        MODEL_QONNX: graphs.qonnx.SerializeToString(deterministic=True),
        PROGRAM_BIN: graphs.program,
        GOLDEN_NPZ: _encode_golden(images, features),
        LICENCE_TXT: origin.licence.encode(),
    }
    folder.mkdir(parents=True)
    for file, content in contents.items():
        (folder / file).write_bytes(content)
    digests = {file: file_sha256(folder / file) for file in sorted(contents)}
    manifest = BackboneManifest(FORMAT, origin.name, net.input_px[0], origin.weights_sha256, digests)
    (folder / BACKBONE_JSON).write_text(json.dumps(asdict(manifest), indent=2) + "\n")


def prove(net: IntegerNet, graphs: Graphs, images: Images) -> Int8:
    """The features int8 (n, channels, h', w') of the images, which every engine gives bit for bit.

    Raises: NotExactError.
    """
    features = features_numpy(net, images)
    program = decode_file(graphs.program)
    answers = {
        "ONNX Runtime": features_onnxruntime(graphs.model, images),
        "OpenCV": features_opencv(graphs.carried, images),
        "qonnx": features_qonnx(graphs.qonnx, net, images),
        "the overlay's model": np.stack([run_program(program, image) for image in images]),
    }
    check_parity(features, answers)
    return features


def load_backbone(folder: Path) -> Backbone:
    """Raises: InputError for a folder that is none, or whose files are not those that were written."""
    files = load_folder(folder)
    if files.manifest.files.keys() != NEEDED:
        raise InputError(f"{folder / BACKBONE_JSON}: files must be {', '.join(sorted(NEEDED))}: {MAKE_AGAIN}")
    return Backbone(files, load_qdq(files.path(MODEL_ONNX)), files.path(LICENCE_TXT).read_text())


def _encode_golden(images: Images, features: Int8) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, images=images, features=features)
    return file.getvalue()
