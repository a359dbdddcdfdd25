"""The bench's winner as a model package for the detection server.

    beltsight bench package --bench bench --detector patchcore --data mvtec-bottle --product bottle

The row's exported graph, with its map in int8 steps behind it, threshold and figures as every package has them. It is
float32 inside, like those of host/large: the server runs it, and a board's ARM engine where it can; the FPGA does not.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper

from host.bench.problems import HELD_OUT_SHARE
from host.bench.rows import Row, load_rows
from host.bench.runner import GRAPHS, run_graph
from host.export.__main__ import draw_examples, find_remarks
from host.export.card import CARD_MD, HEATMAPS_PNG, join_card
from host.export.challenge import judge_by, make_challenge
from host.export.measurement import measure
from host.export.package import encode_golden, publish, write_files
from host.integers.arithmetic import MAP
from host.large.__main__ import GOLDEN_TOLERANCE, RECIPE, make_golden
from host.large.patchcore import LEVELS, SCALE
from host.pictures.dataset import Dataset, load_dataset
from host.pictures.reading import digest
from protocol.errors import InputError, run_main
from protocol.known_bad import CHALLENGE_BIN
from protocol.manifest import FORMAT, GOLDEN_NPZ, MODEL_ONNX, AnomalyMap, Manifest
from protocol.onnx_weights import weights_fault

FLOAT_MAP = "float_map"


@dataclass(frozen=True)
class Span:
    """What the int8 map spans: `usual` of a good picture becomes -128, `highest` 0, as far above it 127."""

    usual: float
    highest: float


def main() -> int:
    parser = argparse.ArgumentParser(prog="beltsight bench package", description="Make a package of a row.")
    add = parser.add_argument
    add("--bench", type=Path, default=Path("bench"), help="folder of the bench's rows (default: bench)")
    add("--detector", required=True, help="its name in the report")
    add("--seed", type=int, default=0, help="of the row (default: 0)")
    add("--data", type=Path, required=True, help="the folder of pictures that the row was made from")
    add("--product", required=True, help="name of the product, for example bottle")
    add("--out", type=Path, default=Path("models"), help="folder of the packages (default: models)")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    row = find_row(options.bench, options.detector, options.data.resolve().name, options.seed)
    print(f"model package: {deploy(row, options.bench, options.data, options.product, options.out)}")
    return 0


def find_row(bench: Path, detector: str, problem: str, seed: int) -> Row:
    """Raises: InputError if there is none with a graph."""
    wanted = (detector, problem, seed)
    rows = [row for row in load_rows(bench).values() if (row.detector, row.problem, row.seed) == wanted]
    exported = [row for row in rows if not row.variant and (bench / GRAPHS / f"{row.key}.onnx").is_file()]
    if not exported:
        why = "its row has no graph" if rows else "it has not been run"
        raise InputError(f"{detector} on {problem}, seed {seed}, cannot be deployed: {why}; choose another, or run it")
    return exported[-1]


def load_graph(path: Path) -> onnx.ModelProto:
    """Raises: InputError for one that is not all in its file."""
    content = path.read_bytes()
    fault = weights_fault(content)
    if fault:
        raise InputError(f"{path} {fault}")
    return onnx.load_model_from_string(content)


def deploy(row: Row, bench: Path, data: Path, product: str, out: Path) -> Path:
    """The finished package's folder. Raises: InputError for other pictures than the row's."""
    dataset = load_dataset(data, HELD_OUT_SHARE, row.input_px, is_square=True)
    graph = load_graph(bench / GRAPHS / f"{row.key}.onnx")
    held_out = run_graph(graph, dataset.held_out)
    span = Span(float(np.median(held_out)), float(held_out.max()))
    if not span.highest > span.usual:
        raise InputError("all held-out pictures look the same to this detector: give the pictures that it learned from")
    served = append_steps(graph, span)
    golden = make_golden(served, dataset, row.seed)
    height, width = golden.maps.shape[1:]
    meaning = AnomalyMap((height, width), SCALE, 1 if row.pools == "maximum" else height * width)
    floats = ((run_graph(graph, dataset.test) - span.usual) / (span.highest - span.usual) - 1) * LEVELS * SCALE
    measured = measure(served, floats.astype(np.float32), dataset, meaning, replace(RECIPE, input_px=row.input_px))
    identity = f"{product}-{row.detector}".replace("+", "-")
    known = {"macs": row.cost["macs"], "weight_bytes": float(len(served.SerializeToString()))}
    manifest = Manifest(
        format=FORMAT,
        id=identity,
        product=product,
        preprocess=dataset.how,
        map=meaning,
        threshold=measured.threshold,
        files={},
        cost=known,
        figures=measured.figures,
        provenance=describe_provenance(row, product, data, dataset),
        calibration=measured.calibration,
    )
    judge, threshold = judge_by(served, meaning), measured.threshold.value
    challenge, known_bad = make_challenge(dataset.pictures, dataset.how, judge, threshold, row.seed)
    manifest = replace(manifest, challenge=challenge)
    files = {
        MODEL_ONNX: served.SerializeToString(deterministic=True),
        GOLDEN_NPZ: encode_golden(golden, GOLDEN_TOLERANCE),
        CARD_MD: write_card(manifest, row, find_remarks(dataset)).encode(),
        HEATMAPS_PNG: draw_examples(dataset, served, SCALE),
        CHALLENGE_BIN: known_bad,
    }
    unfinished = out / f".{identity}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    write_files(unfinished / "package", manifest, files)
    publish(unfinished / "package", out / identity)
    shutil.rmtree(unfinished)
    return out / identity


def append_steps(graph: onnx.ModelProto, span: Span) -> onnx.ModelProto:
    """The float map's graph with the int8 map behind it: ((map - usual) / (highest - usual) - 1) · 128, rounded."""
    served = onnx.ModelProto()
    served.CopyFrom(graph)
    inner = served.graph
    for node in inner.node:
        for names in (node.input, node.output):
            names[:] = [FLOAT_MAP if name == MAP else name for name in names]
    gain = LEVELS / (span.highest - span.usual)
    constants = {"gain": gain, "offset": -span.usual * gain - LEVELS, "lowest": -128.0, "top": 127.0}
    inner.initializer.extend(helper.make_tensor(f"step_{k}", TensorProto.FLOAT, [], [v]) for k, v in constants.items())
    inner.node.extend(
        [
            helper.make_node("Mul", [FLOAT_MAP, "step_gain"], ["step_scaled"]),
            helper.make_node("Add", ["step_scaled", "step_offset"], ["step_moved"]),
            helper.make_node("Round", ["step_moved"], ["step_whole"]),
            helper.make_node("Clip", ["step_whole", "step_lowest", "step_top"], ["step_clipped"]),
            helper.make_node("Cast", ["step_clipped"], [MAP], to=TensorProto.INT8),
        ]
    )
    inner.output[0].type.tensor_type.elem_type = TensorProto.INT8
    onnx.checker.check_model(served)
    return served


def describe_provenance(row: Row, product: str, data: Path, dataset: Dataset) -> dict[str, str]:
    name = data.resolve().name
    words = ["python", "-m", "host.bench.deploy", "--detector", row.detector, "--seed", str(row.seed)]
    return {
        "command": shlex.join([*words, "--data", name, "--product", product]),
        "data": name,
        "data_sha256": digest([*dataset.pictures.train, *dataset.pictures.held_out]),
        "settings": str(dict(row.settings)),
        "commit": row.commit,
    }


def write_card(manifest: Manifest, row: Row, remarks: list[str]) -> str:
    what = (
        f"`{row.detector}` of the bench, seed {row.seed}: finds defects on the product *{manifest.product}*. For the "
        f"server; in float32 inside: on another processor the map may be off by {GOLDEN_TOLERANCE} step."
    )
    return join_card(manifest, what, remarks, "graph")


if __name__ == "__main__":
    sys.exit(run_main(main))
