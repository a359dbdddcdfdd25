"""Procedural noise and coloured textures: the raw material of synthetic defects. Nothing is read from disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar, cast

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Image = NDArray[np.uint8]
Mask = NDArray[np.uint8]
Rng = np.random.Generator
Tile = TypeVar("Tile", Floats, Image)

TILE_PX = 256
SMALLEST_CROP_PX = 40
NOISES = 48
TEXTURES = 320


@dataclass(frozen=True)
class Bank:
    """noises: float32 (256, 256), uniform in 0..1; textures: uint8 (256, 256, 3)."""

    noises: tuple[Floats, ...]
    textures: tuple[Image, ...]

    def noise(self, rng: Rng, size_px: tuple[int, int]) -> Floats:
        """A random crop at a random zoom, flipped at random: float32 (h, w)."""
        return _crop(_choose(self.noises, rng), rng, size_px)

    def texture(self, rng: Rng, size_px: tuple[int, int]) -> Floats:
        """A random crop at a random zoom, flipped at random, channels shuffled: float32 (h, w, 3) in 0..1."""
        crop = _crop(_choose(self.textures, rng), rng, size_px)
        return np.asarray(crop[..., rng.permutation(3)] / 255, np.float32)


@lru_cache(maxsize=2)
def make_bank(seed: int) -> Bank:
    """Takes two seconds and 75 MB, so it is kept: the phases of a training have one seed. Its arrays are read-only."""
    rng = np.random.default_rng(seed)
    noises = tuple(_draw_noise(rng) for _ in range(NOISES))
    bank = Bank(noises, tuple(_draw_texture(noises, rng) for _ in range(TEXTURES)))
    tiles: list[NDArray[np.generic]] = [*bank.noises, *bank.textures]
    for tile in tiles:
        tile.flags.writeable = False
    return bank


def _draw_noise(rng: Rng) -> Floats:
    """Fractional Brownian noise: summed, resized random grids (Musgrave 1989), equalised to 0..1."""
    cells, octaves, gain = int(2 ** rng.integers(1, 7)), int(rng.integers(1, 8)), rng.uniform(0.35, 0.95)
    field = np.zeros((TILE_PX, TILE_PX), np.float32)
    for octave in range(octaves):
        if cells << octave > TILE_PX:
            break
        grid = rng.standard_normal((cells << octave, cells << octave), np.float32)
        enlarged = cv2.resize(grid, field.shape, interpolation=cv2.INTER_CUBIC)
        field += np.float32(gain**octave) * np.asarray(enlarged, np.float32)
    return _equalise(field)


def _equalise(field: Floats) -> Floats:
    """Rank transform: a threshold t leaves a share 1 - t of the pixels."""
    ranks = np.empty(field.size, np.float32)
    ranks[np.argsort(field, axis=None)] = np.linspace(0, 1, field.size, dtype=np.float32)
    return ranks.reshape(field.shape)


def _draw_texture(noises: Sequence[Floats], rng: Rng) -> Image:
    makers = (_stripes, _cells, _facets)
    choice = int(rng.integers(len(makers) + 1))
    field = makers[choice](rng) if choice < len(makers) else _choose(noises, rng)
    if rng.random() < 0.5:
        field = _warp(field, noises, rng)
    return _colourise(field, noises, rng)


def _stripes(rng: Rng) -> Floats:
    """Waves, half of the time crossed by others."""
    y, x = np.mgrid[:TILE_PX, :TILE_PX].astype(np.float32) / TILE_PX
    turn = rng.uniform(0, np.pi)
    wave = np.sin(2 * np.pi * rng.uniform(2, 30) * (x * np.cos(turn) + y * np.sin(turn)))
    if rng.random() < 0.5:
        wave = wave * np.sin(2 * np.pi * rng.uniform(2, 30) * (-x * np.sin(turn) + y * np.cos(turn)))
    return np.asarray(0.5 + 0.5 * wave, np.float32)


def _cells(rng: Rng) -> Floats:
    """Distance to the nearest of random points (Worley 1996): bubbles, scales, cracks, grains."""
    seeds = np.full((TILE_PX, TILE_PX), 255, np.uint8)
    count = int(np.exp(rng.uniform(np.log(12), np.log(900))))
    seeds[rng.integers(0, TILE_PX, count), rng.integers(0, TILE_PX, count)] = 0
    distance = np.asarray(cv2.distanceTransform(seeds, cv2.DIST_L2, 3), np.float32)
    return np.asarray(distance / distance.max(), np.float32)


def _facets(rng: Rng) -> Floats:
    """Flat random polygons on top of each other: shards, crumpled foil, paper."""
    canvas = np.full((TILE_PX, TILE_PX), rng.random(), np.float32)
    for _ in range(int(rng.integers(15, 90))):
        centre = rng.uniform(0, TILE_PX, 2)
        corners = centre + rng.normal(0, rng.uniform(8, 50), (int(rng.integers(3, 6)), 2))
        cv2.fillPoly(canvas, [corners.astype(np.int32)], (float(rng.random()),))
    return canvas


def _warp(field: Floats, noises: Sequence[Floats], rng: Rng) -> Floats:
    """Displaced by two noises, which turns stripes into wood and marble."""
    strength_px = np.float32(rng.uniform(5, 60))
    y, x = np.mgrid[:TILE_PX, :TILE_PX].astype(np.float32)
    dx, dy = (noises[i] - np.float32(0.5) for i in rng.choice(len(noises), 2, replace=False))
    x, y = x + strength_px * dx, y + strength_px * dy
    return np.asarray(cv2.remap(field, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT), np.float32)


def _colourise(field: Floats, noises: Sequence[Floats], rng: Rng) -> Image:
    """The field looked up in a palette, with unevenness and grain by chance."""
    low, high = field.min(), field.max()
    picture = _draw_palette(rng)[((field - low) / max(high - low, 1e-6) * 255).astype(np.uint8)]
    if rng.random() < 0.5:
        picture = picture + rng.uniform(10, 60) * (_choose(noises, rng) - 0.5)[..., np.newaxis]
    if rng.random() < 0.3:
        picture = picture + rng.normal(0, rng.uniform(3, 20), picture.shape)
    return np.asarray(np.clip(picture, 0, 255), np.uint8)


def _draw_palette(rng: Rng) -> Floats:
    """Two to six colours, any or shades of one hue, blended into float32 (256, 3) in 0..255."""
    count = int(rng.integers(2, 7))
    if rng.random() < 0.5:
        colours = rng.uniform(0, 255, (count, 3))
    else:
        colours = rng.uniform(20, 235, 3) + rng.uniform(-70, 70, (count, 1)) + rng.normal(0, 12, (count, 3))
    table = cv2.resize(colours[np.newaxis].astype(np.float32), (256, 1), interpolation=cv2.INTER_LINEAR)[0]
    return np.asarray(np.clip(table, 0, 255), np.float32)


def _crop(tile: Tile, rng: Rng, size_px: tuple[int, int]) -> Tile:
    size = int(np.exp(rng.uniform(np.log(SMALLEST_CROP_PX), np.log(TILE_PX))))
    y, x = rng.integers(0, TILE_PX - size + 1, 2)
    side = max(size_px)
    square = cv2.resize(tile[y : y + size, x : x + size], (side, side), interpolation=cv2.INTER_LINEAR)
    crop = square[: size_px[0], : size_px[1]]
    step_y, step_x = rng.choice((-1, 1), 2)
    return cast(Tile, crop[::step_y, ::step_x])


def _choose(tiles: Sequence[Tile], rng: Rng) -> Tile:
    return tiles[int(rng.integers(len(tiles)))]
