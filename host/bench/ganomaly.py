"""GANomaly (Akçay et al. 2018, arXiv 1805.06725): a generator that encodes, decodes and encodes again.

Generator loss (section 3.2, equations 1 to 4): adversarial (L2 between the discriminator's features of the real and the
made picture), contextual (L1 between the pictures), encoder (L2 between the two latents), weighted 1, 50, 1. The
discriminator is trained by binary cross-entropy. Score: the length of z − z′ (equation 5; the paper's code takes its
square). Encoder and decoder are those of DCGAN (Radford et al. 2016) for 32×32 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from host.bench.detector import Advance, Given, Images, Maps, Pool
from host.bench.net import Levels, as_levels, descend, fast_products, run_net, trace, walk_batches
from protocol.errors import InputError

SIDE_PX = 32
COLLAPSED = 1e-5  # a discriminator's loss below which it starts anew: it tells the pictures apart too well to teach


@dataclass(frozen=True)
class Settings:
    width: int = 64  # channels of the first convolution
    latent: int = 100
    epochs: int = 15
    least_steps: int = 2000  # few pictures are shown more often
    batch: int = 64
    learning_rate: float = 2e-4
    adversarial: float = 1.0
    contextual: float = 50.0
    encoding: float = 1.0


def make_encoder(channels: int, width: int, latent: int) -> nn.Sequential:
    """(n, channels, 32, 32) to (n, latent, 1, 1)."""
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
    for low, high in ((width, 2 * width), (2 * width, 4 * width)):
        layers += [nn.Conv2d(low, high, 4, 2, 1, bias=False), nn.BatchNorm2d(high), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(4 * width, latent, 4, bias=False))


def make_decoder(channels: int, width: int, latent: int) -> nn.Sequential:
    """(n, latent, 1, 1) to (n, channels, 32, 32) in -1..1."""
    layers: list[nn.Module] = [nn.ConvTranspose2d(latent, 4 * width, 4, bias=False), nn.BatchNorm2d(4 * width)]
    for low, high in ((4 * width, 2 * width), (2 * width, width)):
        layers += [nn.ReLU(), nn.ConvTranspose2d(low, high, 4, 2, 1, bias=False), nn.BatchNorm2d(high)]
    return nn.Sequential(*layers, nn.ReLU(), nn.ConvTranspose2d(width, channels, 4, 2, 1, bias=False), nn.Tanh())


class Generator(nn.Module):
    """Pictures (n, channels, 32, 32) in -1..1 to those made, and both latents (n, latent, 1, 1)."""

    def __init__(self, channels: int, width: int, latent: int, first: nn.Module | None = None) -> None:
        super().__init__()
        self.first = make_encoder(channels, width, latent) if first is None else first
        self.decoder = make_decoder(channels, width, latent)
        self.second = make_encoder(channels, width, latent)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        code = self.first(pictures)
        made = self.decoder(code)
        return made, code, self.second(made)


class Discriminator(nn.Module):
    """Pictures to logits (n,) of being real, and the features before them."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        *features, logit = make_encoder(channels, width, 1)
        self.features, self.logit = nn.Sequential(*features), logit

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(pictures)
        return self.logit(features).flatten(), features


class Trainer:
    """Generator and discriminator by turns, on batches of pictures in -1..1."""

    def __init__(self, generator: Generator, channels: Literal[1, 3], settings: Settings) -> None:
        self.settings, self.generator, self.channels = settings, generator, channels
        self.discriminator = Discriminator(channels, settings.width)
        generator.apply(start_weights)
        self.discriminator.apply(start_weights)
        learned = [parameter for parameter in generator.parameters() if parameter.requires_grad]
        rate, betas = settings.learning_rate, (0.5, 0.999)
        self.for_generator = torch.optim.Adam(learned, rate, betas)
        self.for_discriminator = torch.optim.Adam(self.discriminator.parameters(), rate, betas)

    def learn(self, images: Images, seed: int, advance: Advance) -> None:
        settings = self.settings
        least = settings.least_steps
        for chosen in walk_batches(len(images), settings.batch, settings.epochs, seed, advance, least_steps=least):
            self.step(2 * as_levels(images[chosen], self.channels) - 1)

    def step(self, real: Tensor) -> None:
        self.generator.train()
        with fast_products():
            made, code, code_again = (part.float() for part in self.generator(real))
            loss = self.judge_generator(real, made, code, code_again)
        descend(self.for_generator, loss)
        with fast_products():
            loss = self.judge_discriminator(real, made.detach())
        descend(self.for_discriminator, loss)
        if float(loss.detach()) < COLLAPSED:
            self.discriminator.apply(start_weights)

    def judge_generator(self, real: Tensor, made: Tensor, code: Tensor, code_again: Tensor) -> Tensor:
        settings = self.settings
        features = functional.mse_loss(self.discriminator(made)[1], self.discriminator(real)[1].detach())
        context = functional.l1_loss(made, real)
        encoding = functional.mse_loss(code_again, code)
        return settings.adversarial * features + settings.contextual * context + settings.encoding * encoding

    def judge_discriminator(self, real: Tensor, made: Tensor) -> Tensor:
        of_real, of_made = self.discriminator(real)[0], self.discriminator(made)[0]
        right = functional.binary_cross_entropy_with_logits(of_real, torch.ones_like(of_real))
        return (right + functional.binary_cross_entropy_with_logits(of_made, torch.zeros_like(of_made))) / 2


def start_weights(module: nn.Module) -> None:
    """DCGAN's. What is frozen, a pretrained network's part, stays."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or not weight.requires_grad:
        return
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


class Judge(nn.Module):
    """Images int8 (n, 3, 32, 32) to the length of z − z′ (n, 1, 1, 1)."""

    def __init__(self, generator: Generator, channels: Literal[1, 3]) -> None:
        super().__init__()
        self.levels, self.generator = Levels(channels), generator

    def forward(self, images: Tensor) -> Tensor:
        return latent_distance(self.generator, 2 * self.levels(images) - 1)


def latent_distance(generator: Generator, pictures: Tensor) -> Tensor:
    """(n, 1, 1, 1)."""
    _, code, code_again = generator(pictures)
    distance: Tensor = (code - code_again).square().sum(1, keepdim=True).sqrt()
    return distance


class Ganomaly:
    pools: Pool = "maximum"  # one pixel: the score
    is_stepwise = True

    def __init__(self, settings: Settings, given: Given) -> None:
        if given.input_px != SIDE_PX:
            raise InputError(f"GANomaly takes pictures of {SIDE_PX} pixels, not {given.input_px}: use patch-ganomaly")
        self.settings, self.given = settings, given
        torch.manual_seed(given.seed)
        self.net = Judge(Generator(given.channels, settings.width, settings.latent), given.channels)

    def fit(self, goods: Images, advance: Advance) -> None:
        Trainer(self.net.generator, self.given.channels, self.settings).learn(goods, self.given.seed, advance)

    def score_map(self, images: Images) -> Maps:
        return run_net(self.net, images, 128)

    def export(self) -> onnx.ModelProto:
        return trace(self.net, self.given.input_px)


build = Ganomaly
