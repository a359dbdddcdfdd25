"""The camera: repeatable, true to its settings, and its mask lies on the defect in the image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from protocol.errors import InputError
from sim.camera import Belt, Camera, CameraSettings, Sensor, blur_along_belt, blur_kernel
from sim.defects import VISIBLE_LEVELS
from sim.parts import Part, RenderedParts

QUIET = replace(CameraSettings(), exposure_spread=0, tint_spread=0, read_noise_levels=0, electrons_per_level=np.inf)
STILL = replace(QUIET, position_jitter_mm=0, rotation_jitter_deg=0, vignetting=0, exposure_us=0)


def disc(number: int = 0, defect_px: int = 0) -> Part:
    """A white disc of 100 px; its middle `defect_px` square is red and defective."""
    y, x = np.mgrid[:121, :121] - 60
    alpha = ((x * x + y * y <= 2500) * 255).astype(np.uint8)
    mask = (abs(x) * 2 < defect_px) & (abs(y) * 2 < defect_px)
    rgb = np.where(mask[..., None], (255, 0, 0), (240, 240, 240)).astype(np.uint8)
    return Part(number, "spot" if defect_px else "", rgb, alpha, mask)


def centre_px(where: NDArray[np.bool_]) -> NDArray[np.float64]:
    """x, y."""
    y, x = np.nonzero(where)
    return np.array([x.mean(), y.mean()])


def test_a_shot_depends_on_seed_and_part_only() -> None:
    parts = [disc(number, 20) for number in range(4)]
    one, other = Camera(CameraSettings(), 7), Camera(CameraSettings(), 7)
    first = [one.shoot(part) for part in parts]
    again = [other.shoot(part) for part in parts[::-1]][::-1]
    for shot, same in zip(first, again, strict=True):
        assert np.array_equal(shot.image, same.image)
        assert np.array_equal(shot.mask, same.mask)
    assert not np.array_equal(first[0].image, first[1].image)
    assert not np.array_equal(first[0].image, Camera(CameraSettings(), 8).shoot(parts[0]).image)


def test_the_form_of_a_shot() -> None:
    shot = Camera(replace(CameraSettings(), frame_px=(200, 300)), 0).shoot(disc())
    assert shot.image.shape == (200, 300, 3)
    assert shot.image.dtype == np.uint8
    assert shot.image.flags.c_contiguous
    assert shot.mask.shape == (200, 300)
    assert not shot.mask.any()


def test_without_jitter_the_part_is_in_the_middle() -> None:
    shot = Camera(STILL, 0).shoot(disc())
    assert np.allclose(centre_px(shot.image[..., 0] > 150), 127.5, atol=0.1)


def test_position_jitter_is_in_mm() -> None:
    camera = Camera(replace(STILL, position_jitter_mm=2.0), 0)
    centres = [centre_px(camera.shoot(disc(number)).image[..., 0] > 150) for number in range(120)]
    spread_px = np.std(centres, axis=0)
    assert np.allclose(spread_px, 2.0 * STILL.px_per_mm, rtol=0.2)
    assert np.abs(np.array(centres) - 127.5).max() <= 2.5 * 2.0 * STILL.px_per_mm + 0.2


def test_the_seed_moves_the_part() -> None:
    jittery = replace(STILL, position_jitter_mm=2.0)
    centres = [centre_px(Camera(jittery, seed).shoot(disc()).image[..., 0] > 150) for seed in range(2)]
    assert np.abs(centres[0] - centres[1]).max() > 0.5


def test_rotation_jitter_turns_the_part() -> None:
    bar = replace(disc(), alpha=np.where(abs(np.mgrid[:121, :121][0] - 60) < 8, 255, 0).astype(np.uint8))
    camera = Camera(replace(STILL, rotation_jitter_deg=10.0), 0)
    turns_deg = []
    for number in range(60):
        y, x = np.nonzero(camera.shoot(replace(bar, number=number)).image[..., 0] > 150)
        turns_deg.append(np.degrees(np.arctan(np.polyfit(x, y, 1)[0])))
    assert 7 < np.std(turns_deg) < 13


def test_the_scale_follows_px_per_mm() -> None:
    wide = (Camera(replace(STILL, px_per_mm=1.25), 0).shoot(disc()).image[..., 0] > 150).sum()
    near = (Camera(STILL, 0).shoot(disc()).image[..., 0] > 150).sum()
    assert near / wide == pytest.approx(4, rel=0.03)


@pytest.mark.parametrize("product", ["orange", "bottle"])
def test_the_mask_lies_on_the_defect_in_the_image(product: str) -> None:
    camera = Camera(QUIET, 3)
    for number in range(8):
        good = camera.shoot(RenderedParts(product, 4, 0.0).part(number))
        bad = camera.shoot(RenderedParts(product, 4, 1.0).part(number))
        change = np.abs(bad.image.astype(int) - good.image).max(axis=2)
        assert bad.mask.any()
        assert not good.mask.any()
        assert change[~bad.mask].max(initial=0) <= 0.25 * 255 + VISIBLE_LEVELS  # a quarter of a pixel may be defect
        assert (change[~bad.mask] > 2 * VISIBLE_LEVELS).mean() < 0.002
        assert (change[bad.mask] > VISIBLE_LEVELS / 4).mean() > 0.85


def test_blur_length_is_speed_times_exposure_times_scale() -> None:
    settings = replace(STILL, belt_speed_mm_s=1000.0, exposure_us=4000.0)
    assert settings.blur_px == pytest.approx(10.0)
    line = np.zeros((5, 61, 3), np.uint8)
    line[:, 30] = 250
    smeared = Sensor(settings, 0).expose(line, np.random.default_rng(0), noise=np.random.default_rng(0))
    row = smeared[2, :, 0].astype(float)
    assert row[30] == pytest.approx(25, abs=1)
    assert row.sum() == pytest.approx(250, abs=6)
    assert (row > 0).sum() == 11  # ten pixels' way, half a pixel over at both ends
    assert np.array_equal(smeared[0], smeared[4])


@pytest.mark.parametrize("length_px", [0.0, 0.6, 1.0, 1.5, 3.0, 6.4, 12.0])
def test_the_blur_kernel_has_the_spread_of_a_box(length_px: float) -> None:
    kernel = blur_kernel(length_px)
    place = np.arange(len(kernel)) - len(kernel) // 2
    assert kernel.sum() == pytest.approx(1)
    assert (kernel * place).sum() == pytest.approx(0, abs=1e-6)
    if length_px >= 3:
        assert (kernel * place**2).sum() == pytest.approx(length_px**2 / 12, rel=0.12)


def test_the_belt_at_its_usual_speed_does_not_blur() -> None:
    assert 0 < CameraSettings().blur_px <= 1


def test_slow_belts_do_not_blur() -> None:
    image = np.random.default_rng(0).integers(0, 255, (9, 9, 3), np.uint8)
    assert np.array_equal(blur_along_belt(image, 0.9), image)


def test_noise_grows_with_the_level() -> None:
    settings = replace(STILL, read_noise_levels=1.5, electrons_per_level=20.0)
    for level in (20, 180):
        flat = np.full((200, 200, 3), level, np.uint8)
        noisy = Sensor(settings, 0).expose(flat, np.random.default_rng(0), noise=np.random.default_rng(1))
        assert noisy.mean() == pytest.approx(level, abs=0.1)
        assert noisy.std() == pytest.approx(np.sqrt(1.5**2 + level / 20 + 1 / 12), rel=0.03)


def test_vignetting_darkens_the_corners_only() -> None:
    flat = np.full((100, 100, 3), 200, np.uint8)
    rng = np.random.default_rng(0)
    frame = Sensor(replace(STILL, vignetting=0.3), 0).expose(flat, rng, noise=rng)
    assert frame[50, 50, 0] == 200
    assert frame[0, 0, 0] == pytest.approx(200 * 0.7, abs=1)


def test_exposure_spread_changes_the_brightness_between_shots() -> None:
    camera = Camera(replace(STILL, exposure_spread=0.1), 0)
    grey = [replace(disc(number), rgb=np.full((121, 121, 3), 120, np.uint8)) for number in range(80)]
    levels = [camera.shoot(part).image[118:138, 118:138].mean() for part in grey]
    assert np.std(levels) / 120 == pytest.approx(0.1, rel=0.25)


def picture(number: int) -> Part:
    rng = np.random.default_rng(number)
    rgb = rng.integers(0, 256, (70, 90, 3), np.uint8)
    mask = np.zeros((70, 90), np.bool_)
    mask[10:30, 20:40] = True
    return Part(number, "bad", rgb, np.full((70, 90), 255, np.uint8), mask)


def test_a_lamp_dims_by_its_share_in_a_thousand_parts() -> None:
    camera = Camera(replace(STILL, lamp_dims=0.4, ages_from=100), 1)
    light = [float(camera.shoot(disc(number)).image[128, 128].mean()) for number in (0, 100, 600, 1100, 99_999)]
    assert light == pytest.approx([240, 240, 240 * 0.8, 240 * 0.6, 0], abs=1)


def test_a_lens_slips_out_of_focus() -> None:
    """The edge of a disc becomes as wide as the Gaussian says: 2.56 deviations from 10 % to 90 %."""
    camera = Camera(replace(STILL, lens_slips_px=4.0), 1)
    for number, blur_px in ((0, 0.0), (1000, 4.0), (2000, 8.0)):
        across = camera.shoot(disc(number)).image[128, 128:, 0].astype(float)
        part, belt = across[:10].mean(), across[-20:].mean()
        edge_px = ((across < part - 0.1 * (part - belt)) & (across > belt + 0.1 * (part - belt))).sum()
        assert edge_px == pytest.approx(2.56 * blur_px, abs=3)


def test_a_camera_that_is_off_delivers_a_replay_unchanged() -> None:
    camera = Camera(CameraSettings.off(), 5)
    for number in range(3):
        part = picture(number)
        shot = camera.shoot(part)
        assert np.array_equal(shot.image, part.rgb)
        assert np.array_equal(shot.mask, part.mask)
        assert shot.image.flags.c_contiguous


def test_a_replay_can_be_fitted_to_a_frame_and_shaken() -> None:
    settings = replace(CameraSettings(), frame_px=(140, 180))
    shot = Camera(settings, 5).shoot(picture(0))
    assert shot.image.shape == (140, 180, 3)
    assert shot.mask.sum() == pytest.approx(4 * 400, rel=0.05)


def test_the_mask_of_a_shaken_replay_moves_with_it() -> None:
    marked = picture(0)
    marked = replace(marked, rgb=np.where(marked.mask[..., None], (255, 0, 0), (0, 0, 200)).astype(np.uint8))
    shaken = replace(STILL, frame_px=None, position_jitter_mm=3.0, rotation_jitter_deg=10.0)
    for number in range(5):
        shot = Camera(shaken, 5).shoot(replace(marked, number=number))
        red = shot.image[..., 0] >= 64
        assert (red != shot.mask).mean() < 0.002
    assert (shot.mask != marked.mask).any()


def test_shots_do_not_alias_the_part() -> None:
    part = picture(0)
    before = part.rgb.copy()
    Camera(CameraSettings.off(), 5).shoot(part).image[:] = 0
    assert np.array_equal(part.rgb, before)


def test_the_belt_has_texture_and_no_end() -> None:
    belt = Belt(3)
    window = belt.window(0, 0, 200, 300)
    assert 20 < window.mean() < 70
    assert 2 < window[..., 0].std() < 15
    assert np.array_equal(belt.window(5, 0, 200, 300)[:, :-5], window[:, 5:][:, : 300 - 5])
    over_the_join = belt.window(-40, 0, 512, 80)[..., 0].reshape(16, 32, 80).mean(axis=1)
    jump = np.abs(np.diff(over_the_join, axis=1)).mean(axis=0)
    assert jump[39] < 3 * np.median(jump)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame_px": (4, 4)}, "too small"),
        ({"px_per_mm": 0.0}, "px_per_mm is 0.0: give a number above 0"),
        ({"exposure_us": -1.0}, "exposure_us is -1.0: give 0 or more"),
        ({"vignetting": float("nan")}, "vignetting is nan"),
        ({"lamp_dims": -0.1}, "lamp_dims is -0.1: give 0 or more"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(CameraSettings(), **change)  # type: ignore[arg-type]
