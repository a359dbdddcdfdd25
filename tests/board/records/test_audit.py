"""The station's audit log is appended to, bounded, and survives a torn line."""

from __future__ import annotations

from pathlib import Path

import pytest

from board.records.audit import MAX_LINE_BYTES, AuditLog
from protocol.errors import InputError


def test_lines_are_kept_in_their_order(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "folder" / "audit.jsonl")
    assert log.lines() == []
    log.append(b"one")
    log.append(b"two")
    assert AuditLog(tmp_path / "folder" / "audit.jsonl").lines() == [b"one", b"two"]


def test_what_comes_after_a_torn_line_is_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b'one\n{"tor')
    AuditLog(path).append(b"two")
    assert AuditLog(path).lines() == [b"one", b'{"tor', b"two"]


def test_it_takes_twice_its_size_at_most_and_keeps_the_newest(tmp_path: Path) -> None:
    path, most = tmp_path / "audit.jsonl", 2 * MAX_LINE_BYTES
    log = AuditLog(path, most)
    for number in range(200):
        log.append(b"%04d" % number + b"x" * 100)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 2 * most
    lines = log.lines()
    assert lines[-1].startswith(b"0199")
    assert [int(line[:4]) for line in lines] == list(range(200 - len(lines), 200))


def test_a_line_that_cannot_be_kept_is_an_error_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="make room there"):
        AuditLog(tmp_path / "file" / "audit.jsonl").append(b"one")
