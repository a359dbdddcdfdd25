"""Train on good pictures alone: in float with Muon and averaged weights, then finetuned as if quantized.

Interrupted and continued gives the same network as uninterrupted: state is saved, pictures depend on the step alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from host.learning.checkpoint import Checkpoint
from host.learning.learner import Learner
from host.learning.muon import Muon
from host.learning.pairs import Batch, Images, Pairs, as_pictures
from host.learning.quantization import LayerNet, fold, quantize
from host.learning.recipe import LossWeights, Recipe
from host.learning.teacher import Teacher
from host.learning.textures import Floats

WARMUP_STEPS = 100
AVERAGING = 0.998  # the network that is kept averages about the last 500 steps
SAVE_EVERY_STEPS = 250
CALIBRATION_BATCHES = 16
BATCHES_AHEAD = 8
DRAWING_LIMIT_S = 600.0
GRADIENT_LIMIT = 5.0
COARSE_WEIGHT = 0.3  # of each coarser stride's logits
TEACHER_WEIGHT = 0.5
SMALL_DEFECT = 4.0  # map pixels; below this, the smaller one weighs less
SMALLEST_DEFECT = 2  # map pixels; the score of a picture with less is not asked to rise

Advance = Callable[[int], None]  # told the number of steps done
Optimizers = Sequence[torch.optim.Optimizer]


@dataclass(frozen=True)
class Phase:
    name: str
    steps: int
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
        teacher: Teacher | None = None,
        save_every_steps: int = SAVE_EVERY_STEPS,
        ignored: NDArray[np.bool_] | None = None,
    ) -> None:
        """`ignored` (h, w): pixels that are blank in every picture."""
        self.teacher = teacher
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.recipe, self.seed, self.checkpoint = recipe, seed, checkpoint
        self.save_every_steps = save_every_steps
        self.pairs = Pairs(goods, recipe.variation, recipe.pairs, seed, ignored)

    def train_float(self, advance: Advance) -> nn.Module:
        """The trained DetectorNet in eval mode."""
        torch.manual_seed(self.seed)
        learner = Learner(self.recipe.widths, self.teacher)
        learner.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        average = AveragedModel(learner, avg_fn=_blend, use_buffers=True)
        phase = Phase("float", self.recipe.float_steps, has_fast_bfloat16(self.device))
        self._fit(phase, learner, average, _make_optimizers(learner, self.recipe, self.device), advance)
        return cast(Learner, average.module).net.cpu().eval()

    def train_quantized(self, net: nn.Module, advance: Advance) -> LayerNet:
        """The network quantized and finetuned, in eval mode."""
        batches = (as_pictures(self.pairs[-1 - i][0]) for i in range(CALIBRATION_BATCHES))
        quantized = quantize(fold(net), batches, self.recipe.weight_bits)
        quantized.to(self.device)
        optimizer = torch.optim.Adam(quantized.parameters(), self.recipe.quantized_learning_rate)
        self._fit(Phase("quantized", self.recipe.quantized_steps), quantized, None, [optimizer], advance)
        return quantized.cpu().eval()

    def _fit(
        self, phase: Phase, net: nn.Module, average: AveragedModel | None, optimizers: Optimizers, advance: Advance
    ) -> None:
        done = self._load(phase, net, average, optimizers)
        net.train()
        torch.backends.cudnn.deterministic = True
        steps = range(done, phase.steps)
        for step, (images, labels) in zip(steps, self._draw_ahead(steps), strict=True):
            for optimizer in optimizers:
                optimizer.param_groups[0]["lr"] = optimizer.defaults["lr"] * learning_rate_share(step, phase.steps)
            batch = as_pictures(images).to(self.device), torch.from_numpy(labels).to(self.device)
            _learn(net, optimizers, batch, self.recipe, in_bfloat16=phase.in_bfloat16)
            if average is not None:
                average.update_parameters(net)
            if (step + 1) % self.save_every_steps == 0 or step + 1 == phase.steps:
                self._save(phase, step + 1, net, average, optimizers)
            advance(step + 1)

    def _draw_ahead(self, steps: range) -> Iterable[Batch]:
        """Batches from a process of its own: drawing takes half as long as learning."""
        # subtle: arrays come through a pipe, tensors would go through files in shared memory, which a small /dev/shm
        # or a limit on the size of files turns into a wait without end
        return DataLoader(
            self.pairs,
            None,
            sampler=steps,
            num_workers=1,
            prefetch_factor=BATCHES_AHEAD,
            collate_fn=_keep,
            timeout=DRAWING_LIMIT_S,
        )

    def _load(self, phase: Phase, net: nn.Module, average: AveragedModel | None, optimizers: Optimizers) -> int:
        """Steps already done in an earlier run."""
        state = self.checkpoint.load(phase.name)
        if state is None:
            return 0
        net.load_state_dict(state["net"])
        for optimizer, its_state in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(its_state)
        if average is not None:
            average.load_state_dict(state["average"])
        return int(state["step"])

    def _save(
        self, phase: Phase, step: int, net: nn.Module, average: AveragedModel | None, optimizers: Optimizers
    ) -> None:
        states = [optimizer.state_dict() for optimizer in optimizers]
        state = {"step": step, "net": net.state_dict(), "optimizers": states}
        if average is not None:
            state["average"] = average.state_dict()
        self.checkpoint.save(phase.name, state)


def _keep(batch: Any) -> Any:
    return batch


def has_fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    is_there = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(is_there and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def learning_rate_share(step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine down to nothing."""
    return min(1.0, (step + 1) / WARMUP_STEPS) * 0.5 * (1 + math.cos(math.pi * step / steps))


def detection_loss(logits: Tensor, labels: Tensor, top_pixels: int, weights: LossWeights) -> Tensor:
    """Loss of the defects' pixels, of the good pixels, and of the pictures' scores.

    logits (2n, 1, h, w), good pictures first; labels (n, h, w) of the others: how likely a person outlines the pixel as
    defective, NaN for undecided.
    """
    scores = logits.flatten(1).topk(top_pixels, dim=1).values.mean(1)
    defective = torch.cat([torch.zeros_like(labels), labels]) == 1
    return pixel_loss(logits, labels, weights.good_pixels) + weights.score * _score_loss(scores, defective)


def pixel_loss(logits: Tensor, labels: Tensor, good_weight: float) -> Tensor:
    """Of logits (2n, 1, h, w) at the resolution of the labels or coarser.

    All defects weigh alike, however large, as they do in AUPRO; only specks weigh less.
    """
    labels = torch.cat([torch.zeros_like(labels), labels])[:, None]
    size = (logits.shape[2], logits.shape[3])
    decided = functional.adaptive_avg_pool2d((~labels.isnan()).float(), size)
    targets = functional.adaptive_avg_pool2d(labels.nan_to_num(), size) / decided.clamp(min=1e-6)
    focus = (targets - logits.detach().sigmoid()).abs() * decided  # on the hard ones (Li et al. 2020, eq. 6, beta 1)
    weights = targets / (targets.sum((2, 3), keepdim=True) + SMALL_DEFECT)
    defect_loss = (focus * weights * functional.softplus(-logits)).sum() / weights.sum().clamp(min=1e-6)
    good_loss = (focus * (1 - targets) * functional.softplus(logits)).sum() / decided.sum()
    return defect_loss + good_weight * good_loss


def _score_loss(scores: Tensor, positive: Tensor) -> Tensor:
    """scores (2n,), good pictures first; positive (2n, h, w) tells defects' pixels."""
    good, bad = scores.chunk(2)
    defective = positive[len(good) :].sum((1, 2)) >= SMALLEST_DEFECT
    bad_loss = (functional.softplus(-bad) * defective).sum() / defective.sum().clamp(min=1)
    return functional.softplus(good).mean() + bad_loss


@torch.no_grad()
def infer(net: nn.Module, images: Images) -> Floats:
    """Anomaly maps float32 (n, h / 4, w / 4) of images uint8 (n, h, w, 3)."""
    net.eval()
    maps = [net(as_pictures(images[start : start + 32]))[:, 0].numpy() for start in range(0, len(images), 32)]
    return np.concatenate(maps) if maps else np.zeros((0, 0, 0), np.float32)


def _make_optimizers(net: nn.Module, recipe: Recipe, device: torch.device) -> Optimizers:
    """Muon for matrices, Adam for the rest: biases, norms and the last layer, whose matrix is one row."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for weight in (weight for weight in net.parameters() if weight.requires_grad):
        (matrices if weight.ndim == 4 and weight.shape[0] > 1 else others).append(weight)
    precision = torch.bfloat16 if has_fast_bfloat16(device) else torch.float32
    return [
        Muon(matrices, recipe.muon_rate, weight_decay=recipe.weight_decay, precision=precision),
        torch.optim.Adam(others, recipe.learning_rate),
    ]


def _blend(average: Tensor, new: Tensor, averaged: Tensor | int) -> Tensor:
    """Exponential average that forgets its first steps quickly."""
    weight = 1 - min(AVERAGING, (1 + int(averaged)) / (10 + int(averaged)))
    return average + weight * (new - average)


def _learn(
    net: nn.Module, optimizers: Optimizers, batch: tuple[Tensor, Tensor], recipe: Recipe, *, in_bfloat16: bool
) -> None:
    pictures, labels = batch
    with torch.autocast(pictures.device.type, torch.bfloat16, enabled=in_bfloat16):
        (logits, *coarser), error = net(pictures) if isinstance(net, Learner) else ([net(pictures)], 0.0)
    loss = detection_loss(logits.float(), labels, recipe.top_pixels, recipe.loss) + TEACHER_WEIGHT * error
    for coarse in coarser:
        loss = loss + COARSE_WEIGHT * pixel_loss(coarse.float(), labels, recipe.loss.good_pixels)
    net.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(net.parameters(), GRADIENT_LIMIT)
    for optimizer in optimizers:
        optimizer.step()
