"""Models fetched over HTTP: believed for their signature alone, there as a whole or not at all."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from board.config import LineConfig
from board.disk import Disk
from board.models.change import ModelChangeSettings
from board.models.choice import Chosen, remember_models
from board.models.pull import MAX_FILES, Bounds, pull_package
from board.packages import choose_package, open_models
from host.deploy.sign import sign_package
from host.export.trivial import write_trivial_package
from protocol.commands import SwitchModel
from protocol.errors import BeltsightError, InputError, ManifestError
from protocol.manifest import GOLDEN_NPZ, MANIFEST, MAX_MANIFEST_BYTES, MODEL_ONNX, file_sha256, load_package
from protocol.signing import SIGNATURE, TrustedKeys, sign, write_signing_pair
from tests.board.models.test_models import settle

USUAL = Bounds()


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Who makes models: a folder with keys and two signed packages."""
    folder = tmp_path_factory.mktemp("maker")
    write_signing_pair(folder / "keys", "maker")
    for name, threshold in (("one", 0.25), ("two", 0.5)):
        package = write_trivial_package(folder / "models" / name, threshold=threshold)
        sign_package(folder / "keys" / "maker.secret.pem", package)
    return folder


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS = {
    "headers": (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "chunks": (CHUNKED + b"1;", b"x"),
    "trailers": (CHUNKED + b"0\r\n", b"X: x\r\n"),
    "line": (b"", b"H"),
}


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and hosts of other kinds.

    `/elsewhere/…` sends the asker on, `/broken/…` hangs up in the middle of a file, `/silent/…` says nothing for long,
    and `/trickling/…` a byte every 100 ms. `/headers/…`, `/continue/…`, `/chunks/…` and `/trailers/…` never end.
    """

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.startswith("/elsewhere/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/elsewhere"))
            self.end_headers()
        elif self.path.startswith("/broken/"):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"half")
        elif self.path.startswith("/silent/"):
            time.sleep(5.0)
        elif self.path.startswith("/trickling/"):
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                for _ in range(50):
                    self.wfile.write(b"x")
                    time.sleep(0.1)
        elif self.path.split("/")[1] in ENDLESS:
            begin, again = ENDLESS[self.path.split("/")[1]]
            with contextlib.suppress(ConnectionError):
                self.wfile.write(begin)
                for _ in range(500):  # of the test's deadline, many times over
                    self.wfile.write(again)
                    time.sleep(0.01)
        else:
            super().do_GET()


@pytest.fixture
def served(maker: Path, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A copy of the maker's models, and its address."""
    folder = shutil.copytree(maker / "models", tmp_path / "served")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield folder, f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def trusted(maker: Path, tmp_path: Path) -> TrustedKeys:
    (tmp_path / "trusted").mkdir()
    shutil.copy(maker / "keys" / "maker.public.pem", tmp_path / "trusted")
    return TrustedKeys(tmp_path / "trusted")


def refusal(url: str, folder: Path, trusted: TrustedKeys, bounds: Bounds = USUAL) -> str:
    """Why `two` is not fetched; nothing of it is left."""
    with pytest.raises(BeltsightError) as caught:
        pull_package(url, "two", folder, trusted, bounds)
    assert [*folder.iterdir()] == []
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_signed_model_is_fetched_once(served: tuple[Path, str], trusted: TrustedKeys, tmp_path: Path) -> None:
    folder, url = served
    package = pull_package(f"{url}/two", "two", tmp_path / "fetched", trusted)
    assert load_package(package, trusted).manifest.threshold.value == 0.5
    assert [path.name for path in (tmp_path / "fetched").iterdir()] == ["two"]
    shutil.rmtree(folder)
    assert pull_package(f"{url}/two", "two", tmp_path / "fetched", trusted) == package


def test_what_a_cut_left_is_fetched_anew(served: tuple[Path, str], trusted: TrustedKeys, tmp_path: Path) -> None:
    half = tmp_path / "fetched" / ".incoming-two"
    half.mkdir(parents=True)
    (half / MODEL_ONNX).write_bytes(b"half")
    (half / "more").mkdir()
    load_package(pull_package(f"{served[1]}/two", "two", tmp_path / "fetched", trusted), trusted)
    assert not half.exists()


def spoil_manifest(folder: Path) -> None:
    content = json.loads((folder / MANIFEST).read_bytes())
    content["threshold"]["value"] = 99.0
    (folder / MANIFEST).write_text(json.dumps(content))


def spoil_model(folder: Path) -> None:
    (folder / MODEL_ONNX).write_bytes(b"another network")


def swell_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_bytes((folder / MANIFEST).read_bytes() + b" " * MAX_MANIFEST_BYTES)


def swell_signature(folder: Path) -> None:
    (folder / SIGNATURE).write_bytes(bytes(65))


def unsign(folder: Path) -> None:
    (folder / SIGNATURE).unlink()


def lose_model(folder: Path) -> None:
    (folder / MODEL_ONNX).unlink()


def swap(folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(folder.parent / "one", folder)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (spoil_manifest, "is not signed by a trusted key"),
        (spoil_model, "model.onnx is not the file that was signed"),
        (swell_signature, "is larger than 64 bytes"),
        (swell_manifest, "manifest.json is larger than"),
        (unsign, "cannot be fetched (404"),
        (lose_model, "cannot be fetched (404"),
        (swap, "holds one, not two"),
    ],
)
def test_what_was_not_signed_like_this_is_not_kept(
    served: tuple[Path, str], trusted: TrustedKeys, tmp_path: Path, spoil: Callable[[Path], object], why: str
) -> None:
    folder, url = served
    spoil(folder / "two")
    assert why in refusal(f"{url}/two", tmp_path / "fetched", trusted)


def test_somebody_elses_signature_does_not_count(
    served: tuple[Path, str], trusted: TrustedKeys, tmp_path: Path
) -> None:
    write_signing_pair(tmp_path / "other", "other")
    sign_package(tmp_path / "other" / "other.secret.pem", served[0] / "two")
    assert "is not signed by a trusted key" in refusal(f"{served[1]}/two", tmp_path / "fetched", trusted)


def test_a_station_is_not_sent_elsewhere(served: tuple[Path, str], trusted: TrustedKeys, tmp_path: Path) -> None:
    assert "(302" in refusal(f"{served[1]}/elsewhere/two", tmp_path / "fetched", trusted)


def test_a_host_that_hangs_up_or_is_not_there(served: tuple[Path, str], trusted: TrustedKeys, tmp_path: Path) -> None:
    assert "cut off after 4 bytes" in refusal(f"{served[1]}/broken/two", tmp_path / "fetched", trusted)
    assert "see whether the host serves it" in refusal("http://127.0.0.1:1/two", tmp_path / "fetched", trusted)


BOUNDS = {
    "silent": (Bounds(stalled_s=0.2), "timed out"),
    "trickling": (Bounds(within_s=0.2), "is too slow: not fetched within 0.2 s"),
    **{name: (Bounds(within_s=0.3), "is too slow: not fetched within 0.3 s") for name in ENDLESS},
    "two": (Bounds(spare_bytes=1 << 60), "free: remove old models"),
}


@pytest.mark.parametrize("path", BOUNDS)
def test_a_host_that_is_slow_and_a_card_that_is_full(
    served: tuple[Path, str], trusted: TrustedKeys, tmp_path: Path, path: str
) -> None:
    bounds, why = BOUNDS[path]
    began_s = time.monotonic()
    assert why in refusal(f"{served[1]}/{path}", tmp_path / "fetched", trusted, bounds)
    assert time.monotonic() - began_s < 4.0


def test_a_folder_that_takes_nothing_says_so(served: tuple[Path, str], trusted: TrustedKeys, tmp_path: Path) -> None:
    (tmp_path / "fetched").write_bytes(b"a file")
    with pytest.raises(InputError, match=r"cannot keep the model in .* make room there"):
        pull_package(f"{served[1]}/two", "two", tmp_path / "fetched", trusted)


def test_no_proxy_is_asked(
    served: tuple[Path, str], trusted: TrustedKeys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert pull_package(f"{served[1]}/two", "two", tmp_path / "fetched", trusted).is_dir()


@pytest.mark.parametrize("count", [MAX_FILES, MAX_FILES + 1])
def test_a_manifest_of_too_many_files_is_refused(
    served: tuple[Path, str], maker: Path, trusted: TrustedKeys, tmp_path: Path, count: int
) -> None:
    """Also a signed one: the card has to bear it."""
    package = served[0] / "two"
    content = json.loads((package / MANIFEST).read_bytes())
    for number in range(count - len(content["files"])):
        shutil.copy(package / MODEL_ONNX, package / f"copy{number}")
        content["files"][f"copy{number}"] = content["files"][MODEL_ONNX]
    (package / MANIFEST).write_text(json.dumps(content))
    sign_package(maker / "keys" / "maker.secret.pem", package)
    if count > MAX_FILES:
        assert "at most 64 are fetched" in refusal(f"{served[1]}/two", tmp_path / "fetched", trusted)
    else:
        assert pull_package(f"{served[1]}/two", "two", tmp_path / "fetched", trusted).is_dir()


def test_a_command_fetches_a_model_and_the_next_start_finds_it(
    served: tuple[Path, str], maker: Path, trusted: TrustedKeys, tmp_path: Path
) -> None:
    change = ModelChangeSettings(trial_parts=0, remembered=tmp_path / "memory", fetched=tmp_path / "fetched")
    (tmp_path / "models").mkdir()
    shutil.copytree(maker / "models" / "one", tmp_path / "models" / "one")
    config = LineConfig("one", models_dir=tmp_path / "models", model_change=change)
    _, package, _ = choose_package(config, trusted)
    with contextlib.closing(open_models(config, package, trusted)) as models:
        models.begin(SwitchModel("7", "2026-01-01T00:00:30Z", "two", f"{served[1]}/two"))
        assert settle(models).obeyed
        assert models.current.manifest.id == "two"
    _, package, chosen = choose_package(config, trusted)
    assert (package.folder, chosen.before) == (tmp_path / "fetched" / "two", "one")


def test_what_is_installed_must_be_signed_too(
    maker: Path, trusted: TrustedKeys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unsign(shutil.copytree(maker / "models", tmp_path / "models") / "two")
    remember_models(tmp_path / "memory", Chosen("two"), Disk())
    change = ModelChangeSettings(remembered=tmp_path / "memory")
    config, package, _ = choose_package(LineConfig("one", models_dir=tmp_path / "models", model_change=change), trusted)
    assert package.manifest.id == "one"
    assert "is not signed" in capsys.readouterr().err
    with contextlib.closing(open_models(config, package, trusted)) as models:
        models.begin(SwitchModel("7", "2026-01-01T00:00:30Z", "two"))
        assert "is not signed" in settle(models).reason
    with pytest.raises(ManifestError, match="is not signed"):
        choose_package(replace(config, model="two"), trusted)


@pytest.mark.parametrize("has_folder", [True, False])
def test_nothing_is_fetched_unless_the_configuration_says_so(
    served: tuple[Path, str], maker: Path, trusted: TrustedKeys, tmp_path: Path, has_folder: bool
) -> None:
    change = ModelChangeSettings(fetched=tmp_path / "fetched" if has_folder else None)
    shutil.copytree(maker / "models" / "one", tmp_path / "models" / "one")
    config = LineConfig("one", models_dir=tmp_path / "models", model_change=change)
    keys = None if has_folder else trusted
    with contextlib.closing(open_models(config, load_package(tmp_path / "models" / "one"), keys)) as models:
        models.begin(SwitchModel("7", "2026-01-01T00:00:30Z", "two", f"{served[1]}/two"))
        assert "this station fetches no models" in settle(models).reason
    assert not (tmp_path / "fetched").exists()


def sign_again(folder: Path, maker: Path, change: Callable[[dict[str, str]], object]) -> None:
    """A signed manifest whose files `change` changed."""
    content = json.loads((folder / MANIFEST).read_bytes())
    change(content["files"])
    (folder / MANIFEST).write_text(json.dumps(content))
    data = (folder / MANIFEST).read_bytes()
    (folder / SIGNATURE).write_bytes(sign(maker / "keys" / "maker.secret.pem", data))


def test_a_name_in_another_alphabet_is_fetched(
    served: tuple[Path, str], maker: Path, trusted: TrustedKeys, tmp_path: Path
) -> None:
    package = served[0] / "two"
    name = "prüf bild%41.txt"
    (package / name).write_text("?")
    sign_again(package, maker, lambda files: files.update({name: file_sha256(package / name)}))
    fetched = pull_package(f"{served[1]}/two", "two", tmp_path / "fetched", trusted)
    assert (fetched / name).read_text() == "?"


@pytest.mark.parametrize("name", ["\ud800", "a\0b", "a\r\nX: y", "\u202egnp", "x" * 256])
def test_a_name_that_is_none_is_refused(
    served: tuple[Path, str], maker: Path, trusted: TrustedKeys, tmp_path: Path, name: str
) -> None:
    sign_again(served[0] / "two", maker, lambda files: files.update({name: "0" * 64}))
    assert "is no file name" in refusal(f"{served[1]}/two", tmp_path / "fetched", trusted)


@pytest.mark.parametrize("url", ["http://" + "a" * 70 + ".b/", "http://[::1", "http://127.0.0.1:x/", "http:///two"])
def test_a_host_that_is_none(trusted: TrustedKeys, tmp_path: Path, url: str) -> None:
    assert "see whether the host serves it" in refusal(url, tmp_path / "fetched", trusted)


def test_golden_vectors_that_cannot_be_read_end_the_change_with_an_answer(
    served: tuple[Path, str], maker: Path, trusted: TrustedKeys, tmp_path: Path
) -> None:
    """The package is signed and whole; nobody could unpack it. The next command is obeyed."""
    golden = served[0] / "two" / GOLDEN_NPZ
    data = bytearray(golden.read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + at] |= 1  # encrypted
    golden.write_bytes(data)
    sign_again(served[0] / "two", maker, lambda files: files.update({GOLDEN_NPZ: file_sha256(golden)}))
    change = ModelChangeSettings(fetched=tmp_path / "fetched")
    shutil.copytree(maker / "models" / "one", tmp_path / "models" / "one")
    config = LineConfig("one", models_dir=tmp_path / "models", model_change=change)
    with contextlib.closing(open_models(config, load_package(tmp_path / "models" / "one"), trusted)) as models:
        for _ in range(2):
            models.begin(SwitchModel("7", "2026-01-01T00:00:30Z", "two", f"{served[1]}/two"))
            assert "golden.npz cannot be read ('frames.npy' is encrypted" in settle(models).reason
        models.begin(SwitchModel("8", "2026-01-01T00:00:30Z", "three"))
        assert "no model at" in settle(models).reason
