"""Every command of the documents works as it stands there.

All are read by the real parsers. All are run but those of NOT_RUN, which says why; in the order of RUN, in a copy of
the clone that git watches: what they leave behind has to be ignored by it, secrets above all.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from board.overlay.simulation.design import find_verilog
from host.beltsight import BY_NAME, GROUPS, find, start

ROOT = Path(__file__).resolve().parents[1]
# Tables of figures that a program wrote are records of their time; the cards of models tell theirs with a commit.
RECORDS = ("models/", "host/bench/measured/")
SHORT_FOR = {"scripts/run": ["run"], "scripts/export.sh": ["export"]}
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
# Programs that are not ours, and scripts that take no options of their own.
OTHERS = (
    "mosquitto_pub",
    "cd /opt/beltsight",
    "python -m pytest tests/hardware",
    *(f"scripts/{name}" for name in ("check", "test", "release")),
)
# Run whole, as they stand there.
RUN = (
    "scripts/beltsight --help",
    "scripts/beltsight run --help",
    "scripts/beltsight get-data --list",
    "scripts/run --picture parts.png",
    "scripts/beltsight sign keys keys/models maker",
    "scripts/beltsight sign package keys/models/maker.secret.pem models/my-bottle",
    "scripts/beltsight overlay --emit-only",
    "scripts/beltsight photograph --product orange --parts 100 --seed 7 --defect-share 0 --out pictures",
    "scripts/beltsight keys keys server",
    "scripts/beltsight keys keys/boards line1",
    "scripts/beltsight doctor --config board/line.toml",
)
# The others, and why not: what stands in them.
NOT_RUN = {
    r"BROKER|BOARD|//server:|192\.168\.|/dev/sdX": "somebody's own address, or a card",
    r"mvtec-bottle|orange-web|squeezenet|wide_resnet50_2|FOLDER|DATA": "pictures or weights of a publisher's",
    r"--set-password": "a person types",
    r"monday|runs/tutorial|runs/compare": "what a person captured; tests/loop goes through the same steps",
    r"beltsight (dashboard|server|plant) ": "serves until it is stopped",
    r"scripts/run": "the program that is run above, with other options",
    r"beltsight (bench|survive|soak|fuzz|mutate|estimate) ?": "minutes or hours",
    r"beltsight backbone": "weights of a publisher's",
    r"beltsight kernels": "a compiler for the board's processor",
}
SECRETS = re.compile(r"(^|/)(secret|password)$|\.secret(\.pem)?$|\.key$|^keys/")
RAN_WITHIN_S = 240


@dataclass(frozen=True)
class Line:
    file: str
    command: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.command.replace("…", ""))


def documents() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.splitlines() if not name.startswith(RECORDS)]


def commands_in(text: str) -> Iterator[str]:
    """Of the blocks `sh`, whole, and of `console`, what follows a prompt; without comments, two joined by && apart."""
    for kind, block in BLOCK.findall(text):
        lines = block.replace("\\\n", " ").splitlines()
        if kind == "console":
            lines = [line.strip()[2:] for line in lines if line.strip().startswith("$ ")]
        elif kind not in ("sh", "bash"):
            continue
        for line in lines:
            for command in re.sub(r"(^|\s)#.*", "", line).split(" && "):
                if command.strip():
                    yield " ".join(command.split())


LINES = [Line(name, command) for name in documents() for command in commands_in((ROOT / name).read_text("utf-8"))]
OURS = [line for line in LINES if not line.command.startswith(OTHERS)]


def of_beltsight(words: list[str]) -> list[str]:
    return [*SHORT_FOR[words[0]], *words[1:]] if words[0] in SHORT_FOR else words[1:]


def test_the_documents_have_commands() -> None:
    assert len(LINES) > 50
    assert {"README.md", "TUTORIAL.md", "host/README.md", "board/README.md"} <= {line.file for line in LINES}


# A module that another test imported is started a second time.
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("line", OURS, ids=lambda line: f"{line.file}: {line.command}"[:90])
def test_the_real_parser_takes_it(line: Line, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` at the end: what stands before it is parsed, then the program's own help is shown."""
    assert line.words[0] in {"scripts/beltsight", *SHORT_FOR}, f"no program of ours: list it in OTHERS: {line.command}"
    words = of_beltsight(line.words)
    before = list(sys.argv)
    try:
        code = start([*words, "--help"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.argv[:] = before
    shown = capsys.readouterr()
    assert code == 0, shown.err
    options = {word.partition("=")[0] for word in words if word.startswith("--")}
    named = set(re.findall(r"--[a-z][a-z0-9-]*", shown.out))
    assert options <= named | {"--version"}, options - named


def test_other_commands_are_there() -> None:
    for line in LINES:
        if line.words[0].startswith("scripts/"):
            assert (ROOT / line.words[0]).is_file(), line


def test_every_command_is_run_or_it_is_said_why_not() -> None:
    assert set(RUN) <= {line.command for line in LINES}
    excused = {line.command for line in OURS if any(re.search(pattern, line.command) for pattern in NOT_RUN)}
    assert {line.command for line in OURS} - set(RUN) <= excused


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that git knows, with this clone's environment, and a commit of them."""
    if not (ROOT / ".venv" / "bin" / "python").exists():
        pytest.skip("no .venv in this clone: scripts/check makes it")
    folder = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        if (ROOT / name).is_file() and not name.startswith(("host/bench/measured", "tests/fuzzing/cases")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    shutil.copytree(folder / "models" / "bottle-128", folder / "models" / "my-bottle")
    use_environment(folder / ".venv")
    use_verilog(folder / "build" / "overlay")
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message", "as it is")
    return folder


def use_environment(folder: Path) -> None:
    """This clone's, with marks of its own: nothing is installed again, and not into this one."""
    folder.mkdir()
    for part in ("bin", "lib", "include", "pyvenv.cfg"):
        (folder / part).symlink_to(ROOT / ".venv" / part)
    for extra in re.findall(r"^WHOLE=(.*)$", (ROOT / "scripts" / "environment.sh").read_text(), re.MULTILINE)[0].split(
        ","
    ):
        (folder / f".has-{extra}").touch()


def use_verilog(folder: Path) -> None:
    """This clone's, which other tests need too: it takes half a minute to write, and is found by its sources."""
    folder.mkdir(parents=True)
    if importlib.util.find_spec("amaranth"):
        find_verilog(ROOT / "build" / "overlay")
        for path in (ROOT / "build" / "overlay").glob("design-*.v"):
            shutil.copy2(path, folder)


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("command", RUN)
def test_a_command_works_as_it_stands_there(command: str, clone: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", command], cwd=clone, capture_output=True, text=True, check=False, timeout=RAN_WITHIN_S
    )
    faults_here = 1 if " doctor " in command else 0  # no broker listens at the address of the example
    assert done.returncode in (0, faults_here), done.stdout[-500:] + done.stderr[-500:]
    assert "Traceback" not in done.stderr
    left = [line for line in git(clone, "status", "--porcelain").splitlines() if not line.endswith(".sig")]
    assert not left, "what it leaves behind is not ignored"
    if command.startswith("scripts/run"):
        shown = [shape(line) for line in done.stdout.splitlines()]
        for line in shown_in_readme():  # a busy machine adds its reasons to them
            assert any(one.startswith(shape(line)) for one in shown), f"{line!r} is in none of\n{done.stdout}"


def shown_in_readme() -> list[str]:
    """What the README says that its first command prints."""
    (block,) = re.findall(r"^```console\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [line for line in block.splitlines() if line]


def shape(line: str) -> str:
    return " ".join(re.sub(r"[\d.]+", "#", line).split())


def secrets() -> set[str]:
    return {word for line in LINES for word in line.words if SECRETS.search(word) and not word.startswith(("/", "~"))}


def test_no_secret_of_a_document_can_be_committed() -> None:
    """Files that commands name, made or read."""
    assert {"keys/models/maker.secret.pem", "secret", "password", "page.key"} <= secrets()
    for word in secrets() | {"keys/models", "runs/passwords"}:
        done = subprocess.run(["git", "check-ignore", "--quiet", "--no-index", word], cwd=ROOT, check=False)
        assert done.returncode == 0, f"{word} is not in .gitignore"


def texts() -> Iterator[tuple[str, str]]:
    patterns = ("*.md", "*.py", "*.toml", "*.js", "*.html", "*.tcl", "*.service", "*.sh", "scripts/*")
    listed = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        if not name.startswith(("host/bench/measured/", "tests/host/test_beltsight")):
            yield name, (ROOT / name).read_text("utf-8")


def test_a_script_that_is_named_is_there() -> None:
    for name, text in texts():
        for script in set(re.findall(r"(?<![\w/.])scripts/([a-z][\w.-]*\w)", text.replace("\\", ""))):
            assert (ROOT / "scripts" / script).is_file(), f"{name} names scripts/{script}"


def test_a_sub_command_that_is_named_is_there() -> None:
    for name, text in texts():
        for first, second in set(re.findall(r"`(?:scripts/)?beltsight ([a-z][a-z-]*)(?: ([a-z]+))?", text)):
            words = [first, second] if first in GROUPS and second else [first]
            assert first in GROUPS or " ".join(words) in BY_NAME, f"{name} names beltsight {' '.join(words)}"
            if first in GROUPS and second:
                find(words)


def test_nobody_is_told_to_take_us_from_pypi() -> None:
    """There it could be anybody's package."""
    for name, text in texts():
        assert not re.search(r"pip install '?beltsight\b", text), name


def test_a_link_leads_somewhere() -> None:
    for name in documents():
        for target in re.findall(r"\]\(([^)#\s]+)", (ROOT / name).read_text("utf-8")):
            if "://" not in target:
                assert ((ROOT / name).parent / target).exists(), f"{name} links to {target}"


def test_the_readme_is_short_and_says_first_what_has_not_been_tried() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.split()) <= 1200
    assert "No board has run this yet" in "\n".join(text.splitlines()[:15])
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings[:6] == ["Run it", "Your own pictures", "The page", "A board", "The plant", "Where to read on"]
    for heading in headings[:6]:
        assert f"(#{heading.lower().replace(' ', '-')})" in text


@pytest.mark.parametrize("document", ["ARCHITECTURE.md", "SAFETY.md", "THREATS.md"])
def test_a_file_that_is_named_is_there(document: str) -> None:
    """By the end of its path, as where it lies is often said just before."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [f"/{path}" for path in listed.splitlines()]
    for name in set(re.findall(r"`([\w./-]+\.(?:py|md|c|tcl|js|html))`", (ROOT / document).read_text("utf-8"))):
        assert any(path.endswith(f"/{name}") for path in paths), f"{document} names {name}"
