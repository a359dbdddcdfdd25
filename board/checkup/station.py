"""Checks of what one configuration names: model, engines, outbox, secrets. Nothing is changed, nothing is loaded
onto the FPGA while a station runs."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from board.checkup.finding import Finding, fail, ok, refused, warn
from board.config import LineConfig
from board.engines.chain import EngineChain, connect_remote, open_engine
from board.engines.settings import EngineName, EngineSettings
from board.models.change import require_taken
from board.preprocess import preprocess
from board.records.set_aside import count_lines, set_aside_path
from board.seams import Engine
from protocol.errors import BeltsightError, InputError, ManifestError
from protocol.keys import require_private
from protocol.manifest import Package, load_package
from protocol.signing import TrustedKeys

SHARED_WITH_NOBODY: tuple[EngineName, ...] = ("fpga", "fpga-sim")  # the board has one; its simulation takes minutes
Prove = Callable[[EngineChain], Finding]
FULL_SHARE = 0.5  # of the outbox: from here on it is time to look at the broker
PROGRAM = "board/run.py"


def find_stations(processes: Path = Path("/proc")) -> list[int]:
    """Process numbers of stations that run on this machine (proc(5), cmdline)."""
    found = []
    for path in processes.glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:  # it has ended, or is hidden from us
            continue
        if any(word.decode(errors="replace").endswith(PROGRAM) for word in words[:3]):
            found.append(int(path.parent.name))
    return sorted(found)


def check_model(config: LineConfig) -> tuple[list[Finding], Package | None]:
    """Signature, hashes, golden vectors, and whether the preprocessing here gives the golden images."""
    try:
        trusted = TrustedKeys(config.trusted_keys) if config.trusted_keys else None
        package = load_package(config.models_dir / config.model, trusted)
        require_taken(config.model, package.manifest, config.model_change)
        golden = package.load_golden()
    except (InputError, ManifestError) as error:
        return [refused("model", error)], None
    if config.threshold is not None and (fault := package.manifest.map.threshold_fault(config.threshold)):
        return [fail("model", f"threshold {fault}", "correct it in the configuration, or leave it out")], None
    how = package.manifest.preprocess
    images = np.stack([preprocess(frame, how) for frame in golden.frames])
    if not np.array_equal(images, golden.images):
        return [fail("model", "its pictures come out otherwise here", "install this version of board/ once more")], None
    signed = "signed, " if trusted else ""
    files = f"{package.manifest.id}: {signed}{len(package.manifest.files)} files as they were exported"
    findings = [ok("model", files)]
    if config.drift.enabled and package.manifest.calibration is None:
        advice = "export the model again; until then nobody warns when lamp or lens drift"
        findings.append(warn("drift", "the model has no calibration", advice))
    return findings, package


def check_engines(
    settings: EngineSettings, package: Package, stations: list[int], prove: Prove | None = None
) -> Iterator[Finding]:
    """Each engine of the order must give the golden maps, as at the station's start; the first also has to `prove` what
    else is asked of it."""
    for name in settings.order:
        if name == "fpga-sim":
            yield ok(f"engine {name}", "not tried: its simulation takes minutes")
        elif name in SHARED_WITH_NOBODY and stations:
            yield ok(f"engine {name}", f"not tried: the station of process {stations[0]} uses it")
        else:
            findings = _check_engine(name, settings, package, prove)
            prove = prove if len(findings) == 1 else None
            yield from findings


def _check_engine(name: EngineName, settings: EngineSettings, package: Package, prove: Prove | None) -> list[Finding]:
    check = f"engine {name}"
    alone = EngineSettings(**{**vars(settings), "order": (name,)})
    try:
        remote = connect_remote(package, alone)
        try:
            chain = EngineChain(alone, package.load_golden(), lambda one: _open(one, package, alone, remote))
            spoken = chain.speaker.name if chain.speaker else name
            proved = [prove(chain)] if prove else []
            chain.close()
        finally:
            if remote:
                remote.close()
    except BeltsightError as error:
        return [refused(check, error)]
    return [ok(check, f"{spoken} gives the golden maps bit for bit"), *proved]


def _open(name: EngineName, package: Package, settings: EngineSettings, remote: object) -> Engine:
    return open_engine(name, package, settings, remote=remote)  # type: ignore[arg-type]


def check_outbox(config: LineConfig) -> Finding:
    """What waits for the broker, read from the file beside a station that may run."""
    path = config.mqtt.outbox
    if not path.exists():
        return ok("outbox", f"{path} will be made at the start")
    try:
        # subtle: read only, so that neither a lock nor a checkpoint gets into the station's way
        with sqlite3.connect(f"file:{path.resolve()}?mode=ro", uri=True, timeout=1) as database:
            (count,) = database.execute("SELECT count(*) FROM verdict").fetchone()
        database.close()
    except sqlite3.Error as error:
        return fail("outbox", f"{path} cannot be read ({error})", "give this user the file, or move it away")
    shown, most = f"{count} verdicts wait for the broker", config.mqtt.max_stored
    if count >= most:
        return fail("outbox", f"{shown}: it is full", "bring the broker back: the line rejects or drops by now")
    if count > FULL_SHARE * most:
        return warn("outbox", f"{shown}, {most} are kept", "bring the broker back before it is full")
    return ok("outbox", shown)


def check_set_aside(config: LineConfig) -> list[Finding]:
    """Verdicts that a broker could not be sent."""
    path = set_aside_path(config.mqtt.outbox)
    count = count_lines(path)
    if not count:
        return []
    advice = f"raise the limit that its lines name, send them by hand, and move {path} away"
    return [warn("set aside", f"{count} verdicts that the broker cannot be sent are in {path}", advice)]


def check_secrets(config: LineConfig) -> list[Finding]:
    """Files that nobody but the station may read; the configuration itself that nobody else may write."""
    paths = list(_list_secrets(config))
    findings = []
    for path in paths:
        try:
            require_private(path, "600")
        except InputError as error:
            findings.append(refused("secrets", error))
        except OSError as error:
            findings.append(fail("secrets", f"{path}: {error.strerror}", "put the file there, or correct its path"))
    return findings or [ok("secrets", f"{len(paths)} files, closed to others")]


def _list_secrets(config: LineConfig) -> Iterator[Path]:
    credentials = config.broker.credentials
    for path in (credentials.key_file, credentials.password_file, config.engines.remote.key):
        if path is not None:
            yield path


def check_config_file(path: Path) -> Finding:
    """Who may write it decides what is rejected."""
    if path.stat().st_mode & 0o022:
        return fail("configuration", f"{path} can be written by others", f"chmod go-w {path}")
    if not os.access(path, os.R_OK):
        return fail("configuration", f"{path} cannot be read by this user", f"chmod u+r {path}")
    return ok("configuration", str(path))
