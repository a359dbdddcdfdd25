"""The ext4 file system inside an image, through debugfs: no mounting, no loop device, no root.

debugfs ends with 0 whatever went wrong, so its words are read: anything that it was not asked to say is a failure.
"""

from __future__ import annotations

import re
import stat as modes
import tempfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from subprocess import CompletedProcess

from host.flash.tools import run_tool, said
from protocol.errors import InputError

PLAIN_PATH = re.compile(r"/[\w@.,+:=-]+(/[\w@.,+:=-]+)*", re.ASCII)  # what needs no quotes in debugfs
MAX_LINK_BYTES = 59  # as long as a link's target fits into the inode, it is read back from there


@dataclass(frozen=True)
class Status:
    mode: int  # with the type's bits
    user: int
    group: int
    size_bytes: int
    link: str | None  # target of a symbolic link


@dataclass(frozen=True)
class Usage:
    """Which blocks are in use; `free` are runs [first, last] of block numbers, in order."""

    block_bytes: int
    blocks: int
    free: tuple[tuple[int, int], ...]

    @property
    def free_bytes(self) -> int:
        return sum(last - first + 1 for first, last in self.free) * self.block_bytes

    def is_free(self, block: int) -> bool:
        index = bisect_right(self.free, (block, self.blocks)) - 1
        return index >= 0 and block <= self.free[index][1]

    def used_since(self, before: Usage) -> Iterator[int]:
        """Blocks in use that were free before."""
        for first, last in self.used_ranges():
            start = max(bisect_right(before.free, (first, before.blocks)) - 1, 0)
            for low, high in before.free[start:]:
                if low > last:
                    break
                yield from range(max(low, first), min(high, last) + 1)

    def used_ranges(self) -> Iterator[tuple[int, int]]:
        """[first, last] of each run of used blocks."""
        at = 0
        for first, last in self.free:
            if first > at:
                yield at, first - 1
            at = last + 1
        if at < self.blocks:
            yield at, self.blocks - 1


class Ext4:
    def __init__(self, path: Path, offset_bytes: int) -> None:
        self.path, self.offset_bytes = path, offset_bytes
        # subtle: e2fsck forgets the offset after replaying a journal; a file system without one is named without
        self._where = f"{path}?offset={offset_bytes}" if offset_bytes else str(path)

    def write(self, commands: Iterable[str]) -> None:
        """Raises: InputError if debugfs complains about any of them."""
        result = self._debugfs(commands, "-w")
        complaints = [*_unexpected(result.stdout), *result.stderr.splitlines()[1:]]  # the first line is its version
        if complaints or result.returncode != 0:
            raise InputError(f"{self.path}: debugfs failed: {' | '.join(complaints[:3]) or said(result)}")

    def read(self, path: str) -> bytes | None:
        """Content of a regular file; None where there is none."""
        return self.read_all([path]).get(path)

    def read_all(self, paths: Iterable[str]) -> dict[str, bytes]:
        with tempfile.TemporaryDirectory() as folder:
            names = {path: Path(folder) / str(i) for i, path in enumerate(paths)}
            self._debugfs(f"dump {path} {file}" for path, file in names.items())
            return {path: file.read_bytes() for path, file in names.items() if file.exists()}

    def stat(self, path: str) -> Status | None:
        return self.stat_all([path]).get(path)

    def stat_all(self, paths: Iterable[str]) -> dict[str, Status]:
        """Of those that exist."""
        output = self._debugfs(f"stat {path}" for path in paths).stdout
        parts = re.split(r"^debugfs: {1,2}stat (\S+)$", output, flags=re.MULTILINE)
        found = {path: _decode_status(text) for path, text in zip(parts[1::2], parts[2::2], strict=True)}
        return {path: status for path, status in found.items() if status}

    def entries(self, path: str) -> dict[str, int]:
        """Mode by name, of a folder's entries; empty where there is none."""
        output = self._debugfs([f"ls -p {path}"]).stdout
        rows = re.findall(r"^/(\d+)/(\d+)/\d*/\d*/([^/\n]+)/\d*/$", output, re.MULTILINE)
        return {name: int(mode, 8) for inode, mode, name in rows if name not in (".", "..") and inode != "0"}

    def tree(self, path: str) -> Iterator[tuple[str, int]]:
        """Path and mode of all below `path`, each folder after what it holds."""
        for name, mode in self.entries(path).items():
            below = f"{path}/{name}"
            if modes.S_ISDIR(mode):
                yield from self.tree(below)
            yield below, mode

    def usage(self) -> Usage:
        """Raises: InputError."""
        result = run_tool("dumpe2fs", self._where)
        size = re.search(r"^Block size:\s+(\d+)$", result.stdout, re.MULTILINE)
        count = re.search(r"^Block count:\s+(\d+)$", result.stdout, re.MULTILINE)
        if result.returncode != 0 or not size or not count:
            raise InputError(f"{self.path}: its ext4 cannot be read ({said(result)}): flash it anew")
        runs = re.findall(r"^  Free blocks: (.*)$", result.stdout, re.MULTILINE)
        free = [run.split("-") for line in runs for run in line.split(", ") if run]
        return Usage(int(size[1]), int(count[1]), tuple(sorted((int(run[0]), int(run[-1])) for run in free)))

    def require_clean(self) -> None:
        """Raises: InputError unless e2fsck finds nothing."""
        result = run_tool("e2fsck", "-fn", self._where)
        if result.returncode != 0:
            raise InputError(f"{self.path}: its ext4 is damaged ({said(result)}): flash it anew")

    def tidy(self) -> None:
        """Do what every boot does after a power cut: counts put right, deleted files let go. Raises: InputError."""
        if run_tool("e2fsck", "-fn", self._where).returncode == 0:
            return
        result = run_tool("e2fsck", "-fp", self._where)  # only what is safe without asking
        if result.returncode not in (0, 1):
            raise InputError(f"{self.path}: its ext4 is damaged ({said(result)}): flash it anew without --update")

    def replay_journal(self) -> None:
        """Do what the kernel does when it mounts after a power cut. Raises: InputError."""
        result = run_tool("e2fsck", "-y", "-E", "journal_only", self._where)
        if result.returncode not in (0, 1):
            raise InputError(f"{self.path}: its journal cannot be replayed ({said(result)}): flash it anew")

    def journal_blocks(self) -> list[int]:
        """Where the journal lies, in its order. Raises: InputError if there is none."""
        text = self._debugfs(["stat <8>"]).stdout
        runs = re.findall(
            r"\((\d+)(?:-\d+)?\):(\d+)(?:-(\d+))?", text
        )  # (logical):physical; (IND) and (ETB) are not it
        blocks = [n for _, first, last in sorted(runs, key=_logical) for n in range(int(first), int(last or first) + 1)]
        if len(blocks) < 2:
            raise InputError(f"{self.path} has no journal: flash it anew without --update")
        return blocks

    def _debugfs(self, commands: Iterable[str], *options: str) -> CompletedProcess[str]:
        with tempfile.NamedTemporaryFile("w", suffix=".debugfs") as script:
            script.write("\n".join(commands) + "\n")
            script.flush()
            return run_tool("debugfs", *options, "-f", script.name, self._where)


def require_plain(path: str) -> None:
    """Raises: InputError for a path that debugfs would misread."""
    if not PLAIN_PATH.fullmatch(path) or ".." in PurePosixPath(path).parts:
        raise InputError(f"{path!r} cannot go onto the card: use letters, digits, '-', '_' and '.' in names")


def _logical(run: tuple[str, str, str]) -> int:
    return int(run[0])


def _unexpected(output: str) -> list[str]:
    expected = re.compile(r"debugfs: .*|Allocated inode: \d+|")
    return [line for line in output.splitlines() if not expected.fullmatch(line)]


def _decode_status(text: str) -> Status | None:
    kind = re.search(r"Type: ([\w ]+?)\s+Mode:\s+(\d+)", text)
    owner = re.search(r"User:\s+(\d+)\s+Group:\s+(\d+).*Size: (\d+)", text)
    if not kind or not owner:
        return None
    types = {"regular": modes.S_IFREG, "directory": modes.S_IFDIR, "symlink": modes.S_IFLNK}
    link = re.search(r'^Fast link dest: "(.*)"$', text, re.MULTILINE)
    mode = types.get(kind[1], 0) | int(kind[2], 8)
    return Status(mode, int(owner[1]), int(owner[2]), int(owner[3]), link[1] if link else None)
