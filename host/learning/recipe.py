"""A recipe: everything that shapes a model besides its pictures and the seed. Loaded from TOML, strictly.

description = "bottle, wider"
float_steps = 6000
[widths]
encoder = [32, 64, 96, 128, 160]
[threshold]
method = "k-sigma"
value = 3.0
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from host.judging.thresholds import ThresholdRule
from host.learning.augmentation import Variation
from host.learning.network import Widths
from host.pictures.inspected import INPUT_MULTIPLE_PX
from protocol.errors import ConfigError
from protocol.strict import FieldError, build, require

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LARGEST_INPUT_PX = 1024
MOST_PAIRS = 256  # of pictures in a step: all of them lie in memory at once
MOST_HELD_OUT = 0.5


@dataclass(frozen=True)
class Rendered:
    """How many parts are drawn for `--data rendered`, and on how many different belts."""

    train_parts: int = 1200
    test_parts: int = 400
    test_defect_share: float = 0.5
    belts: int = 12

    def __post_init__(self) -> None:
        require(1 <= self.belts <= min(self.train_parts, self.test_parts), "belts", "must be 1..parts")
        require(0 < self.test_defect_share < 1, "test_defect_share", "must lie between 0 and 1")


@dataclass(frozen=True)
class LossWeights:
    """What a mistake costs beside a missed defect, which costs 1."""

    good_pixels: float = 8.0
    score: float = 0.2

    def __post_init__(self) -> None:
        require(self.good_pixels > 0, "good_pixels", "must be above 0")
        require(self.score >= 0, "score", "must not be negative")


@dataclass(frozen=True)
class Recipe:
    description: str = "feature-pyramid network"
    input_px: int = 128
    widths: Widths = field(default_factory=Widths)
    variation: Variation = field(default_factory=Variation)
    float_steps: int = 5000
    quantized_steps: int = 200
    pairs: int = 12  # a step sees as many good pictures and as many defective ones
    muon_rate: float = 0.02  # of the convolutions' weights
    learning_rate: float = 2e-3  # of the rest: biases, norms, the last layer
    quantized_learning_rate: float = 1e-5  # gentle: the averaged network is a good one already
    weight_decay: float = 1e-2  # of the convolutions' weights
    weight_bits: int = 8  # 4 halves what the overlay loads; the first and the last convolution keep 8
    top_pixels: int = 10
    held_out_share: float = 0.25  # of the good pictures; they set the threshold and train nothing
    threshold: ThresholdRule = field(default_factory=ThresholdRule)
    loss: LossWeights = field(default_factory=LossWeights)
    rendered: Rendered = field(default_factory=Rendered)

    def __post_init__(self) -> None:
        whole = INPUT_MULTIPLE_PX <= self.input_px <= LARGEST_INPUT_PX and self.input_px % INPUT_MULTIPLE_PX == 0
        require(whole, "input_px", f"must be a multiple of {INPUT_MULTIPLE_PX} up to {LARGEST_INPUT_PX}")
        for key in ("float_steps", "quantized_steps", "top_pixels"):
            require(getattr(self, key) >= 1, key, "must be at least 1")
        require(1 <= self.pairs <= MOST_PAIRS, "pairs", f"must be 1..{MOST_PAIRS}")
        require(self.weight_bits in (4, 8), "weight_bits", "must be 4 or 8")
        for key in ("muon_rate", "learning_rate", "quantized_learning_rate"):
            require(0 < getattr(self, key) < 1, key, "must lie between 0 and 1")
        require(self.weight_decay >= 0, "weight_decay", "must not be negative")
        in_range = 0 < self.held_out_share <= MOST_HELD_OUT
        require(in_range, "held_out_share", f"must lie between 0 and {MOST_HELD_OUT}: the other good pictures train")


def load_recipe(path: Path) -> Recipe:
    """Raises: ConfigError naming the file and the key."""
    try:
        return build(Recipe, tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): correct --recipe") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    except FieldError as error:
        raise ConfigError(f"{path}: {error}") from None


def encode_recipe(recipe: Recipe) -> str:
    """TOML that `load_recipe` reads back to the same recipe."""
    plain, tables = [], []
    for key, value in asdict(recipe).items():
        if isinstance(value, dict):
            tables += ["", f"[{key}]", *(f"{name} = {_encode_value(one)}" for name, one in value.items())]
        else:
            plain.append(f"{key} = {_encode_value(value)}")
    return "\n".join([*plain, *tables]) + "\n"


def _encode_value(value: object) -> str:
    """JSON's numbers, texts, booleans and lists are TOML's too."""
    return json.dumps(value, ensure_ascii=False)
