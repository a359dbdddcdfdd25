"""The large detector: distances as PatchCore defines them, one graph, and a package that the server takes."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from board.score import score_map
from host.large.__main__ import build, parse_order
from host.large.patchcore import (
    PatchCore,
    as_images,
    build_patchcore,
    choose_coreset,
    describe_patches,
    float_maps,
    write_onnx,
)
from host.learning.backbone import BACKBONES, import_torchvision, load_backbone
from host.server.sessions import Model
from protocol.errors import EngineError, InputError
from protocol.manifest import GOLDEN_NPZ, MODEL_ONNX, Package, load_package
from sim.camera import Camera, CameraSettings
from sim.parts import RenderedParts

Images = NDArray[np.uint8]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of SqueezeNet, untrained; what lies behind the features is left out."""
    torch.manual_seed(0)
    net = import_torchvision().models.squeezenet1_1()
    path = tmp_path_factory.mktemp("weights") / "squeezenet1_1.pth"
    torch.save({key: value for key, value in net.state_dict().items() if key.startswith("features.")}, path)
    return path


@pytest.fixture(scope="module")
def package(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Package:
    folder = tmp_path_factory.mktemp("large")
    for kind, share, seed in (("good", 0.0, 1), ("bad", 1.0, 2)):
        camera, parts = Camera(CameraSettings(), seed), RenderedParts("bottle", seed=seed, defect_share=share)
        (folder / "bottles" / kind).mkdir(parents=True)
        for number in range(32 if kind == "good" else 6):
            shot = camera.shoot(parts.part(number)).image
            cv2.imwrite(str(folder / "bottles" / kind / f"{number}.png"), shot[..., ::-1])
    words = ["--product", "bottle", "--data", str(folder / "bottles"), "--backbone-weights", str(weights)]
    return load_package(build(parse_order([*words, "--input-px", "64", "--bank", "50", "--out", str(folder)])))


def test_a_distance_is_that_to_the_nearest_patch(weights: Path) -> None:
    backbone, images = load_backbone("squeezenet1_1", weights), noise(3)
    described = [describe_patches(backbone, as_images(image))[0].flatten(1).T.numpy() for image in images]
    bank = np.concatenate(described[:2])
    distances = PatchCore(backbone, bank).distances(as_images(images[2]))[0, 0].numpy()
    expected = [np.sqrt(np.square(bank - patch).sum(1)).min() for patch in described[2]]
    np.testing.assert_allclose(distances.reshape(-1), expected, rtol=1e-4)


def test_the_bank_has_something_of_every_kind_of_patch() -> None:
    rng = np.random.default_rng(0)
    kinds = np.repeat(np.arange(8), [1, 1, 2, 5, 10, 100, 500, 1000])
    patches = (rng.normal(size=(8, 200))[kinds] * 10 + rng.normal(size=(len(kinds), 200)) * 0.1).astype(np.float32)
    assert sorted(kinds[choose_coreset(patches, 8, seed=0)]) == list(range(8))
    assert len(set(choose_coreset(patches, 500, seed=0))) == 500


def test_the_graph_gives_what_the_distances_say(weights: Path) -> None:
    images = noise(6)
    model = build_patchcore(load_backbone("squeezenet1_1", weights), images[:3], images[3:5], 40, seed=0)
    session = pytest.importorskip("onnxruntime").InferenceSession(write_onnx(model, (64, 64)).SerializeToString())
    for image in images:
        (anomaly,) = session.run(None, {"image": as_images(image).numpy()})
        steps = float_maps(model, image[np.newaxis]) * 16
        assert anomaly.dtype == np.int8
        assert np.abs(anomaly[0] - steps.clip(-128, 127)).max() <= 0.51
    assert float_maps(model, images[3:5]).max() == pytest.approx(0, abs=1e-4), "the highest good distance is 0"


def test_the_server_takes_it_and_it_tells_good_from_bad(package: Package) -> None:
    model, golden = serve(package), package.load_golden()
    maps = model.infer(list(golden.images))
    good, *painted = [score_map(anomaly, package.manifest.map) for anomaly in maps]
    assert max(painted) > good
    assert package.manifest.figures["image_auroc"] > 0.5
    assert "image AUROC lost from float to integers" in (package.folder / "card.md").read_text()


@pytest.mark.parametrize(("off", "is_taken"), [(0, True), (1, True), (2, False)])
def test_golden_maps_may_be_off_by_what_other_processors_round(off: int, is_taken: bool, package: Package) -> None:
    golden = dict(np.load(package.path(GOLDEN_NPZ)))
    assert golden["tolerance"] == 1
    pixel = golden["maps"][-1, :1, :1]
    pixel += np.int8(-off if pixel > 0 else off)
    if is_taken:
        serve(package, golden)
        return
    with pytest.raises(EngineError, match="golden maps"):
        serve(package, golden)


def test_a_tolerance_of_an_integer_model_is_bounded(trivial_package: Package) -> None:
    golden = dict(np.load(trivial_package.path(GOLDEN_NPZ)))
    golden |= {"maps": golden["maps"] + np.int8(2), "tolerance": np.array(200)}
    with pytest.raises(EngineError, match="golden maps"):
        serve(trivial_package, golden)


@pytest.mark.parametrize(("prefix", "first_channel"), [("features.", 0), ("", 2)])
def test_torchvisions_file_takes_rgb_and_caffes_bgr(
    prefix: str, first_channel: int, weights: Path, tmp_path: Path
) -> None:
    renamed = {prefix + key.removeprefix("features."): value for key, value in torch.load(weights).items()}
    renamed[f"{prefix}0.weight"][:, 1:] = 0
    torch.save(renamed, tmp_path / "one-channel.pth")
    backbone, image = load_backbone("squeezenet1_1", tmp_path / "one-channel.pth"), noise(1)[0]
    for channel in range(3):
        changed = image.copy()
        changed[..., channel] = 255 - changed[..., channel]
        before, after = (backbone(as_images(one))[0] for one in (image, changed))
        assert torch.equal(before, after) == (channel != first_channel)


@pytest.mark.parametrize("content", [b"", b"no weights", None], ids=["empty", "text", "of another network"])
def test_a_file_that_is_not_the_backbones_weights_is_refused(
    content: bytes | None, weights: Path, tmp_path: Path
) -> None:
    path = tmp_path / "wrong.pth"
    path.write_bytes(weights.read_bytes() if content is None else content)
    with pytest.raises(InputError, match="does not hold the weights of resnet18"):
        load_backbone("resnet18", path)


@pytest.mark.parametrize("words", [["--bank", "1"], ["--input-px", "100"], ["--id", "a/b"], ["--seed", "-1"]])
def test_an_order_that_cannot_be_met_is_refused(words: list[str]) -> None:
    with pytest.raises(InputError, match="correct"):
        parse_order(["--product", "bottle", "--data", "bottles", *words])


def test_every_backbone_has_the_levels_that_are_named(tmp_path: Path) -> None:
    for name in BACKBONES[:2]:  # the third has the same nodes as the second, and half a gigabyte
        torch.save(import_torchvision().models.get_model(name).state_dict(), tmp_path / name)
        near, far = load_backbone(name, tmp_path / name)(as_images(noise(1)[0]))
        assert near.shape[2] in (7, 8)  # SqueezeNet's first convolution has no padding
        assert far.shape[2] in (3, 4)


def noise(count: int) -> Images:
    return np.random.default_rng(7).integers(0, 256, (count, 64, 64, 3), np.uint8)


def serve(package: Package, golden: dict[str, NDArray[np.generic]] | None = None) -> Model:
    file = io.BytesIO(package.path(GOLDEN_NPZ).read_bytes())
    if golden is not None:
        file = io.BytesIO()
        np.savez(file, **golden)  # type: ignore[arg-type]
    return Model(package.manifest, package.path(MODEL_ONNX).read_bytes(), file.getvalue(), 1)
