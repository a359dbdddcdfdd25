"""What a product's good pictures have in common: where defects may lie, and what a person should know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from host.pictures.objectmask import find_object

Images = NDArray[np.uint8]
Mask = NDArray[np.uint8]
Surface = Literal["object", "texture", "unsure"]

MOST, FEW = 0.9, 0.5  # of the pictures show one part on a background: an object's, a texture's
ONE_PIECE = 0.8  # of what stands out from the background: specks of a texture are many
LONG, SPREAD = 1.5, 0.5  # how much longer than wide a part is that has a heading; resultant length of headings
AREA_SPREAD = 0.15  # standard deviation of the part's share of the picture, of an object


@dataclass(frozen=True)
class Traits:
    """`parts` are uint8 (n, h, w), 1 on the part; all ones where the whole picture is one."""

    parts: Images
    surface: Surface
    turns: bool  # parts that are longer than wide lie at any angle


def find_traits(goods: Images) -> Traits:
    """Of good pictures, uint8 (n, h, w, 3). Object or texture is decided for all of them at once."""
    parts = np.stack([find_object(image) for image in goods])
    stands_out = np.array([not part.all() and _largest_piece(part) >= ONE_PIECE for part in parts])
    surface = _tell_surface(stands_out, parts[stands_out].mean(axis=(1, 2)))
    parts[~stands_out if surface != "texture" else slice(None)] = 1
    return Traits(parts, surface, surface == "object" and _lie_at_any_angle(parts))


def tell_traits(traits: Traits) -> str:
    """One line for a person."""
    share = float(np.median(traits.parts.mean(axis=(1, 2))))
    shown = {
        "object": f"one part on a background, about {share:.0%} of the picture",
        "texture": "a texture, or a part that fills the picture",
        "unsure": "parts on a background in some pictures only",
    }
    return f"good pictures are taken for {shown[traits.surface]}: synthetic defects lie there"


def doubt_traits(traits: Traits) -> list[str]:
    """What a person should look at."""
    doubts = []
    if traits.surface == "unsure":
        doubts.append("only some good pictures show one part on a background: take all of them in the same way")
    if traits.turns:
        doubts.append(
            "long parts lie at any angle, which hides small defects: let all lie the same way and fill the picture"
        )
    return doubts


def _tell_surface(stands_out: NDArray[np.bool_], shares: NDArray[np.floating]) -> Surface:
    """`shares` of the picture, of the parts that stand out from a background."""
    share = stands_out.mean()
    if share < FEW:
        return "texture"
    return "object" if share >= MOST and shares.std() <= AREA_SPREAD else "unsure"


def _lie_at_any_angle(parts: Images) -> bool:
    """By the parts' principal axes; headings are doubled, since an axis has no front (Mardia and Jupp 2000)."""
    moments = [cv2.moments(part, binaryImage=True) for part in parts]
    double = np.array([complex(m["mu20"] - m["mu02"], 2 * m["mu11"]) for m in moments])
    size = np.array([m["mu20"] + m["mu02"] for m in moments])
    long = np.median((size + abs(double)) / np.maximum(size - abs(double), 1e-6)) > LONG**2
    return bool(long and abs((double / np.maximum(abs(double), 1e-6)).mean()) < SPREAD)


def _largest_piece(part: Mask) -> float:
    """Its share of the part."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(part)
    return float(stats[1:, cv2.CC_STAT_AREA].max(initial=0) / max(1, part.sum()))
