"""A network pretrained on photographs, from torchvision, cut off where its features still say where something is."""

from __future__ import annotations

import sys
import urllib.error
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from protocol.errors import InputError

BackboneName = Literal["squeezenet1_1", "resnet18", "wide_resnet50_2"]
BACKBONES: tuple[BackboneName, ...] = get_args(BackboneName)
# Nodes at strides 8 and 16, the levels of PatchCore (Roth et al. 2022, section 4.1).
NODES: dict[BackboneName, tuple[str, str]] = {
    "squeezenet1_1": ("features.7", "features.10"),
    "resnet18": ("layer2", "layer3"),
    "wide_resnet50_2": ("layer2", "layer3"),
}
PREFIX = "features."  # in torchvision's file of SqueezeNet; the converted Caffe file has none, and takes BGR


@dataclass(frozen=True)
class Colours:
    """What the network was trained on: `(level - mean) / deviation` of levels 0..255, channels in its own order."""

    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]
    is_rgb: bool


RGB = Colours((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), is_rgb=True)  # torchvision
BGR = Colours((104.0, 117.0, 123.0), (1.0, 1.0, 1.0), is_rgb=False)  # Caffe


class Backbone(nn.Module):
    """Images int8 (n, 3, h, w) RGB, level - 128, to features at strides 8 and 16."""

    def __init__(self, extractor: nn.Module, colours: Colours) -> None:
        super().__init__()
        self.extractor, self.is_rgb = extractor, colours.is_rgb
        self.register_buffer("mean", torch.tensor(colours.mean).reshape(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(colours.deviation).reshape(1, 3, 1, 1))

    def forward(self, images: Tensor) -> list[Tensor]:
        levels = images.float() + 128
        # subtle: by index, since ONNX has no flip of its own
        levels = levels if self.is_rgb else levels[:, [2, 1, 0]]
        levels = (levels - cast(Tensor, self.mean)) / cast(Tensor, self.deviation)
        return list(self.extractor(levels).values())


def load_backbone(name: BackboneName, weights: Path | None, nodes: Sequence[str] = ()) -> Backbone:
    """From a file of weights, or by torchvision's own download; other `nodes` give other levels. Raises: InputError."""
    models = import_torchvision().models
    try:
        whole = models.get_model(name, weights="DEFAULT" if weights is None else None)
    except (urllib.error.URLError, OSError) as error:
        raise InputError(f"cannot download {name} ({error}): give --backbone-weights torchvision's file") from None
    colours = RGB if weights is None else _read_weights(whole, name, weights)
    extractor = models.feature_extraction.create_feature_extractor(whole.eval(), list(nodes or NODES[name]))
    return Backbone(extractor, colours).eval().requires_grad_(False)


def import_torchvision() -> Any:
    """subtle: torchvision built for CUDA beside torch without it cannot load its operators, and will not be imported

    until something declares those that its modules name. No model of ours uses them.
    """
    try:
        return _import_models()
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    _KEPT.append(library)
    return _import_models()


_KEPT: list[torch.library.Library] = []  # what is declared lives as long as its library


def _import_models() -> ModuleType:
    import torchvision  # noqa: PLC0415 - see import_torchvision
    import torchvision.models.feature_extraction  # noqa: PLC0415

    return cast(ModuleType, torchvision)


def _read_weights(whole: nn.Module, name: BackboneName, path: Path) -> Colours:
    """Fill the network up to its last node; what lies behind may be missing. Raises: InputError."""
    problem = f"{path} does not hold the weights of {name}: give torchvision's file, or another --backbone"
    try:
        weights = torch.load(path, weights_only=True)
        is_bare = name == "squeezenet1_1" and not any(key.startswith(PREFIX) for key in weights)
        given = {PREFIX + key: value for key, value in weights.items()} if is_bare else weights
        missing, unknown = whole.load_state_dict(given, strict=False)
    except (OSError, UnpicklingError, EOFError, RuntimeError, AttributeError, TypeError) as error:
        raise InputError(f"{problem} ({str(error).partition(chr(10))[0]:.100})") from None
    if unknown or not all(key.startswith(("classifier.", "fc.")) for key in missing):
        raise InputError(problem)
    return BGR if is_bare else RGB
