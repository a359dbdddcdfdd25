"""A made-up image of the official layout, small: the files that are looked at, in FAT and ext4, zipped."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import struct
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from host.export.trivial import write_trivial_package
from host.flash.__main__ import main
from host.flash.tools import PACKAGES
from protocol.errors import run_main
from sim.station import ROOT

BOOT_START, ROOT_START = 2048, 2048 + 20480  # sectors; the official image has 100 MB of FAT, this 10
ROOT_MIB = 176
SHADOW = "root:$y$j9T$aa$bb:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\nxilinx:$y$j9T$cc$dd:19000:0:99999:7:::\n"
OS_RELEASE = 'NAME="PynqLinux"\nVERSION="3.1.3 (Carlisle)"\nID=pynqlinux\nVERSION_ID="{version}"\n'
SSH_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEvZp0Vt0a0YxZ3b9m1o2n3p4q5r6s7t8u9v0w1x2y3z me@desk"
LINE = """\
model = "trivial"
source = "belt"
[mqtt]
broker_at_start = "optional"
outbox = "../runs/outbox.sqlite"
[drift]
folder = "../runs/drift"
[broker.credentials]
ca_file = "ca.pem"
user = "station"
password_file = "password"
"""


@pytest.fixture(scope="session", autouse=True)
def tools() -> None:
    """Without these programs nothing here can be tried; .ci/run installs them."""
    path = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
    missing = [name for name in (*PACKAGES, "sfdisk", "mke2fs", "mkfs.vfat") if not shutil.which(name, path=path)]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: apt-get install mtools dosfstools e2fsprogs fdisk")


def run(*command: str | Path, given: str = "") -> subprocess.CompletedProcess[str]:
    program = shutil.which(str(command[0]), path="/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin")
    assert program, command[0]
    return subprocess.run([program, *map(str, command[1:])], input=given, capture_output=True, text=True, check=True)


def fdt(properties: dict[str, bytes]) -> bytes:
    """A device tree of one node."""
    strings, structure = b"", struct.pack(">I", 1) + bytes(4)
    for name, value in properties.items():
        structure += struct.pack(">III", 3, len(value), len(strings)) + value + bytes(-len(value) % 4)
        strings += name.encode() + b"\0"
    structure += struct.pack(">II", 2, 9)
    header = (0xD00DFEED, 40 + len(structure) + len(strings), 40, 40 + len(structure), 40, 17, 16, 0)
    return struct.pack(">10I", *header, len(strings), len(structure))[:40] + structure + strings


@dataclass(frozen=True)
class Official:
    """What a made-up official image is like."""

    board: str = "Pynq-Z2"
    version: str = "3.1.3"
    boot_files: tuple[str, ...] = ("BOOT.BIN", "image.ub", "boot.py")
    block_bytes: int = 1024
    indexed: bool = True  # /etc as large folders are kept: as a hash tree

    def write(self, path: Path, tree: Path) -> Path:
        """Write an image."""
        self._write_tree(tree)
        with path.open("wb") as file:
            file.truncate((ROOT_START * 512) + (ROOT_MIB << 20))
        boot = f"start={BOOT_START},size={ROOT_START - BOOT_START},type=c,bootable"
        run("sfdisk", "-q", path, given=f"label: dos\n{boot}\nstart={ROOT_START},type=83\n")
        run("mkfs.vfat", "--offset", str(BOOT_START), "-n", "PYNQ", path, str((ROOT_START - BOOT_START) // 2))
        for name in self.boot_files:
            content = tree.parent / name
            inner = fdt({"pynq_board": self.board.encode() + b"\0"})
            content.write_bytes(fdt({"description": b"FIT\0", "data": inner}) if name == "image.ub" else b"x" * 5000)
            run("mcopy", "-i", f"{path}@@{BOOT_START * 512}", content, f"::{name}")
        offset, blocks = ROOT_START * 512, (ROOT_MIB << 20) // self.block_bytes
        features = ["-t", "ext4", "-b", str(self.block_bytes), "-E", f"offset={offset},root_owner=0:0", "-d", str(tree)]
        run("mke2fs", "-q", "-F", *features, path, str(blocks))
        if self.indexed:
            subprocess.run(["/usr/sbin/e2fsck", "-fyD", f"{path}?offset={offset}"], capture_output=True, check=False)
        return path

    def _write_tree(self, tree: Path) -> None:
        for folder in ("etc/systemd/system", "etc/ssh", "root", "var/lib", "opt", "usr/local/share/pynq-venv/bin"):
            (tree / folder).mkdir(parents=True)
        (tree / "usr/lib").mkdir()
        (tree / "usr/lib/os-release").write_text(OS_RELEASE.format(version=self.version))
        (tree / "usr/local/share/pynq-venv/bin/python3").symlink_to("/usr/bin/python3")
        (tree / "etc/shadow").write_text(SHADOW)
        (tree / "etc/shadow").chmod(0o640)
        for name in ("ssh_host_ed25519_key", "ssh_host_ed25519_key.pub", "sshd_config"):
            (tree / "etc/ssh" / name).write_text(f"{name} of every copy\n")
        for number in range(300):  # enough that the folder takes several blocks
            (tree / "etc" / f"a-file-with-a-long-name-{number:04d}.conf").write_text("x")


@dataclass(frozen=True)
class Desk:
    """A folder with what a user of beltsight flash has."""

    folder: Path
    archive: Path

    @property
    def config(self) -> Path:
        return self.folder / "plant" / "line.toml"

    def flash(
        self, *arguments: str | Path, before: tuple[str, ...] = (), programs: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """`before`: a command that runs it; `programs`: a folder that goes before the others on the path."""
        # Without its last lines, which compile the kernels into the repository.
        start = "import sys; from host.flash.__main__ import main, run_main; sys.exit(run_main(main))"
        command = [*before, sys.executable, "-c", start, *map(str, arguments)]
        environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}" if programs else os.environ["PATH"]}
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300
        )

    def refusal(self, *arguments: str | Path) -> str:
        """What `beltsight flash` says, in one line, when it refuses with exit code 2; in this process: faster."""
        complaint = io.StringIO()
        before, sys.argv = sys.argv, ["beltsight flash", *map(str, arguments)]
        try:
            with contextlib.redirect_stderr(complaint):
                code = run_main(main)
        finally:
            sys.argv = before
        *_, last = complaint.getvalue().splitlines()
        assert code == 2, complaint.getvalue()
        assert last.startswith("beltsight: ")
        return last

    def files(self) -> set[str]:
        """Everything in the folder, with its size."""
        found = (path for path in self.folder.rglob("*") if path.is_file() and path.suffix != ".sha256")
        return {f"{path.relative_to(self.folder)} {path.stat().st_size}" for path in found}

    def options(self, target: Path) -> tuple[str | Path, ...]:
        wheels = self.folder / "wheels"
        return ("--config", self.config, "--target", target, "--wheels", wheels, "--wheel-list", wheels / "list.txt")


def zip_image(image: Path, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as opened:
        opened.write(image, image.name)
    return archive


@pytest.fixture(scope="session")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zip of a made-up official image. Nobody changes it."""
    folder = tmp_path_factory.mktemp("official")
    image = Official().write(folder / "Pynq-Z2-3.1.3.img", folder / "tree")
    archive = zip_image(image, folder / "pynq_z2_v3.1.3.zip")
    image.unlink()
    return archive


def write_wheel(folder: Path) -> None:
    """A wheel of one module, and the list that pins it."""
    folder.mkdir()
    path = folder / "tiny_wheel-1.0-py3-none-any.whl"
    about = "tiny_wheel-1.0.dist-info"
    content = {
        "tiny_wheel.py": "VALUE = 7\n",
        f"{about}/METADATA": "Metadata-Version: 2.1\nName: tiny-wheel\nVersion: 1.0\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    content[f"{about}/RECORD"] = "".join(f"{name},,\n" for name in (*content, f"{about}/RECORD"))
    with zipfile.ZipFile(path, "w") as opened:
        for name, text in content.items():
            opened.writestr(name, text)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "list.txt").write_text(f"# pinned\ntiny-wheel==1.0 --hash=sha256:{digest}\n")


@pytest.fixture
def desk(tmp_path: Path, official: Path) -> Desk:
    return make_desk(tmp_path, official)


@pytest.fixture(scope="session")
def flashed(tmp_path_factory: pytest.TempPathFactory, official: Path) -> Path:
    """A card for production, with somebody's ssh key. Nobody changes it."""
    desk = make_desk(tmp_path_factory.mktemp("flashed"), official)
    (desk.folder / "me.pub").write_text(SSH_KEY + "\n")
    target = desk.folder / "card.img"
    result = desk.flash("--image", desk.archive, *desk.options(target), "--ssh-key", desk.folder / "me.pub")
    assert result.returncode == 0, result.stderr
    return target


def kill_at(call: str, count: int, path: Path | None = None) -> tuple[str, ...]:
    """What, before a command, kills it as it begins its `count`-th system call of that name (on `path` alone)."""
    program = shutil.which("strace")
    if not program:
        pytest.skip("needs strace: apt-get install strace")
    only = ("-P", str(path)) if path else ()
    return (
        program,
        "-qq",
        "-o",
        "/dev/null",
        *only,
        "-e",
        f"trace={call}",
        "-e",
        f"inject={call}:signal=KILL:when={count}",
    )


def clone(image: Path, copy: Path) -> Path:
    run("cp", "--sparse=always", image, copy)
    return copy


def make_desk(tmp_path: Path, official: Path) -> Desk:
    plant = tmp_path / "plant"
    plant.mkdir()
    write_trivial_package(tmp_path / "models" / "trivial")
    (plant / "line.toml").write_text(LINE)
    (plant / "ca.pem").write_text("a certificate\n")
    (plant / "password").write_text("secret\n")
    (plant / "password").chmod(0o600)
    write_wheel(tmp_path / "wheels")
    archive = tmp_path / official.name
    archive.symlink_to(official)
    return Desk(tmp_path, archive)
