"""The detector while it trains, with what helps it to learn and is not kept.

Its decoder is judged at every stride, so that what is coarse and certain is learned first (deep supervision: Lee et al.
2015), and its encoder may predict a teacher's features.
"""

from __future__ import annotations

from torch import Tensor, nn

from host.learning.network import DetectorNet, Widths
from host.learning.teacher import STRIDES, Pupil, Teacher


class Learner(nn.Module):
    def __init__(self, widths: Widths, teacher: Teacher | None) -> None:
        super().__init__()
        self.net = DetectorNet(widths)
        self.coarse_logits = nn.ModuleList(nn.Conv2d(widths.decoder, 1, 1) for _ in self.net.laterals[1:])
        self.pupil = None if teacher is None else Pupil(teacher, widths.encoder[1 : 1 + len(STRIDES)])

    def forward(self, pictures: Tensor) -> tuple[list[Tensor], Tensor]:
        """Logits at strides 4, 32, 16 and 8, each (n, 1, h / stride, w / stride), and the pupil's error."""
        levels = self.net.encode(pictures)
        *coarser, finest = self.net.decode(levels)
        logits = [self.net.logits(finest)]
        logits += [judge(features) for judge, features in zip(self.coarse_logits, coarser, strict=True)]
        return logits, finest.new_zeros(()) if self.pupil is None else self.pupil(pictures, levels)
