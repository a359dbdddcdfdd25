"""Pictures through a torch network, and the network as an ONNX graph."""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from host.bench.detector import Advance, Images, Maps
from host.integers.arithmetic import IMAGE, MAP
from host.integers.qdq import OPSET
from host.learning.training import has_fast_bfloat16
from protocol.manifest import MODEL_ONNX

SCORED_AT_ONCE = 32
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)


class Levels(nn.Module):
    """Images int8 (n, 3, h, w), level - 128, to float32 (n, channels, h, w) in [0, 1]."""

    def __init__(self, channels: Literal[1, 3]) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("luma", torch.tensor(LUMA).reshape(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        levels = (images.float() + 128) / 255
        return levels if self.channels == 3 else (levels * cast(Tensor, self.luma)).sum(1, keepdim=True)


def as_batch(images: Images) -> Tensor:
    """int8 (n, 3, h, w) of uint8 (n, h, w, 3): level - 128."""
    return torch.from_numpy(np.ascontiguousarray((images ^ np.uint8(0x80)).view(np.int8).transpose(0, 3, 1, 2)))


def as_levels(images: Images, channels: Literal[1, 3]) -> Tensor:
    """float32 (n, channels, h, w) in [0, 1]."""
    levels: Tensor = Levels(channels)(as_batch(images))
    return levels


@torch.no_grad()
def run_net(net: nn.Module, images: Images, at_once: int = SCORED_AT_ONCE) -> Maps:
    """Maps float32 (n, h', w') of a network from int8 images to (n, 1, h', w')."""
    net.eval()
    parts = [net(as_batch(images[start : start + at_once]))[:, 0].numpy() for start in range(0, len(images), at_once)]
    return np.asarray(np.concatenate(parts), np.float32)


def trace(net: nn.Module, input_px: int) -> onnx.ModelProto:
    """int8 'image' (1, 3, h, w) to float32 'map' (1, 1, h', w')."""
    example = torch.zeros(1, 3, input_px, input_px, dtype=torch.int8)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # the newer exporter needs a compiler of its own and may write weights beside the graph; sizes are fixed here
        warnings.simplefilter("ignore")
        path = Path(folder) / MODEL_ONNX
        torch.onnx.export(
            net.eval(), (example,), path, input_names=[IMAGE], output_names=[MAP], opset_version=OPSET, dynamo=False
        )
        graph = onnx.load(path)
    onnx.checker.check_model(graph)
    return graph


def draw_batches(count: int, size: int, epochs: int, seed: int) -> Iterator[NDArray[np.intp]]:
    """Indices of each batch, all pictures once an epoch in another order. A batch of one is left out.

    Batch normalisation cannot tell one picture from the mean.
    """
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = rng.permutation(count)
        for start in range(0, count, size):
            if min(size, count - start) > 1:
                yield order[start : start + size]


def walk_batches(
    count: int, size: int, epochs: int, seed: int, advance: Advance, *, least_steps: int = 0
) -> Iterator[NDArray[np.intp]]:
    """`draw_batches`, more epochs of few pictures; after each batch, `advance` is told how far the training is."""
    epochs = max(epochs, math.ceil(least_steps / count_batches(count, size)))
    total = epochs * count_batches(count, size)
    for step, chosen in enumerate(draw_batches(count, size, epochs, seed)):
        yield chosen
        advance(step / total)


def fast_products() -> torch.autocast:
    """For a training step's forward pass: products in bfloat16 where the processor multiplies it twice as fast.

    Weights, losses and everything that scores pictures stay float32.
    """
    return torch.autocast("cpu", torch.bfloat16, enabled=has_fast_bfloat16(torch.device("cpu")))


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step down the gradient of a scalar."""
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    optimizer.step()


def count_batches(count: int, size: int) -> int:
    """Of an epoch."""
    return max(1, count // size + (count % size > 1))
