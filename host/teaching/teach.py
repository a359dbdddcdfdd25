"""From a few pictures of good parts to a model package, in seconds: nothing is trained.

    beltsight teach --product bottle --pictures FOLDER
    beltsight teach --product screw --pictures FOLDER --backbone backbones/efficientnet-lite0-320

Takes the backbone that `beltsight backbone` made. Threshold and verdict come from the same pictures: each is judged by
a detector that the others alone have taught.
"""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from board.teaching.bank import MAP_EXPONENT
from board.teaching.certainty import describe_certainty
from board.teaching.inspection import check_exposure, choose_different
from board.teaching.lesson import learn
from board.teaching.store import BANK_NPZ, encode_bank
from board.teaching.whitening import FEATURE_EXPONENT
from host.compiler.cost import summarise_cost, summarise_work
from host.export.calibration import calibrate, draw_calibration
from host.export.card import CARD_MD, write_challenge, write_provenance, write_verdict
from host.export.order import source_commit
from host.export.package import (
    check_engines,
    encode_golden,
    make_golden,
    publish,
    write_files,
    write_graphs,
    write_package,
)
from host.export.telling import say_verdict
from host.integers.arithmetic import IntegerNet
from host.integers.parity import (
    check_parity,
    features_onnxruntime,
)
from host.integers.qdq import write_qdq
from host.judging.fitness import judge_fitness
from host.judging.thresholds import Evidence, ThresholdRule, set_threshold
from host.pictures.inspected import choose_inspected
from host.pictures.reading import Images, digest, load_frame, load_images
from host.teaching.detector import make_detector
from host.teaching.examination import Pupil, choose_known_bad, draw_challenge, examine, score_labelled
from host.teaching.inspection import (
    check_products,
    check_size,
    draw_parts,
    list_pictures,
)
from host.teaching.lite0 import NAME
from host.teaching.make_backbone import BACKBONES, INPUT_PX
from host.teaching.sharpness import choose_top_pixels, paint_defects
from host.teaching.store import LICENCE_TXT, Backbone, load_backbone
from protocol.errors import InputError, run_main
from protocol.known_bad import CHALLENGE_BIN, encode_known_bad
from protocol.manifest import (
    CALIBRATION_JPG,
    FORMAT,
    GOLDEN_NPZ,
    AnomalyMap,
    Golden,
    Manifest,
    Preprocess,
    load_package,
)

SEED, CHOICE_SEED = 0, 1_000_000  # subtle: a choice is not judged by the defects that made it
RULE = ThresholdRule("false-rejects")
GREY = 128
PROOF_PICTURES = 2
CAMERA_PX = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})")


@dataclass(frozen=True)
class Order:
    """What is asked for."""

    product: str
    pictures: Path
    backbone: Path
    out: Path
    id: str
    camera_px: tuple[int, int] | None = None  # (height, width) of the line's frames, where they are known
    parts: int | None = None  # so many of the good pictures teach, drawn by `seed`; None: all
    seed: int = 0
    is_small: bool = False  # without the backbone, which the station then has to have


def main(words: list[str] | None = None) -> int:
    order, started_s = parse_order(sys.argv[1:] if words is None else words), time.monotonic()
    target = make_package(order)
    print((target / CARD_MD).read_text())
    print(f"model package: {target}, taught in {time.monotonic() - started_s:.1f} s")
    return say_verdict(load_package(target).manifest.fitness)


def parse_order(words: list[str]) -> Order:
    """Raises: InputError for an option that cannot be used."""
    parser = argparse.ArgumentParser(prog="beltsight teach", description="A model package from a few good parts.")
    parser.add_argument("--product", required=True, help="name of the product, for example bottle")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of pictures of good parts")
    parser.add_argument(
        "--backbone", type=Path, default=BACKBONES / f"{NAME}-{INPUT_PX}", help="folder of the backbone"
    )
    parser.add_argument("--out", type=Path, default=Path("models"), help="folder of the packages (default: models)")
    parser.add_argument("--id", help="name of the package (default: <product>-taught)")
    parser.add_argument("--camera", help="size of the line's frames, for example 640x480: others are refused")
    parser.add_argument("--parts", type=int, help="of the good pictures so many, drawn by chance (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="number that this choice starts from (default: 0)")
    small = "leave the backbone out: for a station that has it ([engines] backbones)"
    parser.add_argument("--small", action="store_true", help=small)
    options = parser.parse_args(words)
    identity = options.id or f"{options.product}-taught"
    if not identity.replace("-", "").replace("_", "").isalnum():
        raise InputError(f"id {identity!r} must be letters, digits, '-' and '_': correct --id or --product")
    camera_px = parse_camera(options.camera) if options.camera else None
    return Order(
        product=options.product,
        pictures=options.pictures,
        backbone=options.backbone,
        out=options.out,
        id=identity,
        camera_px=camera_px,
        parts=options.parts,
        seed=options.seed,
        is_small=options.small,
    )


def parse_camera(words: str) -> tuple[int, int]:
    """(height, width). Raises: InputError.

    >>> parse_camera("640x480")
    (480, 640)
    """
    sides = CAMERA_PX.fullmatch(words)
    if not sides:
        raise InputError(f"--camera {words!r} is no size: give width and height like 640x480")
    return int(sides[2]), int(sides[1])


def make_package(order: Order) -> Path:
    """The package's folder. Raises: InputError for pictures that cannot teach; NotExactError, UnsupportedError."""
    cv2.setNumThreads(1)
    backbone = load_backbone(order.backbone)
    pictures = list_pictures(order.pictures)
    paths = draw_parts(pictures.good, order.parts, order.seed)
    labelled_paths = (*pictures.test_good, *pictures.defective)
    how = choose_inspected(paths, labelled_paths, backbone.files.manifest.input_px, is_square=True).how
    check_size(order.pictures, how, order.camera_px)
    images = load_images(paths, how)
    check_exposure(paths, images)
    chosen = choose_different(str(order.pictures), images)
    paths, images = [paths[number] for number in chosen], images[chosen]
    pupil = teach(backbone, paths, images, how)
    net = make_detector(backbone.net, pupil.lesson.detector)
    made_of = choose_known_bad(pupil, SEED)
    known_bad, challenge = draw_challenge(pupil, [load_frame(paths[number], how) for number in made_of], SEED)
    labelled = score_labelled(pupil, pictures.test_good, pictures.defective)
    fitness = judge_fitness(examine(pupil, known_bad, made_of, labelled, SEED))
    manifest = describe(order, backbone, pupil, net, paths)
    manifest = replace(manifest, challenge=challenge, fitness=fitness, figures=labelled.measure())
    extra = {
        CARD_MD: write_card(manifest, pupil).encode(),
        CALIBRATION_JPG: draw_calibration(images),
        CHALLENGE_BIN: encode_known_bad(known_bad.goods, known_bad.bad),
        LICENCE_TXT: backbone.licence.encode(),
    }
    golden = make_golden(draw_golden(paths[0], how), how, net)
    if order.is_small:
        return appear(order, write_small(backbone, pupil, manifest, golden, extra))
    return appear(order, write_whole(net, pupil, manifest, golden, extra))


def write_whole(
    net: IntegerNet, pupil: Pupil, manifest: Manifest, golden: Golden, extra: dict[str, bytes]
) -> Callable[[Path], None]:
    """What fills the package's folder. Raises: NotExactError, UnsupportedError."""
    graphs = write_graphs(net)
    check_engines(net, graphs, pupil.images[:PROOF_PICTURES])
    return lambda folder: write_package(folder, manifest, graphs, golden, extra)


def write_small(
    backbone: Backbone, pupil: Pupil, manifest: Manifest, golden: Golden, extra: dict[str, bytes]
) -> Callable[[Path], None]:
    """What fills the folder of a package without the network. Raises: NotExactError."""
    detector = pupil.lesson.detector
    check_parity(golden.maps, {"a station's NumPy": detector.judge(pupil.describe(golden.images))})
    own = {BANK_NPZ: encode_bank(detector, backbone.files.sha256), GOLDEN_NPZ: encode_golden(golden)}
    return lambda folder: write_files(folder, manifest, own | extra)


def teach(backbone: Backbone, paths: list[Path], images: Images, how: Preprocess) -> Pupil:
    """Raises: InputError for pictures of two products."""
    describe_images = partial(features_onnxruntime, write_qdq(backbone.net))
    features = describe_images(images)
    check_products(paths, features)
    lesson = learn(features, FEATURE_EXPONENT, np.random.default_rng(SEED))
    scale = 2.0**MAP_EXPONENT
    painted = paint_defects(lesson, images, describe_images, CHOICE_SEED)
    top_pixels = choose_top_pixels(lesson, painted, scale)
    meaning = AnomalyMap((lesson.maps.shape[1], lesson.maps.shape[2]), scale, top_pixels)
    synthetic = np.concatenate([painted.small, painted.large])
    threshold = set_threshold(Evidence(lesson.maps, synthetic, lesson.maps[:0]), RULE, meaning)
    return Pupil(lesson, images, how, meaning, threshold, describe_images)


def appear(order: Order, write: Callable[[Path], None]) -> Path:
    """The package's folder, which is there whole or not at all. Raises: InputError."""
    target = order.out / order.id
    partial = order.out / f".{order.id}.unfinished" / order.id
    shutil.rmtree(partial.parent, ignore_errors=True)
    try:
        write(partial)
        publish(partial, target)
    except OSError as error:
        where = error.filename or order.out
        raise InputError(f"{where}: {error.strerror}: free some space, or choose another --out") from None
    shutil.rmtree(partial.parent, ignore_errors=True)
    return target


def describe(order: Order, backbone: Backbone, pupil: Pupil, net: IntegerNet, paths: list[Path]) -> Manifest:
    """The manifest, but for its files and what it is judged by."""
    words = ["beltsight", "teach", "--product", order.product, "--pictures", order.pictures.resolve().name]
    words += ["--parts", str(order.parts), "--seed", str(order.seed)] if order.parts else []
    return Manifest(
        format=FORMAT,
        id=order.id,
        product=order.product,
        preprocess=pupil.how,
        map=pupil.meaning,
        threshold=pupil.threshold,
        files={},
        cost=summarise_work(net) if order.is_small else summarise_cost(net),
        provenance={
            "command": shlex.join([*words, "--backbone", backbone.files.folder.name, "--id", order.id]),
            "backbone": f"{backbone.files.manifest.name}, weights {backbone.files.manifest.weights_sha256}",
            "commit": source_commit(),
            "data_sha256": digest(paths),
        },
        calibration=calibrate(pupil.images, pupil.scores, pupil.threshold.value),
    )


def write_card(manifest: Manifest, pupil: Pupil) -> str:
    threshold, challenge, pictures = manifest.threshold, manifest.challenge, len(pupil.images)
    certainty = describe_certainty(pupil.count_rejected(pupil.scores).part, pictures)
    auroc = manifest.figures.get("image_auroc")
    measured = "" if auroc is None else f"\n\nImage AUROC on the labelled pictures, which set nothing: {auroc:.4f}."
    sections = [
        f"# {manifest.id}\n\n{write_verdict(manifest.fitness)}",
        f"Finds what differs from {pictures} good parts of the product *{manifest.product}*; nothing was trained. The "
        f"verdict comes from defects that were painted on these pictures, each as if it had not taught.{measured}",
        f"## Threshold\n\nA part is rejected at a score of {threshold.value:g} or above: {threshold.method}.\n\n"
        f"In plain words: {certainty}.",
        *([write_challenge(challenge)] if challenge else []),
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
