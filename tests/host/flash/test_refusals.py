"""What cannot be used is refused with a line that says what to do, exit code 2, and nothing half-done."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from host.flash.archive import find_image, require_space, unpack
from host.flash.layout import decode_layout
from host.flash.progress import Progress
from protocol.errors import InputError
from tests.host.flash.conftest import Desk


def refuse(desk: Desk, *more: str | Path) -> str:
    before = desk.files()
    words = desk.refusal("--image", desk.archive, *desk.options(desk.folder / "card.img"), *more)
    assert desk.files() == before
    return words


def own_archive(desk: Desk, official: Path) -> Path:
    desk.archive.unlink()
    desk.archive.write_bytes(official.read_bytes())
    return desk.archive


def test_a_zip_that_is_not_there(desk: Desk) -> None:
    desk.archive.unlink()
    assert "give --image the official zip" in refuse(desk)


def test_a_download_that_was_cut_off(desk: Desk, official: Path) -> None:
    archive = own_archive(desk, official)
    archive.write_bytes(archive.read_bytes()[:-5000])
    assert "is no whole zip" in refuse(desk)


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
def test_a_damaged_zip(desk: Desk, official: Path, at: float) -> None:
    archive = own_archive(desk, official)
    data = bytearray(archive.read_bytes())
    start = int(len(data) * at)
    data[start : start + 64] = bytes(byte ^ 0xFF for byte in data[start : start + 64])
    archive.write_bytes(data)
    assert "is damaged" in refuse(desk)


def test_a_stored_image_is_compared_with_its_crc(desk: Desk, official: Path) -> None:
    """Without compression nothing but the CRC-32 tells."""
    image = desk.folder / "plain.img"
    image.write_bytes(b"plain content of an image")
    archive = own_archive(desk, official)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as opened:
        opened.write(image, "plain.img")
    archive.write_bytes(archive.read_bytes().replace(b"plain content", b"other content"))
    assert "Bad CRC-32" in refuse(desk)


def test_a_zip_without_an_image_or_with_two(desk: Desk, official: Path) -> None:
    archive = own_archive(desk, official)
    for names in ([], ["a.img", "b.img"]):
        with zipfile.ZipFile(archive, "w") as opened:
            for name in names:
                opened.writestr(name, b"x")
        with pytest.raises(InputError, match="does not hold one image"):
            find_image(archive)


def test_another_sha256_than_was_given(desk: Desk) -> None:
    assert "not the one that was given" in refuse(desk, "--sha256", "0" * 64)
    assert "64 hexadecimal digits" in refuse(desk, "--sha256", "0" * 63)


def test_another_zip_than_at_first_use(desk: Desk, official: Path) -> None:
    target = desk.folder / "card.img"
    assert desk.flash("--image", desk.archive, *desk.options(target)).returncode == 0
    record = desk.archive.with_name(desk.archive.name + ".sha256")
    digest, name = record.read_text().split()
    assert name == desk.archive.name
    target.unlink()
    assert desk.flash("--image", desk.archive, *desk.options(target), "--sha256", digest.upper()).returncode == 0
    target.unlink()
    archive = own_archive(desk, official)
    archive.write_bytes(archive.read_bytes() + b"\0")
    assert "is not what" in refuse(desk)


def test_too_little_space(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"are needed: give --work elsewhere"):
        require_space(tmp_path, 1 << 60)


@pytest.mark.parametrize("name", ["card.bin", "missing/card.img", "."])
def test_a_target_that_is_none(desk: Desk, name: str) -> None:
    assert "neither a disk nor FILE.img" in desk.refusal("--image", desk.archive, *desk.options(desk.folder / name))


def test_a_private_key_is_not_put_on_a_card(desk: Desk) -> None:
    key = desk.folder / "id_ed25519"
    key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----\n")
    assert "is a private key, which never leaves its owner" in refuse(desk, "--ssh-key", key)
    key.write_text("not a key\n")
    assert "is no public ssh key" in refuse(desk, "--ssh-key", key)


def change(text: str, by: str) -> Callable[[Desk], None]:
    def apply(desk: Desk) -> None:
        content = desk.config.read_text()
        assert text in content
        desk.config.write_text(content.replace(text, by, 1))

    return apply


def spoil(name: str) -> Callable[[Desk], None]:
    def apply(desk: Desk) -> None:
        path = desk.folder / name
        path.write_bytes(path.read_bytes() + b"\n")

    return apply


def call_unfit(desk: Desk) -> None:
    path = desk.folder / "models" / "trivial" / "manifest.json"
    concern = {"grade": "unfit", "why": "it sees nothing", "what_to_do": "look"}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fitness": {"grade": "unfit", "concerns": [concern]}}))


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (change('source = "belt"', 'sauce = "belt"'), "line.toml:2: sauce: unknown key"),
        (change('source = "belt"', 'source = "replay"'), 'source is "replay"'),
        (change('"optional"', '"required"'), 'broker_at_start is "required"'),
        (change('"../runs/outbox.sqlite"', '"outbox.sqlite"'), "mqtt.outbox = 'outbox.sqlite' would not outlive"),
        (change('"../runs/outbox.sqlite"', '"../runs/../x"'), "would not outlive an update"),
        (change('"../runs/drift"', '"/srv/drift"'), "drift.folder = '/srv/drift' would not outlive"),
        (change('"ca.pem"', '"gone.pem"'), "gone.pem (No such file or directory): correct broker.credentials.ca_file"),
        (change('"ca.pem"', '"/etc/ssl/ca.pem"'), "must lie beside line.toml, or beside its folder"),
        (change('"ca.pem"', '"../../ca.pem"'), "must lie beside line.toml, or beside its folder"),
        (change('"ca.pem"', '"../site/ca.pem"'), "must lie beside line.toml, or beside its folder"),
        (change("[mqtt]", '[engines]\norder = ["fpga", "arm"]\n[mqtt]'), "make it with `beltsight overlay`"),
        (change("[mqtt]", '[engines]\norder = ["fpga-sim"]\n[mqtt]'), "which simulates the logic"),
        (change("trivial", "absent"), "make one with scripts/export.sh"),
        (spoil("models/trivial/model.onnx"), "model.onnx is not the file that was exported"),
        (spoil("models/trivial/manifest.json"), ""),
        (call_unfit, "trivial is unfit: it sees nothing"),
        (spoil("wheels/tiny_wheel-1.0-py3-none-any.whl"), "lacks tiny-wheel==1.0 with the SHA-256 in list.txt"),
    ],
)
def test_what_the_station_is_made_of(desk: Desk, mistake: Callable[[Desk], None], words: str) -> None:
    mistake(desk)
    if words:
        assert words in refuse(desk)


def test_an_image_of_another_layout() -> None:
    """No signature, no FAT, no Linux, an empty partition, a third one, partitions that overlap."""
    good = bytearray(512)
    good[510:512] = b"\x55\xaa"
    for at, kind, start, sectors in ((446, 0x0C, 2048, 100), (462, 0x83, 4096, 100)):
        good[at + 4] = kind
        good[at + 8 : at + 16] = start.to_bytes(4, "little") + sectors.to_bytes(4, "little")
    layout = decode_layout(bytes(good), Path("image"))
    assert (layout.boot.start_bytes, layout.root.end_bytes) == (2048 * 512, 4196 * 512)
    for at, value in ((510, 0), (450, 0x83), (466, 0x82), (474, 0), (482, 0x83), (455, 0xFF)):
        bad = bytearray(good)
        bad[at] = value
        with pytest.raises(InputError, match="official PYNQ-Z2 image"):
            decode_layout(bytes(bad), Path("image"))


def test_links_in_the_folder_are_not_followed(desk: Desk, official: Path) -> None:
    """Whoever may write beside the target could have us write elsewhere."""
    theirs = desk.folder / "theirs"
    theirs.write_bytes(b"not ours")
    (desk.folder / "card.img").symlink_to(theirs)
    assert "is a link" in refuse(desk)
    (desk.folder / "card.img").unlink()
    archive = own_archive(desk, official)
    (desk.folder / "card.img.partial").symlink_to(theirs)
    record = archive.with_name(archive.name + ".sha256")
    record.unlink(missing_ok=True)
    record.symlink_to(desk.folder / "nowhere")
    desk.refusal("--image", desk.archive, *desk.options(desk.folder / "card.img"))
    record.unlink()
    info = find_image(archive)
    unpack(archive, info, desk.folder / "card.img.partial", Progress("", io.StringIO()))
    assert not (desk.folder / "card.img.partial").is_symlink()
    assert theirs.read_bytes() == b"not ours"
    assert not (desk.folder / "nowhere").exists()
