"""What lamp and lens do to a picture, in five numbers of the network's image: cheap enough for each part.

For example, of a frame as the board sees it:

    measure_picture(preprocess(frame, how))["brightness"]
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

# brightness         mean of all three channels, 0..255 levels: lamp, exposure, aperture, dust
# contrast           standard deviation by mean, of green: haze, stray light, saturation
# sharpness          root mean square of the Laplacian by the mean, of green: focus, vibration
# red_ share, blue_  share of the channel in the light of all three: the lamp's colour, white balance
PICTURE_STATISTICS = ("brightness", "contrast", "sharpness", "red_share", "blue_share")
BAND_ROWS = 32
SCORE = "score"  # the sixth statistic of a part, which needs no picture


def measure_picture(image: NDArray[np.uint8]) -> dict[str, float]:
    """Each of `PICTURE_STATISTICS` of the network's image uint8 (h, w, 3) RGB, at least 3 × 3.

    All sums are whole numbers: the same on every processor. Divided by the mean, contrast and sharpness do not follow
    the lamp. The Laplacian is that of Pech-Pacheco et al. 2000 (ICPR, "Diatom autofocusing in brightfield microscopy").
    """
    pixels = image.shape[0] * image.shape[1]
    red, green, blue = (int(total) for total in image.sum(axis=0, dtype=np.uint32).sum(axis=0, dtype=np.uint64))
    light = max(red + green + blue, 1)  # of a black picture every share is 0
    mean = max(green / pixels, 1.0)  # below one level there is nothing to see: no division by darkness
    squares, edges = _sum_squares(image[:, :, 1])
    spread = squares / pixels - (green / pixels) ** 2
    power = edges / ((image.shape[0] - 2) * (image.shape[1] - 2))
    return {
        "brightness": light / (3 * pixels),
        "contrast": math.sqrt(max(spread, 0.0)) / mean,
        "sharpness": math.sqrt(power) / mean,
        "red_share": red / light,
        "blue_share": blue / light,
    }


def _sum_squares(level: NDArray[np.uint8]) -> tuple[int, int]:
    """Of one channel (h, w), and of its Laplacian inside the border; in bands, whose memory is at hand again."""
    squares = edges = 0
    for top in range(0, level.shape[0], BAND_ROWS):
        band = level[top : top + BAND_ROWS + 2].astype(np.int32)  # with the first two rows of the next
        squares += int((band[:BAND_ROWS] ** 2).sum(dtype=np.int64))
        laplacian = 4 * band[1:-1, 1:-1] - band[:-2, 1:-1] - band[2:, 1:-1] - band[1:-1, :-2] - band[1:-1, 2:]
        edges += int((laplacian**2).sum(dtype=np.int64))
    return squares, edges
