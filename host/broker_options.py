"""The options by which a program of the host finds the broker."""

from __future__ import annotations

import argparse
from pathlib import Path

from protocol.address import split_address
from protocol.broker import BrokerSettings
from protocol.credentials import Credentials
from protocol.errors import InputError
from protocol.strict import FieldError


def add_broker_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--broker", default="127.0.0.1:1883", help="HOST:PORT (default: %(default)s)")
    add("--ca-file", type=Path, help="speak TLS: who vouches for the broker (PEM)")
    add("--certificate-file", type=Path, help="our own certificate, where the broker asks for one")
    add("--key-file", type=Path, help="its key, of mode 0600")
    add("--user", default="", help="our name at the broker")
    add("--password-file", type=Path, help="the password on its first line, of mode 0600")


def broker_settings(options: argparse.Namespace) -> BrokerSettings:
    """Raises: InputError."""
    host, port = split_address(options.broker, 1883)
    try:
        credentials = Credentials(
            options.ca_file, options.certificate_file, options.key_file, options.user, options.password_file
        )
        return BrokerSettings(host, port, credentials=credentials)
    except FieldError as error:
        raise InputError(f"--{str(error).replace('_', '-')}") from None
