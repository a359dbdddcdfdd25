"""From pictures of good parts to a model package.

    beltsight export --product orange --data rendered
    beltsight export --product bottle --data mvtec-bottle --recipe wide.toml --out models --seeds 0,1,2

Interrupted, the same command goes on where it stopped. The package appears by one rename or not at all. Exit code 3: it
is there to be looked at, but unfit to judge parts, and its card says why.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import torch
from rich.progress import Progress

from host.compiler.compilation import compile_net
from host.compiler.cost import check_cost, summarise_cost, write_cost_table
from host.export.calibration import draw_calibration
from host.export.card import CARD_MD, HEATMAPS_PNG, INSPECTED_JPG, draw_heatmaps, write_card
from host.export.challenge import judge_by, make_challenge
from host.export.examination import examine
from host.export.measurement import Measurement, measure
from host.export.order import (
    RECIPE_TOML,
    RENDERED,
    Order,
    check_order,
    claim,
    describe_provenance,
    fingerprint,
    hash_values,
    parse_order,
)
from host.export.package import check_engines, make_golden, publish, write_graphs, write_package
from host.export.seeds import combine_figures
from host.export.telling import say_verdict
from host.export.untrained import make_untrained
from host.integers.arithmetic import MAP, IntegerNet, costs
from host.integers.parity import run_onnxruntime
from host.integers.qdq import write_qdq
from host.judging.fitness import judge_fitness
from host.judging.thresholds import check_rule
from host.learning.checkpoint import Checkpoint
from host.learning.quantization import extract
from host.learning.recipe import Recipe, encode_recipe
from host.learning.rendered import draw_pictures
from host.learning.synthetic import Sources, add_defects
from host.learning.teacher import Teacher, load_teacher
from host.learning.textures import make_bank
from host.learning.training import Trainer, infer
from host.learning.traits import doubt_traits, find_traits, tell_traits
from host.pictures.alike import tell_alike
from host.pictures.dataset import Dataset, load_dataset, tell_missed
from host.pictures.inspected import draw_inspected, mask_ignored
from host.pictures.outliers import name_outliers
from host.pictures.reading import Images, digest, load_frame
from host.pictures.recorded import list_recordings, unpack_good
from host.progress import open_progress
from protocol.errors import InputError, run_resumable
from protocol.known_bad import CHALLENGE_BIN
from protocol.manifest import CALIBRATION_JPG, FORMAT, AnomalyMap, Manifest, load_package

PARITY_PICTURES = 32
GOLDEN_FRAMES = 3
HEATMAPS = 8
SHOWN_PX = 480  # longest side of the frame in the card


@dataclass(frozen=True)
class Trained:
    """One seed's network as integers, and how it measures."""

    integers: IntegerNet
    meaning: AnomalyMap
    measured: Measurement


def main() -> int:
    try:
        with open_progress() as progress:
            target = export(parse_order(sys.argv[1:]), progress)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise InputError(
            f"{where}{error.strerror or error}: put that right (free space, permissions); the same command goes on "
            "where it stopped"
        ) from None
    print((target / CARD_MD).read_text().split("\n![", maxsplit=1)[0])
    print(f"\nmodel package: {target}")
    return say_verdict(load_package(target).manifest.fitness)


def export(order: Order, progress: Progress) -> Path:
    """The finished package's folder. Raises: InputError for pictures or settings that cannot be used."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    check_order(order)
    with claim(order):
        return _make(order, progress)


def _make(order: Order, progress: Progress) -> Path:
    progress.console.print(check_shape(order.recipe), markup=False, highlight=False, soft_wrap=True)
    teacher = load_teacher(order.backbone_weights) if order.backbone_weights is not None else None
    dataset = load_dataset(_find_folder(order, progress), order.recipe.held_out_share, order.recipe.input_px)
    check_rule(order.recipe.threshold, len(dataset.validation))
    traits = find_traits(dataset.train)
    dataset = replace(dataset, report=(*dataset.report, tell_traits(traits)))
    for line in dataset.report:
        progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
    # the belt draws nothing that is strange
    remarks = [*find_remarks(dataset), *doubt_traits(traits)] if order.data != RENDERED else []
    for remark in remarks:
        progress.console.print(f"warning: {remark}", markup=False, highlight=False, soft_wrap=True)
    trained = [train(order, seed, dataset, teacher, progress) for seed in order.seeds]
    graphs = write_graphs(trained[0].integers)
    check_engines(trained[0].integers, graphs, dataset.held_out[:PARITY_PICTURES])
    judge = judge_by(graphs.model, trained[0].meaning)
    threshold = trained[0].measured.threshold.value
    challenge, known_bad = make_challenge(dataset.pictures, dataset.how, judge, threshold, order.seed)
    is_set_by_defects = order.recipe.threshold.method == "best-f1"
    figures = examine(dataset, judge, threshold, challenge, seed=order.seed, is_set_by_defects=is_set_by_defects)
    manifest = replace(describe(order, dataset, trained), challenge=challenge, fitness=judge_fitness(figures))
    golden = make_golden(draw_golden_frames(dataset, order.seed), dataset.how, trained[0].integers)
    table = write_cost_table(trained[0].integers)
    extra = {
        CARD_MD: write_card(manifest, order.recipe.description, table, remarks, dataset.report).encode(),
        INSPECTED_JPG: draw_frame(dataset),
        HEATMAPS_PNG: draw_examples(dataset, graphs.model, manifest.map.scale),
        RECIPE_TOML: encode_recipe(order.recipe).encode(),
        CALIBRATION_JPG: draw_calibration(dataset.held_out),
        CHALLENGE_BIN: known_bad,
    }
    package = order.unfinished / "package"
    shutil.rmtree(package, ignore_errors=True)
    write_package(package, manifest, graphs, golden, extra)
    publish(package, order.target)
    shutil.rmtree(order.unfinished)
    return order.target


def train(order: Order, seed: int, dataset: Dataset, teacher: Teacher | None, progress: Progress) -> Trained:
    """Float training, then finetuning as if quantized; goes on from the last checkpoint of the same order."""
    recipe = order.recipe
    checkpoint = Checkpoint(order.unfinished / f"seed-{seed}", fingerprint(order, seed, dataset.pictures, dataset.how))
    trainer = Trainer(dataset.train, recipe, seed, checkpoint, teacher=teacher, ignored=mask_ignored(dataset.how))
    task = progress.add_task(_name_task("train", order, seed), total=recipe.float_steps)
    net = trainer.train_float(lambda step: progress.update(task, completed=step))
    task = progress.add_task(_name_task("quantize", order, seed), total=recipe.quantized_steps)
    quantized = trainer.train_quantized(net, lambda step: progress.update(task, completed=step))
    integers = extract(quantized, dataset.how.input_px)
    _, *shape = integers.shapes()[MAP]
    top_pixels = min(recipe.top_pixels, shape[0] * shape[1])
    meaning = AnomalyMap((shape[0], shape[1]), 2.0 ** integers.exponents()[MAP], top_pixels)
    measured = measure(write_qdq(integers), infer(net, dataset.test), dataset, meaning, recipe)
    return Trained(integers, meaning, measured)


def describe(order: Order, dataset: Dataset, trained: Sequence[Trained]) -> Manifest:
    """The manifest of the first seed's network, but for its files."""
    shipped = trained[0]
    return Manifest(
        format=FORMAT,
        id=order.id,
        product=order.product,
        preprocess=dataset.how,
        map=shipped.meaning,
        threshold=shipped.measured.threshold,
        files={},
        cost=summarise_cost(shipped.integers),
        figures=combine_figures([one.measured.figures for one in trained]),
        provenance=describe_provenance(order, dataset.pictures),
        calibration=shipped.measured.calibration,
    )


def check_shape(recipe: Recipe) -> str:
    """The cost table. Raises: UnsupportedError or InputError for a network that is too large: also better now."""
    untrained = make_untrained(recipe.widths, (recipe.input_px, recipe.input_px))
    compile_net(untrained)
    check_cost(costs(untrained), untrained.input_px)
    return write_cost_table(untrained)


def find_remarks(dataset: Dataset) -> list[str]:
    """What a person should look at before trusting the model; nothing of it stops the export."""
    pictures = dataset.pictures
    good = [*pictures.train, *pictures.held_out]
    remarks = [name_outliers(good, np.concatenate([dataset.train, dataset.held_out]))]
    remarks += [*pictures.doubts, *tell_missed(dataset), *tell_alike(dataset.split())]
    if len(dataset.test) and not dataset.has_test:
        missing = "good" if dataset.defective.all() else "defective"
        remarks.append(f"among the test pictures are no {missing} ones: nothing can be measured on them")
    return [remark for remark in remarks if remark]


def draw_golden_frames(dataset: Dataset, seed: int) -> Images:
    """One good frame, then the same with painted defects, so that the maps have something to say."""
    frame = load_frame(dataset.pictures.held_out[0], dataset.how)
    sources = Sources(make_bank(seed), dataset.train)
    top, left, height, width = dataset.how.crop_px
    frames = [frame]
    for number in range(1, GOLDEN_FRAMES):
        crop = np.asarray(frame[top : top + height, left : left + width] / 255, np.float32)
        middle = np.zeros((height, width), np.uint8)
        middle[height // 3 : -height // 3, width // 3 : -width // 3] = 1
        changed, _ = add_defects(crop, middle, sources, np.random.default_rng([seed, number]))
        frames.append(frame.copy())
        frames[-1][top : top + height, left : left + width] = np.round(changed * 255).astype(np.uint8)
    return np.stack(frames)


def draw_frame(dataset: Dataset) -> bytes:
    """JPEG of a good frame, pale where nothing is looked at."""
    frame = draw_inspected(load_frame(dataset.pictures.held_out[0], dataset.how), dataset.how)
    scale = min(1.0, SHOWN_PX / max(frame.shape))
    size = (max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale)))
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR))[1].tobytes()


def draw_examples(dataset: Dataset, model: onnx.ModelProto, scale: float) -> bytes:
    """Of labelled test pictures evenly, else of held-out good ones."""
    labelled = dataset.has_test
    images = dataset.test if labelled else dataset.held_out
    masks_of = dataset.inspected_masks
    chosen = np.linspace(0, len(images) - 1, HEATMAPS).astype(int)
    masks = [masks_of[index] if labelled else np.zeros(images.shape[1:3], np.bool_) for index in chosen]
    maps = run_onnxruntime(model, images[chosen]).astype(np.float32) * np.float32(scale)
    return draw_heatmaps(images[chosen], maps, masks)


def _find_folder(order: Order, progress: Progress) -> Path:
    """Of pictures; those of recordings and rendered parts are written first."""
    if order.data != RENDERED:
        recordings = list_recordings(Path(order.data))
        if not recordings:
            return Path(order.data)
        folder = order.unfinished / f"pictures-{digest(recordings)[:16]}"
        order.unfinished.mkdir(parents=True, exist_ok=True)
        unpack_good(Path(order.data), folder)
        return folder
    how = order.recipe.rendered
    task = progress.add_task("draw parts", total=how.train_parts + how.test_parts)
    folder = order.unfinished / f"pictures-{hash_values(order.product, order.seed, asdict(how))[:16]}"
    order.unfinished.mkdir(parents=True, exist_ok=True)
    draw_pictures(order.product, how, order.seed, folder, lambda drawn: progress.update(task, completed=drawn))
    progress.update(task, completed=how.train_parts + how.test_parts)
    return folder


def _name_task(phase: str, order: Order, seed: int) -> str:
    return f"{phase} {seed}" if len(order.seeds) > 1 else phase


if __name__ == "__main__":
    sys.exit(run_resumable(main))
