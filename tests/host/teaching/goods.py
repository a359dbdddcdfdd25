"""Pictures of good parts for tests: rendered ones of the fake belt, and a scene that differs a little each time."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from host.pictures.reading import Images, encode_png
from sim.camera import Camera, CameraSettings
from sim.parts import open_parts

SCENE_PX = 48


def draw_scenes(count: int) -> list[Images]:
    """uint8 (48, 48, 3): one texture, in a light that is nowhere quite the same."""
    rng = np.random.default_rng(1)
    scene = 128 + 90 * _draw_waves(rng, 12)
    lit = (scene + 12 * _draw_waves(rng, 6) for _ in range(count))
    return [np.clip(one, 0, 255).astype(np.uint8) for one in lit]


def draw_noise() -> Images:
    """Black and white: it looks like nothing else."""
    return np.random.default_rng(0).choice(np.array([0, 255], np.uint8), (SCENE_PX, SCENE_PX, 3))


def _draw_waves(rng: np.random.Generator, across: int) -> NDArray[np.float32]:
    coarse = rng.normal(size=(across, across, 3)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (SCENE_PX, SCENE_PX), interpolation=cv2.INTER_CUBIC), np.float32)


def photograph(product: str, count: int, seed: int, *, defects: bool = False) -> list[Images]:
    parts, camera = open_parts(product, "rendered", seed, float(defects)), Camera(CameraSettings(), seed)
    return [camera.shoot(parts.part(number)).image for number in range(count)]


def write_pictures(folder: Path, pictures: list[Images]) -> Path:
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures):
        (folder / f"{number:02}.png").write_bytes(encode_png(picture))
    return folder
