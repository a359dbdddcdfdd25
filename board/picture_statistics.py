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
SCORE = "score"  # the sixth statistic of a part, which needs no picture


def measure_picture(image: NDArray[np.uint8]) -> dict[str, float]:
    """Each of `PICTURE_STATISTICS` of the network's image uint8 (h, w, 3) RGB, at least 3 × 3.

    All sums are whole numbers: the same on every processor. Divided by the mean, contrast and sharpness do not follow
    the lamp. The Laplacian is that of Pech-Pacheco et al. 2000 (ICPR, "Diatom autofocusing in brightfield microscopy").
    """
    pixels = image.shape[0] * image.shape[1]
    red, green, blue = (int(image[:, :, channel].sum(dtype=np.uint64)) for channel in range(3))
    light = max(red + green + blue, 1)  # of a black picture every share is 0
    level = image[:, :, 1].astype(np.int32)
    mean = max(green / pixels, 1.0)  # below one level there is nothing to see: no division by darkness
    spread = int((level * level).sum(dtype=np.int64)) / pixels - (green / pixels) ** 2
    edges = 4 * level[1:-1, 1:-1] - level[:-2, 1:-1] - level[2:, 1:-1] - level[1:-1, :-2] - level[1:-1, 2:]
    power = int((edges * edges).sum(dtype=np.int64)) / edges.size
    return {
        "brightness": light / (3 * pixels),
        "contrast": math.sqrt(max(spread, 0.0)) / mean,
        "sharpness": math.sqrt(power) / mean,
        "red_share": red / light,
        "blue_share": blue / light,
    }
