"""Signatures of model packages: Ed25519 (RFC 8032) over the bytes of `manifest.json`, which names every file's SHA-256.

NAME.public.pem    for the stations' folder of trusted keys
NAME.secret.pem    mode 0600, PKCS #8 without a passphrase: stays where packages are made
manifest.json.sig  the 64 bytes of the signature, beside the manifest; `openssl pkeyutl -verify -rawin` checks it too
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from protocol.errors import InputError, ManifestError
from protocol.keys import require_private, write_pair

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SIGNATURE = "manifest.json.sig"
SIGNATURE_BYTES = 64
MAX_PEM_BYTES = 4096
SUFFIX = ".pem"


def write_signing_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """Make NAME.public.pem and NAME.secret.pem. Raises: InputError if one is there already, or cannot be written."""
    _require_cryptography()
    from cryptography.hazmat.primitives import serialization as form  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    secret = Ed25519PrivateKey.generate()
    plain = secret.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    public = secret.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    return write_pair(folder, name, public, plain, SUFFIX)


def sign(secret: Path, manifest: bytes) -> bytes:
    """Raises: InputError for a key that is none, or that others may read."""
    _require_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    data = _read_pem(secret)
    require_private(secret, "600")
    key = _load_pem(secret, data, is_secret=True)
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(f"{secret} is no secret Ed25519 key: make one with `beltsight sign`")
    return key.sign(manifest)


class TrustedKeys:
    """Whose packages a station takes: a folder of NAME.public.pem that nobody but its owner can write to."""

    def __init__(self, folder: Path) -> None:
        """Raises: InputError if there is no key in the folder, or one that cannot be trusted."""
        _require_cryptography()
        try:
            paths = sorted(path for path in folder.iterdir() if path.name.endswith(f".public{SUFFIX}"))
            for path in (folder, *paths):
                if path.stat().st_mode & 0o022:
                    raise InputError(f"{path} can be written by others: chmod go-w {path}")
        except OSError as error:
            raise InputError(f"cannot read {folder} ({error.strerror}): correct `trusted_keys`") from None
        if not paths:
            raise InputError(f"{folder} has no NAME.public{SUFFIX}: copy one there, or make it with `beltsight sign`")
        self._keys = {path.name.removesuffix(f".public{SUFFIX}"): _load_public(path) for path in paths}

    def require_signed(self, folder: Path, manifest: bytes) -> str:
        """The name of the key that signed the bytes. Raises: ManifestError if none of these did."""
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415

        try:
            with (folder / SIGNATURE).open("rb") as file:
                signature = file.read(SIGNATURE_BYTES + 1)
        except OSError as error:
            raise ManifestError(f"{folder} is not signed ({error.strerror}): sign it with `beltsight sign`") from None
        for name, key in self._keys.items():
            try:
                key.verify(signature, manifest)
            except InvalidSignature:
                continue
            return name
        raise ManifestError(f"{folder} is not signed by a trusted key: sign it with `beltsight sign`, or copy it again")


def _load_public(path: Path) -> Ed25519PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    key = _load_pem(path, _read_pem(path), is_secret=False)
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(f"{path} is no public Ed25519 key: make one with `beltsight sign`")
    return key


def _load_pem(path: Path, data: bytes, *, is_secret: bool) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives import serialization as form  # noqa: PLC0415

    try:
        return form.load_pem_private_key(data, None) if is_secret else form.load_pem_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: a secret with a passphrase
        raise InputError(
            f"{path} is no {'secret' if is_secret else 'public'} key: make one with `beltsight sign`"
        ) from None


def _read_pem(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_PEM_BYTES)
    except OSError as error:
        raise InputError(f"cannot read the key {path} ({error.strerror}): make one with `beltsight sign`") from None


def _require_cryptography() -> None:
    try:
        import cryptography  # noqa: F401, PLC0415 - the board gets by without it where packages are not signed
    except ImportError as error:
        advice = "apt-get install python3-cryptography, or pip install '.[signing]' in the clone"
        raise InputError(f"signatures need the package cryptography ({error}): {advice}") from None
