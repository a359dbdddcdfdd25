"""A station takes only the packages that a trusted key signed; OpenSSL agrees on what a signature is."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.deploy.sign import sign_package
from protocol.errors import InputError, ManifestError
from protocol.keys import write_key_pair
from protocol.manifest import MANIFEST, MODEL_ONNX, Package, file_sha256, load_package
from protocol.signing import SIGNATURE, SIGNATURE_BYTES, TrustedKeys, write_signing_pair
from sim.station import ROOT


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    return write_signing_pair(tmp_path / "keys", "maker")[1]


@pytest.fixture
def trusted(secret: Path) -> TrustedKeys:
    return TrustedKeys(secret.parent)


@pytest.fixture
def folder(trivial_package: Package, tmp_path: Path, secret: Path) -> Path:
    """A signed copy of the trivial package."""
    shutil.copytree(trivial_package.folder, tmp_path / "models" / "trivial")
    sign_package(secret, tmp_path / "models" / "trivial")
    return tmp_path / "models" / "trivial"


def flip_bit(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def test_the_secret_is_for_its_owner_alone(secret: Path) -> None:
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert stat.S_IMODE(secret.parent.stat().st_mode) == 0o700
    with pytest.raises(InputError, match=r"maker\.\w+\.pem exists: choose another name"):
        write_signing_pair(secret.parent, "maker")


def test_a_signed_package_is_taken(folder: Path, trusted: TrustedKeys) -> None:
    assert load_package(folder, trusted).manifest.id == "trivial"
    assert len((folder / SIGNATURE).read_bytes()) == SIGNATURE_BYTES


def test_an_unsigned_package_is_refused(folder: Path, trusted: TrustedKeys) -> None:
    (folder / SIGNATURE).unlink()
    load_package(folder)
    with pytest.raises(ManifestError, match=r"is not signed .*: sign it with `beltsight sign`"):
        load_package(folder, trusted)


@pytest.mark.parametrize("bit", [0, 255, 256, 511])
def test_one_flipped_bit_of_the_signature_is_refused(folder: Path, trusted: TrustedKeys, bit: int) -> None:
    flip_bit(folder / SIGNATURE, bit)
    with pytest.raises(ManifestError, match="not signed by a trusted key"):
        load_package(folder, trusted)


@given(share=st.floats(0, 1, exclude_max=True))
def test_one_flipped_bit_of_the_manifest_is_refused(
    trivial_package: Package, tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    root = tmp_path_factory.mktemp("flipped")
    secret = write_signing_pair(root / "keys", "maker")[1]
    folder = root / "trivial"
    folder.mkdir()
    for path in trivial_package.folder.iterdir():
        os.link(path, folder / path.name)
    sign_package(secret, folder)
    manifest = (folder / MANIFEST).read_bytes()
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).write_bytes(manifest)
    flip_bit(folder / MANIFEST, int(share * len(manifest) * 8))
    with pytest.raises(ManifestError, match="not signed by a trusted key"):
        load_package(folder, TrustedKeys(secret.parent))


@pytest.mark.parametrize("content", [b"", b"\0" * 63, b"\0" * 64, b"\0" * 65])
def test_what_is_no_signature_is_refused(folder: Path, trusted: TrustedKeys, content: bytes) -> None:
    (folder / SIGNATURE).write_bytes(content)
    with pytest.raises(ManifestError, match="not signed by a trusted key"):
        load_package(folder, trusted)


def test_a_signature_with_something_behind_it_is_refused(folder: Path, trusted: TrustedKeys) -> None:
    with (folder / SIGNATURE).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ManifestError, match="not signed by a trusted key"):
        load_package(folder, trusted)


def test_a_file_that_was_replaced_with_its_digest_is_refused(folder: Path, trusted: TrustedKeys) -> None:
    """By somebody who knows how packages are made, and has no key."""
    before = file_sha256(folder / MODEL_ONNX)
    (folder / MODEL_ONNX).write_bytes(b"\x08\x01")
    manifest = (folder / MANIFEST).read_text().replace(before, file_sha256(folder / MODEL_ONNX))
    (folder / MANIFEST).write_text(manifest)
    load_package(folder)
    with pytest.raises(ManifestError, match="not signed by a trusted key"):
        load_package(folder, trusted)


def test_a_strangers_signature_is_refused_until_his_key_is_trusted(folder: Path, secret: Path, tmp_path: Path) -> None:
    public, strangers = write_signing_pair(tmp_path / "stranger", "stranger")
    sign_package(strangers, folder)
    with pytest.raises(ManifestError, match="not signed by a trusted key"):
        load_package(folder, TrustedKeys(secret.parent))
    shutil.copy(public, secret.parent)
    load_package(folder, TrustedKeys(secret.parent))


def test_another_signed_model_in_its_place_is_refused(folder: Path, trusted: TrustedKeys) -> None:
    other = folder.rename(folder.with_name("other"))
    with pytest.raises(ManifestError, match="holds the signed model trivial"):
        load_package(other, trusted)


def test_a_package_that_is_not_whole_is_not_signed(folder: Path, secret: Path) -> None:
    flip_bit(folder / MODEL_ONNX, 1000)
    with pytest.raises(ManifestError, match="is not the file that was exported"):
        sign_package(secret, folder)


def test_a_secret_that_others_can_read_signs_nothing(folder: Path, secret: Path) -> None:
    secret.chmod(0o640)
    with pytest.raises(InputError, match=r"open to others: chmod 600"):
        sign_package(secret, folder)


@pytest.mark.parametrize("which", ["public", "curve", "nothing"])
def test_what_is_no_secret_key_signs_nothing(folder: Path, secret: Path, which: str) -> None:
    if which == "public":
        secret.write_bytes(secret.with_name("maker.public.pem").read_bytes())
    elif which == "curve":
        secret.write_bytes(write_key_pair(secret.parent, "server")[1].read_bytes())
    else:
        secret.unlink()
    with pytest.raises(InputError, match="make one with `beltsight sign`"):
        sign_package(secret, folder)


def test_a_folder_of_trusted_keys_that_cannot_be_trusted_is_refused(tmp_path: Path, secret: Path) -> None:
    keys = secret.parent
    keys.chmod(0o720)
    with pytest.raises(InputError, match=r"can be written by others: chmod go-w .*keys$"):
        TrustedKeys(keys)
    keys.chmod(0o700)
    (keys / "other.public.pem").write_bytes(b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    with pytest.raises(InputError, match=r"other\.public\.pem is no public key"):
        TrustedKeys(keys)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match=r"has no NAME\.public\.pem"):
        TrustedKeys(tmp_path / "none")
    with pytest.raises(InputError, match="correct `trusted_keys`"):
        TrustedKeys(tmp_path / "nowhere")


def test_openssl_takes_the_signature(folder: Path, secret: Path) -> None:
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    public = secret.with_name("maker.public.pem")
    files = ["-in", str(folder / MANIFEST), "-sigfile", str(folder / SIGNATURE), "-pubin", "-inkey", str(public)]
    checked = subprocess.run(
        ["openssl", "pkeyutl", "-verify", "-rawin", *files], capture_output=True, check=False, timeout=30
    )
    assert b"Signature Verified Successfully" in checked.stdout, checked.stderr


def test_the_station_says_in_one_line_that_it_takes_no_unsigned_model(folder: Path, secret: Path) -> None:
    config = folder.parent / "line.toml"
    config.write_text(f'model = "trivial"\nmodels_dir = "."\ntrusted_keys = "{secret.parent}"\n')
    (folder / SIGNATURE).unlink()
    command = [sys.executable, str(ROOT / "board" / "run.py"), "--config", str(config)]
    refused = subprocess.run(command, capture_output=True, check=False, timeout=60, text=True)
    assert refused.returncode == 2
    lines = refused.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"beltsight: {folder} is not signed")


WITHOUT = """
import sys
sys.modules["cryptography"] = None  # as where it is not installed
from board.run import main
from protocol.errors import run_main
sys.exit(run_main(main))
"""


def test_a_station_without_the_library_says_what_to_install(folder: Path, secret: Path) -> None:
    config = folder.parent / "line.toml"
    config.write_text(f'model = "trivial"\nmodels_dir = "."\ntrusted_keys = "{secret.parent}"\n')
    command = [sys.executable, "-c", WITHOUT, "--config", str(config)]
    refused = subprocess.run(command, capture_output=True, check=False, timeout=60, text=True, cwd=ROOT)
    assert refused.returncode == 2
    assert "apt-get install python3-cryptography" in refused.stderr
