"""The detectors' arithmetic, against other ways to compute the same."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import correlate1d
from torch import Tensor, nn
from torch.nn import functional

from host.bench import alexnet, autoencoder, padim, processing
from host.bench.anomalib_set import Library
from host.bench.detector import Given, Labelled, MissingError
from host.bench.features import load_mobilenet
from host.bench.ganomaly import Generator, Settings, Trainer, latent_distance
from host.bench.losses import LOSSES, LossName, cross_entropy, dissimilarity, loss_map, squared_error, ssim_map
from host.bench.net import as_batch, as_levels, draw_batches, walk_batches
from host.bench.patches import PATCH_PX, Dense, draw_labelled, resize_mask
from host.bench.selfsupervised import Bank, Pretext
from host.bench.selfsupervised import Settings as PretextSettings
from host.bench.table import find_entries, make
from host.bench.weights import Weights
from host.learning.backbone import import_torchvision
from protocol.errors import InputError

Images = NDArray[np.uint8]
BARE = Weights(None)


def pictures(count: int = 3, channels: int = 1, side: int = 24) -> Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(count))


def test_ssim_is_that_of_its_paper() -> None:
    """Equation 13 of Wang et al. 2004 with SciPy's filters in place of ours."""
    first, second = pictures(1).double(), pictures(2).double()[:1]
    offsets = np.arange(-5, 6)
    kernel = np.exp(-(offsets**2) / (2 * 1.5**2))
    kernel /= kernel.sum()

    def smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(correlate1d(correlate1d(values, kernel, 0, mode="mirror"), kernel, 1, mode="mirror"))

    a, b = first[0, 0].numpy(), second[0, 0].numpy()
    mean_a, mean_b = smooth(a), smooth(b)
    spread = smooth(a * a) - mean_a**2 + smooth(b * b) - mean_b**2
    together = smooth(a * b) - mean_a * mean_b
    expected = (2 * mean_a * mean_b + 1e-4) * (2 * together + 9e-4)
    expected /= (mean_a**2 + mean_b**2 + 1e-4) * (spread + 9e-4)
    np.testing.assert_allclose(ssim_map(first, second)[0, 0].numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_nothing_where_nothing_differs_and_grows(name: LossName) -> None:
    real = pictures()
    near, far = (real + step * torch.sin(torch.arange(24.0)) for step in (0.02, 0.2))
    exact, small, large = (float(loss_map(made.clamp(0, 1), real, name).mean()) for made in (real, near, far))
    assert abs(exact) < 1e-6 < small < large


def test_ssim_keeps_its_precision_where_products_are_short() -> None:
    made, real = pictures(2), pictures(4)[:2]
    with torch.autocast("cpu", torch.bfloat16):
        short = ssim_map(made, real)
    assert torch.equal(short, ssim_map(made, real))


def test_losses_add_up() -> None:
    made, real = pictures(2), pictures(4)[:2]
    both = loss_map(made, real, "mse+ssim")
    assert torch.allclose(both, squared_error(made, real) + dissimilarity(made, real))
    whole = functional.binary_cross_entropy(made.clamp(1e-6, 1 - 1e-6), real)
    own = functional.binary_cross_entropy(real, real)
    assert float(cross_entropy(made, real).mean()) == pytest.approx(float(whole - own), rel=1e-4)


def test_few_pictures_are_shown_more_often() -> None:
    told: list[float] = []
    assert len(list(walk_batches(10, 4, 2, 0, told.append))) == 6
    assert len(list(walk_batches(10, 4, 2, 0, told.append, least_steps=20))) == 21
    assert max(told) < 1


def test_the_variational_divergence_is_that_of_the_normal_distribution() -> None:
    settings = autoencoder.Settings(shape="vae", latent=4, width=4, divergence=0.5)
    coder = autoencoder.Coder(settings, 1, 32).eval()
    real = pictures(3, side=32)
    made, mean, log_variance = coder(real)
    ours = torch.distributions.Normal(mean, (log_variance / 2).exp())
    divergence = torch.distributions.kl_divergence(ours, torch.distributions.Normal(0.0, 1.0)).sum(1).mean()
    expected = functional.mse_loss(made, real) + 0.5 * divergence
    assert float(autoencoder.total_loss(coder, real, settings).detach()) == pytest.approx(float(expected.detach()))


def test_padim_measures_mahalanobis_distances(images: Images, weights: Weights) -> None:
    detector = padim.Padim(padim.Settings(channels=6), Given(0, 64, 3, weights))
    detector.fit(images[:15], lambda _share: None)
    with torch.no_grad():
        described = detector.net.describe(as_batch(images)).numpy().astype(np.float64)
    place = described[:, :, 3, 5]
    covariance = np.cov(place[:15].T) + 0.01 * np.eye(6)
    away = place - place[:15].mean(axis=0)
    expected = np.sqrt(np.einsum("ni,ij,nj->n", away, np.linalg.inv(covariance), away))
    np.testing.assert_allclose(detector.score_map(images)[:, 3, 5], expected, rtol=1e-3)


def test_mobilenet_pads_as_keras_does(weights: Weights) -> None:
    """The stem at one place, by hand: with stride 2 the window starts at the pixel itself, not one before it."""
    path = weights.find("mobilenet_v1")
    assert path is not None
    stored, net = np.load(path), load_mobilenet(path, (3, 5, 11))
    image = np.random.default_rng(1).integers(0, 256, (1, 64, 64, 3), np.uint8)
    with torch.no_grad():
        levels = net.stem((as_batch(image).float() + 128) / 127.5 - 1)
        shapes = [tuple(level.shape[1:]) for level in net(as_batch(image))]
    window = image[0, 8:11, 12:15] / 127.5 - 1
    value = np.einsum("hwi,hwio->o", window, stored["conv1/kernel"]) - stored["conv1_bn/moving_mean"]
    value = value / np.sqrt(stored["conv1_bn/moving_variance"] + 1e-3) * stored["conv1_bn/gamma"]
    np.testing.assert_allclose(levels[0, :, 4, 6], np.clip(value + stored["conv1_bn/beta"], 0, 6), atol=1e-4)
    assert shapes == [(128, 16, 16), (256, 8, 8), (512, 4, 4)]


def make_trainer(**changes: float) -> Trainer:
    torch.manual_seed(0)
    settings = Settings(width=4, latent=8, **changes)  # type: ignore[arg-type]
    return Trainer(Generator(1, 4, 8), 1, settings)


def test_ganomaly_weighs_its_losses() -> None:
    trainer, real = make_trainer(), 2 * pictures(4, side=32) - 1
    made, code, again = trainer.generator(real)
    loss = float(trainer.judge_generator(real, made, code, again).detach())
    features = [trainer.discriminator.features(one) for one in (real, made)]
    expected = (
        ((features[0] - features[1]) ** 2).mean() + 50 * (real - made).abs().mean() + ((code - again) ** 2).mean()
    )
    assert loss == pytest.approx(float(expected.detach()), rel=1e-4)
    alone = make_trainer(contextual=0.0, adversarial=0.0)
    loss = float(alone.judge_generator(real, made, code, again).detach())
    assert loss == pytest.approx(float(((code - again) ** 2).mean().detach()), rel=1e-4)


def test_ganomalys_discriminator_learns_which_is_real() -> None:
    trainer = make_trainer()
    real, made = torch.ones(8, 1, 32, 32), -torch.ones(8, 1, 32, 32)
    before = trainer.judge_discriminator(real, made).detach()
    for _ in range(20):
        trainer.for_discriminator.zero_grad()
        torch.autograd.backward(trainer.judge_discriminator(real, made))
        trainer.for_discriminator.step()
    assert trainer.judge_discriminator(real, made).detach() < 0.9 * before
    assert (trainer.discriminator(real)[0] > trainer.discriminator(made)[0]).all()


def test_ganomalys_score_is_the_length_between_latents() -> None:
    trainer, real = make_trainer(), 2 * pictures(4, side=32) - 1
    trainer.generator.eval()
    _, code, again = trainer.generator(real)
    expected = torch.linalg.vector_norm((code - again).flatten(1), dim=1)
    assert torch.allclose(latent_distance(trainer.generator, real).flatten(), expected)


def test_ganomalys_training_reconstructs_better() -> None:
    trainer, real = make_trainer(learning_rate=2e-3), torch.linspace(-1, 1, 32).expand(16, 1, 32, 32)
    before = float((trainer.generator(real)[0] - real).abs().mean().detach())
    for _ in range(25):
        trainer.step(real)
    assert float((trainer.generator(real)[0] - real).abs().mean().detach()) < 0.9 * before


class Marked(nn.Module):
    """Patches to a value that says which patch it was: the level of its centre, and of a corner."""

    def forward(self, patches: Tensor) -> Tensor:
        return patches[:, :1, 16:17, 16:17] + 10 * patches[:, :1, :1, :1]


@pytest.mark.parametrize("stride", [4, 8, 16])
def test_dense_inference_judges_every_patch_by_itself(stride: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), np.uint8)
    maps = Dense(Marked(), 3, stride)(as_batch(image))
    assert maps.shape == (2, 1, 64 // stride, 96 // stride)
    before = (PATCH_PX - stride) // 2
    wide = np.pad(image[1, :, :, 0] / 255, PATCH_PX, mode="reflect")
    for row, column in ((0, 0), (1, 2), (64 // stride - 1, 96 // stride - 1)):
        top, left = (PATCH_PX + stride * place - before for place in (row, column))
        expected = wide[top + 16, left + 16] + 10 * wide[top, left]
        assert float(maps[1, 0, row, column]) == pytest.approx(expected, abs=1e-4)


def test_a_patch_is_anomalous_if_its_centre_is(images: Images) -> None:
    mask = np.zeros((128, 128), np.bool_)
    mask[60:80, 40:50] = True
    marked = images[:1].copy()
    wrong = resize_mask(mask, 64)
    assert wrong.sum() == 10 * 5
    marked[0] = np.where(wrong[..., np.newaxis], 255, 0)
    patches, labels = draw_labelled(marked, [mask], 60, np.random.default_rng(0))
    assert np.array_equal(labels, patches[:, PATCH_PX // 2, PATCH_PX // 2, 0] == 255)
    assert 20 <= labels.sum() < 60


def test_a_learned_filter_finds_what_a_constant_one_blurs() -> None:
    rng = torch.Generator().manual_seed(0)
    truth = (torch.rand(8, 1, 16, 16, generator=rng) < 0.1).float()
    scores = 2 * truth + 0.3 * torch.randn(truth.shape, generator=rng)
    net = processing.Processed(nn.Identity(), 5)

    def loss() -> float:
        return float(functional.binary_cross_entropy_with_logits(net.process(scores), truth).detach())

    constant = loss()
    assert torch.allclose(net.process(scores)[0, 0, 8, 8], scores[0, 0, 6:11, 6:11].mean())
    processing.learn_filter(net, scores, truth, processing.Settings(steps=200))
    assert loss() < 0.5 * constant


def test_a_learned_filter_wants_masks_and_takes_few(images: Images) -> None:
    given = Given(0, 64, 3, BARE)
    settings = processing.Settings(width=4, latent=8, labelled=3)
    with pytest.raises(MissingError, match="masks"):
        processing.Detector(settings, given).teach(Labelled(images[:8], np.ones(8, np.bool_), []))
    detector = processing.Detector(settings, given)
    detector.teach(Labelled(images[:8], np.ones(8, np.bool_), [np.ones((64, 64), np.bool_)] * 8))
    assert detector.labelled is not None
    assert len(detector.labelled.images) == 3
    constant = processing.Detector(processing.Settings(width=4, latent=8, learned=False), given)
    constant.teach(Labelled(images[:8], np.ones(8, np.bool_), []))
    assert constant.labelled is None
    assert torch.allclose(constant.net.conv.weight, torch.tensor(1 / 25))


@pytest.mark.parametrize("side", [67, 99, 227])
def test_alexnets_shape_gives_back_its_pictures_size(side: int) -> None:
    with torch.no_grad():
        coder = alexnet.AlexCoder(side)
        code = coder.encoder(torch.zeros(1, 1, side, side))
        assert coder.decoder(code).shape == (1, 1, side, side)
    if side == 227:
        assert code.shape == (1, 256, 6, 6)  # as in Krizhevsky et al. 2012


def test_alexnets_shape_refuses_other_sizes() -> None:
    with pytest.raises(InputError, match="67 \\+ 32 k"):
        alexnet.AlexCoder(224)


def test_alexnet_stops_early_and_keeps_the_best() -> None:
    rng = np.random.default_rng(0)
    large = rng.integers(0, 256, (10, 67, 67, 3), np.uint8)
    settings = alexnet.Settings(epochs=30, patience=2, learning_rate=0.0, batch=8)
    detector = alexnet.AlexAutoencoder(settings, Given(0, 67, 1, BARE))
    told: list[float] = []
    detector.fit(large, told.append)
    assert len(told) == 2  # the first epoch is the best one, two more without progress are the last


def test_flips_are_of_each_picture_by_itself() -> None:
    real = pictures(64)
    kinds = {
        next(axes for axes in ((), (1,), (2,), (1, 2)) if torch.equal(one, picture.flip(axes)))
        for picture, one in zip(real, alexnet.flip(real, np.random.default_rng(0)), strict=True)
    }
    assert kinds == {(), (1,), (2,), (1, 2)}


@pytest.mark.parametrize("sign", [1, -1])
def test_grad_cam_is_the_gradient_of_not_intact(sign: int) -> None:
    torch.manual_seed(0)
    net = Pretext(import_torchvision().models.resnet18(), PretextSettings(hidden=16, projection=8)).eval()
    net.classify.weight.data *= sign
    features, wide, vectors = net.describe(pictures(2, 3, 64))
    features.retain_grad()
    ours = net.explain(features, wide).detach()
    logits = net.classify(vectors)
    torch.autograd.backward(((logits[:, 1] + logits[:, 2]) / 2 - logits[:, 0]).sum())
    assert features.grad is not None
    weights = features.grad.mean((2, 3), keepdim=True) * features.shape[2] * features.shape[3]
    expected = functional.relu((weights * features).sum(1, keepdim=True)).detach()
    assert bool(expected.max() > 0) == (sign == -1)  # of this seed: where the one says nothing, its opposite speaks
    assert torch.allclose(ours, expected, rtol=1e-3, atol=1e-6)


def test_the_bank_takes_the_cosine_to_the_three_nearest() -> None:
    rng = np.random.default_rng(0)
    remembered, asked = rng.normal(size=(20, 5)), rng.normal(size=(4, 5))
    bank = Bank()
    bank.remembered = functional.normalize(torch.from_numpy(remembered))
    cosines = asked @ remembered.T / np.linalg.norm(asked, axis=1)[:, None] / np.linalg.norm(remembered, axis=1)
    expected = np.sort(1 - cosines, axis=1)[:, :3].mean(axis=1)
    np.testing.assert_allclose(bank(torch.from_numpy(asked)).numpy(), expected, rtol=1e-9)


def test_batches_take_every_picture_once_an_epoch_in_another_order() -> None:
    batches = list(draw_batches(10, 4, 2, seed=3))
    assert [len(batch) for batch in batches] == [4, 4, 2] * 2
    first, second = np.concatenate(batches[:3]), np.concatenate(batches[3:])
    assert sorted(first) == sorted(second) == list(range(10))
    assert not np.array_equal(first, second)
    assert [len(batch) for batch in draw_batches(9, 4, 1, seed=0)] == [4, 4]


def test_grey_is_luma(images: Images) -> None:
    grey = as_levels(images, 1).numpy()[:, 0]
    expected = images @ np.array([0.299, 0.587, 0.114]) / 255
    np.testing.assert_allclose(grey, expected, atol=1e-6)


@pytest.mark.filterwarnings("default")  # the library's own
def test_flows_get_features_of_about_one(weights: Weights, images: Images) -> None:
    pytest.importorskip("anomalib", reason="an extra of the bench")
    entry = find_entries("anomalib-cflow-squeezenet1_1")[0]
    detector = Library(make(entry, {"epochs": 1}).settings, Given(0, 64, 3, weights))
    few = images[:4]
    assert min(measure_spreads(detector, few)) > 10
    detector.fit(few, lambda _share: None)
    np.testing.assert_allclose(measure_spreads(detector, few), 1, rtol=1e-5)


def measure_spreads(detector: Library, images: Images) -> list[float]:
    encoder = cast(Any, detector.model).encoder
    return [float(layer.std()) for layer in encoder(detector._prepare(images)).values()]
