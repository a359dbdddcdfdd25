"""A network of the shape of the board's detector, with random integers of a sensible size."""

from __future__ import annotations

import numpy as np

from host.integers.arithmetic import IMAGE, MAP, Add, Conv, IntegerNet, Layer, Upsample

WEIGHT_SPREAD = 20


def make_detector(input_px: tuple[int, int], encoder: tuple[int, ...], decoder: int, seed: int = 0) -> IntegerNet:
    return _Maker(seed).detector(input_px, encoder, decoder)


class _Maker:
    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._layers: list[Layer] = []
        self._channels = {IMAGE: 3}
        self._exponents = {IMAGE: -7}

    def detector(self, input_px: tuple[int, int], encoder: tuple[int, ...], decoder: int) -> IntegerNet:
        level = self._conv("stem", IMAGE, encoder[0], kernel_px=5, stride=2)
        levels = []
        for i, channels in enumerate(encoder[1:]):
            down = self._conv(f"down{i}", level, channels, stride=2)
            level = self._add(f"add{i}", down, self._conv(f"refine{i}", down, channels))
            levels.append(level)
        merged = self._conv("lateral", levels[-1], decoder, kernel_px=1, relu=False)
        for i, finer in reversed(list(enumerate(levels[:-1]))):
            lateral = self._conv(f"lateral{i}", finer, decoder, kernel_px=1, relu=False)
            merged = self._conv(f"merge{i}", self._add(f"sum{i}", self._double(f"up{i}", merged), lateral), decoder)
        self._conv(MAP, merged, 1, kernel_px=1, relu=False)
        return IntegerNet(input_px, tuple(self._layers))

    def _conv(
        self, name: str, source: str, channels: int, *, kernel_px: int = 3, stride: int = 1, relu: bool = True
    ) -> str:
        shape = (channels, self._channels[source], kernel_px, kernel_px)
        weights = np.clip(self._rng.normal(0, WEIGHT_SPREAD, shape).round(), -127, 127).astype(np.int8)
        bias = self._rng.integers(-2000, 2000, channels).astype(np.int32)
        # a right shift that keeps the results as large as the source's values
        shift = round(np.log2(WEIGHT_SPREAD * np.sqrt(np.prod(shape[1:]))))
        exponent = -4
        scale = np.full(channels, exponent - self._exponents[source] - shift, np.int32)
        return self._put(Conv(name, source, weights, scale, bias, exponent, stride, relu), channels, exponent)

    def _add(self, name: str, left: str, right: str) -> str:
        return self._put(Add(name, left, right, -3), self._channels[left], -3)

    def _double(self, name: str, source: str) -> str:
        return self._put(Upsample(name, source), self._channels[source], self._exponents[source])

    def _put(self, layer: Layer, channels: int, exponent: int) -> str:
        self._layers.append(layer)
        self._channels[layer.name], self._exponents[layer.name] = channels, exponent
        return layer.name
