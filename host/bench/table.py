"""Every detector of the bench, by name: the module that holds it, its settings, and how small it can be for a trial.

A module has a `Settings` dataclass and `build(settings, given)`; it is imported when its turn has come.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from host.bench.autoencoder import LOSSES, SHAPES
from host.bench.detector import Build
from host.bench.features import NETWORKS
from protocol.errors import InputError

Changes = Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    name: str
    module: str
    settings: Changes = field(default_factory=dict)
    input_px: int = 256
    small_px: int = 32  # of MNIST's and CIFAR-10's pictures
    weights: str = ""  # the network whose pretrained weights it needs, or ""
    tiny: Changes = field(default_factory=dict)  # settings of a trial of seconds
    tiny_px: int = 64
    ablations: Mapping[str, Changes] = field(default_factory=dict)


@dataclass(frozen=True)
class Made:
    """A detector's settings, and what builds it from them."""

    settings: Any
    build: Build


QUICK = {"epochs": 1, "batch": 8}
QUICK_STEPS = {**QUICK, "least_steps": 1}
SMALL_GAN = {**QUICK_STEPS, "width": 8, "latent": 16}
FEW_PATCHES = {"patches_a_picture": 2, "stride": 16}
LARGER_PX = 64  # of small pictures, for what has patches or strides: MNIST and CIFAR-10 enlarged


def list_entries() -> tuple[Entry, ...]:
    return (*_on_features(), *_autoencoders(), *_gans(), *_alexnet(), *_self_supervised(), *_anomalib(), *_baselines())


def find_entries(words: str) -> tuple[Entry, ...]:
    """Of "all" or "padim,ae-*": a star stands for any ending. Raises: InputError for a name that is not there."""
    entries = list_entries()
    if words == "all":
        return entries
    chosen: dict[str, Entry] = {}
    for word in words.split(","):
        found = [entry for entry in entries if _matches(entry.name, word.strip())]
        if not found:
            raise InputError(f"no detector {word!r}: --list names them")
        chosen |= {entry.name: entry for entry in found}
    return tuple(chosen.values())


def make(entry: Entry, changes: Changes) -> Made:
    """Raises: InputError for settings that the detector does not have."""
    module = importlib.import_module(f"host.bench.{entry.module}")
    settings = module.Settings(**entry.settings)
    known = {one.name: type(getattr(settings, one.name)) for one in fields(settings)}
    for name, value in changes.items():
        if name not in known:
            raise InputError(f"{entry.name} has no setting {name!r}: it has {', '.join(known)}")
        if type(value) is not known[name] and not (known[name] is float and type(value) is int):
            raise InputError(f"{name} of {entry.name} must be {known[name].__name__}, not {value!r}: correct it")
    return Made(replace(settings, **changes), module.build)


def _matches(name: str, word: str) -> bool:
    return name.startswith(word[:-1]) if word.endswith("*") else name == word


def _on_features() -> list[Entry]:
    entries = []
    for method, input_px, tiny, ablations in (
        ("padim", 128, {"channels": 20}, {f"{count} channels": {"channels": count} for count in (50, 200)}),
        ("patchcore", 256, {"bank": 50}, {f"bank of {count}": {"bank": count} for count in (500, 8000)}),
    ):
        for network in NETWORKS:
            name = method if network == NETWORKS[0] else f"{method}-{network}"
            one = Entry(name, method, {"network": network}, input_px, LARGER_PX, network, tiny, ablations=ablations)
            entries.append(one)
    return entries


def _autoencoders() -> list[Entry]:
    ablations = {f"latent {size}": {"latent": size} for size in (8, 64)}
    return [
        Entry(
            f"ae-{shape}-{loss}",
            "autoencoder",
            {"shape": shape, "loss": loss},
            input_px=64,
            tiny=QUICK_STEPS,
            tiny_px=32,
            ablations=ablations,
        )
        for shape in SHAPES
        for loss in LOSSES
    ]


def _gans() -> list[Entry]:
    without = {"no adversarial loss": {"adversarial": 0.0}, "no encoding loss": {"encoding": 0.0}}
    processed = {**SMALL_GAN, **FEW_PATCHES, "steps": 5}
    return [
        Entry("ganomaly", "ganomaly", {}, 32, 32, "", SMALL_GAN, 32, without),
        _of_patches("patch-ganomaly", "patch_ganomaly", {}, {**SMALL_GAN, **FEW_PATCHES}),
        _of_patches("tl-ganomaly", "patch_ganomaly", {"encoder": "vgg16"}, {**SMALL_GAN, **FEW_PATCHES}),
        _of_patches("pg-constant", "processing", {"learned": False}, processed),
        _of_patches("pg-detector", "processing", {}, processed),
        _of_patches("tl-detector", "processing", {"encoder": "vgg16"}, processed),
        _of_patches("patch-cnn", "patch_cnn", {}, {**QUICK, **FEW_PATCHES}),
        _of_patches("patch-ae", "patch_autoencoder", {}, {**QUICK, **FEW_PATCHES}),
    ]


def _of_patches(name: str, module: str, settings: Changes, tiny: Changes) -> Entry:
    weights = "vgg16" if settings.get("encoder") == "vgg16" else ""
    return Entry(name, module, settings, 256, LARGER_PX, weights, tiny)


def _alexnet() -> list[Entry]:
    return [
        Entry(
            f"alexnet-ae-{difference}",
            "alexnet",
            {"difference": difference},
            input_px=227,
            small_px=67,
            tiny=QUICK,
            tiny_px=67,
        )
        for difference in ("l2", "ssim")
    ]


def _self_supervised() -> list[Entry]:
    entries = []
    for level in ("image", "patch"):
        for network in ("", "resnet18"):
            name = f"ssl-{level}" if network else f"ssl-{level}-scratch"
            settings = {"level": level, "pretrained": bool(network)}
            tiny = {**QUICK, "stride": 32, "patches_a_picture": 2}
            entries.append(Entry(name, "selfsupervised", settings, 256, LARGER_PX, network, tiny))
    return entries


def _anomalib() -> list[Entry]:
    """With the library's usual backbone, and with one whose weights are at hand."""
    entries = []
    for model in ("padim", "patchcore", "cflow", "fastflow", "stfpm", "dfm", "dfkde"):
        for network in ("resnet18", "squeezenet1_1"):
            if (model, network) == ("fastflow", "squeezenet1_1"):
                continue  # it takes ResNets only
            name = f"anomalib-{model}" if network == "resnet18" else f"anomalib-{model}-{network}"
            settings = {"model": model, "network": network}
            tiny = {"channels": 20, "bank": 50, "components": 4, **QUICK}
            entries.append(Entry(name, "anomalib_set", settings, 256, LARGER_PX, network, tiny))
    return entries


def _baselines() -> list[Entry]:
    names = ("lof", "cblof", "xgbod", "xgboost", "catboost")
    return [
        Entry(name, "baselines", {"method": name}, 256, 64, NETWORKS[0], {"trees": 5, "clusters": 12}) for name in names
    ]
