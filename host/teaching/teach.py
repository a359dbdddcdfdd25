"""From a few pictures of good parts to a model package, in seconds: nothing is trained.

    beltsight teach --product bottle --pictures FOLDER
    beltsight teach --product screw --pictures FOLDER --backbone backbones/efficientnet-lite0-320

Takes the backbone that `beltsight backbone` made. The threshold comes from the same pictures: each is judged by the
others.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from host.compiler.cost import summarise_cost
from host.export.calibration import calibrate, draw_calibration
from host.export.card import CARD_MD, write_provenance
from host.export.order import source_commit
from host.export.package import Graphs, make_golden, publish, write_graphs, write_package
from host.integers.arithmetic import MAP, IntegerNet
from host.integers.parity import (
    IntegerMaps,
    check_parity,
    features_onnxruntime,
    run_numpy,
    run_onnxruntime,
    run_opencv,
    run_qonnx,
)
from host.integers.qdq import write_qdq
from host.judging.thresholds import Evidence, ThresholdRule, score_maps, set_threshold
from host.pictures.inspected import choose_inspected
from host.pictures.reading import Images, digest, load_frame, load_images
from host.teaching.backbone import FEATURE_EXPONENT
from host.teaching.detector import MAP_EXPONENT, make_detector, teach
from host.teaching.inspection import check_pictures, check_products, list_good
from host.teaching.lite0 import NAME
from host.teaching.make_backbone import BACKBONES, INPUT_PX
from host.teaching.store import LICENCE_TXT, Backbone, load_backbone
from protocol.errors import InputError, run_main
from protocol.manifest import CALIBRATION_JPG, FORMAT, AnomalyMap, Manifest, Preprocess, Threshold

TOP_SHARE = 0.07  # of the map's pixels, whose mean is the score
RULE = ThresholdRule("k-sigma", 3.0)
SEED = 0
GREY = 128
PROOF_PICTURES = 2


@dataclass(frozen=True)
class Lesson:
    """What is asked for."""

    product: str
    pictures: Path
    backbone: Path
    out: Path
    id: str


def main() -> int:
    parser = argparse.ArgumentParser(prog="beltsight teach", description="A model package from a few good parts.")
    parser.add_argument("--product", required=True, help="name of the product, for example bottle")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of pictures of good parts")
    parser.add_argument(
        "--backbone", type=Path, default=BACKBONES / f"{NAME}-{INPUT_PX}", help="folder of the backbone"
    )
    parser.add_argument("--out", type=Path, default=Path("models"), help="folder of the packages (default: models)")
    parser.add_argument("--id", help="name of the package (default: <product>-taught)")
    options = parser.parse_args()
    identity = options.id or f"{options.product}-taught"
    if not identity.replace("-", "").replace("_", "").isalnum():
        raise InputError(f"id {identity!r} must be letters, digits, '-' and '_': correct --id or --product")
    started_s = time.monotonic()
    target = make_package(Lesson(options.product, options.pictures, options.backbone, options.out, identity))
    print(f"model package: {target}, taught in {time.monotonic() - started_s:.1f} s")
    return 0


def make_package(lesson: Lesson) -> Path:
    """The package's folder. Raises: InputError for pictures that cannot teach; NotExactError, UnsupportedError."""
    cv2.setNumThreads(1)
    backbone = load_backbone(lesson.backbone)
    paths = list_good(lesson.pictures)
    how = choose_inspected(paths, (), backbone.manifest.input_px, is_square=True).how
    if how.fit != "exact":
        raise InputError(f"the pictures of {lesson.pictures} are of several sizes: take all with one camera")
    images = load_images(paths, how)
    check_pictures(paths, images)
    features = features_onnxruntime(write_qdq(backbone.net), images)
    check_products(paths, features)
    taught, maps = teach(features, FEATURE_EXPONENT, np.random.default_rng(SEED))
    net = make_detector(backbone.net, taught)
    graphs = write_graphs(net)
    prove(net, graphs, images[:PROOF_PICTURES])
    threshold = judge_themselves(maps)
    calibration = calibrate(images, score_maps(maps, find_meaning(maps.shape[1:])), threshold.value)
    manifest = replace(describe(lesson, backbone, how, net, threshold), calibration=calibration)
    manifest = replace(manifest, provenance=manifest.provenance | {"data_sha256": digest(paths)})
    extra = {
        CARD_MD: write_card(manifest, len(paths)).encode(),
        CALIBRATION_JPG: draw_calibration(images),
        LICENCE_TXT: backbone.licence.encode(),
    }
    golden = make_golden(draw_golden(paths[0], how), how, net)
    return appear(lesson, lambda folder: write_package(folder, manifest, graphs, golden, extra))


def appear(lesson: Lesson, write: Callable[[Path], None]) -> Path:
    """The package's folder, which is there whole or not at all. Raises: InputError."""
    target = lesson.out / lesson.id
    partial = lesson.out / f".{lesson.id}.unfinished" / lesson.id
    shutil.rmtree(partial.parent, ignore_errors=True)
    try:
        write(partial)
        publish(partial, target)
    except OSError as error:
        where = error.filename or lesson.out
        raise InputError(f"{where}: {error.strerror}: free some space, or choose another --out") from None
    shutil.rmtree(partial.parent, ignore_errors=True)
    return target


def judge_themselves(maps: IntegerMaps) -> Threshold:
    """From maps of good pictures, each judged by the others."""
    threshold = set_threshold(Evidence(maps, maps[:0], maps[:0]), RULE, find_meaning(maps.shape[1:]))
    how = f"mean plus {RULE.value:g} standard deviations of the scores of {len(maps)} good pictures"
    return replace(threshold, method=f"{how}, each judged by the others")


def find_meaning(shape: tuple[int, ...]) -> AnomalyMap:
    height, width = shape
    return AnomalyMap((height, width), 2.0**MAP_EXPONENT, max(1, round(TOP_SHARE * height * width)))


def prove(net: IntegerNet, graphs: Graphs, images: Images) -> None:
    """Raises: NotExactError naming the engine that differs."""
    answers = {
        "ONNX Runtime": run_onnxruntime(graphs.model, images),
        "OpenCV": run_opencv(graphs.carried, images),
        "qonnx": run_qonnx(graphs.qonnx, net, images),
    }
    check_parity(run_numpy(net, images), answers)


def describe(lesson: Lesson, backbone: Backbone, how: Preprocess, net: IntegerNet, threshold: Threshold) -> Manifest:
    """The manifest, but for its files and its pictures."""
    words = ["beltsight", "teach", "--product", lesson.product, "--pictures", lesson.pictures.resolve().name]
    return Manifest(
        format=FORMAT,
        id=lesson.id,
        product=lesson.product,
        preprocess=how,
        map=find_meaning(net.shapes()[MAP][1:]),
        threshold=threshold,
        files={},
        cost=summarise_cost(net),
        provenance={
            "command": shlex.join([*words, "--backbone", backbone.folder.name, "--id", lesson.id]),
            "backbone": f"{backbone.manifest.name}, weights {backbone.manifest.weights_sha256}",
            "commit": source_commit(),
        },
    )


def write_card(manifest: Manifest, pictures: int) -> str:
    sections = [
        f"# {manifest.id}\n\nFinds what differs from {pictures} good parts of the product *{manifest.product}*; "
        "nothing was trained. How many defects it finds has not been measured.",
        f"## Threshold\n\nA part is rejected at a score of {manifest.threshold.value:g} or above: "
        f"{manifest.threshold.method}.",
        f"## Licence\n\nIts features are those of a network that others trained: see {LICENCE_TXT}.",
        write_provenance(manifest),
    ]
    return "\n\n".join(sections) + "\n"


def draw_golden(path: Path, how: Preprocess) -> Images:
    """A good frame, and the same with a grey square in the middle."""
    frame = load_frame(path, how)
    marked, (top, left, height, width) = frame.copy(), how.crop_px
    marked[top + height // 3 : top + height // 2, left + width // 3 : left + width // 2] = GREY
    return np.stack([frame, marked])


if __name__ == "__main__":
    sys.exit(run_main(main))
