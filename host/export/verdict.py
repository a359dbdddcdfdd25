"""A verdict for a package that was made before exports gave one.

    scripts/beltsight verdict models/orange-256 --data rendered

judges the package at its own threshold, on the pictures that it was made from, or on rendered parts of belts that no
training was drawn from. Network, golden vectors, threshold and known-bad parts stay as they are.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import onnx

from host.export.card import CARD_MD, insert_verdict, write_provenance
from host.export.challenge import OTHER_BELTS, judge_by
from host.export.examination import examine
from host.export.order import RECIPE_TOML, RENDERED, source_commit
from host.export.renewal import name_data, open_unfinished, rewrite
from host.judging.fitness import judge_fitness
from host.learning.recipe import Rendered, load_recipe
from host.learning.rendered import draw_pictures
from host.pictures.dataset import fill_dataset
from host.pictures.reading import Pictures, digest, list_pictures
from protocol.errors import EXIT_UNFIT, InputError, run_main
from protocol.fitness import Fitness
from protocol.manifest import MODEL_ONNX, Manifest, Package, load_package

PARTS = Rendered(train_parts=128, test_parts=128, belts=4)  # that a model of rendered parts is judged on


def main() -> int:
    parser = argparse.ArgumentParser(prog="beltsight verdict", description="Judge an older model package.")
    parser.add_argument("package", type=Path, help="folder of the package, for example models/orange-256")
    parser.add_argument("--data", required=True, help="the pictures it was made from: their folder, or 'rendered'")
    options = parser.parse_args()
    fitness = judge_again(load_package(options.package), options.data)
    print(f"{options.package} is {fitness.describe()}")
    return EXIT_UNFIT if fitness.grade == "unfit" else 0


def judge_again(package: Package, data: str) -> Fitness:
    """Raises: InputError for other pictures than those that it was made from, or without known-bad parts."""
    recipe, manifest = load_recipe(package.path(RECIPE_TOML)), package.manifest
    if manifest.challenge is None:
        raise InputError(f"{manifest.id} has no known-bad parts: give it some with `beltsight known-bad`, then again")
    with open_unfinished(package) as unfinished:
        pictures = _find_pictures(manifest, recipe.held_out_share, data, unfinished)
        dataset = fill_dataset(pictures, manifest.preprocess)
        figures = examine(
            dataset,
            judge_by(onnx.load(package.path(MODEL_ONNX)), manifest.map),
            manifest.threshold.value,
            manifest.challenge,
            seed=int(manifest.provenance["seed"]),
            is_set_by_defects=recipe.threshold.method == "best-f1",
        )
        fitness = judge_fitness(replace(figures, train_pictures=int(manifest.figures["train_pictures"])))
        judged = _describe(manifest, fitness, data)
        card = insert_verdict(package.path(CARD_MD).read_text(), fitness, manifest.fitness)
        card = card.replace(write_provenance(manifest), write_provenance(judged))
        rewrite(package, unfinished, judged, {CARD_MD: card.encode()}, ("fitness", "provenance", "files"))
    return fitness


def _find_pictures(manifest: Manifest, held_out_share: float, data: str, unfinished: Path) -> Pictures:
    """Rendered good parts are all held out: none of them was trained on."""
    if data == RENDERED:
        folder = unfinished / "pictures"
        draw_pictures(manifest.product, PARTS, OTHER_BELTS, folder, lambda _: None)
        pictures = list_pictures(folder, held_out_share)
        return replace(pictures, train=(), held_out=pictures.good)
    pictures = list_pictures(Path(data), held_out_share)
    if digest([*pictures.train, *pictures.held_out]) != manifest.provenance["data_sha256"]:
        raise InputError(f"{data} holds other pictures than {manifest.id} was made from: give --data those")
    return pictures


def _describe(manifest: Manifest, fitness: Fitness, data: str) -> Manifest:
    words = ["scripts/beltsight", "verdict", manifest.id, "--data", name_data(data)]
    source = {"verdict": shlex.join(words), "verdict_commit": source_commit()}
    return replace(manifest, fitness=fitness, provenance=manifest.provenance | source)


if __name__ == "__main__":
    sys.exit(run_main(main))
