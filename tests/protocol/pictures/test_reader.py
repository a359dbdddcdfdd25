"""Picture files as people have them: read as a person sees them, or refused by name. Pillow is the other opinion."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from protocol.errors import InputError
from protocol.pictures.files import MAX_PICTURE_BYTES, shown
from protocol.pictures.reader import bits_in_use, read_picture, read_whole, survey

HEIGHT, WIDTH = 24, 40
Pixels = NDArray[np.uint8]


def draw(height: int = HEIGHT, width: int = WIDTH) -> Pixels:
    """Smooth, and no symmetry maps it to itself."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, (x + 2 * y) % 256], -1).astype(np.uint8)


RGB = draw()
GREY = RGB[..., 0] // 2 + RGB[..., 1] // 2
PICTURE = Image.fromarray(RGB)


def save(path: Path, picture: Image.Image, **options: Any) -> Path:
    picture.save(path, **options)
    return path


def as_bytes(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


LOSSLESS: dict[str, tuple[str, Image.Image, dict[str, Any]]] = {
    "RGB PNG": ("PNG", PICTURE, {}),
    "grey PNG": ("PNG", Image.fromarray(GREY), {}),
    "palette PNG": ("PNG", PICTURE.quantize(64), {}),
    "1-bit PNG": ("PNG", Image.fromarray(GREY).convert("1"), {}),
    "RGB BMP": ("BMP", PICTURE, {}),
    "grey BMP": ("BMP", Image.fromarray(GREY), {}),
    "palette BMP": ("BMP", PICTURE.quantize(64), {}),
    "1-bit BMP": ("BMP", Image.fromarray(GREY).convert("1"), {}),
    "RGB TIFF": ("TIFF", PICTURE, {}),
    "LZW TIFF": ("TIFF", PICTURE, {"compression": "tiff_lzw"}),
    "deflate TIFF": ("TIFF", PICTURE, {"compression": "tiff_adobe_deflate"}),
    "grey TIFF": ("TIFF", Image.fromarray(GREY), {}),
    "palette TIFF": ("TIFF", PICTURE.quantize(64), {}),
    "1-bit TIFF": ("TIFF", Image.fromarray(GREY).convert("1"), {}),
    "WebP": ("WEBP", PICTURE, {"lossless": True}),
}


@pytest.mark.parametrize("name", LOSSLESS)
@pytest.mark.parametrize("suffix", [".png", ".jpg", ""])  # whatever it is called
def test_lossless_pictures_are_read_to_the_bit(name: str, suffix: str, tmp_path: Path) -> None:
    kind, picture, options = LOSSLESS[name]
    path = tmp_path / f"x{suffix}"
    path.write_bytes(as_bytes(picture, kind, **options))
    assert np.array_equal(read_picture(path), np.asarray(picture.convert("RGB")))
    assert survey(path).size_px == (HEIGHT, WIDTH)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_what_lies_under_transparent_pixels_is_left_out(mode: str, kind: str, tmp_path: Path) -> None:
    alpha = np.full(GREY.shape, 255, np.uint8)
    alpha[:, :10], alpha[:, 10:20] = 0, 128
    shades = (*PICTURE.split(),) if mode == "RGBA" else (Image.fromarray(GREY),)
    picture = Image.merge(mode, (*shades, Image.fromarray(alpha)))
    (tmp_path / "x.png").write_bytes(
        as_bytes(picture, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    )
    reading = read_whole(tmp_path / "x.png")
    colours = np.asarray(picture.convert("RGB"), np.float64)
    assert np.abs(reading.image - colours * alpha[..., np.newaxis] / 255).max() <= 0.5
    assert not reading.image[:, :10].any()
    assert reading.has_holes


def test_an_alpha_channel_without_holes_changes_nothing(tmp_path: Path) -> None:
    reading = read_whole(save(tmp_path / "x.png", PICTURE.convert("RGBA")))
    assert np.array_equal(reading.image, RGB)
    assert not reading.has_holes


def test_a_colour_that_is_transparent_by_name(tmp_path: Path) -> None:
    picture = PICTURE.quantize(8)
    picture.info["transparency"] = 0
    reading = read_whole(save(tmp_path / "x.png", picture, transparency=0))
    assert reading.has_holes
    assert not reading.image[np.asarray(picture) == 0].any()


def test_the_fourth_byte_of_a_bmp_is_no_transparency(tmp_path: Path) -> None:
    bgrx = np.dstack([RGB[::-1, :, ::-1], np.zeros_like(GREY)])
    head = b"BM" + struct.pack("<IHHI", 54 + bgrx.size, 0, 0, 54)
    head += struct.pack("<IiiHHIIiiII", 40, WIDTH, HEIGHT, 1, 32, 0, bgrx.size, 0, 0, 0, 0)
    (tmp_path / "x.bmp").write_bytes(head + bgrx.tobytes())
    assert np.array_equal(read_picture(tmp_path / "x.bmp"), RGB)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_deep_pictures_keep_their_highest_bits(suffix: str, bits: int, tmp_path: Path) -> None:
    """A camera of 12 bits fills 4,096 of 65,536 levels: taken for 16 bits, 16 grey levels would be left."""
    deep = GREY.astype(np.uint16) << (bits - 8)
    cv2.imwrite(str(tmp_path / f"x{suffix}"), deep)
    assert survey(tmp_path / f"x{suffix}").bits == 16
    image = read_picture(tmp_path / f"x{suffix}", bits)
    assert np.array_equal(image, np.dstack([GREY] * 3))


def test_deep_colours_and_deep_transparency(tmp_path: Path) -> None:
    deep = RGB[..., ::-1].astype(np.uint16) << 4
    cv2.imwrite(str(tmp_path / "x.png"), np.dstack([deep, np.full(GREY.shape, 65535, np.uint16)]))
    assert np.array_equal(read_picture(tmp_path / "x.png", 12), RGB)
    with pytest.raises(InputError, match="has the value 3968, more than 10 bits as the other pictures have"):
        read_picture(tmp_path / "x.png", 10)


def test_without_a_word_all_bits_of_a_deep_picture_count(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "x.png"), GREY.astype(np.uint16) << 8)
    assert np.array_equal(read_picture(tmp_path / "x.png")[..., 0], GREY)
    assert [bits_in_use(highest) for highest in (0, 255, 256, 1023, 4095, 16383, 65535)] == [8, 8, 10, 10, 12, 14, 16]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_turned_cameras(orientation: int, kind: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    settings: dict[str, dict[str, Any]] = {"PNG": {}, "JPEG": {"quality": 95}, "WEBP": {"lossless": True}}
    (tmp_path / "x").write_bytes(as_bytes(PICTURE, kind, exif=exif, **settings[kind]))
    with Image.open(tmp_path / "x") as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored).convert("RGB"), np.int16)
    assert np.abs(read_picture(tmp_path / "x") - expected).max() <= (4 if kind == "JPEG" else 0)
    assert survey(tmp_path / "x").upright_px == expected.shape[:2]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_colour_profiles_are_seen_and_not_applied(kind: str, tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    other = srgb.replace(b"sRGB", b"P3__").replace("sRGB".encode("utf-16-be"), "P3__".encode("utf-16-be"))
    options = {"lossless": True} if kind == "WEBP" else {}
    (tmp_path / "plain").write_bytes(as_bytes(PICTURE, kind, **options))
    for name, profile in (("srgb", srgb), ("other", other)):
        (tmp_path / name).write_bytes(as_bytes(PICTURE, kind, icc_profile=profile, **options))
        assert np.array_equal(read_picture(tmp_path / name), read_picture(tmp_path / "plain"))
    # of a PNG only the profile's own name is read, which Pillow leaves at "ICC Profile"
    assert [survey(tmp_path / name).has_profile for name in ("plain", "srgb", "other")] == [False, kind == "PNG", True]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


PNG, BMP = as_bytes(PICTURE, "PNG"), as_bytes(PICTURE, "BMP")
HOLES = Image.merge("RGBA", (*PICTURE.split(), Image.fromarray(GREY)))
HUGE_PNG = PNG[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", 50000, 50000, 8, 2, 0, 0, 0)) + PNG[33:]
FRAMES = [Image.fromarray(np.roll(RGB, shift, 1)) for shift in (0, 3)]
TWO_PAGES = as_bytes(FRAMES[0], "TIFF", save_all=True, append_images=FRAMES[1:])
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "is empty: remove it"),
    "text": (lambda: b"no picture", "is not a picture that can be read"),
    "a head alone": (lambda: PNG[:8], "is not a picture that can be read"),
    "GIF": (lambda: as_bytes(PICTURE, "GIF"), "is not a picture that can be read"),
    "cut PNG": (lambda: PNG[:-20], "PNG"),
    "damaged PNG": (lambda: PNG[:60] + b"\x00\x01" + PNG[62:], "PNG is damaged"),
    "huge PNG": (lambda: HUGE_PNG, "is 50000 × 50000, at most 4096 are read"),
    "empty PNG": (lambda: HUGE_PNG.replace(struct.pack(">II", 50000, 50000), bytes(8)), "is 0 × 0"),
    "huge BMP": (lambda: BMP[:18] + struct.pack("<i", 1 << 30) + BMP[22:], "is 1073741824 × 24"),
    "cut BMP": (lambda: BMP[:-1], "BMP ends before its last row"),
    "cut BMP of unknown length": (
        lambda: b"BM\0\0\0\0" + BMP[6:-1],
        "BMP ends before its last row",
    ),
    "cut TIFF": (lambda: as_bytes(Image.fromarray(draw(200, 200)), "TIFF", compression="tiff_lzw")[:-900], "TIFF"),
    "cut WebP": (lambda: as_bytes(PICTURE, "WEBP")[:-2], "WebP ends before its last byte"),
    "animated PNG": (lambda: as_bytes(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]), "is an animation"),
    "animated WebP": (lambda: as_bytes(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:]), "is an animation"),
    "TIFF of two pages": (lambda: TWO_PAGES, "holds several pictures"),
    "float TIFF": (lambda: as_bytes(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "floating-point"),
    "32-bit TIFF": (lambda: as_bytes(Image.fromarray(GREY.astype(np.int32)), "TIFF"), "signed|rare"),
    "CMYK TIFF": (lambda: as_bytes(PICTURE.convert("CMYK"), "TIFF"), "colours that decoders read differently"),
    "JPEG in a TIFF": (lambda: as_bytes(PICTURE, "TIFF", compression="jpeg"), "cannot be checked|differently"),
    "turned TIFF": (lambda: as_bytes(PICTURE, "TIFF", tiffinfo={274: 6}), "is to be turned: save it upright"),
    "TIFF with holes": (
        lambda: as_bytes(HOLES, "TIFF"),
        "transparent",
    ),
    "progressive JPEG": (lambda: as_bytes(PICTURE, "JPEG", progressive=True), "save it as a baseline JPEG"),
    "CMYK JPEG": (lambda: as_bytes(PICTURE.convert("CMYK"), "JPEG"), "inks for print"),
    "cut JPEG": (lambda: as_bytes(PICTURE, "JPEG")[:-20], "JPEG ends before"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_right_is_refused_by_name(name: str, tmp_path: Path) -> None:
    make, problem = REFUSED[name]
    (tmp_path / "x.png").write_bytes(make())
    with pytest.raises(InputError, match=problem) as refused:
        read_picture(tmp_path / "x.png")
    assert "x.png" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_opaque_tiffs_may_have_transparency(tmp_path: Path) -> None:
    assert np.array_equal(read_picture(save(tmp_path / "x.tif", PICTURE.convert("RGBA"))), RGB)


def test_a_pipe_a_folder_and_a_link_to_itself_do_not_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "link.png")
    for name in ("pipe.png", "folder.png", "link.png", "none.png"):
        with pytest.raises(InputError, match=name):
            read_picture(tmp_path / name)


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xe9\n.png"))
    path.write_bytes(PNG)
    assert np.array_equal(read_picture(path), RGB)
    path.write_bytes(b"")
    with pytest.raises(InputError) as refused:
        read_picture(path)
    assert str(refused.value).endswith(r"\xff\xe9\n.png is empty: remove it")
    assert shown("Pärchen 梨.png") == "Pärchen 梨.png"


def test_a_file_that_is_too_long(tmp_path: Path) -> None:
    with (tmp_path / "x.png").open("wb") as file:
        file.truncate(MAX_PICTURE_BYTES + 1)
    with pytest.raises(InputError, match="has more than 64 MB: use a smaller picture"):
        read_picture(tmp_path / "x.png")
