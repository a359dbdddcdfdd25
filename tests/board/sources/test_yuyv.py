"""YUYV buffers: what is short, left over or empty gives no picture."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from board.sources.yuyv import YuyvReader

SIZE_PX = (48, 64)


def draw_buffer(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(30, 220, (*SIZE_PX, 2), np.uint8)


def test_a_whole_buffer_is_what_opencv_makes_of_it_in_any_form() -> None:
    buffer = draw_buffer(0)
    expected = cv2.cvtColor(cv2.cvtColor(buffer, cv2.COLOR_YUV2BGR_YUY2), cv2.COLOR_BGR2RGB)
    for form in (buffer, buffer.reshape(1, -1), buffer.reshape(SIZE_PX[0], -1)):
        picture = YuyvReader(SIZE_PX).read(form)
        assert picture is not None
        assert np.array_equal(picture, expected)
        assert not np.shares_memory(picture, buffer)


def test_a_buffer_of_another_length_or_stride_is_none() -> None:
    buffer = draw_buffer(0)
    for other in (buffer[:-1], buffer[:, :-2], np.pad(buffer, ((0, 0), (0, 16), (0, 0))), buffer[:0]):
        assert YuyvReader(SIZE_PX).read(other) is None
    assert YuyvReader(SIZE_PX).read(buffer.astype(np.uint16)) is None


def test_what_is_left_over_from_the_buffer_before_is_none() -> None:
    reader, first, second = YuyvReader(SIZE_PX), draw_buffer(1), draw_buffer(2)
    assert reader.read(first) is not None
    for rows in (1, 30, SIZE_PX[0]):  # the last ones are still those of the picture before
        second = draw_buffer(2 + rows)
        second[-rows:] = first[-rows:]
        assert reader.read(second) is None
    assert reader.read(draw_buffer(9)) is not None


def test_an_empty_end_is_none_and_a_white_border_is_no_fault() -> None:
    reader, empty = YuyvReader(SIZE_PX), draw_buffer(1)
    empty[20:] = 0
    assert reader.read(empty) is None
    empty = draw_buffer(9)
    empty[-1, -5:] = 0  # ten bytes too short
    assert reader.read(empty) is None
    for seed in range(2, 5):
        lit = draw_buffer(seed)
        lit[40:] = (235, 128)
        assert reader.read(lit) is not None
