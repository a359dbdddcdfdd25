"""What a picture file says of itself, read before any decoder sees it.

A decoder would believe it: a small file that asks for gigabytes, an animation of which it shows the first picture,
inks for print that it turns into wrong colours. Sizes and kinds come from here, on every version of OpenCV.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from protocol.errors import MessageError
from protocol.pictures.files import PNG_SIGNATURE, TIFF_SIGNATURES
from protocol.pictures.tiff import Tiff, read_tiff

Format = Literal["PNG", "JPEG", "BMP", "TIFF", "WebP"]
SRGB_NAMES = (b"sRGB", "sRGB".encode("utf-16-be"), b"IEC61966-2.1", b"IEC 61966-2.1")
_PNG_ALPHA = (4, 6)  # colour types with an alpha channel (PNG, table 11.1)
_EXIF_HEAD = b"Exif\0\0"
_PROFILE_HEAD = b"ICC_PROFILE\0"
# Frame headers of JPEG: baseline, extended and progressive, all with Huffman codes (ITU T.81, table B.1)
_SOF_KNOWN = (0xC0, 0xC1, 0xC2)
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True)
class Header:
    format: Format
    size_px: tuple[int, int]  # (height, width), as stored: before it is turned
    bits: int = 8  # of a channel, as stored
    orientation: int = 1  # of EXIF: 1..8
    has_alpha: bool = False
    has_profile: bool = False  # a colour profile that is not sRGB's

    @property
    def upright_px(self) -> tuple[int, int]:
        """(height, width) as people see it."""
        return self.size_px if self.orientation < 5 else self.size_px[::-1]


def read_header(data: bytes) -> Header | None:
    """From a file's bytes, or from its first ones; None if it is no picture of a kind that is read.

    Raises: MessageError for one that cannot be read right.
    """
    if data.startswith(PNG_SIGNATURE):
        return _read_png(data)
    if data.startswith(b"\xff\xd8"):
        return _read_jpeg(data)
    if data.startswith(b"BM"):
        return _read_bmp(data)
    if data.startswith(TIFF_SIGNATURES):
        return _read_tiff(read_tiff(data))
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _read_webp(data)
    return None


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of each chunk's content, as far as the bytes go."""
    at = 8
    while at + 8 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], at + 8, end
        at = end + 4


def _read_png(data: bytes) -> Header | None:
    if data[12:16] != b"IHDR" or len(data) < 26:
        return None
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    has_alpha, has_profile, orientation = colour in _PNG_ALPHA, False, 1
    for kind, start, end in png_chunks(data):
        if kind == b"acTL" and int.from_bytes(data[start : start + 4], "big") > 1:
            raise MessageError("it is an animation: save the one picture that is meant")
        has_alpha |= kind == b"tRNS"
        if kind == b"iCCP":  # its name stands before the packed profile
            has_profile = not _is_srgb(data[start : min(end, start + 79)])
        if kind == b"eXIf":
            orientation = _orientation(data[start:end])
    return Header("PNG", (height, width), bits, orientation, has_alpha, has_profile)


def _read_jpeg(data: bytes) -> Header | None:
    orientation, profile, at = 1, b"", 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        content = data[at + 4 : at + 2 + length]
        if marker in _SOF:
            return _finish_jpeg(marker, content, orientation, bool(profile) and not _is_srgb(profile))
        if marker == 0xE1 and content.startswith(_EXIF_HEAD) and orientation == 1:
            orientation = _orientation(content[len(_EXIF_HEAD) :])
        if marker == 0xE2 and content.startswith(_PROFILE_HEAD):
            profile += content[len(_PROFILE_HEAD) + 2 :]
        if length < 2 or marker == 0xDA:
            return None
        at += 2 + length
    return None


def _finish_jpeg(marker: int, content: bytes, orientation: int, has_profile: bool) -> Header | None:
    if len(content) < 6:
        return None
    bits, height, width, components = struct.unpack_from(">BHHB", content)
    if marker not in _SOF_KNOWN:
        raise MessageError("JPEG is of a rare kind (lossless or arithmetic): save it as a baseline JPEG")
    if bits != 8:
        raise MessageError(f"JPEG has {bits} bits, which decoders read differently: save it as a 16-bit PNG")
    if components not in (1, 3):
        raise MessageError("JPEG has inks for print (CMYK): save it with RGB colours")
    return Header("JPEG", (height, width), 8, orientation, False, has_profile)


def _read_bmp(data: bytes) -> Header | None:
    if len(data) < 30:
        return None
    at = 2 if data[14:18] == b"\x0c\0\0\0" else 4  # bytes of a side: 2 in OS/2's header, else 4 with their sign
    width, height = (int.from_bytes(data[i : i + at], "little", signed=at == 4) for i in (18, 18 + at))
    return Header("BMP", (abs(height), abs(width)))  # a negative height: rows from the top


def _read_tiff(tiff: Tiff) -> Header:
    fault = tiff.fault()
    if fault:
        raise MessageError(fault)
    profile = tiff.profile
    return Header("TIFF", tiff.size_px, tiff.bits, 1, tiff.has_alpha, bool(profile) and not _is_srgb(profile))


def _read_webp(data: bytes) -> Header | None:
    """WebP Container Specification (RFC 9649): lossy, lossless, or extended with its parts."""
    kind = data[12:16]
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a" and len(data) >= 30:
        width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", data, 26))
        return Header("WebP", (height, width))
    if kind == b"VP8L" and len(data) >= 25 and data[20] == 0x2F:
        packed = int.from_bytes(data[21:25], "little")
        return Header("WebP", ((packed >> 14 & 0x3FFF) + 1, (packed & 0x3FFF) + 1), has_alpha=bool(packed >> 28 & 1))
    if kind != b"VP8X" or len(data) < 30:
        return None
    flags = data[20]
    if flags & 0x02:
        raise MessageError("it is an animation: save the one picture that is meant")
    size_px = (int.from_bytes(data[27:30], "little") + 1, int.from_bytes(data[24:27], "little") + 1)
    profile, exif = (_webp_part(data, part) for part in (b"ICCP", b"EXIF"))
    orientation = _orientation(exif.removeprefix(_EXIF_HEAD)) if exif else 1
    return Header("WebP", size_px, 8, orientation, bool(flags & 0x10), bool(profile) and not _is_srgb(profile))


def _webp_part(data: bytes, wanted: bytes) -> bytes:
    at = 12
    while at + 8 <= len(data):
        end = at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == wanted:
            return data[at + 8 : end]
        at = end + (end & 1)  # parts have an even length
    return b""


def _orientation(exif: bytes) -> int:
    """1 where it says nothing that is known."""
    try:
        found = read_tiff(exif).first(274)
    except MessageError:
        return 1
    return found if found in range(1, 9) else 1


def _is_srgb(profile: bytes) -> bool:
    return any(name in profile for name in SRGB_NAMES)
