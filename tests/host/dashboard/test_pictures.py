"""Pictures on disk: never more bytes than allowed, the oldest go, and no name leads anywhere else."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from host.dashboard.identity import part_key
from host.dashboard.pictures import MAP_HEAD, PictureStore, Shelf
from protocol.messages import Decision
from protocol.pictures.reader import read_picture
from protocol.tap import TapPart
from tests.examples import VERDICT

WITHIN_S = 30.0
RNG = np.random.default_rng(1)


def tapped(number: int, decision: Decision = "REJECT", side_px: int = 64) -> TapPart:
    image = RNG.integers(0, 256, (side_px, side_px, 3), np.uint8)
    anomaly = RNG.integers(-128, 128, (8, 8)).astype(np.int8)
    return TapPart(number, replace(VERDICT, event_id=f"e{number}", decision=decision), image, anomaly, 0.25)


def bytes_in(folder: Path) -> int:
    """On the disk, which gives whole blocks."""
    block = os.statvfs(folder).f_frsize
    return sum(-(-path.stat().st_size // block) * block for path in folder.rglob("*") if path.is_file())


def test_a_map_comes_back_bit_for_bit_and_a_picture_as_jpeg(tmp_path: Path) -> None:
    store = PictureStore(tmp_path, 1 << 20, 1 << 20)
    part = tapped(1)
    store.put(part)
    picture, anomaly = (store.path(part_key("e1"), suffix) for suffix in ("jpg", "map"))
    assert picture is not None
    assert anomaly is not None
    data = anomaly.read_bytes()
    assert MAP_HEAD.unpack_from(data) == (8, 8, 0.25)
    assert part.anomaly is not None
    assert data[MAP_HEAD.size :] == part.anomaly.tobytes()
    assert read_picture(picture).shape == (64, 64, 3)


def test_a_picture_is_read_whole_while_it_is_put_again(tmp_path: Path) -> None:
    store, part, stop = PictureStore(tmp_path, 1 << 20, 1 << 20), tapped(1), threading.Event()
    store.put(part)

    def put_again() -> None:
        while not stop.is_set():
            store.put(part)

    thread = threading.Thread(target=put_again)
    thread.start()
    try:
        seen = {store.read(part_key("e1"), "jpg") for _ in range(500)}
    finally:
        stop.set()
        thread.join()
    assert len(seen) == 1
    assert store.read(part_key("e2"), "jpg") is None


def test_the_bound_holds_and_the_oldest_go(tmp_path: Path) -> None:
    store = PictureStore(tmp_path, 100_000, 100_000)
    for number in range(30):
        store.put(tapped(number))
        assert bytes_in(tmp_path) <= 100_000
        assert store.used_bytes()["rejected"] == bytes_in(tmp_path)
    assert store.path(part_key("e0"), "jpg") is None
    assert store.path(part_key("e29"), "jpg") is not None
    assert store.path(part_key("e29"), "map") is not None


def test_good_parts_do_not_push_rejected_ones_out(tmp_path: Path) -> None:
    store = PictureStore(tmp_path, 100_000, 50_000)
    store.put(tapped(0))
    for number in range(1, 20):
        store.put(tapped(number, "OK"))
    assert store.path(part_key("e0"), "jpg") is not None
    assert bytes_in(tmp_path / "good") <= 50_000


def test_after_a_restart_the_bound_still_holds(tmp_path: Path) -> None:
    store = PictureStore(tmp_path, 100_000, 100_000)
    for number in range(5):
        store.put(tapped(number))
    again = PictureStore(tmp_path, 100_000, 100_000)
    assert again.await_stock(WITHIN_S)
    assert again.used_bytes() == store.used_bytes()
    for number in range(5, 20):
        again.put(tapped(number))
    assert bytes_in(tmp_path) <= 100_000
    assert again.path(part_key("e19"), "jpg") is not None


def test_a_picture_beyond_the_bound_is_not_kept(tmp_path: Path) -> None:
    store = PictureStore(tmp_path, 1000, 1000)
    store.put(tapped(0, side_px=256))
    assert bytes_in(tmp_path) == 0


def test_a_part_that_is_shown_twice_counts_once(tmp_path: Path) -> None:
    store = PictureStore(tmp_path, 1 << 20, 1 << 20)
    part = tapped(0)
    store.put(part)
    store.put(part)
    assert store.used_bytes()["rejected"] == bytes_in(tmp_path)


def test_a_part_without_a_picture(tmp_path: Path) -> None:
    store = PictureStore(tmp_path, 1 << 20, 1 << 20)
    store.put(replace(tapped(0), image=None, anomaly=None))
    assert store.path(part_key("e0"), "jpg") is None


@pytest.mark.parametrize("event_id", ["../../../etc/passwd", "a/b", "\0", "..", "\ud800"])
def test_no_event_id_reaches_a_path(tmp_path: Path, event_id: str) -> None:
    store = PictureStore(tmp_path / "pictures", 1 << 20, 1 << 20)
    part = tapped(0)
    store.put(replace(part, verdict=replace(part.verdict, event_id=event_id)))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.parent for path in files} == {tmp_path / "pictures" / "rejected"}
    assert {path.stem for path in files} == {part_key(event_id)}


@pytest.mark.parametrize("key", ["../secret", "..", "", "A" * 32, "0" * 31, f"{'0' * 32}/", f"{'0' * 32}\n"])
def test_what_is_no_key_finds_nothing(tmp_path: Path, key: str) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    assert PictureStore(tmp_path, 1000, 1000).path(key, "jpg") is None


def test_what_was_there_is_found_at_once_and_counted_later(tmp_path: Path) -> None:
    before = PictureStore(tmp_path, 1 << 20, 1 << 20)
    before.put(tapped(0))
    assert before.await_stock(WITHIN_S)
    shelf = Shelf(tmp_path / "rejected", 2 * before.used_bytes()["rejected"])
    assert shelf.path(part_key("e0"), "jpg") is not None
    assert shelf.used_bytes == 0
    shelf.put(part_key("e1"), {"map": b"x" * 100})
    shelf.add_stock(shelf.list_stock())
    assert shelf.used_bytes == bytes_in(tmp_path), "what came in between counts once"
    shelf.put(part_key("e2"), {"map": b"x" * before.used_bytes()["rejected"]})
    assert shelf.path(part_key("e0"), "jpg") is None, "the oldest goes first"
    assert shelf.path(part_key("e1"), "map") is not None
