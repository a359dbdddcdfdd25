"""Downloads from a local server that can cut the line, change its files, and not know ranges."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from host.pictures.catalogue import CATALOGUE, DataSet, Source
from host.pictures.download import download
from host.pictures.get_data import fetch
from host.pictures.unpack import unpack
from protocol.errors import InputError
from tests.host.export.test_export import REPOSITORY

CONTENT = bytes(range(256)) * 4000
MB = 1_000_000


class Server(ThreadingHTTPServer):
    """Serves `files`; `cut_after` bytes it hangs up once, `knows_ranges` says whether it honours them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cut_after: int | None = None
        self.knows_ranges = True
        self.ranges: list[str | None] = []

    def source(self, name: str, checksum: str = "", largest_bytes: int = 10 * MB) -> Source:
        return Source(f"http://127.0.0.1:{self.server_address[1]}/{name}", checksum, largest_bytes)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.ranges.append(self.headers.get("Range"))
        content = self.server.files.get(self.path[1:])
        if content is None:
            self.send_error(404)
            return
        tag, start = f'"{hashlib.sha256(content).hexdigest()}"', 0
        if self.server.knows_ranges and self.headers.get("If-Range") == tag:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        cut, self.server.cut_after = self.server.cut_after, None
        self.wfile.write(content[start:] if cut is None else content[start : start + cut])

    def log_message(self, *_words: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ignore(_there: int, _total: int) -> None:
    """No progress is shown."""


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def pack(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def test_file_arrives(server: Server, tmp_path: Path) -> None:
    server.files["a.bin"] = CONTENT
    seen: list[tuple[int, int]] = []
    path = download(server.source("a.bin", sha256(CONTENT)), tmp_path, lambda there, total: seen.append((there, total)))
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in tmp_path.glob("*.part")] == []


def test_interrupted_download_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.files["a.bin"], server.cut_after = CONTENT, 300_000
    source = server.source("a.bin", sha256(CONTENT))
    with pytest.raises(InputError, match=r"stopped \(300000 of 1024000 bytes came\): the same command goes on"):
        download(source, tmp_path, ignore)
    assert download(source, tmp_path, ignore).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=300000-"]


def test_file_that_changed_in_between_is_fetched_anew(server: Server, tmp_path: Path) -> None:
    server.files["a.bin"], server.cut_after = CONTENT, 300_000
    with pytest.raises(InputError, match="stopped"):
        download(server.source("a.bin"), tmp_path, ignore)
    server.files["a.bin"] = CONTENT[::-1]
    assert download(server.source("a.bin"), tmp_path, ignore).read_bytes() == CONTENT[::-1]


def test_server_without_ranges(server: Server, tmp_path: Path) -> None:
    server.files["a.bin"], server.cut_after, server.knows_ranges = CONTENT, 300_000, False
    with pytest.raises(InputError, match="stopped"):
        download(server.source("a.bin"), tmp_path, ignore)
    assert download(server.source("a.bin"), tmp_path, ignore).read_bytes() == CONTENT


def test_part_that_is_longer_than_the_file_begins_anew(server: Server, tmp_path: Path) -> None:
    server.files["a.bin"] = CONTENT
    (tmp_path / "a.bin.part").write_bytes(CONTENT + b"too much")
    (tmp_path / "a.bin.part.tag").write_text(f'"{hashlib.sha256(CONTENT).hexdigest()}"')
    assert download(server.source("a.bin"), tmp_path, ignore).read_bytes() == CONTENT


def test_wrong_checksum_is_refused_and_deleted(server: Server, tmp_path: Path) -> None:
    server.files["a.bin"] = CONTENT
    with pytest.raises(InputError, match=r"has md5 [0-9a-f]{32}, expected 0000: it was deleted; try again"):
        download(server.source("a.bin", "md5:0000"), tmp_path, ignore)
    assert not list(tmp_path.glob("a.bin*[!g]"))


def test_checksum_of_the_first_download_is_kept(server: Server, tmp_path: Path) -> None:
    server.files["a.bin"] = CONTENT
    download(server.source("a.bin"), tmp_path, ignore).unlink()
    server.files["a.bin"] = CONTENT + b"!"
    with pytest.raises(InputError, match="expected " + sha256(CONTENT).removeprefix("sha256:")):
        download(server.source("a.bin"), tmp_path, ignore)


def test_too_large_is_refused(server: Server, tmp_path: Path) -> None:
    server.files["a.bin"] = CONTENT
    with pytest.raises(InputError, match="is larger than the 1 MB that were expected"):
        download(server.source("a.bin", largest_bytes=1 * MB), tmp_path, ignore)


def test_missing_file_and_missing_server(server: Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be had \(HTTP 404\): try again later"):
        download(server.source("none.bin"), tmp_path, ignore)
    with pytest.raises(InputError, match=r"cannot be had \(.*refused\): try again later"):
        download(Source("http://127.0.0.1:1/a.bin", "", MB), tmp_path, ignore)


def test_set_appears_whole(server: Server, tmp_path: Path) -> None:
    server.files["bottle.tar.xz"] = pack({"bottle/train/good/000.png": b"picture", "bottle/readme.txt": b"read"})
    server.files["film.mp4"] = b"film"
    dataset = DataSet(
        "set",
        "what",
        "licence",
        "page",
        (server.source("bottle.tar.xz"), server.source("film.mp4")),
        MB,
        {"train/good": 1},
    )
    folder = fetch(dataset, tmp_path)
    assert (folder / "train" / "good" / "000.png").read_bytes() == b"picture"
    assert (folder / "film.mp4").read_bytes() == b"film"
    assert sorted(path.name for path in tmp_path.rglob(".set.downloads/*")) == [
        "bottle.tar.xz.sha256",
        "film.mp4.sha256",
    ]


def test_set_without_its_pictures_does_not_appear(server: Server, tmp_path: Path) -> None:
    server.files["bottle.tar.xz"] = pack({"bottle/train/good/000.png": b"picture"})
    dataset = DataSet("set", "what", "licence", "page", (server.source("bottle.tar.xz"),), MB, {"train/good": 2})
    with pytest.raises(InputError, match="has 1 files in train/good, expected 2: the publisher has changed the set"):
        fetch(dataset, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".set.downloads"]


@pytest.mark.parametrize(
    "name", ["../evil.txt", "bottle/../../evil.txt", "/etc/evil.txt", "bottle/..\\evil.txt", "C:/evil"]
)
def test_archive_that_reaches_outside_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.tar.xz").write_bytes(pack({"bottle/fine.txt": b"fine", name: b"evil"}))
    with pytest.raises(InputError, match="which does not belong there: do not use this archive"):
        unpack(tmp_path / "a.tar.xz", tmp_path / "out", MB)
    assert {path.name for path in tmp_path.rglob("*")} <= {"a.tar.xz", "out", "fine.txt"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("bottle/link")
    member.type, member.linkname = kind, "/etc/passwd"
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.addfile(member)
    with pytest.raises(InputError, match="which does not belong there"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out", MB)


def test_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    """Two megabytes of zeros are a few hundred bytes in the archive."""
    (tmp_path / "a.tar.xz").write_bytes(pack({"bottle/large": bytes(2 * MB)}))
    assert (tmp_path / "a.tar.xz").stat().st_size < 10_000
    with pytest.raises(InputError, match="unpacks to more than 1 MB"):
        unpack(tmp_path / "a.tar.xz", tmp_path / "out", MB)
    assert not list(tmp_path.rglob("large"))


def test_damaged_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.tar.xz").write_bytes(pack({"bottle/some": bytes(range(256)) * 100})[:-40])
    with pytest.raises(InputError, match=r"a\.tar\.xz is damaged"):
        unpack(tmp_path / "a.tar.xz", tmp_path / "out", MB)


def test_catalogue_is_complete() -> None:
    assert len({dataset.name for dataset in CATALOGUE}) == len(CATALOGUE)
    for dataset in CATALOGUE:
        assert dataset.licence
        assert dataset.page.startswith("http")
        for source in dataset.sources:
            digits = {"sha256": 64, "md5": 32, "": 0}
            kind, _, value = source.checksum.partition(":")
            assert len(value) == digits[kind]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "no set is named 'nothing': choose one of mvtec-bottle, "),
        ([], "name a set: mvtec-bottle, "),
        (["mvtec-bottle"], "the licence must be accepted: read it above, then give --accept-licence"),
    ],
)
def test_command_refuses_in_one_line(tmp_path: Path, words: list[str], message: str) -> None:
    done = run_command(*words, "--out", str(tmp_path / "data"))
    assert done.returncode == 2
    assert done.stderr.startswith(f"beltsight: {message}")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_command_shows_the_licence_first(tmp_path: Path) -> None:
    assert "CC BY-NC-SA 4.0" in run_command("mvtec-bottle", "--out", str(tmp_path)).stdout
    listed = run_command("--list").stdout
    assert all(dataset.name in listed and dataset.licence in listed for dataset in CATALOGUE)


def run_command(*words: str) -> subprocess.CompletedProcess[str]:
    command = [str(REPOSITORY / "scripts" / "beltsight"), "get-data", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
