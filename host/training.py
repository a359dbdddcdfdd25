"""Train on good pictures alone: every step shows good parts and the same parts with synthetic defects.

Each step draws its pictures from a generator of its own (seed and step), so that a training that was interrupted and
goes on gives the same network as one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from board.preprocess import as_input
from host.augmentation import vary
from host.checkpoint import Checkpoint
from host.network import MAP_STRIDE_PX, DetectorNet
from host.objectmask import find_object
from host.quantization import LayerNet, fold, quantize
from host.recipe import Recipe
from host.synthetic import Floats, add_defects

DEFECT_SHARE = 0.12  # of a map pixel's 4 × 4 image pixels; from here on, two of sixteen, the map pixel is a defect
WARMUP_STEPS = 100
AVERAGING = 0.998  # the network that is kept averages about the last 500 steps
SAVE_EVERY_STEPS = 250
CALIBRATION_BATCHES = 16
GRADIENT_LIMIT = 5.0

Images = NDArray[np.uint8]
Advance = Callable[[int], None]  # told the number of steps done
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Phase:
    name: str
    steps: int
    learning_rate: float  # at its peak
    in_bfloat16: bool = False  # twice as fast where the processor has it; never where integers are learned


class Trainer:
    """Good pictures, uint8 (n, h, w, 3), and what to do with them."""

    def __init__(
        self,
        goods: Images,
        recipe: Recipe,
        seed: int,
        checkpoint: Checkpoint,
        *,
        save_every_steps: int = SAVE_EVERY_STEPS,
    ) -> None:
        self.goods, self.recipe, self.seed, self.checkpoint = goods, recipe, seed, checkpoint
        self.save_every_steps = save_every_steps
        self.parts = [find_object(image) for image in goods]

    def train_float(self, advance: Advance) -> nn.Module:
        """The trained DetectorNet in eval mode."""
        torch.manual_seed(self.seed)
        net = DetectorNet(self.recipe.widths)
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        average = AveragedModel(net, avg_fn=_blend, use_buffers=True)
        phase = Phase("float", self.recipe.float_steps, self.recipe.learning_rate, has_fast_bfloat16())
        self._fit(phase, net, average, advance)
        return average.module.eval()

    def train_quantized(self, net: nn.Module, advance: Advance) -> LayerNet:
        """The network quantized and finetuned, in eval mode."""
        quantized = quantize(fold(net), (self.draw_batch(-1 - i)[0] for i in range(CALIBRATION_BATCHES)))
        phase = Phase("quantized", self.recipe.quantized_steps, self.recipe.quantized_learning_rate)
        self._fit(phase, quantized, None, advance)
        return quantized.eval()

    def draw_batch(self, step: int) -> Batch:
        """Pictures (2 · pairs, 3, h, w), good ones first, and labels (pairs, h / 4, w / 4) of the defective ones.

        Labels: 1 defect, 0 good, NaN undecided. Negative steps are for calibration.
        """
        rng = np.random.default_rng([self.seed, step % (1 << 32)])
        chosen = rng.integers(0, len(self.goods), self.recipe.pairs)
        goods, defects, labels = zip(*(self._draw_pair(int(index), rng) for index in chosen), strict=True)
        return as_pictures([*goods, *defects]), torch.from_numpy(np.stack(labels))

    def _draw_pair(self, index: int, rng: np.random.Generator) -> tuple[Images, Images, Floats]:
        picture = self.goods[index].astype(np.float32) / 255
        picture, part = vary(picture, self.parts[index], self.recipe.variation, rng)
        changed, label = add_defects(picture, part if part.any() else np.ones_like(part), self.goods, rng)
        return _as_image(picture), _as_image(changed), shrink_label(label)

    def _fit(self, phase: Phase, net: nn.Module, average: AveragedModel | None, advance: Advance) -> None:
        optimizer = torch.optim.AdamW(net.parameters(), phase.learning_rate, weight_decay=self.recipe.weight_decay)
        done = self._load(phase, net, average, optimizer)
        net.train()
        for step in range(done, phase.steps):
            optimizer.param_groups[0]["lr"] = phase.learning_rate * learning_rate_share(step, phase.steps)
            batch = self.draw_batch(step)
            _learn(net, optimizer, batch, self.recipe.top_pixels, in_bfloat16=phase.in_bfloat16)
            if average is not None:
                average.update_parameters(net)
            if (step + 1) % self.save_every_steps == 0 or step + 1 == phase.steps:
                self._save(phase, step + 1, net, average, optimizer)
            advance(step + 1)

    def _load(
        self, phase: Phase, net: nn.Module, average: AveragedModel | None, optimizer: torch.optim.Optimizer
    ) -> int:
        """Steps already done in an earlier run."""
        state = self.checkpoint.load(phase.name)
        if state is None:
            return 0
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
        if average is not None:
            average.load_state_dict(state["average"])
        return int(state["step"])

    def _save(
        self, phase: Phase, step: int, net: nn.Module, average: AveragedModel | None, optimizer: torch.optim.Optimizer
    ) -> None:
        state = {"step": step, "net": net.state_dict(), "optimizer": optimizer.state_dict()}
        if average is not None:
            state["average"] = average.state_dict()
        self.checkpoint.save(phase.name, state)


def has_fast_bfloat16() -> bool:
    is_there = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(is_there and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def as_pictures(images: list[Images] | Images) -> Tensor:
    """The network's input in float: what the integers stand for, float32 (n, 3, h, w) in -1..1."""
    integers = np.concatenate([as_input(image) for image in images])
    return torch.from_numpy(integers).float().div_(128).contiguous(memory_format=torch.channels_last)


def shrink_label(label: Floats) -> Floats:
    """To the map's resolution; a cell with a few defective or undecided pixels is undecided."""
    cells = label.reshape(label.shape[0] // MAP_STRIDE_PX, MAP_STRIDE_PX, -1, MAP_STRIDE_PX)
    defect = (cells == 1).mean((1, 3))
    clean = (cells == 0).all((1, 3))
    return np.where(defect >= DEFECT_SHARE, 1, np.where(clean, 0, np.nan)).astype(np.float32)


def learning_rate_share(step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine down to a hundredth."""
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps))


def detection_loss(logits: Tensor, labels: Tensor, top_pixels: int) -> Tensor:
    """Loss of the defects' pixels, of the good pixels, and of the pictures' scores.

    logits (2n, 1, h, w), good pictures first; labels (n, h, w) of the others.
    """
    labels = torch.cat([torch.zeros_like(labels), labels])
    targets = labels.nan_to_num()
    pixels = functional.binary_cross_entropy_with_logits(logits[:, 0], targets, reduction="none")
    pixels = pixels * (1 - torch.exp(-pixels.detach()))  # focus on the hard ones (Lin et al. 2017, gamma 1)
    positive, negative = labels == 1, labels == 0
    areas = positive.sum((1, 2))
    defective = areas > 0
    # Every defect weighs the same, a puncture as much as a rotten half.
    defect_loss = ((pixels * positive).sum((1, 2)) / areas.clamp(min=1)).sum() / defective.sum().clamp(min=1)
    scores = logits.flatten(1).topk(top_pixels, dim=1).values.mean(1)
    signs = torch.where(defective, -1.0, 1.0)
    undecided = labels.isnan().any(2).any(1) & ~defective
    score_loss = (functional.softplus(signs * scores) * ~undecided).sum() / (~undecided).sum()
    return defect_loss + 8 * pixels[negative].mean() + score_loss


@torch.no_grad()
def infer(net: nn.Module, images: Images) -> Floats:
    """Anomaly maps float32 (n, h / 4, w / 4) of images uint8 (n, h, w, 3)."""
    net.eval()
    maps = [net(as_pictures(images[start : start + 32]))[:, 0].numpy() for start in range(0, len(images), 32)]
    return np.concatenate(maps) if maps else np.zeros((0, 0, 0), np.float32)


def _blend(average: Tensor, new: Tensor, averaged: Tensor | int) -> Tensor:
    """Exponential average that forgets its first steps quickly."""
    weight = 1 - min(AVERAGING, (1 + int(averaged)) / (10 + int(averaged)))
    return average + weight * (new - average)


def _learn(
    net: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, top_pixels: int, *, in_bfloat16: bool
) -> None:
    pictures, labels = batch
    with torch.autocast("cpu", torch.bfloat16, enabled=in_bfloat16):
        logits = net(pictures)
    loss = detection_loss(logits.float(), labels, top_pixels)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(net.parameters(), GRADIENT_LIMIT)
    optimizer.step()


def _as_image(picture: Floats) -> Images:
    return np.round(picture * 255).astype(np.uint8)
