"""What of the frames is inspected, and at what size: chosen for the whole set, written into the manifest, and told.

The part's outline over the set decides. Where parts lie on a background and fill little of the frame, the frame is
cropped to where parts were, with a margin; else all of it is inspected. The network's image has at most as many pixels
as the recipe asks for (the board's cost is theirs), in the shape that shows the crop best. Frames of several sizes are
brought to one: edges are repeated where sizes are close, else they are scaled. All in integers, as the line does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from board.preprocess import BLANK, fit_frame, place_frame
from host.pictures.objectmask import find_object
from protocol.errors import InputError
from protocol.manifest import MAX_IGNORED, MOST_ENLARGED, Preprocess
from protocol.pictures.files import shown
from protocol.pictures.header import Header
from protocol.pictures.reader import ALL_BITS, bits_in_use, read_picture, read_stored, survey
from protocol.pictures.truth import Truth, draw_truth

INPUT_MULTIPLE_PX = 32  # sides of the network's image are multiples of it: five strides of 2
OUTLINE_PICTURES = 48  # that are looked at for where parts lie
OUTLINE_PX = 128
UNSURE_SHARE = 0.1  # of them may show no background; from here on it is a texture, or a part that fills the frame
MARGIN = 1 / 16  # of the frame, around where parts were
WORTH_CROPPING = 0.6  # of the frame's area: a larger outline gains too little to leave anything out
SMALLEST_PART = 0.004  # of the frame: fewer than 64 of the small picture's pixels are noise
CLOSE = 1.25  # sizes within this factor are padded, not scaled
LISTED = 3

Box = tuple[int, int, int, int]  # (top, left, height, width)
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Inspected:
    how: Preprocess
    lines: tuple[str, ...]  # for a person


def choose_inspected(
    good: Sequence[Path], others: Sequence[Path], input_px: int, ignore: Path | None = None, *, is_square: bool = False
) -> Inspected:
    """For the good pictures and all others. `input_px` squared is how many pixels the network's image may have.

    Raises: InputError naming pictures that cannot be read, or an `ignore.png` that does not fit.
    """
    headers = survey_all([*good, *others])
    how, lines = _choose_frame(list(headers.values()))
    how, deep = _choose_depth(how, headers)
    crop, why = _choose_crop(good, how)
    side = (input_px, input_px)
    input_size = side if is_square else shape_input(crop[2:], input_px)
    if any(MOST_ENLARGED * crop_px < side_px for crop_px, side_px in zip(crop[2:], input_size, strict=True)):
        raise InputError(f"pictures of {how.frame_px[1]}x{how.frame_px[0]} pixels are too small: use larger ones")
    how = replace(how, crop_px=crop, input_px=input_size)
    if ignore:
        how = replace(how, ignored=_choose_ignored(ignore, how))
    lines += [*deep, *_tell(how, why, ignore), *_tell_headers(headers)]
    return Inspected(how, tuple(lines))


def survey_all(paths: Sequence[Path]) -> dict[Path, Header]:
    """Raises: InputError that names the first of those that cannot be read, and how many there are."""
    headers, faults = {}, []
    for path in paths:
        try:
            headers[path] = survey(path)
        except InputError as error:
            faults.append(str(error))
    raise_faults(faults, len(paths))
    return headers


def raise_faults(faults: Sequence[str], count: int) -> None:
    """Raises: InputError if there are any."""
    if len(faults) == 1:
        raise InputError(faults[0])
    if faults:
        listed = "; ".join(faults[:LISTED])
        more = f"; and {len(faults) - LISTED} more" if len(faults) > LISTED else ""
        raise InputError(f"{len(faults)} of {count} pictures cannot be used: {listed}{more}")


def shape_input(crop_px: tuple[int, ...], input_px: int) -> tuple[int, int]:
    """(height, width) of at most input_px² pixels that shows a crop best: by its worse side, not enlarged for nothing.

    >>> shape_input((900, 900), 128), shape_input((160, 640), 128), shape_input((480, 640), 128)
    ((128, 128), (64, 256), (96, 128))
    """
    most = (input_px // INPUT_MULTIPLE_PX) ** 2
    cells = [(rows, columns) for rows, columns in product(range(1, most + 1), repeat=2) if rows * columns <= most]
    height, width = crop_px[0], crop_px[1]

    def rank(cell: tuple[int, int]) -> tuple[float, float, int]:
        down, across = cell[0] * INPUT_MULTIPLE_PX / height, cell[1] * INPUT_MULTIPLE_PX / width
        stretch = max(down, across) / min(down, across)
        return round(min(1.0, down, across), 6), -round(stretch, 6), -cell[0] * cell[1]

    rows, columns = max(cells, key=rank)
    return rows * INPUT_MULTIPLE_PX, columns * INPUT_MULTIPLE_PX


def fit_truth(truth: Truth, size_px: tuple[int, int], how: Preprocess) -> Mask:
    """(H, W) of the fitted frame, True where defective, for a picture of (height, width)."""
    mask = draw_truth(truth, size_px)
    if size_px == how.frame_px:
        return mask
    top, left, height, width = place_frame(size_px, how)
    fitted = np.zeros(how.frame_px, np.bool_)
    inner = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    fitted[top : top + height, left : left + width] = inner > 0
    return fitted


def mask_ignored(how: Preprocess) -> Mask | None:
    """(h, w) of the network's image, or None where all of it is looked at."""
    if not how.ignored:
        return None
    mask = np.zeros(how.input_px[0] * how.input_px[1], np.bool_)
    for first, count in zip(how.ignored[0::2], how.ignored[1::2], strict=True):
        mask[first : first + count] = True
    return mask.reshape(how.input_px)


def mask_inspected(how: Preprocess) -> Mask:
    """(H, W) of the frame, True where it is looked at."""
    top, left, height, width = how.crop_px
    looked = np.zeros(how.frame_px, np.bool_)
    looked[top : top + height, left : left + width] = True
    ignored = mask_ignored(how)
    if ignored is not None:
        enlarged = cv2.resize(ignored.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        looked[top : top + height, left : left + width] &= enlarged == 0
    return looked


def draw_inspected(frame: NDArray[np.uint8], how: Preprocess) -> NDArray[np.uint8]:
    """The frame uint8 (H, W, 3), pale where nothing is looked at."""
    pale = (frame // 4 + 3 * BLANK // 2).astype(np.uint8)
    return np.where(mask_inspected(how)[..., np.newaxis], frame, pale)


def _choose_frame(headers: Sequence[Header]) -> tuple[Preprocess, list[str]]:
    """How frames are brought to one size."""
    sizes = np.array([header.upright_px for header in headers])
    (low_height, low_width), (high_height, high_width) = sizes.min(axis=0).tolist(), sizes.max(axis=0).tolist()
    whole = (0, 0, high_height, high_width)
    if (low_height, low_width) == (high_height, high_width):
        return Preprocess((high_height, high_width), whole, (1, 1)), []
    sides = (low_height, high_height, low_width, high_width)
    ranges = f"{low_width} to {high_width} wide, {low_height} to {high_height} high"
    if high_height <= CLOSE * low_height and high_width <= CLOSE * low_width:
        how = Preprocess((high_height, high_width), whole, (1, 1), fit="pad", sides_px=sides)
        return how, [f"pictures of several sizes ({ranges}) get their edges repeated up to {high_width}x{high_height}"]
    height, width = np.median(sizes, axis=0).astype(int).tolist()
    how = Preprocess((height, width), (0, 0, height, width), (1, 1), fit="scale", sides_px=sides)
    return how, [
        f"pictures of several sizes ({ranges}) are scaled to fit into {width}x{height}: use one size if you can"
    ]


def _choose_depth(how: Preprocess, headers: dict[Path, Header]) -> tuple[Preprocess, list[str]]:
    """Every deep picture counts: one that is brighter than the others would not fit."""
    deep = [path for path, header in headers.items() if header.bits == ALL_BITS]
    if not deep:
        return how, []
    bits = bits_in_use(max(_highest(path) for path in deep))
    told = (
        f"{len(deep)} of {len(headers)} pictures have 16 bits, of which {bits} are in use: the highest 8 of these are "
    )
    return replace(how, depth_bits=bits), [told + "taken; let the camera give the same"]


def _highest(path: Path) -> int:
    stored = read_stored(path)
    return int((stored if stored.ndim == 2 else stored[..., :3]).max())


def _choose_crop(good: Sequence[Path], how: Preprocess) -> tuple[Box, str]:
    """With the reason."""
    height, width = how.frame_px
    whole = (0, 0, height, width)
    chosen = sorted({*np.linspace(0, len(good) - 1, OUTLINE_PICTURES).astype(int).tolist()})
    boxes = [_find_part(fit_frame(read_picture(good[index], how.depth_bits), how)) for index in chosen]
    found = np.array([box for box in boxes if box is not None], np.float64).reshape(-1, 4)
    if len(boxes) - len(found) > UNSURE_SHARE * len(boxes):
        return whole, "no background is found around the parts"
    (top, left), (bottom, right) = found[:, :2].min(axis=0) - MARGIN, found[:, 2:].max(axis=0) + MARGIN
    top, left, bottom, right = max(0.0, top), max(0.0, left), min(1.0, bottom), min(1.0, right)
    if (bottom - top) * (right - left) > WORTH_CROPPING:
        return whole, "parts fill most of it"
    y0, x0 = int(top * height), int(left * width)
    box = (y0, x0, min(height, int(np.ceil(bottom * height))) - y0, min(width, int(np.ceil(right * width))) - x0)
    return box, f"the outline of the parts in {len(found)} pictures, with a margin"


def _find_part(frame: NDArray[np.uint8]) -> tuple[float, float, float, float] | None:
    """(top, left, bottom, right) in shares of the frame; None where there is no background."""
    height, width = frame.shape[:2]
    scale = min(1.0, OUTLINE_PX / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
    part = find_object(small, SMALLEST_PART)
    if part.all():
        return None
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    return rows[0] / size[1], columns[0] / size[0], (rows[-1] + 1) / size[1], (columns[-1] + 1) / size[0]


def _choose_ignored(path: Path, how: Preprocess) -> tuple[int, ...]:
    """Pixels of the network's image of which at least half is not to be looked at, as pairs of first and count."""
    top, left, height, width = how.crop_px
    whole = draw_truth(Truth(files=(path,)), how.frame_px)[top : top + height, left : left + width]
    share = cv2.resize(whole.astype(np.float32), how.input_px[::-1], interpolation=cv2.INTER_AREA)
    flat = np.concatenate([[False], share.reshape(-1) >= 0.5, [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    if len(edges) > MAX_IGNORED:
        raise InputError(f"{shown(path)} has too many small spots: draw what is not to be looked at in larger ones")
    if share.min() >= 0.5:
        raise InputError(f"{shown(path)} leaves nothing to look at: it must be white only where nothing is inspected")
    firsts, ends = edges[0::2], edges[1::2]
    return tuple(int(value) for pair in zip(firsts, ends - firsts, strict=True) for value in pair)


def _tell(how: Preprocess, why: str, ignore: Path | None) -> list[str]:
    (height, width), (top, left, crop_height, crop_width) = how.frame_px, how.crop_px
    seen = f"{how.input_px[1]}x{how.input_px[0]}"
    if (crop_height, crop_width) == (height, width):
        lines = [f"inspected: the whole frame of {width}x{height} pixels ({why}), as {seen}"]
    else:
        place = f"{crop_width}x{crop_height} of {width}x{height} pixels, from column {left} and row {top}"
        lines = [f"inspected: {place} ({why}), as {seen}; what lies outside is not seen"]
    down, across = how.input_px[0] / crop_height, how.input_px[1] / crop_width
    if max(down, across) > 1:
        lines.append(
            f"the pictures are small: they are enlarged up to {max(down, across):.1f} times, which adds nothing"
        )
    if ignore:
        share = sum(how.ignored[1::2]) / (how.input_px[0] * how.input_px[1])
        lines.append(f"{shown(ignore.name)}: {share:.1%} of what is inspected is not looked at")
    return lines


def _tell_headers(headers: dict[Path, Header]) -> list[str]:
    count = len(headers)
    turned = sum(header.orientation != 1 for header in headers.values())
    coloured = sum(header.has_profile for header in headers.values())
    lines = [f"{turned} of {count} pictures are turned upright, as their cameras say"] if turned else []
    if coloured:
        lines.append(
            f"{coloured} of {count} pictures have a colour profile, which is not applied: a line's camera has none"
        )
    return lines
