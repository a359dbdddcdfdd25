"""The programs that read and write file systems inside an image, without mounting it and without root."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from protocol.errors import InputError

PACKAGES = {  # program -> the Debian package that brings it
    "mcopy": "mtools",
    "fsck.vfat": "dosfstools",
    "debugfs": "e2fsprogs",
    "dumpe2fs": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "e2image": "e2fsprogs",
}
# A user's path often lacks the folders of the administrator's programs.
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])
LIMIT_S = 1800.0  # fsck of a worn 32 GB card on a slow reader takes minutes, never half an hour


def require_tools() -> None:
    """Raises: InputError naming the packages to install."""
    missing = {package for name, package in PACKAGES.items() if not shutil.which(name, path=_PATH)}
    if missing:
        raise InputError(f"needs {', '.join(sorted(missing))}: apt-get install {' '.join(sorted(missing))}")


def run_tool(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Its exit status is for the caller to judge: these programs use it differently. Raises: InputError."""
    program = shutil.which(name, path=_PATH)
    if not program:
        raise InputError(f"needs {name}: apt-get install {PACKAGES[name]}")
    environment = {**os.environ, "LC_ALL": "C", "PATH": _PATH, "DEBUGFS_PAGER": "cat", "MTOOLS_SKIP_CHECK": "1"}
    try:
        return subprocess.run(  # noqa: S603 - a program of the table above, no shell
            [program, *map(str, arguments)],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"{name} does not end: try another card or reader") from None


def said(result: subprocess.CompletedProcess[str]) -> str:
    """The last words of a program, for a one-line message."""
    lines = [line.strip() for line in f"{result.stdout}\n{result.stderr}".splitlines() if line.strip()]
    return " | ".join(lines[-3:])[:300]
