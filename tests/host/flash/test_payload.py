"""What is put into an image is read back: debugfs says success whatever happened."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.flash.ext4 import Ext4, Usage
from host.flash.payload import Entry, digest, file, folder, inject, link, require_written
from protocol.errors import InputError
from tests.host.flash.conftest import Desk, run


@pytest.fixture
def system(tmp_path: Path) -> Ext4:
    path = tmp_path / "system.img"
    with path.open("wb") as opened:
        opened.truncate(80 << 20)
    run("mke2fs", "-q", "-F", "-t", "ext4", path)
    return Ext4(path, 0)


@pytest.mark.parametrize(
    "sabotage",
    [
        r"/^write .* ca\.pem$/d",
        r"s|^write .* ca\.pem$|write /etc/hostname ca.pem|",
        r"/^sif ca\.pem mode/d",
        r"s/^sif ca\.pem uid 0/sif ca.pem uid 1000/",
        r"s/^symlink current .*/symlink current versions/",
        r"/^rm .*ssh_host_ed25519_key$/d",
        r"$ a rm /what/is/not/there",
    ],
)
def test_a_debugfs_that_does_something_else(desk: Desk, sabotage: str) -> None:
    """A program of the same name changes one command on the way, and ends with 0 like the real one."""
    programs = desk.folder / "programs"
    programs.mkdir()
    (programs / "debugfs").write_text(
        "#!/bin/sh\n"
        'for a in "$@"; do case $a in *.debugfs) sed -i -e \'' + sabotage + "' $a;; esac; done\n"
        'exec /usr/sbin/debugfs "$@"\n'
    )
    (programs / "debugfs").chmod(0o755)
    target = desk.folder / "card.img"
    done = desk.flash("--image", desk.archive, *desk.options(target), programs=programs)
    assert done.returncode == 2, done
    assert "reads back otherwise" in done.stderr or "debugfs failed" in done.stderr or "be removed" in done.stderr
    assert not target.exists()


def test_entries_of_every_kind(system: Ext4) -> None:
    entries = [
        folder("/opt/a", 0o700),
        file("/opt/a/key", b"\0" * 5000 + b"x", 0o600),
        Entry("/opt/a/shadow", 0o640, b"", user=3, group=42),
        link("/opt/now", "a"),
    ]
    inject(system, entries, [])
    status = system.stat("/opt/a/shadow")
    assert status
    assert (status.mode & 0o7777, status.user, status.group, status.size_bytes) == (0o640, 3, 42, 0)
    inject(system, [file("/opt/a/key", b"other"), link("/opt/now", "b")], ["/opt/a/shadow", "/opt/not/there"])
    assert system.read("/opt/a/key") == b"other"
    inject(system, [], ["/opt"])
    assert not system.stat("/opt")
    system.require_clean()


@pytest.mark.parametrize("path", ["/opt/a b", "/opt/../etc/x", "opt/x", "/opt/x\ny", '/opt/"x"', "/opt/ä"])
def test_a_path_that_debugfs_would_misread(system: Ext4, path: str) -> None:
    with pytest.raises(InputError, match="cannot go onto the card"):
        inject(system, [file(path, b"x")], [])


def test_a_file_where_a_folder_should_be(system: Ext4) -> None:
    inject(system, [file("/opt", b"x")], [])
    with pytest.raises(InputError, match=r"/opt is no folder on the card"):
        inject(system, [file("/opt/x", b"x")], [])
    with pytest.raises(InputError, match=r"/opt is of another kind on the card"):
        inject(system, [folder("/opt")], [])


def test_a_full_card(system: Ext4) -> None:
    with pytest.raises(InputError, match="carry fewer models, or remove recordings"):
        inject(system, [file("/big", bytes(30 << 20))], [])
    system.require_clean()


def test_what_is_missing_or_other_is_named(system: Ext4) -> None:
    inject(system, [file("/a", b"x", 0o600)], [])
    for wrong in (file("/a", b"y", 0o600), file("/a", b"x", 0o644), file("/b", b"x"), link("/a", "x"), folder("/a")):
        with pytest.raises(InputError, match="reads back otherwise"):
            require_written(system, [wrong], [])
    with pytest.raises(InputError, match="could not be removed"):
        require_written(system, [], ["/a"])


def test_large_folders_stay_sound(system: Ext4) -> None:
    """A folder with a hash tree, as ext4 keeps large ones, takes new names and loses old ones."""
    inject(system, [file(f"/etc/a-long-name-of-a-file-{number:04d}", b"x") for number in range(400)], [])
    run("sh", "-c", f"PATH=$PATH:/usr/sbin:/sbin; e2fsck -fyD {system.path}; test $? -le 1")
    flags = run("debugfs", "-R", "stat /etc", system.path).stdout
    assert "Flags: 0x81000" in flags  # extents and EXT4_INDEX_FL
    inject(system, [file(f"/etc/b-{number}", b"y") for number in range(50)], ["/etc/a-long-name-of-a-file-0007"])
    system.require_clean()


def test_the_digest_tells_versions_apart() -> None:
    first = [file("a", b"x"), file("b", b"y")]
    assert digest(first) == digest(first[::-1])
    others = ([file("a", b"x", 0o600), first[1]], [file("a", b"z"), first[1]], [link("a", "x"), first[1]], first[:1])
    assert len({digest(entries) for entries in (first, *others)}) == 5


def test_runs_of_used_blocks() -> None:
    usage = Usage(1024, 20, ((3, 4), (8, 8), (15, 19)))
    assert list(usage.used_ranges()) == [(0, 2), (5, 7), (9, 14)]
    assert list(Usage(1024, 20, ((3, 4),)).used_ranges()) == [(0, 2), (5, 19)]
    assert usage.free_bytes == 8 * 1024
    assert [number for number in range(20) if usage.is_free(number)] == [3, 4, 8, 15, 16, 17, 18, 19]


@given(st.sets(st.integers(0, 39)), st.sets(st.integers(0, 39)))
def test_blocks_used_since(before: set[int], after: set[int]) -> None:
    then, now = usage_of(before), usage_of(after)
    assert set(now.used_since(then)) == before - after
    assert {number for number in range(40) if then.is_free(number)} == before


def usage_of(free: set[int]) -> Usage:
    """Of 40 blocks, where runs of free ones may touch, as those of two groups do."""
    runs: list[tuple[int, int]] = []
    for number in sorted(free):
        if runs and runs[-1][1] == number - 1 and number % 16:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return Usage(1024, 40, tuple(runs))
