"""What a reconstruction differs by, per pixel: the losses that autoencoders train with and score by."""

from __future__ import annotations

from functools import cache
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

LossName = Literal["mse", "bce", "ssim", "mse+ssim", "bce+ssim"]
LOSSES: tuple[LossName, ...] = get_args(LossName)
# Wang et al. 2004, IEEE Transactions on Image Processing 13(4), section III.B: window, its deviation, and constants.
WINDOW_PX, SIGMA_PX = 11, 1.5
C1, C2 = 0.01**2, 0.03**2
CLIP = 1e-6


def loss_map(made: Tensor, real: Tensor, name: LossName) -> Tensor:
    """(n, 1, h, w) of pictures (n, c, h, w) in [0, 1]; the training's loss is its mean."""
    return sum((PARTS[part](made, real) for part in name.split("+")), start=torch.zeros(()))


def squared_error(made: Tensor, real: Tensor) -> Tensor:
    return (made - real).square().mean(1, keepdim=True)


def cross_entropy(made: Tensor, real: Tensor) -> Tensor:
    """Above what the picture itself would have: a grey pixel, reconstructed exactly, costs nothing.

    The entropy of the picture does not depend on the reconstruction, so the training is the same; the score is not.
    """
    made, real = made.clamp(CLIP, 1 - CLIP), real.clamp(CLIP, 1 - CLIP)
    whole = -(real * made.log() + (1 - real) * (1 - made).log())
    own = -(real * real.log() + (1 - real) * (1 - real).log())
    return (whole - own).mean(1, keepdim=True)


def dissimilarity(made: Tensor, real: Tensor) -> Tensor:
    """(1 - SSIM) / 2 in 0..1, SSIM by equation 13 of Wang et al. 2004 with its Gaussian window."""
    return (1 - ssim_map(made, real)).mean(1, keepdim=True) / 2


def ssim_map(first: Tensor, second: Tensor) -> Tensor:
    """Of each channel, (n, c, h, w); at the rim the window sees the picture mirrored."""
    with torch.autocast("cpu", enabled=False):  # differences of squares need float32
        mean_a, mean_b = _smooth(first), _smooth(second)
        variance_a = _smooth(first.square()) - mean_a.square()
        variance_b = _smooth(second.square()) - mean_b.square()
        covariance = _smooth(first * second) - mean_a * mean_b
    likeness = (2 * mean_a * mean_b + C1) * (2 * covariance + C2)
    return likeness / ((mean_a.square() + mean_b.square() + C1) * (variance_a + variance_b + C2))


def _smooth(pictures: Tensor) -> Tensor:
    """As two products of matrices: several times faster on a processor than a convolution of each channel."""
    down, across = (torch.from_numpy(window_matrix(int(side))).to(pictures) for side in pictures.shape[-2:])
    return down @ pictures @ across.T


@cache
def window_matrix(side_px: int) -> NDArray[np.float64]:
    """(side, side): row i holds what pixel i takes of each pixel, the rim mirrored."""
    return np.asarray(gaussian_filter1d(np.eye(side_px), SIGMA_PX, axis=0, mode="mirror", radius=WINDOW_PX // 2))


PARTS = {"mse": squared_error, "bce": cross_entropy, "ssim": dissimilarity}
