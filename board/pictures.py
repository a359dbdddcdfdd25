"""Frames from the wire and from cameras to RGB, bounded: whole ones only, whatever OpenCV's version makes of others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from protocol.errors import MessageError
from protocol.pictures.jpeg import decode_jpeg, jpeg_size
from protocol.pictures.reader import rgb
from protocol.wire import Buffer, Encoding, FrameMessage, view_pixels


def decode_frame(message: FrameMessage) -> NDArray[np.uint8]:
    """uint8 (h, w, 3) RGB of a raw or JPEG frame. Raises: MessageError if the pixels are not what the header says."""
    return decode_pixels(message.header.encoding, message.header.shape, message.pixels)


def decode_pixels(encoding: Encoding, shape: tuple[int, int], pixels: Buffer) -> NDArray[np.uint8]:
    """uint8 (h, w, 3) RGB; a raw picture is a read-only view of `pixels`. Raises: MessageError."""
    if encoding == "raw":
        return view_pixels(shape, pixels)
    data = bytes(pixels)
    # subtle: the size is read from the bytes before decoding, so that a small file cannot ask for a huge picture
    if jpeg_size(data) != shape:
        raise MessageError(f"JPEG frame is {jpeg_size(data)}, its header says {shape}")
    image = rgb(decode_jpeg(data))
    if image.shape[:2] != shape:
        raise MessageError(f"JPEG frame turns itself to {image.shape[:2]}: leave its orientation out")
    return image
