"""The smallest model package: its anomaly map is the local brightness. For tests and for timing the line itself.

    python -m host.export.trivial FOLDER [FRAME_PX]

Each map pixel is the mean of 16 × 16 image pixels minus 128, so a test chooses a score by choosing grey levels.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from host.export.package import make_golden, write_graphs, write_package
from host.integers.arithmetic import IMAGE, MAP, Conv, IntegerNet
from protocol.errors import run_main
from protocol.fitness import Fitness
from protocol.known_bad import CHALLENGE_BIN, encode_known_bad
from protocol.manifest import FORMAT, AnomalyMap, Challenge, Manifest, Preprocess, Threshold

INPUT_PX = 128
FRAME_PX = 256
KNOWN_BAD = 2  # frames
WHITE = 255


def brightness_net() -> IntegerNet:
    """Mean over the three channels, then three means of 2 × 2 with the middle weight exact: stride 16 in all."""
    layers = (
        mean_layer("half", IMAGE, channels=3, relu=False),
        mean_layer("quarter", "half", channels=1, relu=False),
        mean_layer("eighth", "quarter", channels=1, relu=False),
        mean_layer(MAP, "eighth", channels=1, relu=False),
    )
    return IntegerNet((INPUT_PX, INPUT_PX), layers)


def mean_layer(name: str, source: str, *, channels: int, relu: bool) -> Conv:
    """3 × 3 convolution, stride 2, of which only the lower right 2 × 2 weights are set; they sum to 1."""
    weights = np.zeros((1, channels, 3, 3), np.int8)
    per_channel = {1: (32,), 3: (10, 12, 10)}[channels]  # of 128, times four taps
    for channel, weight in enumerate(per_channel):
        weights[0, channel, 1:, 1:] = weight
    exponents = np.array([-7], np.int32)
    return Conv(name, source, weights, exponents, np.zeros(1, np.int32), exponent=-7, stride=2, relu=relu)


def write_trivial_package(
    folder: Path,
    frame_px: int = FRAME_PX,
    threshold: float = 0.25,
    glare: int = WHITE,
    *,
    fitness: Fitness | None = None,
) -> Path:
    """A complete package; its id is the folder's name. `threshold` 0.25 is grey level 160.

    `glare` is the grey level of its known-bad parts.
    """
    net = brightness_net()
    how = Preprocess((frame_px, frame_px), (0, 0, frame_px, frame_px), (INPUT_PX, INPUT_PX))
    ramp = np.linspace(0, 255, frame_px).astype(np.uint8)
    frame = np.stack([np.broadcast_to(ramp, (frame_px, frame_px)), *[np.add.outer(ramp // 2, ramp // 2)] * 2], axis=2)
    side = INPUT_PX // 16
    manifest = Manifest(
        format=FORMAT,
        id=folder.name,
        product="brightness",
        preprocess=how,
        map=AnomalyMap((side, side), scale=2.0**-7, top_pixels=4),
        threshold=Threshold(threshold, "chosen: this model knows nothing of defects"),
        files={},
        challenge=Challenge(KNOWN_BAD, 1, {"glare": KNOWN_BAD}, KNOWN_BAD, 1.0),
        fitness=fitness,
    )
    dark = np.zeros((frame_px, frame_px, 3), np.uint8)
    known_bad = {
        CHALLENGE_BIN: encode_known_bad([dark], [_paint_glare(dark, part, glare) for part in range(KNOWN_BAD)])
    }
    write_package(folder, manifest, write_graphs(net), make_golden(frame[np.newaxis], how, net), known_bad)
    return folder


def _paint_glare(dark: NDArray[np.uint8], part: int, glare: int) -> NDArray[np.uint8]:
    """Bright over the image's upper left quarter and a little more: white reaches every possible threshold."""
    glaring: NDArray[np.uint8] = dark.copy()
    glaring[: len(dark) // (2 + part), : len(dark) // 2] = glare
    return glaring


def main() -> int:
    folder, *frame_px = sys.argv[1:]
    write_trivial_package(Path(folder), *map(int, frame_px))
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
