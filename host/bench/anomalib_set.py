"""Anomalib's PaDiM, PatchCore, CFlow, FastFlow, STFPM, DFM and DFKDE, as the library has them (extra `anomalib`).

Its networks are driven here without its engine, which would read pictures by itself and download weights. Trainings are
those of its Lightning modules: CFlow with Adam 1e-4 on fibers of 64, FastFlow with Adam 1e-3, STFPM with SGD 0.4. A
picture's score is its map's maximum; PatchCore's is therefore without the library's reweighting, and its bank is chosen
by host/large/patchcore.py: the same algorithm, where the library's fills tens of gigabytes with holes between its small
arrays. CFlow gets SqueezeNet's features divided by their spread. DFKDE scores whole pictures. FastFlow knows no
backbone but ResNets.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from host.bench.detector import Advance, Given, Images, Maps, MissingError, Pool
from host.bench.features import NODES
from host.bench.net import as_batch, descend, walk_batches
from host.large.patchcore import choose_coreset
from host.learning.backbone import Backbone, import_torchvision, load_backbone

MODELS = "anomalib.models.image"
EXTRA = "install the extra: pip install '.[anomalib]' in the clone"
FIBERS = 64
SEEN_AT_ONCE = 8
UNNORMALISED = ("squeezenet1_1",)  # without batch normalisation: features of hundreds
USUAL_PX = 128  # below, DFM's pooling of 4 × 4 has nothing left


@dataclass(frozen=True)
class Settings:
    model: Literal["padim", "patchcore", "cflow", "fastflow", "stfpm", "dfm", "dfkde"] = "padim"
    network: Literal["resnet18", "wide_resnet50_2", "squeezenet1_1"] = "resnet18"
    channels: int = 100  # PaDiM's
    bank: int = 2000  # PatchCore's
    components: int = 16  # DFKDE's, fewer than pictures
    epochs: int = 50  # of the flows and of STFPM
    batch: int = 16


class Evened(nn.Module):
    """A library's extractor whose layers are each divided by their spread on good pictures.

    CFlow's flows are made for features of about one. With SqueezeNet's they learn nothing: after two epochs on
    bottles of 128 pixels the image AUROC is 0.46, and 0.99 with this.
    """

    def __init__(self, extractor: nn.Module, spreads: dict[str, float]) -> None:
        super().__init__()
        self.extractor, self.spreads = extractor, spreads

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        return {name: layer / self.spreads[name] for name, layer in self.extractor(pictures).items()}


class Library:
    pools: Pool = "maximum"

    def __init__(self, settings: Settings, given: Given) -> None:
        path = given.weights.find(settings.network)
        if path is None:
            raise MissingError(given.weights.explain(settings.network))
        if settings.model == "fastflow" and settings.network == "squeezenet1_1":
            raise MissingError("Anomalib's FastFlow takes ResNets only")
        import_torchvision()  # before the library does
        self.settings, self.given = settings, given
        self.colours = load_backbone(settings.network, path)
        torch.manual_seed(given.seed)
        self.model = self._make_model(load_backbone(settings.network, path, NODES[settings.network]))

    def _make_model(self, pretrained: Backbone) -> nn.Module:
        settings, layers = self.settings, list(NODES[self.settings.network])
        plain, pooling = self._copy_trunk(pretrained), 4 if self.given.input_px >= USUAL_PX else 2
        if settings.model == "fastflow":
            return self._make_fastflow(plain)
        known: dict[str, tuple[str, dict[str, Any]]] = {
            "padim": ("PadimModel", {"layers": layers, "n_features": settings.channels}),
            "patchcore": ("PatchcoreModel", {"layers": layers[1:]}),
            "cflow": ("CflowModel", {"layers": layers, "fiber_batch_size": FIBERS}),
            "stfpm": ("STFPMModel", {"layers": layers}),
            "dfm": (
                "DFMModel",
                {"layer": layers[-1], "pooling_kernel_size": pooling},
            ),
            "dfkde": ("DfkdeModel", {"layers": layers[-1:], "n_pca_components": settings.components}),
        }
        name, own = known[settings.model]
        net = self._find(name)(backbone=plain, **own)
        if settings.model == "stfpm":  # of one network the library makes both; the student starts from nothing
            untrained = import_torchvision().models.get_model(settings.network)
            net.student_model = type(net.teacher_model)(backbone=untrained, layers=layers, requires_grad=True)
        return cast(nn.Module, net)

    def _make_fastflow(self, plain: nn.Module) -> nn.Module:
        size = (self.given.input_px, self.given.input_px)
        net = self._find("FastflowModel")(input_size=size, backbone=self.settings.network, pre_trained=False)
        stored, trunk = plain.state_dict(), net.feature_extractor
        trunk.load_state_dict({key: stored[key] for key in trunk.state_dict()})
        return cast(nn.Module, net)

    def _copy_trunk(self, pretrained: Backbone) -> nn.Module:
        """torchvision's network with what the file holds of it; what lies behind its last node is not asked."""
        plain = import_torchvision().models.get_model(self.settings.network)
        plain.load_state_dict(pretrained.extractor.state_dict(), strict=False)
        return cast(nn.Module, plain.eval())

    def _find(self, name: str) -> Any:
        return _import(f"{MODELS}.{self.settings.model}.torch_model", name)

    def fit(self, goods: Images, advance: Advance) -> None:
        torch.manual_seed(self.given.seed)
        if self.settings.model == "cflow" and self.settings.network in UNNORMALISED:
            self._even_layers(goods[:SEEN_AT_ONCE])
        if self.settings.model in ("cflow", "fastflow", "stfpm"):
            self._train(goods, advance)
            return
        self.model.train()
        with torch.no_grad():
            for start in range(0, len(goods), SEEN_AT_ONCE):
                self.model(self._prepare(goods[start : start + SEEN_AT_ONCE]))
                advance(0.8 * start / len(goods))
        model = cast(Any, self.model)
        if self.settings.model == "patchcore":
            patches = torch.cat(model.embedding_store)
            model.embedding_store.clear()
            model.memory_bank = patches[choose_coreset(patches.numpy(), self.settings.bank, self.given.seed)]
        else:
            model.fit()

    def _even_layers(self, goods: Images) -> None:
        model = cast(Any, self.model)
        layers: dict[str, Tensor] = model.encoder(self._prepare(goods))
        model.encoder = Evened(model.encoder, {name: float(layer.std()) for name, layer in layers.items()})

    def _train(self, goods: Images, advance: Advance) -> None:
        settings = self.settings
        step_on, optimizer = self._make_step()
        for chosen in walk_batches(len(goods), settings.batch, settings.epochs, self.given.seed, advance):
            self.model.train()
            step_on(self._prepare(goods[chosen]), optimizer)

    def _make_step(self) -> tuple[Callable[[Tensor, torch.optim.Optimizer], None], torch.optim.Optimizer]:
        model = cast(Any, self.model)
        if self.settings.model == "cflow":
            return self._step_cflow, torch.optim.Adam(model.decoders.parameters(), 1e-4)
        if self.settings.model == "fastflow":
            self.loss = _import(f"{MODELS}.fastflow.loss", "FastflowLoss")()
            learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
            return self._step_on_loss, torch.optim.Adam(learned, 1e-3, weight_decay=1e-5)
        self.loss = _import(f"{MODELS}.stfpm.loss", "STFPMLoss")()
        student = model.student_model.parameters()
        return self._step_on_loss, torch.optim.SGD(student, 0.4, momentum=0.9, weight_decay=1e-3)

    def _step_on_loss(self, pictures: Tensor, optimizer: torch.optim.Optimizer) -> None:
        descend(optimizer, self.loss(*self.model(pictures)))

    def _step_cflow(self, pictures: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Features of each place given its position, in random order (Gudovskiy et al. 2022, equation 9)."""
        encode_position = _import(f"{MODELS}.cflow.utils", "positional_encoding_2d")
        likelihood = _import(f"{MODELS}.cflow.utils", "get_logp")
        model = cast(Any, self.model)
        for layer, decoder in zip(model.pool_layers, model.decoders, strict=True):
            features = model.encoder(pictures)[layer].detach()
            count, channels, height, width = features.shape
            position = encode_position(model.condition_vector, height, width).expand(count, -1, -1, -1)
            vectors, positions = (one.permute(0, 2, 3, 1).flatten(0, 2) for one in (features, position))
            for chosen in torch.split(torch.randperm(len(vectors)), FIBERS):
                latent, log_volume = decoder(vectors[chosen], [positions[chosen]])
                descend(optimizer, -functional.logsigmoid(likelihood(channels, latent, log_volume) / channels).mean())

    def _prepare(self, images: Images) -> Tensor:
        """As the pretrained network wants them."""
        levels = as_batch(images).float() + 128
        levels = levels if self.colours.is_rgb else levels[:, [2, 1, 0]]
        return (levels - cast(Tensor, self.colours.mean)) / cast(Tensor, self.colours.deviation)

    @torch.no_grad()
    def score_map(self, images: Images) -> Maps:
        self.model.eval()
        maps = []
        for index in range(len(images)):
            judged = self.model(self._prepare(images[index : index + 1]))
            if judged.anomaly_map is None:
                maps.append(judged.pred_score.reshape(1, 1).numpy())
            else:
                maps.append(judged.anomaly_map.reshape(*judged.anomaly_map.shape[-2:]).numpy())
        return np.asarray(np.stack(maps), np.float32)

    def export(self) -> None:
        """The library's own export asks for another exporter, and fixes a batch of two in some of its graphs."""
        return None


def _import(module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise MissingError(f"anomalib is not here ({error!s:.60}): {EXTRA}") from None


build = Library
