"""The fake belt: the whole line without hardware.

sim/conveyor.py --product orange                      broker, board, belt and a live view, 60 parts
sim/conveyor.py --product bottle --source DIR --model ID    replay real pictures
sim/conveyor.py --connect tcp://HOST:5560 --broker HOST     feed a board that is already running
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # started as a file: import from the repository, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import cv2
from rich.console import Console

from protocol.broker import BrokerSettings
from protocol.errors import EXIT_INTERRUPTED, InputError, run_main
from protocol.manifest import Manifest, load_package
from protocol.messages import encode_verdict, new_run
from sim.feed import Feed
from sim.gallery import Gallery
from sim.options import parse_options
from sim.scene import CARD_MM
from sim.score import Summary, summarize
from sim.station import (
    LOOPBACK,
    ROOT,
    StationSettings,
    free_port,
    start_board,
    start_broker,
    start_dashboard,
)
from sim.traffic import Traffic, plan_traffic
from sim.verdicts import Verdicts
from sim.view import Scenery, View, print_summary

REFRESH_S = 0.1
READY_WITHIN_S = 30.0
COMPILED_WITHIN_S = 900.0  # the simulated overlay, when its design is new
HEALTH_WITHIN_S = 2.5  # the board reports every second
QUIET_S = 5.0  # after the last frame: without a verdict for so long, what is missing is lost
SIMULATED_QUIET_S = 60.0  # the same, for the simulated overlay
TYPICAL_PART_MM = 76.0  # oranges and bottle mouths as they are rendered
UNHURRIED_MM = 4000.0  # gate distance when the belt waits for the board: no part races the gate


def main() -> int:
    options = parse_options()
    console = Console()
    cv2.setNumThreads(1)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())  # a second Ctrl-C does not cut the shutdown short
    try:
        summary = run_line(options, console, stop)
    except Interrupted:
        console.print("stopped; broker, board and belt are shut down")
        return EXIT_INTERRUPTED
    print_summary(console, summary)
    if options.report:
        write_report(options.report, summary, options)
    return 0


class Interrupted(Exception):  # noqa: N818 - asked for by the user
    """Ctrl-C, or a request to end."""


def run_line(options: argparse.Namespace, console: Console, stop: threading.Event) -> Summary:
    """Start what is not running yet, send all parts, wait for their verdicts, stop what was started."""
    manifest = load_package(options.models / options.model).manifest
    traffic = plan_traffic(options, manifest)
    with contextlib.ExitStack() as started:
        station = connect(options) if options.connect else start_station(options, manifest, started)
        run_id = new_run()
        feed = Feed(station.belt, run_id, triggered=not options.free_running, rate_hz=traffic.rate_hz)
        started.callback(feed.stop)
        verdicts = Verdicts(station.broker, run_id)
        started.callback(verdicts.close)
        gallery = Gallery(station.tap) if options.picture else None
        if gallery:
            started.callback(gallery.close)

        def check() -> None:
            station.check()
            if stop.is_set():
                raise Interrupted

        is_simulated = "fpga-sim" in options.engine
        verdicts.wait_until_running(check, COMPILED_WITHIN_S if is_simulated else READY_WITHIN_S)
        began_s = time.monotonic()
        feed.start(traffic.exposures, traffic.frames)
        hint = f"verdicts: mosquitto_sub -h {station.broker.host} -p {station.broker.port} -t 'beltsight/#'"
        if station.page:
            hint += f"\npage: {station.page}"
        with View(console, Scenery(title(options, manifest), hint, traffic.parts)) as view:
            quiet_s = SIMULATED_QUIET_S if is_simulated else QUIET_S
            watch(traffic, feed, verdicts, view, check, quiet_s=quiet_s)
        ended_ns = verdicts.latest_ns or time.monotonic_ns()
        verdicts.wait_for_health(HEALTH_WITHIN_S)
        if gallery:
            gallery.save(options.picture)
        matched = traffic.match(verdicts.items)
        if options.verdicts:
            write_whole(options.verdicts, b"".join(encode_verdict(verdict) + b"\n" for verdict in matched))
        return summarize(
            traffic.truth(),
            matched,
            duration_s=ended_ns / 1e9 - began_s,
            duplicates=verdicts.duplicates,
            health=verdicts.health,
        )


@dataclass(frozen=True)
class Station:
    broker: BrokerSettings
    belt: str  # endpoint of the board's source
    tap: str
    check: Callable[[], None]  # raises what is wrong when a process of the station has stopped
    page: str = ""  # address of the operator's page, where there is one


def connect(options: argparse.Namespace) -> Station:
    """A station that runs already, and is watched by somebody else."""
    return Station(options.broker, options.connect, options.tap, lambda: None)


def start_station(options: argparse.Namespace, manifest: Manifest, started: contextlib.ExitStack) -> Station:
    folder = options.run_folder or ROOT / "runs" / time.strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True, exist_ok=True)
    settings = StationSettings(
        model=manifest.id,
        models_dir=options.models,
        folder=folder,
        triggered=not options.free_running,
        belt_speed_mm_s=options.speed,
        gate_distance_mm=UNHURRIED_MM if options.as_fast_as_possible else 300.0,
        part_mm=TYPICAL_PART_MM if options.source == "rendered" else CARD_MM,
        engines=tuple(options.engine),
        runtime=options.runtime,
        record=options.record,
        mqtt_port=options.mqtt_port or free_port(),
        belt_port=free_port(),
        tap_port=free_port(),
    )
    broker = started.enter_context(start_broker(folder, settings.mqtt_port))
    board = started.enter_context(start_board(settings))
    page = ""
    if options.dashboard:
        port = options.dashboard_port or free_port()
        started.enter_context(start_dashboard(settings, port))
        page = f"http://{LOOPBACK}:{port}/"

    def check() -> None:
        broker.check()
        board.check()

    address = f"tcp://{LOOPBACK}"
    mqtt = BrokerSettings(LOOPBACK, settings.mqtt_port)
    return Station(mqtt, f"{address}:{settings.belt_port}", f"{address}:{settings.tap_port}", check, page)


def watch(
    traffic: Traffic, feed: Feed, verdicts: Verdicts, view: View, check: Callable[[], None], *, quiet_s: float
) -> None:
    """Draw until every part has its verdict, or nothing has come for `quiet_s` after the last frame."""
    quiet_since_s = time.monotonic()
    seen = 0

    def known() -> dict[int, str]:
        return traffic.truth() if feed.triggered else {}  # free-running parts are matched at the end of the run

    while len(verdicts.items) < traffic.parts:
        check()
        if feed.error:
            raise feed.error
        verdicts.wait(lambda: len(verdicts.items) >= traffic.parts, REFRESH_S)
        view.show(verdicts.items, known(), verdicts.state)
        if len(verdicts.items) != seen or not feed.finished.is_set():
            seen, quiet_since_s = len(verdicts.items), time.monotonic()
        if time.monotonic() - quiet_since_s > quiet_s:
            break
    view.show(verdicts.items, known(), verdicts.state, is_last=True)


def title(options: argparse.Namespace, manifest: Manifest) -> str:
    pace = "as fast as possible" if options.as_fast_as_possible else f"{options.rate:g} parts/s"
    source = "" if options.source == "rendered" else f" from {options.source}"
    return f"Beltsight · {options.product}{source} · model {manifest.id} · {pace}, {options.speed:g} mm/s"


def write_report(path: Path, summary: Summary, options: argparse.Namespace) -> None:
    report = {**summary.as_json(), "seed": options.seed, "product": options.product, "source": str(options.source)}
    write_whole(path, (json.dumps(report, indent=2) + "\n").encode())


def write_whole(path: Path, content: bytes) -> None:
    """The file appears complete or not at all. Raises: InputError."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}): name another file") from None


if __name__ == "__main__":
    sys.exit(run_main(main))
