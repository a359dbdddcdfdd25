"""Copy a model package or a configuration to a station over ssh, so that it appears there whole or not at all."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from board.config import load_config
from protocol.errors import InputError
from protocol.manifest import Package

COPIED_WITHIN_S = 300.0


@dataclass(frozen=True)
class Remote:
    target: str  # user@host
    ssh_config: Path | None = None  # ssh's -F

    def run(self, command: str) -> None:
        """In the station's shell. Raises: InputError."""
        self._call(["ssh", *self._options(), self.target, command])

    def copy(self, source: Path, place: str) -> None:
        """A file, or a folder with what is in it. Raises: InputError."""
        self._call(["scp", "-rpq", *self._options(), str(source), f"{self.target}:{place}"])

    def _options(self) -> list[str]:
        chosen = ["-F", str(self.ssh_config)] if self.ssh_config else []
        return [*chosen, "-o", "BatchMode=yes"]

    def _call(self, command: list[str]) -> None:
        try:
            done = subprocess.run(  # noqa: S603 - ssh with words of ours
                command, capture_output=True, text=True, timeout=COPIED_WITHIN_S, check=False
            )
        except FileNotFoundError:
            raise InputError(f"{command[0]} is not installed: install the ssh client") from None
        except subprocess.TimeoutExpired:
            raise InputError(
                f"{self.target} takes longer than {COPIED_WITHIN_S:.0f} s: see whether it is there"
            ) from None
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise InputError(f"{self.target}: {reason}")


def copy_package(remote: Remote, package: Package, folder: str) -> None:
    """Into `folder` of the station, under its id. One of the same id and content is left. Raises: InputError."""
    name = shlex.quote(package.manifest.id)
    there, incoming = f"{shlex.quote(folder)}/{name}", f"{shlex.quote(folder)}/.incoming-{name}"
    remote.run(f"mkdir -p {shlex.quote(folder)} && rm -rf {incoming}")
    remote.copy(package.folder, f"{folder}/.incoming-{package.manifest.id}")
    same = f"cmp -s {incoming}/manifest.json {there}/manifest.json"
    clash = f"echo 'another model of the name {package.manifest.id} is there: give this one another name' >&2; exit 3"
    remote.run(
        f"sync; if [ ! -e {there} ]; then mv -T {incoming} {there}; "
        f"elif {same}; then rm -rf {incoming}; else rm -rf {incoming}; {clash}; fi; sync"
    )


def install_config(remote: Remote, config: Path, place: str, restart: str) -> None:
    """Put line.toml in place of the station's, which stays beside it as `.before`, and start the station anew.

    Raises: InputError, ConfigError for a file that no station would take.
    """
    load_config(config)
    there = shlex.quote(place)
    remote.copy(config, f"{place}.new")
    remote.run(
        f"cp -p {there} {there}.before && chmod 600 {there}.new && mv -T {there}.new {there} && sync && {restart}"
    )


def restore_config(remote: Remote, place: str, restart: str) -> None:
    there = shlex.quote(place)
    remote.run(f"mv -T {there}.before {there} && sync && {restart}")
