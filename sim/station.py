"""The station's processes on this machine: an MQTT broker and `board/run.py`, started, watched and stopped."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from protocol.errors import InputError
from sim.parts import RENDER_PX_PER_MM

ROOT = Path(__file__).resolve().parent.parent
START_WITHIN_S = 30.0
STOP_WITHIN_S = 10.0
PAGE_TELLS_WITHIN_S = 5.0
LOOPBACK = "127.0.0.1"
PR_SET_PDEATHSIG = 1  # prctl(2)
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class StationSettings:
    model: str
    models_dir: Path
    folder: Path  # configuration, logs, outbox
    triggered: bool
    belt_speed_mm_s: float
    gate_distance_mm: float
    part_mm: float  # along the belt, for the tracker of a free-running camera
    runtime: str  # of the ARM engine
    record: bool
    mqtt_port: int
    belt_port: int
    tap_port: int
    engines: tuple[str, ...] = ("arm",)  # in the order in which they are tried
    motion: str = ""  # what proves the belt's motion: encoder, barriers, view or nothing; empty: the board's default
    window_mm: float = 80.0
    may_repeat: bool = False  # pictures of a folder come again, bit for bit
    backbones: Path | None = None  # folder with one: the station can teach itself


class Process:
    """A child process whose output goes to a log file."""

    def __init__(self, name: str, command: list[str], log: Path) -> None:
        self.name = name
        self._log = log
        with open_log(log) as output:
            self._child = subprocess.Popen(  # noqa: S603 - our own command line
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                start_new_session=True,  # Ctrl-C is for the belt, which then stops its children in order
                preexec_fn=partial(end_with_parent, os.getpid()),  # noqa: PLW1509 - two calls of the system, no lock
            )

    @property
    def pid(self) -> int:
        return self._child.pid

    def check(self) -> None:
        """Raises: InputError with the process's own last words if it has ended."""
        code = self._child.poll()
        if code is not None:
            raise InputError(f"the {self.name} stopped with code {code}: {self._last_words()}")

    def stop(self) -> None:
        self._child.terminate()
        try:
            self._child.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("beltsight: ") if lines else f"it said nothing, see {self._log}"


def make_folder(folder: Path) -> None:
    """For configuration and logs. Raises: InputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {folder} ({error.strerror}): name another with --run-folder") from None


def write_file(path: Path, text: str) -> None:
    """Raises: InputError."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}): name another --run-folder") from None


def open_log(path: Path) -> BinaryIO:
    """Raises: InputError."""
    try:
        return path.open("wb")
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}): name another --run-folder") from None


def end_with_parent(parent: int) -> None:
    """In the child, before it becomes another program: however the belt ends, nothing of it stays behind."""
    if LIBC:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before
        os._exit(1)


@contextlib.contextmanager
def start_broker(folder: Path, port: int) -> Iterator[Process]:
    """A broker on the loopback address. Raises: InputError if there is none to start or its port is taken."""
    refuse_taken(port)
    process = Process("MQTT broker", broker_command(folder, port), folder / "broker.log")
    try:
        wait_for_port(process, port)
        yield process
    finally:
        process.stop()


@contextlib.contextmanager
def start_board(settings: StationSettings, more: str = "") -> Iterator[Process]:
    """`board/run.py` with a configuration written for this run, and `more` of it. It shows on the state topic."""
    for port in (settings.belt_port, settings.tap_port):
        refuse_taken(port)
    config = settings.folder / "line.toml"
    write_file(config, board_config(settings) + more)
    command = [sys.executable, str(ROOT / "board" / "run.py"), "--config", str(config)]
    process = Process("board", command, settings.folder / "board.log")
    try:
        yield process
    finally:
        process.stop()


@contextlib.contextmanager
def start_dashboard(settings: StationSettings, port: int) -> Iterator[Process]:
    """The operator's page beside a board that was started: it reads the same configuration. Raises: InputError."""
    missing = [name for name in ("starlette", "uvicorn", "sqlalchemy") if not importlib.util.find_spec(name)]
    if missing:
        raise InputError(
            f"the page needs {', '.join(missing)}: pip install '.[dashboard]' in the clone, or --no-dashboard"
        )
    refuse_taken(port)
    folder = settings.folder
    command = [sys.executable, "-m", "host.dashboard", "--config", str(folder / "line.toml")]
    command += ["--listen", f"{LOOPBACK}:{port}", "--folder", str(folder / "dashboard")]
    process = Process("operator's page", command, folder / "dashboard.log")
    try:
        wait_for_port(process, port)
        yield process
    finally:
        process.stop()


def board_config(settings: StationSettings) -> str:
    """The line's TOML file (`board/line.toml` explains the keys)."""
    mode = "triggered" if settings.triggered else "free-running"
    backbones = f"backbones = '{settings.backbones.resolve()}'\n" if settings.backbones else ""
    return (
        f"""\
model = "{settings.model}"
models_dir = '{settings.models_dir.resolve()}'
site = "{SITE}"
line = "{LINE}"
source = "belt"
mode = "{mode}"
belt_speed_mm_s = {float(settings.belt_speed_mm_s)}

[belt]
endpoint = "tcp://{LOOPBACK}:{settings.belt_port}"

[engines]
order = {json.dumps(settings.engines)}
runtime = "{settings.runtime}"
{backbones}
[engines.fpga]
bitstream = '{ROOT / "build" / "overlay" / "beltsight.bit"}'

[frames]
may_repeat = {json.dumps(settings.may_repeat)}

[tracker]
px_per_mm = {RENDER_PX_PER_MM}
part_mm = {settings.part_mm}

[gate]
distance_mm = {float(settings.gate_distance_mm)}
window_mm = {float(settings.window_mm)}
dry_log = "gate.jsonl"

[broker]
host = "{LOOPBACK}"
port = {settings.mqtt_port}

[mqtt]
outbox = "outbox.sqlite"
commands = true

[tap]
endpoint = "tcp://{LOOPBACK}:{settings.tap_port}"

[recorder]
keep = "{"everything" if settings.record else "nothing"}"
folder = "recordings"

[drift]
folder = "drift"
parts_per_s = 1000.0
"""
        + (f'\n[motion]\nby = "{settings.motion}"\n' if settings.motion else "")
        + (TAUGHT if settings.backbones else "")
    )


SITE, LINE = "sim", "line1"
TAUGHT = '\n[model_change]\nfetched = "models"\n'  # beside the configuration: what is taught is not among the shipped


def broker_command(folder: Path, port: int) -> list[str]:
    """Mosquitto where it is installed, else amqtt. Raises: InputError if there is neither."""
    mosquitto = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if mosquitto:
        config = folder / "mosquitto.conf"
        # subtle: started by root it would become another user, and then not hear of the end of who started it
        write_file(config, f"user root\nlistener {port} {LOOPBACK}\nallow_anonymous true\npersistence false\n")
        return [mosquitto, "-c", str(config)]
    if importlib.util.find_spec("amqtt"):
        config = folder / "amqtt.yaml"
        write_file(config, AMQTT_CONFIG.format(address=f"{LOOPBACK}:{port}"))
        return [sys.executable, "-m", "amqtt.scripts.broker_script", "-c", str(config)]
    raise InputError("no MQTT broker: install mosquitto, or `pip install '.[sim]'` in the clone for the embedded one")


AMQTT_CONFIG = """\
listeners:
  default:
    type: tcp
    bind: {address}
plugins:
  amqtt.plugins.authentication.AnonymousAuthPlugin:
    allow_anonymous: true
"""


def has_heard(page_port: int) -> bool:
    """Whether the page has the board's state, and so has subscribed to its verdicts, too: in one packet with it."""
    connection = http.client.HTTPConnection(LOOPBACK, page_port, timeout=PAGE_TELLS_WITHIN_S)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException, ValueError):
        connection.request("GET", "/api/events")
        stream = connection.getresponse()
        for line in iter(stream.readline, b""):
            if line == b"event: summary\n":
                content = json.loads(stream.readline().removeprefix(b"data: "))
                return bool(content["state"] != "lost")
    return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def refuse_taken(port: int) -> None:
    """Raises: InputError if somebody listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise InputError(f"port {port} is taken ({error.strerror}): stop who holds it, or choose another") from None


def wait_for_port(process: Process, port: int) -> None:
    deadline_s = time.monotonic() + START_WITHIN_S
    while time.monotonic() < deadline_s:
        process.check()
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), 0.5):
            return
        time.sleep(0.05)
    raise InputError(f"the {process.name} does not listen on port {port} after {START_WITHIN_S:.0f} s: see its log")
