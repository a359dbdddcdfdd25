"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): momentum whose update of a matrix is orthogonalised.

It reaches a training loss in about a third of AdamW's steps here. For weights of convolutions alone, taken as matrices
(out, in · k · k); biases, norms and a layer of one output channel belong to AdamW.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # quintic coefficients of the reference implementation
NEWTON_SCHULZ_STEPS = 5


class Muon(torch.optim.Optimizer):
    """`precision` is that of the orthogonalisation: bfloat16 suffices where the processor multiplies it fast."""

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        *,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        precision: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self._precision = precision

    @torch.no_grad()
    def step(self, _closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group)

    def _update(self, weight: Tensor, gradient: Tensor, group: dict[str, float]) -> None:
        trace = self.state[weight].setdefault("trace", torch.zeros_like(gradient))
        trace.lerp_(gradient, 1 - group["momentum"])
        nesterov = gradient.lerp(trace, group["momentum"])
        update = orthogonalise(nesterov.flatten(1).to(self._precision)).reshape(weight.shape)
        rows, columns = weight.flatten(1).shape
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(update.to(weight.dtype), alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)


def orthogonalise(matrix: Tensor) -> Tensor:
    """Nearest semi-orthogonal matrix, roughly: singular values end between 0.7 and 1.2."""
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x / (x.norm() + 1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return cast(Tensor, x.T if is_tall else x)
