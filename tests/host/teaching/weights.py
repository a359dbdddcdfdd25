"""A tiny file of random weights of the backbone's shape: nobody's property, and of no use but in tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from host.teaching.lite0 import BLOCKS, State

STEM = 32
OUTPUTS = (16, 24, 24, 40, 40, 80, 80, 80)
EXPANSION = 6


def random_state(seed: int = 0) -> State:
    """Normalizations as of a trained network: every sum has about its stated mean and deviation."""
    rng = np.random.default_rng(seed)
    state: State = {}
    _add(state, rng, ("_conv_stem", "_bn0"), (STEM, 3, 3, 3))
    channels = STEM
    for number, (block, outputs) in enumerate(zip(BLOCKS, OUTPUTS, strict=True)):
        at, wide = f"_blocks.{number}.", channels * (EXPANSION if block.expand else 1)
        if block.expand:
            _add(state, rng, (f"{at}_expand_conv", f"{at}_bn0"), (wide, channels, 1, 1))
        _add(state, rng, (f"{at}_depthwise_conv", f"{at}_bn1"), (wide, 1, block.kernel_px, block.kernel_px))
        _add(state, rng, (f"{at}_project_conv", f"{at}_bn2"), (outputs, wide, 1, 1))
        channels = outputs
    return state


def write_state(state: State, path: Path) -> Path:
    torch.save({name: torch.from_numpy(values).float() for name, values in state.items()}, path)
    return path


def _add(state: State, rng: np.random.Generator, names: tuple[str, str], shape: tuple[int, ...]) -> None:
    conv, norm = names
    outputs, fan_in = shape[0], int(np.prod(shape[1:]))
    state[f"{conv}.weight"] = rng.normal(size=shape) / np.sqrt(fan_in)
    state[f"{norm}.weight"] = rng.uniform(0.5, 1.5, outputs)
    state[f"{norm}.bias"] = rng.normal(size=outputs)
    state[f"{norm}.running_mean"] = rng.normal(size=outputs) / 4
    state[f"{norm}.running_var"] = rng.uniform(0.3, 1.0, outputs)
