"""Files of arrays that somebody else made: read, or refused in one line, before much is unpacked."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

import numpy as np
import pytest

from protocol.arrays import MAX_BYTES, MAX_ENTRIES, load_arrays

MAPS = np.arange(6, dtype=np.int8).reshape(1, 2, 3)


def packed(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def encrypted() -> bytes:
    """The entry's flags say so, here and in the directory."""
    data = bytearray(packed(maps=MAPS))
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + at] |= 1
    return bytes(data)


def of_entries(*entries: tuple[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return file.getvalue()


def npy(header: str, content: bytes = b"") -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


def bomb() -> bytes:
    """Says that it has much, without any of it."""
    data = bytearray(packed(maps=MAPS))
    at = data.index(b"PK\x01\x02") + 24  # the unpacked size in the directory
    data[at : at + 4] = (MAX_BYTES + 1).to_bytes(4, "little")
    return bytes(data)


BAD: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "no zip": lambda: b"PK\x03\x04 and no more",
    "an array alone": lambda: npy("{'descr': '|i1', 'fortran_order': False, 'shape': (0,)}"),
    "encrypted": encrypted,
    "packed otherwise": lambda: of_entries(("maps.npy", b""), compression=zipfile.ZIP_BZIP2),
    "too much": bomb,
    "too many": lambda: of_entries(*((f"{number}.npy", b"") for number in range(MAX_ENTRIES + 1))),
    "missing": lambda: packed(images=MAPS),
    "cut off": lambda: packed(maps=MAPS)[:-40],
    "no array": lambda: of_entries(("maps.npy", b"text")),
    "objects": lambda: packed(maps=np.array([MAPS, None], object)),
    "a header of code": lambda: of_entries(("maps.npy", npy("exit()"))),
    "a header that ends": lambda: of_entries(("maps.npy", npy("{'descr': '|i1', 'shape': ("))),
    "an immense shape": lambda: of_entries(
        ("maps.npy", npy("{'descr': '|i1', 'fortran_order': False, 'shape': (1 << 62,)}"))
    ),
    "a negative shape": lambda: of_entries(
        ("maps.npy", npy("{'descr': '|i1', 'fortran_order': False, 'shape': (-5, 3)}"))
    ),
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_what_is_no_such_file_is_refused_in_one_line(content: Callable[[], bytes]) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - of any words, but some
        load_arrays(io.BytesIO(content()), ("maps",))
    assert str(caught.value)
    assert "\n" not in str(caught.value)


def test_arrays_come_as_they_were() -> None:
    arrays = load_arrays(io.BytesIO(packed(maps=MAPS, other=MAPS)), ("maps",), optional=("tolerance",))
    assert list(arrays) == ["maps"]
    assert np.array_equal(arrays["maps"], MAPS)
