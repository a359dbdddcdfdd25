"""CURVE keys as files, and who may go without: encryption and identity of ZeroMQ connections (RFC 26/CurveZMQ).

NAME.public    40 characters of Z85; for the other side
NAME.secret    the same of the secret key; mode 0600, in a folder of mode 0700
"""

from __future__ import annotations

import errno
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

import zmq

from protocol.errors import InputError
from protocol.sockets import Options

KEY_CHARACTERS = 40
_Z85 = frozenset(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#")


@dataclass(frozen=True)
class KeyPair:
    public: bytes
    secret: bytes

    def __repr__(self) -> str:  # a secret is not for logs
        return f"KeyPair({self.public.decode()})"


def write_key_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """Make NAME.public and NAME.secret. Raises: InputError if one is there already, or cannot be written."""
    public, secret = _require_curve()
    return write_pair(folder, name, public + b"\n", secret + b"\n")


def write_pair(folder: Path, name: str, public: bytes, secret: bytes, suffix: str = "") -> tuple[Path, Path]:
    """The two files with their modes, in a folder of mode 0700. Raises: InputError."""
    if not name.replace("-", "").replace("_", "").isalnum():
        raise InputError(f"{name!r:.80} is no name for a key: use letters, digits, '-' and '_'")
    paths = folder / f"{name}.public{suffix}", folder / f"{name}.secret{suffix}"
    try:
        # subtle: mkdir's own `parents` takes the mode for the last folder alone, and others could look into the rest
        for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
            missing.mkdir(mode=0o700)
        require_private(folder, "700")
        for path in paths:
            if path.exists():
                raise FileExistsError(errno.EEXIST, "exists", str(path))
        for path, content, mode in ((paths[1], secret, 0o600), (paths[0], public, 0o644)):
            # subtle: made with its mode, never open to others for even a moment
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(content)
    except FileExistsError as error:
        raise InputError(f"{error.filename} exists: choose another name, or remove it and give out new keys") from None
    except OSError as error:
        raise InputError(f"cannot write {error.filename} ({error.strerror}): choose another folder") from None
    return paths


def load_public(path: Path) -> bytes:
    """Raises: InputError."""
    return _read_key(path)


def load_secret(path: Path) -> KeyPair:
    """Raises: InputError, also for a file that others may read."""
    secret = _read_key(path)
    require_private(path, "600")
    _require_curve()
    return KeyPair(zmq.curve_public(secret), secret)


def server_options(pair: KeyPair, domain: bytes) -> Options:
    """A server with this key. Nobody gets in whom no handler in the process vouches for under `domain` (RFC 27/ZAP)."""
    return {
        zmq.CURVE_SERVER: 1,
        zmq.CURVE_SECRETKEY: pair.secret,
        zmq.ZAP_DOMAIN: domain,
        zmq.ZAP_ENFORCE_DOMAIN: 1,
    }


def client_options(server: bytes, pair: KeyPair) -> Options:
    """A client that speaks to the server of this public key alone."""
    return {zmq.CURVE_SERVERKEY: server, zmq.CURVE_PUBLICKEY: pair.public, zmq.CURVE_SECRETKEY: pair.secret}


def is_loopback(endpoint: str) -> bool:
    """Whether what is said on the endpoint stays on this machine."""
    transport, _, address = endpoint.partition("://")
    if transport in ("ipc", "inproc"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read_key(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            key = file.read(1024).strip()
    except OSError as error:
        raise InputError(f"cannot read the key {path} ({error.strerror}): make keys with `beltsight keys`") from None
    if len(key) != KEY_CHARACTERS or not set(key) <= _Z85:
        raise InputError(f"{path} is no key: make keys with `beltsight keys`")
    return key


def require_private(path: Path, mode: str) -> None:
    """Raises: InputError if anybody but the owner may do anything with it; OSError."""
    if path.stat().st_mode & 0o077:
        raise InputError(f"{path} is open to others: chmod {mode} {path}")


def _require_curve() -> tuple[bytes, bytes]:
    """A new (public, secret) pair. Raises: InputError where ZeroMQ was built without encryption."""
    try:
        return zmq.curve_keypair()
    except zmq.ZMQError:
        raise InputError("this ZeroMQ has no CURVE encryption: pip install pyzmq") from None
