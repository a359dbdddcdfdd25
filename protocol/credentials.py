"""How we show ourselves to the MQTT broker, and how it does to us: TLS, a client certificate, user and password.

The secrets lie in files of mode 0600. They are read for each connection, so that a new certificate needs no restart.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import paho.mqtt.client as mqtt

from protocol.errors import InputError
from protocol.keys import require_private
from protocol.strict import require

MAX_PASSWORD_BYTES = 65535  # MQTT 5.0, 3.1.3.6


@dataclass(frozen=True)
class Credentials:
    ca_file: Path | None = None  # who vouches for the broker, whose name must be its `host`; without it, no TLS
    certificate_file: Path | None = None  # our own, where the broker asks for one
    key_file: Path | None = None  # of mode 0600
    user: str = ""
    password_file: Path | None = None  # the password on its first line, mode 0600

    def __post_init__(self) -> None:
        is_pair = (self.certificate_file is None) == (self.key_file is None)
        require(is_pair, "certificate_file", "and key_file belong together")
        require(self.certificate_file is None or self.ca_file is not None, "certificate_file", "needs ca_file")
        require(self.password_file is None or bool(self.user), "password_file", "needs a user")

    def apply(self, client: mqtt.Client) -> None:
        """Raises: InputError for a file that is missing, open to others, or not what it should be."""
        if self.ca_file:
            client.tls_set_context(self._open_context(self.ca_file))
        if self.user:
            client.username_pw_set(self.user, read_password(self.password_file) if self.password_file else None)

    def _open_context(self, ca_file: Path) -> ssl.SSLContext:
        _require_file(ca_file)
        try:
            context = ssl.create_default_context(cafile=str(ca_file))
        except (ssl.SSLError, OSError) as error:
            raise InputError(f"{ca_file} is no certificate ({error}): give the CA's in PEM form") from None
        context.sslsocket_class = _TidySocket
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.certificate_file and self.key_file:
            _require_file(self.certificate_file)
            _require_secret(self.key_file)
            try:
                # subtle: a key with a passphrase would have OpenSSL ask for it on the terminal
                context.load_cert_chain(self.certificate_file, self.key_file, password=lambda: "")
            except (ssl.SSLError, OSError, ValueError) as error:
                advice = "give a certificate and its own key, both in PEM form and without a passphrase"
                raise InputError(f"{self.certificate_file} with {self.key_file}: {error}: {advice}") from None
        return context


class _TidySocket(ssl.SSLSocket):
    """Closed when its handshake fails, which paho leaves to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


def read_password(path: Path) -> str:
    """The first line of a file of mode 0600. Raises: InputError."""
    _require_secret(path)
    try:
        password = path.read_bytes().decode().split("\n")[0].removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the password in {path} ({error}): write it on one line") from None
    if not 0 < len(password.encode()) <= MAX_PASSWORD_BYTES:
        raise InputError(f"{path} has no password: write it on one line")
    return password


def _require_file(path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}): correct its path") from None


def _require_secret(path: Path) -> None:
    _require_file(path)
    require_private(path, "600")
