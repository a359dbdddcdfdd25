"""What of the frames is inspected: chosen for the whole set, the same on the line, and said."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from board.preprocess import BLANK, fit_frame, preprocess
from host.pictures.alike import tell_alike
from host.pictures.dataset import load_dataset, tell_missed
from host.pictures.inspected import choose_inspected, draw_inspected, mask_ignored, mask_inspected, shape_input
from host.pictures.reading import load_frame
from protocol.errors import InputError
from protocol.manifest import Preprocess
from protocol.pictures.reader import read_picture

Pixels = NDArray[np.uint8]


def write(path: Path, picture: NDArray[np.uint8] | NDArray[np.uint16]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)
    return path


def noise(*shape: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(60, 200, shape, np.uint8)


def write_bars(folder: Path, count: int = 20) -> list[Path]:
    """640x160: a bar that fills its wide frame, with texture to its ends."""
    return [write(folder / f"{number:03d}.png", noise(160, 640, 3, seed=number)) for number in range(count)]


@pytest.mark.parametrize(
    ("crop_px", "expected"),
    [
        ((900, 900), (128, 128)),
        ((160, 640), (64, 256)),
        ((640, 160), (256, 64)),
        ((480, 640), (96, 128)),
        ((200, 4000), (32, 512)),
        ((60, 60), (64, 64)),
        ((287, 126), (160, 96)),
    ],
)
def test_the_networks_image_has_the_crops_shape_and_the_boards_cost(
    crop_px: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert shape_input(crop_px, 128) == expected
    assert expected[0] * expected[1] <= 128 * 128


def test_both_ends_of_a_wide_frame_are_inspected(tmp_path: Path) -> None:
    paths = write_bars(tmp_path)
    chosen = choose_inspected(paths, (), 128)
    assert chosen.how == Preprocess((160, 640), (0, 0, 160, 640), (64, 256))
    assert chosen.lines == (
        "inspected: the whole frame of 640x160 pixels (no background is found around the parts), as 256x64",
    )
    image = preprocess(load_frame(paths[0], chosen.how), chosen.how)
    assert image.shape == (64, 256, 3)


def test_a_small_part_on_a_background_is_cropped_with_a_margin(tmp_path: Path) -> None:
    paths = []
    for number in range(20):
        frame = np.full((240, 320, 3), 20, np.uint8)
        cv2.circle(frame, (100 + number, 90), 30, (180, 170, 160), -1)
        paths.append(write(tmp_path / f"{number}.png", frame))
    chosen = choose_inspected(paths, (), 128)
    top, left, height, width = chosen.how.crop_px
    assert top <= 60 - 10
    assert top + height >= 121 + 10
    assert left <= 70 - 15
    assert left + width >= 150 + 15
    assert height * width < 0.35 * 240 * 320
    assert "what lies outside is not seen" in chosen.lines[0]
    shown = draw_inspected(load_frame(paths[0], chosen.how), chosen.how)
    assert shown[0, 0].tolist() != [20, 20, 20]
    assert shown[90, 100].tolist() == [160, 170, 180]


def test_sizes_that_are_close_are_padded(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{number}.png", noise(500, 400 + 10 * (number % 3), 3)) for number in range(18)]
    chosen = choose_inspected(paths, (), 128)
    how = chosen.how
    assert (how.frame_px, how.fit, how.sides_px) == ((500, 420), "pad", (500, 500, 400, 420))
    assert chosen.lines[0].startswith("pictures of several sizes (400 to 420 wide, 500 to 500 high) get their edges")
    frame = load_frame(paths[0], how)
    assert frame.shape == (500, 420, 3)
    stored = noise(500, 400, 3)[..., ::-1]
    assert np.array_equal(frame[:, 10:410], stored)
    assert (frame[:, :10] == stored[:, :1]).all()
    with pytest.raises(InputError, match="frame is 300x500 pixels, the model expects 420x500"):
        fit_frame(np.zeros((500, 300, 3), np.uint8), how)


def test_sizes_that_are_far_apart_are_scaled_the_same_way_every_time(tmp_path: Path) -> None:
    sizes = [(100, 200), (200, 400), (220, 300)]
    paths = [write(tmp_path / f"{number}.png", noise(*sizes[number % 3], 3)) for number in range(18)]
    how = choose_inspected(paths, (), 64).how
    assert (how.frame_px, how.fit) == ((200, 300), "scale")
    for path, size in zip(paths, sizes, strict=False):
        frame = load_frame(path, how)
        assert frame.shape == (200, 300, 3)
        read = read_picture(path)
        assert read.shape[:2] == size
        # the line has the same bytes from the frame as the camera gives it
        assert np.array_equal(preprocess(np.asarray(read, np.uint8), how), preprocess(frame, how))
    flat = fit_frame(np.full((100, 200, 3), 77, np.uint8), how)
    assert (flat == 77).all()


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_the_depth_in_use_is_that_of_the_whole_set(bits: int, tmp_path: Path) -> None:
    """Of a 12-bit camera's pictures 4,096 levels are used; one picture may be darker than all others."""
    grey = noise(32, 32)
    grey[0, 0] = 255
    paths = [write(tmp_path / f"{number}.png", _deepen(grey, bits)) for number in range(17)]
    paths.append(write(tmp_path / "dark.png", _deepen(grey, bits) >> np.uint16(4)))
    chosen = choose_inspected(paths, (), 32)
    assert chosen.how.depth_bits == bits
    assert chosen.lines[0].startswith(f"18 of 18 pictures have 16 bits, of which {bits} are in use: the highest 8")
    assert np.array_equal(load_frame(paths[0], chosen.how)[..., 0], grey)
    assert np.array_equal(load_frame(paths[-1], chosen.how)[..., 0], grey >> 4)


def test_what_is_not_to_be_looked_at(tmp_path: Path) -> None:
    write_bars(tmp_path / "good", 24)
    ignore = np.zeros((160, 640), np.uint8)
    ignore[:, :320] = 255
    write(tmp_path / "ignore.png", ignore)
    dataset = load_dataset(tmp_path, 0.25, 128)
    mask = mask_ignored(dataset.how)
    assert mask is not None
    assert mask[:, :128].all()
    assert not mask[:, 128:].any()
    assert (dataset.train[:, :, :128] == BLANK).all()
    assert dataset.report[-1] == "ignore.png: 50.0% of what is inspected is not looked at"
    one, other = noise(160, 640, 3), noise(160, 640, 3)
    other[:, :300] = 255
    assert np.array_equal(preprocess(one, dataset.how), preprocess(other, dataset.how))


def test_an_ignore_mask_that_leaves_nothing(tmp_path: Path) -> None:
    paths = write_bars(tmp_path)
    white = write(tmp_path / "ignore.png", np.full((160, 640), 255, np.uint8))
    with pytest.raises(InputError, match=r"ignore\.png leaves nothing to look at"):
        choose_inspected(paths, (), 128, white)


def test_defects_outside_of_what_is_inspected_are_counted(tmp_path: Path) -> None:
    for number in range(40):
        frame = np.full((240, 320, 3), 20, np.uint8)
        cv2.circle(frame, (100, 90), 30, (180, 170, 160), -1)
        write(tmp_path / "train" / "good" / f"{number}.png", frame)
    mask = np.zeros((240, 320), np.uint8)
    mask[200:210, 290:300] = 1
    write(tmp_path / "test" / "spill" / "0.png", frame)
    write(tmp_path / "test" / "good" / "0.png", frame)
    write(tmp_path / "ground_truth" / "spill" / "0.png", mask)
    dataset = load_dataset(tmp_path, 0.25, 64)
    assert dataset.pixels_known.tolist() == [True, True]
    assert tell_missed(dataset) == [
        "100.0% of the defective pixels lie outside of what is inspected, 1 of 1 masks wholly: they count as missed"
    ]


def test_defects_under_the_ignore_mask_are_counted(tmp_path: Path) -> None:
    """Half of the only defect lies where nobody is to look."""
    for number in range(40):
        write(tmp_path / "train" / "good" / f"{number}.png", noise(64, 64, 3))
    write(tmp_path / "test" / "spill" / "0.png", noise(64, 64, 3))
    mask, ignored = np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.uint8)
    mask[20:40, 20:44], ignored[:, 32:] = 1, 255
    write(tmp_path / "ground_truth" / "spill" / "0.png", mask)
    write(tmp_path / "ignore.png", ignored)
    dataset = load_dataset(tmp_path, 0.25, 64)
    assert tell_missed(dataset) == [
        "50.0% of the defective pixels lie outside of what is inspected, 0 of 1 masks wholly: they count as missed"
    ]
    assert mask_inspected(dataset.how).mean() == 0.5


def test_pictures_too_small_to_enlarge(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{number}.png", noise(6, 6, 3)) for number in range(16)]
    with pytest.raises(InputError, match="pictures of 6x6 pixels are too small: use larger ones"):
        choose_inspected(paths, (), 128)


def _deepen(grey: Pixels, bits: int) -> NDArray[np.uint16]:
    return np.asarray(grey.astype(np.uint16) << (bits - 8), np.uint16)


def parts(count: int, seed: int) -> Pixels:
    """Pictures that differ as parts under one camera do: a little, everywhere."""
    rng = np.random.default_rng(seed)
    base = cv2.resize(rng.integers(40, 220, (8, 8, 3), np.uint8), (64, 64), interpolation=cv2.INTER_CUBIC)
    drawn = []
    for number in range(count):
        own = cv2.resize(np.random.default_rng([seed, number]).normal(0, 12, (8, 8)).astype(np.float32), (64, 64))
        drawn.append(np.clip(base + own[..., np.newaxis], 0, 255).astype(np.uint8))
    return np.stack(drawn)


@pytest.mark.parametrize("change", ["none", "jpeg", "brighter", "turned", "mirrored"])
def test_the_same_picture_on_both_sides_is_found(change: str) -> None:
    known, others = parts(30, 1), parts(40, 1)[30:].copy()
    copied = known[4]
    if change == "jpeg":
        copied = np.asarray(cv2.imdecode(cv2.imencode(".jpg", copied, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], 1), np.uint8)
    elif change == "brighter":
        copied = np.clip(copied * 1.1 + 4, 0, 255).astype(np.uint8)
    elif change == "turned":
        copied = np.ascontiguousarray(np.rot90(copied))
    elif change == "mirrored":
        copied = copied[:, ::-1]
    others[7] = copied
    names = [[Path(f"{side}/{number}.png") for number in range(count)] for side, count in (("train", 30), ("test", 10))]
    (line,) = tell_alike([("those", names[0], known), ("test pictures", names[1], others)])
    assert line.startswith("1 of 10 test pictures are the same, or nearly, as those (test/7.png = train/4.png)")


def test_parts_that_are_alike_are_not_the_same() -> None:
    known, others = parts(30, 2), parts(60, 2)[30:]
    paths = [Path(str(number)) for number in range(30)]
    assert tell_alike([("those", paths, known), ("test pictures", paths, others)]) == []
