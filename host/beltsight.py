"""The command `beltsight`: each program of Beltsight is a sub-command of it.

COMMANDS is the one table of them. This file needs Python alone, as it runs before anything is installed:
`scripts/beltsight` asks it with --needs what a sub-command needs, installs that, and starts it. A program is
imported when it is started.
"""

from __future__ import annotations

import difflib
import runpy
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

if not __package__:  # started as a file: import from the repository, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from protocol import VERSION
from protocol.errors import EXIT_BAD_INPUT, InputError, run_main

ROOT = Path(__file__).resolve().parent.parent
NEEDS = "--needs"  # of scripts/beltsight: print what pip has to install for the words that follow
HELP = {"-h", "--help"}
# Programs from outside, and what has them in Debian and Ubuntu.
DEBIAN_PACKAGES = {
    "g++": "g++",
    "gcc": "gcc",
    "make": "make",
    "mosquitto": "mosquitto",
    "mmdebstrap": "mmdebstrap",
    "qemu-arm-static": "qemu-user-static",
    "qemu-arm": "qemu-user",
    "arm-linux-gnueabihf-gcc": "gcc-arm-linux-gnueabihf",
}
WHERE_PROGRAMS_ARE = "/usr/local/sbin:/usr/sbin:/sbin"  # beside PATH, which lacks them for users other than root


@dataclass(frozen=True)
class Option:
    """A word of the command line that needs more than the program does without it."""

    word: str  # a pattern, for what stands between commas and signs of equality too
    extras: tuple[str, ...]
    tools: tuple[str, ...] = ()


@dataclass(frozen=True)
class Command:
    name: str  # one word, or two of a group
    says: str
    module: str
    extras: tuple[str, ...] | None  # of pyproject.toml; () is the package without any, None is Python alone
    given: tuple[str, ...] = ()  # words before the user's
    tools: tuple[str, ...] = ()
    options: tuple[Option, ...] = ()

    def chosen(self, words: Sequence[str]) -> list[Option]:
        parts = {part for word in words for piece in word.split("=") for part in piece.split(",")}
        return [option for option in self.options if any(fnmatchcase(part, option.word) for part in parts)]

    def all_extras(self, words: Sequence[str]) -> tuple[str, ...] | None:
        if self.extras is None:
            return None
        more = [extra for option in self.chosen(words) for extra in option.extras]
        return tuple(dict.fromkeys((*self.extras, *more)))

    def all_tools(self, words: Sequence[str]) -> list[str]:
        return [*self.tools, *(tool for option in self.chosen(words) for tool in option.tools)]


LEARNING = ("sim", "host")
SURVIVAL = ("sim", "host", "server", "overlay", "test")
EMULATION = ("mmdebstrap", "qemu-arm-static", "qemu-arm", "arm-linux-gnueabihf-gcc", "gcc")
DETECTORS = (
    Option("anomalib*", ("anomalib",)),
    *(Option(name, ("baselines",)) for name in ("lof", "cblof", "xg*", "catboost")),
    Option("all", ("anomalib", "baselines")),
)

COMMANDS = (
    Command(
        "run",
        "the whole line without hardware, with the operator's page",
        "sim.conveyor",
        ("sim", "dashboard"),
        ("--dashboard",),
        options=(Option("fpga-sim", ("overlay",), ("g++", "make")),),
    ),
    Command("get-data", "fetch a public set of pictures from its publisher", "host.pictures.get_data", None),
    Command("photograph", "pictures of the fake belt's parts, as files", "sim.capture", ("sim",)),
    Command("export", "make a model package from pictures of good parts", "host.export", LEARNING),
    Command(
        "backbone",
        "a pretrained network as integers, for all engines",
        "host.teaching.make_backbone",
        (*LEARNING, "teach"),
    ),
    Command("teach", "a model package from ten good parts, in a minute", "host.teaching.teach", LEARNING),
    Command("compare", "two models on what a line has recorded", "host.judging.compare", ("sim",)),
    Command("search", "search a recipe for a product", "host.tuning.search", LEARNING),
    Command("ablation", "what each augmentation of the recipe is worth", "host.tuning.ablation", LEARNING),
    Command("large", "make a large model for the server's second opinion", "host.large", LEARNING),
    Command(
        "dashboard",
        "the operator's page of a line",
        "host.dashboard",
        ("dashboard",),
        options=(Option("postgresql*", ("postgresql",)),),
    ),
    Command(
        "server",
        "judge pictures for many boards",
        "host.server",
        ("server",),
        options=(Option("ray", ("cluster",)),),
    ),
    Command("plant", "the bridge to Sparkplug B and Home Assistant", "host.plant", ("plant",)),
    Command("deploy", "have a line judge with a model", "host.deploy", ("sim", "signing"), ("deploy",)),
    Command("rollback", "have it judge with the model before", "host.deploy", ("sim", "signing"), ("rollback",)),
    Command("fleet", "which line runs which model", "host.deploy", ("sim", "signing"), ("fleet",)),
    Command("doctor", "check an installation, and say what to put right", "board.doctor", None),
    Command("keys", "make keys for encrypted connections to the server", "host.server.keys", ()),
    Command("sign", "make signing keys, and sign model packages", "host.deploy.sign", ("signing",)),
    Command("flash", "put a station onto a card for the board", "host.flash", ("sim", "signing")),
    Command("kernels", "compile the ARM engine's own kernels for the board", "host.flash.kernels", None),
    Command("overlay", "make the FPGA's bitstream", "board.overlay.bitstream.build", ("overlay",)),
    Command(
        "synthesis",
        "what the overlay takes of the FPGA",
        "board.overlay.synthesis.report",
        ("overlay",),
    ),
    Command("compile", "compile a model for the overlay, and show its program", "host.compiler", ("host",)),
    Command("known-bad", "give an older package known-bad parts", "host.export.challenge", ("sim", "host")),
    Command("verdict", "judge an older package: does it see the defects?", "host.export.verdict", ("sim", "host")),
    Command("finn", "what FINN+ estimates for a model on this FPGA", "host.compiler.finn_estimate", ("host",)),
    Command("mutate", "put faults into the overlay: do the tests see them?", "tests.board.overlay.mutate", SURVIVAL),
    Command(
        "estimate",
        "how long a model takes on the board's ARM cores",
        "tests.armhf.estimate",
        ("sim", "signing"),
        tools=EMULATION,
    ),
    Command(
        "survive", "a plant's faults on the real station", "tests.survival.campaign", SURVIVAL, tools=("mosquitto",)
    ),
    Command("soak", "the line as fast as it can, for long", "tests.survival.soak", SURVIVAL),
    Command("fuzz", "damaged bytes for every decoder", "tests.fuzzing.campaign", (*SURVIVAL, "plant", "fuzz")),
    Command(
        "bench detectors",
        "the detectors of the literature on your pictures",
        "host.bench",
        LEARNING,
        options=DETECTORS,
    ),
    Command("bench package", "make a model package of one of them", "host.bench.deploy", LEARNING),
    Command(
        "bench literature",
        "the full tables of the shipped report: hours",
        "host.bench.literature",
        (*LEARNING, "anomalib", "baselines"),
    ),
    Command("bench line", "what the line costs beside a bare loop", "tests.benches.line", LEARNING),
    Command("bench server", "the server beside bare ONNX Runtime", "tests.benches.server", (*LEARNING, "server")),
    Command(
        "bench cluster",
        "what workers placed by Ray cost beside local ones",
        "tests.benches.cluster",
        (*LEARNING, "server", "cluster"),
    ),
    Command(
        "bench overlay",
        "the simulated overlay beside ARM and FINN",
        "tests.benches.overlay",
        (*LEARNING, "overlay"),
        tools=("g++", "make"),
    ),
    Command("bench page", "whether the operator's page grows", "tests.benches.page", (*LEARNING, "dashboard", "test")),
    Command("bench drift", "how early a drift is told", "tests.benches.drift", LEARNING),
)
BY_NAME = {command.name: command for command in COMMANDS}
GROUPS = {command.name.split()[0] for command in COMMANDS if " " in command.name}


def main() -> int:
    words = sys.argv[1:]
    if words[:1] == [NEEDS]:
        return run_main(lambda: print_needs(words[1:]))
    return run_main(lambda: start(words))


def start(words: Sequence[str]) -> int:
    """Raises: InputError; SystemExit with the program's own exit code."""
    if is_about_us(words):
        return print_about_us(words)
    command, rest = find(words)
    if not is_here(command.module):
        raise InputError(f"`{command.name}` is not in the installed package: use it in a clone or a release archive")
    require_tools(command.all_tools(rest), rest)
    sys.argv = [f"beltsight {command.name}", *command.given, *rest]
    runpy.run_module(command.module, run_name="__main__", alter_sys=True)
    return 0


def print_needs(words: Sequence[str]) -> int:
    """One line for pip, empty where Python alone is enough. Raises: InputError, before anything is installed."""
    if is_about_us(words):
        return 0
    command, rest = find(words)
    require_tools(command.all_tools(rest), rest)
    extras = command.all_extras(rest)
    if extras is not None:
        print(",".join(("beltsight", *extras)))
    return 0


def is_about_us(words: Sequence[str]) -> bool:
    """Nothing to start: no word, a group alone, or a question for help or the version."""
    return not words or words[0] in {*HELP, "--version"} or (words[0] in GROUPS and not set(words[1:2]) - HELP)


def print_about_us(words: Sequence[str]) -> int:
    if words and words[0] == "--version":
        print(f"beltsight {VERSION}")
        return 0
    is_asked = bool(HELP & set(words))
    group = words[0] if words and words[0] in GROUPS else ""
    print(write_usage(group), file=sys.stdout if is_asked else sys.stderr)
    return 0 if is_asked else EXIT_BAD_INPUT


def find(words: Sequence[str]) -> tuple[Command, Sequence[str]]:
    """The command, and the words that are for it. Raises: InputError naming the nearest."""
    count = 2 if words[0] in GROUPS else 1
    name = " ".join(words[:count])
    if name in BY_NAME:
        return BY_NAME[name], words[count:]
    near = difflib.get_close_matches(name, [*BY_NAME, *GROUPS], n=1, cutoff=0.0)[0]
    raise InputError(f"there is no command {name[:40]!r}; the nearest is `{near}`. `beltsight --help` names them all")


def is_here(module: str) -> bool:
    """Tests and benches are in a clone, not in an installed package."""
    path = ROOT.joinpath(*module.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def require_tools(tools: Iterable[str], words: Sequence[str]) -> None:
    """Raises: InputError with what to install. Whoever only asks for help needs none."""
    if (missing := missing_packages(tools)) and not HELP & set(words):
        raise InputError(f"programs are missing: apt-get install {' '.join(missing)}")


def missing_packages(tools: Iterable[str]) -> list[str]:
    """Debian's names for what is not installed."""
    absent = [tool for tool in tools if not (shutil.which(tool) or shutil.which(tool, path=WHERE_PROGRAMS_ARE))]
    return [DEBIAN_PACKAGES[tool] for tool in absent]


def write_usage(group: str = "") -> str:
    shown = [command for command in COMMANDS if command.name.startswith(f"{group} " if group else "")]
    lines = [f"usage: beltsight {group + ' ' if group else ''}COMMAND [options]    each has its own --help", ""]
    width = max(len(command.name) for command in shown)
    return "\n".join(lines + [f"  {command.name:{width}}  {command.says}" for command in shown])


if __name__ == "__main__":
    sys.exit(main())
