"""One training that is judged without test pictures: by defects of other kinds on held-out good pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from host.export.order import hash_values
from host.judging.evaluation import image_auroc
from host.learning.checkpoint import Checkpoint
from host.learning.heldout import Images, draw_heldout
from host.learning.recipe import Recipe
from host.learning.training import Trainer, infer
from host.pictures.inspected import choose_inspected
from host.pictures.reading import digest, list_pictures, load_images

PER_KIND = 60
DEFECTS_SEED = 7  # the same held-out defects in every trial


@dataclass(frozen=True)
class Field:
    """Good pictures to train on, held-out ones, and those with defects by kind; uint8 (n, h, w, 3)."""

    train: Images
    held_out: Images
    defects: dict[str, Images]
    digest: str  # of the pictures


def load_field(folder: Path, recipe: Recipe) -> Field:
    """Raises: InputError for a folder or pictures that cannot be used."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    pictures = list_pictures(folder, recipe.held_out_share)
    how = choose_inspected(pictures.good, pictures.labelled, recipe.input_px, pictures.ignore).how
    held_out = load_images(pictures.held_out, how)
    defects = draw_heldout(held_out, PER_KIND, DEFECTS_SEED)
    known = digest([*pictures.train, *pictures.held_out])
    return Field(load_images(pictures.train, how), held_out, defects, known)


def run_trial(recipe: Recipe, field: Field, seed: int, folder: Path, advance: Callable[[int], None]) -> float:
    """Mean image AUROC over the kinds of defects, of the float network.

    Interrupted, it goes on where it stopped; done before, in the same `folder`, it only reads its result.
    """
    name = hash_values(asdict(recipe), seed, field.digest)
    result, unfinished = folder / f"{name}.json", folder / f"{name}.unfinished"
    if not result.is_file():
        net = Trainer(field.train, recipe, seed, Checkpoint(unfinished, name)).train_float(advance)
        good = _scores(infer(net, field.held_out), recipe.top_pixels)
        aurocs = {
            kind: _auroc(good, _scores(infer(net, images), recipe.top_pixels)) for kind, images in field.defects.items()
        }
        partial = result.with_suffix(".partial")
        partial.write_text(json.dumps(aurocs))
        os.replace(partial, result)
        for state in unfinished.glob("*"):
            state.unlink()
        unfinished.rmdir()
    return float(np.mean(list(json.loads(result.read_text()).values())))


def _scores(maps: NDArray[np.float32], top_pixels: int) -> NDArray[np.float64]:
    flat = np.sort(maps.reshape(len(maps), -1), axis=1)
    return np.asarray(flat[:, -top_pixels:].mean(axis=1), np.float64)


def _auroc(good: NDArray[np.float64], bad: NDArray[np.float64]) -> float:
    return image_auroc(np.concatenate([good, bad]), np.repeat([False, True], [len(good), len(bad)]))
