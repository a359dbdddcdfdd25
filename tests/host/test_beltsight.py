"""The one command: its table, what it installs, what it refuses, and that every program is a word of it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import sysconfig
from functools import cache
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest

from host.beltsight import BY_NAME, COMMANDS, DEBIAN_PACKAGES, GROUPS, Command, find, missing_packages
from protocol import VERSION
from protocol.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
LAYERS = {"protocol", "board", "host", "sim", "tests"}
DISTRIBUTIONS = packages_distributions()


def beltsight(*words: str, path: str | None = None, script: bool = True) -> subprocess.CompletedProcess[str]:
    """By the script, in the clone's environment; or by the file alone, without one."""
    front = [str(ROOT / "scripts" / "beltsight")] if script else [sys.executable, "-S", str(ROOT / "host/beltsight.py")]
    environment = {**os.environ, "PYTHON": sys.executable} | ({"PATH": path} if path else {})
    return subprocess.run(
        [*front, *words], capture_output=True, text=True, check=False, timeout=60, env=environment, cwd=ROOT
    )


def test_the_table_has_each_name_once_and_in_one_line() -> None:
    assert len(BY_NAME) == len(COMMANDS)
    assert not GROUPS & set(BY_NAME)
    for command in COMMANDS:
        assert len(command.says) < 70, command.name
        assert "\n" not in command.says
        tools = {*command.tools, *(tool for option in command.options for tool in option.tools)}
        assert tools <= set(DEBIAN_PACKAGES)


def test_help_names_every_command() -> None:
    done = beltsight("--help", script=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split("  ")[1] for line in done.stdout.splitlines()[2:]] == [command.name for command in COMMANDS]


def test_no_word_at_all_is_answered_with_the_usage() -> None:
    done = beltsight(script=False)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: beltsight COMMAND")


def test_a_group_names_its_own() -> None:
    done = beltsight("bench", script=False)
    assert done.returncode == 2
    assert "bench drift" in done.stderr
    assert "export" not in done.stderr


def test_the_version_is_one() -> None:
    assert beltsight("--version", script=False).stdout == f"beltsight {VERSION}\n"
    assert f"\n## {VERSION} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        (["exprot"], "export"),
        (["Run"], "run"),
        (["benhc", "line"], "bench"),
        (["bench", "lnie"], "bench line"),
        (["zzzz"], ""),
        (["sing", "package"], "sign"),
        (["--verbose"], ""),
    ],
)
def test_an_unknown_word_is_answered_with_the_nearest(words: list[str], nearest: str) -> None:
    with pytest.raises(InputError, match=f"the nearest is `{nearest}"):
        find(words)


def test_the_script_refuses_in_one_line_and_installs_nothing() -> None:
    done = beltsight("exprot")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "beltsight: there is no command 'exprot'; the nearest is `export`. `beltsight --help` names them all"
    ]


@pytest.mark.parametrize("name", ["estimate", "survive", "bench overlay"])
def test_programs_from_outside_are_looked_for_before_anything_is_installed(name: str, tmp_path: Path) -> None:
    for tool in ("env", "bash", "dirname"):
        (tmp_path / tool).symlink_to(f"/usr/bin/{tool}")
    command, _ = find(name.split())
    if not missing_packages(command.tools) and any(
        (Path(folder) / tool).exists() for tool in command.tools for folder in ("/usr/sbin", "/sbin")
    ):
        pytest.skip("it lies where every user's programs are looked for")
    done = beltsight(*name.split(), path=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("beltsight: programs are missing: apt-get install ")
    assert len(done.stderr.splitlines()) == 1


def test_an_estimate_looks_for_its_model_before_it_makes_a_userland(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.armhf.estimate", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"beltsight: no model at {tmp_path}/none: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("namespace", ["--mount", "-Urm"])
def test_a_clone_that_cannot_be_written_to_is_named(namespace: str, tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o ro tmpfs {tmp_path} && cd {tmp_path}"
    if subprocess.run(["unshare", namespace, "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("no mounts of one's own here")
    install = f"{mount} && . {ROOT}/scripts/environment.sh && need_extras .venv beltsight"
    done = subprocess.run(
        ["unshare", namespace, "bash", "-c", install], capture_output=True, text=True, check=False, timeout=60
    )
    expected = f"beltsight: cannot install into {tmp_path}, which is not writable: copy it to where you may write\n"
    assert (done.returncode, done.stderr) == (2, expected)


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        (["get-data", "--list"], ""),
        (["keys", "keys", "line1"], "beltsight"),
        (["run"], "beltsight,sim,dashboard"),
        (["server", "--cluster", "ray"], "beltsight,server,cluster"),
        (["dashboard", "--database=postgresql+psycopg://me@host/name"], "beltsight,dashboard,postgresql"),
        (["bench", "detectors", "--detectors", "padim,anomalib-stfpm"], "beltsight,sim,host,anomalib"),
        (["bench", "detectors", "--detectors", "padim"], "beltsight,sim,host"),
        (["--help"], ""),
    ],
)
def test_what_a_command_needs_is_installed_alone(words: list[str], needed: str) -> None:
    done = beltsight("--needs", *words, script=False)
    assert (done.returncode, done.stdout.strip()) == (0, needed)


def test_the_simulated_overlay_brings_what_it_needs() -> None:
    command, words = find(["run", "--engine", "fpga-sim", "arm"])
    assert command.all_extras(words) == ("sim", "dashboard", "overlay")
    assert command.all_tools(words) == ["g++", "make"]


def distributions_of(extras: tuple[str, ...]) -> set[str]:
    """Names of what pip installs for them directly, and for the package itself."""
    wanted = {f'extra == "{extra}"' for extra in extras}
    found = set()
    for requirement in requires("beltsight") or ():
        name, _, marker = requirement.partition(";")
        if "extra ==" not in marker or any(extra in marker for extra in wanted):
            found.add("".join(letter if letter.isalnum() or letter in "-_" else " " for letter in name).split()[0])
    return {name.replace("_", "-").lower() for name in found}


def path_of(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


@cache
def imports_at_the_start(path: Path) -> tuple[str, ...]:
    """Module-level imports, those of `try` apart, which are done without."""
    found: list[str] = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(found)


def packages_at_the_start(module: str) -> set[str]:
    """Top-level names of other people's packages that are imported when `module` is."""
    main = f"{module}.__main__"
    pending, seen, found = [main if path_of(main) else module], set(), set()
    while pending:
        name = pending.pop()
        path = path_of(name)
        if path is None or path in seen:
            continue
        seen.add(path)
        pending += [str(name).rpartition(".")[0]] if "." in name else []
        for imported in imports_at_the_start(path):
            first = imported.partition(".")[0]
            if first in LAYERS:
                pending.append(imported)
            elif first not in sys.stdlib_module_names:
                found.add(first)
    return found


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_a_command_needs_what_its_program_imports(command: Command) -> None:
    """And no more comes of it than the extras bring directly."""
    given = distributions_of(command.extras or ()) if command.extras is not None else set()
    brought = given | ({"protobuf"} if "onnx" in given else set())
    for package in packages_at_the_start(command.module):
        names = {name.lower().replace("_", "-") for name in DISTRIBUTIONS.get(package, [package])}
        assert names & brought, f"{command.name} imports {package}, which {command.extras} do not bring"


def test_a_front_is_installed_with_the_package() -> None:
    done = subprocess.run(
        [Path(sysconfig.get_path("scripts")) / "beltsight", "sign", "--help"],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: beltsight sign ")


LIGHT = ("get-data", "doctor", "keys", "sign", "kernels", "mutate", "bench literature")


@pytest.mark.parametrize("name", LIGHT)
def test_a_command_has_its_own_help(name: str) -> None:
    done = beltsight(*name.split(), "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: beltsight {name} ")
