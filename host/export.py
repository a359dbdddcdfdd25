"""From pictures of good parts to a model package.

    python -m host.export --product orange --data rendered
    python -m host.export --product bottle --data mvtec-bottle --recipe wide.toml --out models --seed 1

Interrupted, the same command goes on where it stopped. The package appears by one rename or not at all.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from host.card import CARD_MD, HEATMAPS_PNG, draw_heatmaps, write_card
from host.checkpoint import Checkpoint
from host.compiler.compilation import compile_net
from host.dataset import Dataset, load_dataset
from host.integers import MAP, IntegerNet, costs
from host.measurement import measure
from host.package import Graphs, make_golden, publish, write_graphs, write_package
from host.parity import check_parity, run_numpy, run_onnxruntime, run_opencv, run_qonnx
from host.pictures import Images, Pictures, digest, load_frame
from host.quantization import extract
from host.recipe import Recipe, load_recipe
from host.rendered import REPOSITORY, draw_pictures
from host.synthetic import Sources, add_defects
from host.textures import make_bank
from host.training import Trainer, infer
from host.untrained import make_untrained
from protocol.errors import InputError, run_main
from protocol.manifest import FORMAT, AnomalyMap, Manifest

RENDERED = "rendered"
PARITY_PICTURES = 32
GOLDEN_FRAMES = 3
HEATMAPS = 8
INTERRUPTED = 130  # what shells report for a command that Ctrl-C ended


@dataclass(frozen=True)
class Order:
    """What was asked for."""

    product: str
    data: str  # a folder, or "rendered"
    recipe: Recipe
    out: Path
    id: str
    seed: int

    @property
    def target(self) -> Path:
        return self.out / self.id

    @property
    def unfinished(self) -> Path:
        """What an interrupted export leaves, on the same file system as the package."""
        return self.out / f".{self.id}.unfinished"


@dataclass(frozen=True)
class Trained:
    """The network as integers, and its float ancestor's maps of the test pictures for comparison."""

    integers: IntegerNet
    float_test_maps: NDArray[np.float32]


def main() -> int:
    try:
        with _open_progress() as progress:
            order = _parse(sys.argv[1:])
            target = export(order, progress)
    except KeyboardInterrupt:
        print("beltsight: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return INTERRUPTED
    print((target / CARD_MD).read_text().split("\n![", maxsplit=1)[0])
    print(f"\nmodel package: {target}")
    return 0


def export(order: Order, progress: Progress) -> Path:
    """The finished package's folder. Raises: InputError for pictures or settings that cannot be used."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _check_out(order.out)
    _check_program(order.recipe)
    dataset = load_dataset(_find_folder(order, progress), order.recipe.held_out_share, order.recipe.input_px)
    trained = train(order, dataset, progress)
    graphs = write_graphs(trained.integers)
    _check_engines(trained.integers, graphs, dataset.held_out[:PARITY_PICTURES])
    manifest = describe(order, dataset, trained, graphs)
    package = order.unfinished / "package"
    shutil.rmtree(package, ignore_errors=True)
    golden = make_golden(_golden_frames(dataset, order.seed), dataset.how, trained.integers)
    card = write_card(manifest, order.recipe.description, costs(trained.integers)).encode()
    heatmaps = _draw_examples(dataset, graphs, manifest.map.scale)
    write_package(package, manifest, graphs, golden, {CARD_MD: card, HEATMAPS_PNG: heatmaps})
    publish(package, order.target)
    shutil.rmtree(order.unfinished)
    return order.target


def train(order: Order, dataset: Dataset, progress: Progress) -> Trained:
    """Float training, then finetuning as if quantized; goes on from the last checkpoint of the same order."""
    recipe = order.recipe
    trainer = Trainer(dataset.train, recipe, order.seed, Checkpoint(order.unfinished, _fingerprint(order, dataset)))
    task = progress.add_task("train", total=recipe.float_steps)
    net = trainer.train_float(lambda step: progress.update(task, completed=step))
    task = progress.add_task("quantize", total=recipe.quantized_steps)
    quantized = trainer.train_quantized(net, lambda step: progress.update(task, completed=step))
    integers = extract(quantized, dataset.how.input_px)
    return Trained(integers, infer(net, dataset.test))


def describe(order: Order, dataset: Dataset, trained: Trained, graphs: Graphs) -> Manifest:
    """The manifest, but for its files."""
    exponent, (_, *shape) = trained.integers.exponents()[MAP], trained.integers.shapes()[MAP]
    meaning = AnomalyMap((shape[0], shape[1]), 2.0**exponent, min(order.recipe.top_pixels, shape[0] * shape[1]))
    measured = measure(graphs.model, trained.float_test_maps, dataset, meaning, order.recipe.threshold)
    layer_costs = costs(trained.integers)
    return Manifest(
        format=FORMAT,
        id=order.id,
        product=order.product,
        preprocess=dataset.how,
        map=meaning,
        threshold=measured.threshold,
        files={},
        cost={
            "macs": sum(cost.macs for cost in layer_costs),
            "weight_bytes": sum(cost.weight_bytes for cost in layer_costs),
        },
        figures=measured.figures,
        provenance=_provenance(order, dataset.pictures),
    )


def _check_out(out: Path) -> None:
    """Better now than after the training."""
    there = next(path for path in (out, *out.resolve().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise InputError(f"{there} is no folder that can be written: choose another --out")


def _check_program(recipe: Recipe) -> None:
    """Raises: UnsupportedError if the overlay cannot run a network of this shape: also better now."""
    compile_net(make_untrained(recipe.widths, (recipe.input_px, recipe.input_px)))


def _check_engines(net: IntegerNet, graphs: Graphs, images: Images) -> None:
    answers = {
        "ONNX Runtime": run_onnxruntime(graphs.model, images),
        "OpenCV": run_opencv(graphs.carried, images),
        "qonnx": run_qonnx(graphs.qonnx, net, images),
    }
    check_parity(run_numpy(net, images), answers)


def _golden_frames(dataset: Dataset, seed: int) -> Images:
    """One good frame, then the same with painted defects, so that the maps have something to say."""
    frame = load_frame(dataset.pictures.held_out[0], dataset.how)
    sources = Sources(make_bank(np.random.default_rng(seed)), dataset.train)
    top, left, side, _ = dataset.how.crop_px
    frames = [frame]
    for number in range(1, GOLDEN_FRAMES):
        crop = np.asarray(frame[top : top + side, left : left + side] / 255, np.float32)
        middle = np.zeros((side, side), np.uint8)
        middle[side // 3 : -side // 3, side // 3 : -side // 3] = 1
        changed, _ = add_defects(crop, middle, sources, np.random.default_rng([seed, number]))
        frames.append(frame.copy())
        frames[-1][top : top + side, left : left + side] = np.round(changed * 255).astype(np.uint8)
    return np.stack(frames)


def _draw_examples(dataset: Dataset, graphs: Graphs, scale: float) -> bytes:
    """Of labelled test pictures evenly, else of held-out good ones."""
    labelled = dataset.has_test
    images = dataset.test if labelled else dataset.held_out
    masks = dataset.masks if labelled else np.zeros(images.shape[:3], np.bool_)
    chosen = np.linspace(0, len(images) - 1, HEATMAPS).astype(int)
    maps = run_onnxruntime(graphs.model, images[chosen]).astype(np.float32) * np.float32(scale)
    return draw_heatmaps(images[chosen], maps, masks[chosen])


def _find_folder(order: Order, progress: Progress) -> Path:
    if order.data != RENDERED:
        return Path(order.data)
    how = order.recipe.rendered
    task = progress.add_task("draw parts", total=how.train_parts + how.test_parts)
    folder = order.unfinished / f"pictures-{_digest(order.product, order.seed, asdict(how))[:16]}"
    order.unfinished.mkdir(parents=True, exist_ok=True)
    draw_pictures(order.product, how, order.seed, folder, lambda drawn: progress.update(task, completed=drawn))
    progress.update(task, completed=how.train_parts + how.test_parts)
    return folder


def _fingerprint(order: Order, dataset: Dataset) -> str:
    return _digest(asdict(order.recipe), order.seed, digest(dataset.pictures.train))


def _digest(*values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _provenance(order: Order, pictures: Pictures) -> dict[str, str]:
    """What it takes to make the package again; folders by their names, since they lie elsewhere on other machines."""
    data = order.data if order.data == RENDERED else Path(order.data).resolve().name
    return {
        "command": shlex.join(
            ["scripts/export.sh", "--product", order.product, "--data", data, "--seed", str(order.seed)]
        ),
        "data": data,
        "data_sha256": digest([*pictures.train, *pictures.held_out]),
        "seed": str(order.seed),
        "commit": _commit(),
        "recipe": json.dumps(asdict(order.recipe), sort_keys=True),
    }


def _commit() -> str:
    """The source's commit, marked where files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"


def _parse(words: list[str]) -> Order:
    parser = argparse.ArgumentParser(prog="scripts/export.sh", description="Make a model package from good pictures.")
    parser.add_argument("--product", required=True, help="name of the product, for example orange")
    parser.add_argument("--data", required=True, help="folder of pictures, or 'rendered' for drawn parts")
    parser.add_argument("--recipe", type=Path, help="TOML file of settings (host/recipe.py lists them)")
    parser.add_argument("--out", type=Path, default=Path("models"), help="folder of the packages (default: models)")
    parser.add_argument("--id", help="name of the package (default: <product>-<input size>)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(words)
    recipe = load_recipe(options.recipe) if options.recipe else Recipe()
    identity = options.id or f"{options.product}-{recipe.input_px}"
    if not identity.replace("-", "").replace("_", "").isalnum():
        raise InputError(f"id {identity!r} must be letters, digits, '-' and '_': correct --id or --product")
    if not 0 <= options.seed < 1000:
        raise InputError(f"seed {options.seed} is outside 0..999: correct --seed")
    return Order(options.product, options.data, recipe, options.out, identity, options.seed)


def _open_progress() -> Progress:
    columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


if __name__ == "__main__":
    sys.exit(run_main(main))
