"""PatchCore (Roth et al. 2022): a patch is as strange as it is far from the nearest patch of a good picture.

Backbone, memory bank and distances are one graph, in float32: image in, int8 anomaly map out, one picture at a time.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from sklearn.random_projection import SparseRandomProjection
from torch import Tensor, nn
from torch.nn import functional

from board.preprocess import as_input
from host.integers.arithmetic import IMAGE, MAP
from host.integers.qdq import OPSET
from host.learning.backbone import Backbone
from protocol.errors import InputError
from protocol.manifest import MODEL_ONNX

MOST_PATCHES = 60_000  # that the bank is chosen from: bounds the memory, 150 MB at 640 channels
PROJECTED = 64  # channels in which distances are compared while choosing
LEVELS = 128  # map steps between a distance of 0 and the reference
SCALE = 2.0**-4  # the map then spans -8 (equal to a good patch) to 7.9 (twice as far as the reference)

Images = NDArray[np.uint8]
Floats = NDArray[np.float32]


class PatchCore(nn.Module):
    """Images int8 (1, 3, h, w) to maps int8 (1, 1, h / 8, w / 8); 0 stands for a distance of `reference`."""

    def __init__(self, backbone: Backbone, bank: Floats, reference: float = 1.0) -> None:
        """`bank` (patches, channels)."""
        super().__init__()
        self.backbone, self.reference = backbone, reference
        # subtle: distances to points far from 0 are differences of large numbers, so the bank's middle becomes 0
        middle = bank.mean(0, dtype=np.float64).astype(np.float32)
        centred = torch.from_numpy(bank - middle)
        self.register_buffer("middle", torch.from_numpy(middle).reshape(1, -1, 1, 1))
        self.register_buffer("kernels", (-2 * centred)[:, :, None, None])
        self.register_buffer("norms", centred.square().sum(1))

    def forward(self, images: Tensor) -> Tensor:
        steps = (self.distances(images) / self.reference - 1) * LEVELS
        return steps.round().clamp(-128, 127).to(torch.int8)

    def distances(self, images: Tensor) -> Tensor:
        """Of each patch to the nearest in the bank, float32 (n, 1, h', w')."""
        patches = describe_patches(self.backbone, images) - cast(Tensor, self.middle)
        # |p - m|² = |p|² - 2 p·m + |m|²: the bank as a convolution of 1 × 1
        rest = functional.conv2d(patches, cast(Tensor, self.kernels), cast(Tensor, self.norms)).amin(1, keepdim=True)
        return (patches.square().sum(1, keepdim=True) + rest).clamp(min=0).sqrt()


def describe_patches(backbone: Backbone, images: Tensor) -> Tensor:
    """Features of each patch and its neighbours, both levels joined, float32 (n, channels, h', w')."""
    near, far = (functional.avg_pool2d(level, 3, 1, 1) for level in backbone(images))
    # subtle: sizes as plain numbers, so that the exported graph does not compute them
    far = functional.interpolate(far, size=(int(near.shape[2]), int(near.shape[3])), mode="bilinear")
    return torch.cat([near, far], 1)


@torch.no_grad()
def build_patchcore(backbone: Backbone, train: Images, held_out: Images, bank_patches: int, seed: int) -> PatchCore:
    """`held_out` good pictures set the reference: the largest distance in any of them.

    Raises: InputError if all pictures are the same to the backbone.
    """
    rng = np.random.default_rng(seed)
    patches = sample_patches(backbone, train, rng)
    model = PatchCore(backbone, patches[choose_coreset(patches, bank_patches, seed)])
    model.reference = max(float(model.distances(as_images(image)).max()) for image in held_out)
    if not model.reference > 0:
        raise InputError("held-out pictures do not differ from training pictures: give different good pictures")
    return model.eval()


def sample_patches(backbone: Backbone, images: Images, rng: np.random.Generator) -> Floats:
    """As many from each picture, at most `MOST_PATCHES` in all; (patches, channels)."""
    each = max(1, MOST_PATCHES // len(images))
    chosen = []
    for image in images:
        patches = describe_patches(backbone, as_images(image))[0].flatten(1).T.numpy()
        chosen.append(patches[np.sort(rng.permutation(len(patches))[:each])])
    return np.concatenate(chosen)


def choose_coreset(patches: Floats, count: int, seed: int) -> NDArray[np.intp]:
    """Greedy k-center (Sener and Savarese 2018): again and again the patch that is farthest from those chosen.

    Distances are compared in a random projection (Roth et al. 2022, algorithm 1).
    """
    projected = SparseRandomProjection(min(PROJECTED, patches.shape[1]), random_state=seed).fit_transform(patches)
    points = np.ascontiguousarray(projected, np.float32)
    norms = np.square(points).sum(1)
    chosen = [0]
    nearest = np.full(len(points), np.inf, np.float32)
    for _ in range(min(count, len(points)) - 1):
        last = chosen[-1]
        nearest = np.minimum(nearest, norms - 2 * (points @ points[last]) + norms[last])
        nearest[last] = -np.inf
        chosen.append(int(nearest.argmax()))
    return np.asarray(chosen, np.intp)


@torch.no_grad()
def float_maps(model: PatchCore, images: Images) -> Floats:
    """What the int8 maps stand for, before rounding, (n, h', w')."""
    distances = np.stack([model.distances(as_images(image))[0, 0].numpy() for image in images])
    return np.asarray((distances / model.reference - 1) * LEVELS * SCALE, np.float32)


def write_onnx(model: PatchCore, input_px: tuple[int, int]) -> onnx.ModelProto:
    """int8 'image' (1, 3, h, w) to int8 'map' (1, 1, h', w').

    subtle: of one picture, not of n: then a picture is judged the same whoever else asks at the same moment.
    """
    example = torch.zeros(1, 3, *input_px, dtype=torch.int8)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # the newer exporter needs a compiler of its own and may write weights beside the graph; sizes are fixed here
        warnings.simplefilter("ignore")
        path = Path(folder) / MODEL_ONNX
        torch.onnx.export(
            model, (example,), path, input_names=[IMAGE], output_names=[MAP], opset_version=OPSET, dynamo=False
        )
        graph = onnx.load(path)
    onnx.checker.check_model(graph)
    return graph


def as_images(image: Images) -> Tensor:
    """int8 (1, 3, h, w) of an image uint8 (h, w, 3)."""
    return torch.from_numpy(as_input(image))
