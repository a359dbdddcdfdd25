"""Where the history is: a URL, which everybody on this machine can read in the list of processes, and its password,
which stands in a file instead.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from protocol.credentials import read_password
from protocol.errors import InputError


def database_url(text: str, password_file: Path | None) -> URL:
    """Raises: InputError for a URL with a password in it, or a file of passwords that others may read."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise InputError("--database is no URL for SQLite or PostgreSQL: use postgresql+psycopg://…") from None
    if url.password is not None or any("password" in key.lower() for key in url.query):
        advice = "write it to a file of mode 0600, and give that as --database-password"
        raise InputError(f"--database has a password, which others can read in the list of processes: {advice}")
    return url.set(password=read_password(password_file)) if password_file else url
