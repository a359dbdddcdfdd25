"""Frames of known-bad parts for a package: what its line must go on rejecting.

    scripts/beltsight known-bad models/orange-256 --data rendered

gives them to a package that was made without any; network, golden vectors and threshold stay as they are. Made on
held-out good pictures that the model accepts: defects of the training's own generator, and of kinds that no training
sees. Real ones come from the folder `validation/<kind>` of the pictures. Test pictures are never among them.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray

from board.preprocess import preprocess
from host.export.card import CARD_MD, insert_challenge
from host.export.order import RECIPE_TOML, RENDERED, source_commit
from host.export.renewal import name_data, open_unfinished, rewrite
from host.integers.parity import run_onnxruntime
from host.judging.thresholds import score_maps
from host.learning.heldout import DEFECTS, FEWEST_VISIBLE_PX, MOST_TRIES, draw_defect
from host.learning.recipe import Rendered, load_recipe
from host.learning.rendered import draw_pictures
from host.learning.synthetic import Sources, add_defects
from host.learning.textures import make_bank
from host.pictures.objectmask import find_object
from host.pictures.reading import Images, Pictures, digest, list_pictures, load_frame, load_images
from protocol.errors import InputError, run_main
from protocol.known_bad import CHALLENGE_BIN, encode_known_bad
from protocol.manifest import MODEL_ONNX, AnomalyMap, Challenge, Manifest, Package, Preprocess, load_package
from protocol.pictures.layout import Picture

GENERATOR = "generator"  # the kind of defects that training has seen
OF_GENERATOR, OF_EACH_KIND, MOST_REAL = 8, 2, 4
FEW_PARTS = Rendered(train_parts=64, test_parts=4, belts=4)
OTHER_BELTS = 998  # a seed that exports seldom have
SEEDS = 1000
GOODS_PX = 4 << 16  # of all good frames together, at least one: they are nine tenths of the file

Judge = Callable[[Images], NDArray[np.float64]]
"""Scores (n,) of the network's images uint8 (n, h, w, 3)."""


@dataclass(frozen=True)
class KnownBad:
    """Frames uint8 (H, W, 3); `bad[i]` was made of `goods[i % len(goods)]` and is of the kind `kinds[i]`."""

    goods: list[Images]
    bad: list[Images]
    kinds: list[str]


def make_challenge(
    pictures: Pictures, how: Preprocess, judge: Judge, threshold: float, seed: int
) -> tuple[Challenge, bytes]:
    """What the manifest says of them, and the file. `threshold` is the package's own."""
    held_out = load_images(pictures.held_out, how)
    chosen = choose_goods(judge(held_out), how, threshold, seed)
    goods = [load_frame(pictures.held_out[index], how) for index in chosen]
    known_bad = draw_known_bad(goods, Sources(make_bank(seed), held_out), how, seed)
    known_bad = add_real(known_bad, pictures.validation, how)
    scores = judge(np.stack([preprocess(frame, how) for frame in known_bad.bad]))
    found, frames = int((scores >= threshold).sum()), len(known_bad.bad)
    challenge = Challenge(frames, len(known_bad.goods), dict(Counter(known_bad.kinds)), found, found / frames)
    return challenge, encode_known_bad(known_bad.goods, known_bad.bad)


def judge_by(model: onnx.ModelProto, meaning: AnomalyMap) -> Judge:
    """By the exported graph."""
    return lambda images: score_maps(run_onnxruntime(model, images), meaning)


def draw_known_bad(goods: list[Images], sources: Sources, how: Preprocess, seed: int) -> KnownBad:
    originals = [preprocess(good, how) for good in goods]
    kinds = [GENERATOR] * OF_GENERATOR + [kind for kind in DEFECTS for _ in range(OF_EACH_KIND)]
    bad = []
    for number, kind in enumerate(kinds):
        rng, original = np.random.default_rng([seed, number]), originals[number % len(goods)]
        changed = _draw_generated(original, sources, rng) if kind == GENERATOR else draw_defect(kind, original, rng)
        bad.append(_paint(goods[number % len(goods)], changed.astype(np.int16) - original, how))
    return KnownBad(goods, bad, kinds)


def add_real(known_bad: KnownBad, pictures: Sequence[Picture], how: Preprocess) -> KnownBad:
    """With some of the labelled pictures that are not for testing, evenly chosen."""
    if not pictures:
        return known_bad
    chosen = [pictures[index] for index in sorted({*np.linspace(0, len(pictures) - 1, MOST_REAL).astype(int)})]
    frames, kinds = [load_frame(one.path, how) for one in chosen], [f"real {one.kind}" for one in chosen]
    return KnownBad(known_bad.goods, known_bad.bad + frames, known_bad.kinds + kinds)


def choose_goods(scores: NDArray[np.float64], how: Preprocess, threshold: float, seed: int) -> list[int]:
    """Of the pictures that the model accepts: one that it rejects anyway would prove nothing."""
    accepted = np.flatnonzero(scores < threshold)
    if not accepted.size:
        accepted = np.argsort(scores)[:1]
    height, width = how.frame_px
    count = min(max(1, GOODS_PX // (height * width)), int(accepted.size))
    return [int(index) for index in np.random.default_rng(seed).choice(accepted, count, replace=False)]


def _draw_generated(original: Images, sources: Sources, rng: np.random.Generator) -> Images:
    part, good = find_object(original), np.asarray(original / 255, np.float32)
    for _ in range(MOST_TRIES):
        changed, label = add_defects(good, part, sources, rng)
        if (label == 1).sum() >= FEWEST_VISIBLE_PX:
            break
    return np.round(changed * 255).astype(np.uint8)


def _paint(frame: Images, change: NDArray[np.int16], how: Preprocess) -> Images:
    """The frame with a change of the network's image, int16 (h, w, 3), enlarged to the crop."""
    top, left, height, width = how.crop_px
    enlarged = cv2.resize(change.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    painted: Images = frame.copy()
    crop = painted[top : top + height, left : left + width]
    crop[:] = np.round(np.clip(crop + enlarged, 0, 255)).astype(np.uint8)
    return painted


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="beltsight known-bad", description="Give a model package frames of known-bad parts."
    )
    parser.add_argument("package", type=Path, help="folder of the package, for example models/orange-256")
    parser.add_argument("--data", required=True, help="the pictures it was made from: their folder, or 'rendered'")
    parser.add_argument("--seed", type=int, default=0, help="number that the random choices start from (default: 0)")
    options = parser.parse_args()
    if not 0 <= options.seed < SEEDS:
        raise InputError(f"--seed must be 0..{SEEDS - 1}: correct it")
    challenge = renew(load_package(options.package), options.data, options.seed)
    print(f"{options.package} finds {challenge.found} of {challenge.frames} known-bad parts")
    return 0


def renew(package: Package, data: str, seed: int) -> Challenge:
    """Give the package its frames; those that it had are replaced. Raises: InputError for other pictures."""
    with open_unfinished(package) as unfinished:
        pictures = _find_pictures(package, data, unfinished)
        challenge, packed = _draw_challenge(package, pictures, seed)
        manifest = _describe(package.manifest, challenge, data, seed)
        card = insert_challenge(package.path(CARD_MD).read_text(), manifest)
        changed = {CHALLENGE_BIN: packed, CARD_MD: card.encode()}
        rewrite(package, unfinished, manifest, changed, ("challenge", "provenance", "files"))
    return challenge


def _find_pictures(package: Package, data: str, unfinished: Path) -> Pictures:
    """Those that the package was made from, or rendered parts of belts that no training was drawn from."""
    recipe = load_recipe(package.path(RECIPE_TOML))
    if data == RENDERED:
        folder = unfinished / "pictures"
        draw_pictures(package.manifest.product, FEW_PARTS, OTHER_BELTS, folder, lambda _: None)
        return list_pictures(folder, recipe.held_out_share)
    pictures = list_pictures(Path(data), recipe.held_out_share)
    if digest([*pictures.train, *pictures.held_out]) != package.manifest.provenance["data_sha256"]:
        raise InputError(f"{data} holds other pictures than {package.manifest.id} was made from: give --data those")
    return pictures


def _draw_challenge(package: Package, pictures: Pictures, seed: int) -> tuple[Challenge, bytes]:
    manifest = package.manifest
    judge = judge_by(onnx.load(package.path(MODEL_ONNX)), manifest.map)
    return make_challenge(pictures, manifest.preprocess, judge, manifest.threshold.value, seed)


def _describe(manifest: Manifest, challenge: Challenge, data: str, seed: int) -> Manifest:
    words = ["scripts/beltsight", "known-bad", manifest.id, "--data", name_data(data), "--seed", str(seed)]
    source = {"challenge": shlex.join(words), "challenge_commit": source_commit()}
    return replace(manifest, challenge=challenge, provenance=manifest.provenance | source)


if __name__ == "__main__":
    sys.exit(run_main(main))
