"""The board's detector: a small encoder and a feature-pyramid decoder that emit an anomaly map.

Only operators of the overlay appear: zero-padded convolutions (5×5 stem, 3×3, 1×1; stride 1 and 2), bias, ReLU,
residual add and nearest upsampling. Batch normalisation is there for training and folds into the convolution before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

STEM_KERNEL_PX = 5
MAP_STRIDE_PX = 4  # one pixel of the map covers 4 × 4 of the image


@dataclass(frozen=True)
class Widths:
    """Channels of the encoder at strides 2, 4, 8, 16, 32, of the decoder, and before the logits.

    Multiples of 16 fill the overlay's array.
    """

    encoder: tuple[int, int, int, int, int] = (32, 48, 96, 128, 128)
    decoder: int = 48
    head: int = 32


class ConvUnit(nn.Sequential):
    """Convolution, batch normalisation, ReLU: one instruction of the overlay once folded."""

    def __init__(self, channels_in: int, channels_out: int, kernel_px: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, kernel_px, stride, kernel_px // 2, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        )


class DetectorNet(nn.Module):
    """Anomaly logits at stride 4.

    Input (n, 3, h, w), h and w multiples of `INPUT_MULTIPLE_PX`, values (pixel - 128) / 128 RGB; output (n, 1, h / 4,
    w / 4), higher is more anomalous, 0 is even odds among the training pictures.
    """

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        first, *deeper = widths.encoder
        self.stem = ConvUnit(3, first, STEM_KERNEL_PX, stride=2)
        pairs = list(zip(widths.encoder, deeper, strict=False))
        self.downs = nn.ModuleList(ConvUnit(low, high, stride=2) for low, high in pairs)
        self.refines = nn.ModuleList(ConvUnit(high, high) for _, high in pairs)
        self.laterals = nn.ModuleList(ConvUnit(high, widths.decoder, 1) for high in deeper)
        self.merges = nn.ModuleList(ConvUnit(widths.decoder, widths.decoder) for _ in deeper[1:-1])
        self.head = ConvUnit(widths.decoder, widths.head)
        self.logits = nn.Conv2d(widths.head, 1, 1)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, pictures: Tensor) -> Tensor:
        logits: Tensor = self.logits(self.decode(self.encode(pictures))[-1])
        return logits

    def encode(self, pictures: Tensor) -> list[Tensor]:
        """Features at strides 4, 8, 16 and 32."""
        level = self.stem(pictures)
        levels = []
        for down, refine in zip(self.downs, self.refines, strict=True):
            level = down(level)
            level = level + refine(level)
            levels.append(level)
        return levels

    def decode(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Features at strides 32, 16, 8 and 4: upsample the coarser ones, add the encoder's, convolve."""
        stages = [self.head, *self.merges]
        decoded = [self.laterals[-1](levels[-1])]
        for index in range(len(levels) - 2, -1, -1):
            decoded.append(stages[index](self.up(decoded[-1]) + self.laterals[index](levels[index])))
        return decoded
