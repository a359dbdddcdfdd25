"""The fake belt: the whole line without hardware.

sim/conveyor.py --product orange                      broker, board, belt and a live view, 60 parts
sim/conveyor.py --product bottle --source DIR --model ID    replay real pictures
sim/conveyor.py --connect tcp://HOST:5560 --broker HOST     feed a board that is already running
"""

from __future__ import annotations

import signal

if not __package__:  # started as a file: no traceback of Ctrl-C while modules are loaded; then `main` has its own
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import contextlib
import importlib.util
import json
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
from protocol.messages import Verdict, encode_verdict, new_run
from protocol.supervision import SUPERVISOR
from sim.faults import CameraFaults
from sim.feed import Feed
from sim.gallery import Gallery
from sim.options import parse_options
from sim.passing import Passing, decide_parts, find_crossings, judge_passing, read_gate_log
from sim.scene import CARD_MM
from sim.score import Summary, summarize
from sim.station import (
    LOOPBACK,
    ROOT,
    StationSettings,
    free_port,
    has_heard,
    make_folder,
    start_board,
    start_broker,
    start_dashboard,
)
from sim.traffic import GateSite, Traffic, plan_traffic
from sim.verdicts import Verdicts
from sim.view import Scenery, View, print_summary

REFRESH_S = 0.1
SWITCH_S = 0.001  # between threads: the belt's sensors do not wait for whoever draws
READY_WITHIN_S = 60.0
COMPILED_WITHIN_S = 900.0  # the simulated overlay, when its design is new
PAGE_WITHIN_S = 30.0
HEALTH_WITHIN_S = 2.5  # the board reports every second
QUIET_S = 5.0  # after the last frame: without a verdict for so long, what is missing is lost
SIMULATED_QUIET_S = 60.0  # the same, for the simulated overlay
TYPICAL_PART_MM = 76.0  # oranges and bottle mouths as they are rendered
GATE_MM = 300.0
UNHURRIED_S = 10.0  # to the gate, when the belt waits for the board: no part races it
SIMULATED_UNHURRIED_S = 300.0  # the same, for the simulated overlay
EXIT_UNSAFE = 1  # something that is not OK crossed an open gate


def main() -> int:
    options = parse_options()
    console = Console()
    cv2.setNumThreads(1)
    sys.setswitchinterval(SWITCH_S)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())  # a second Ctrl-C does not cut the shutdown short
    try:
        summary = run_line(options, console, stop)
    except Interrupted:
        console.print("stopped; broker, board and belt are shut down")
        return EXIT_INTERRUPTED
    print_summary(console, summary)
    if options.report:
        write_report(options.report, summary, options)
    return 0 if summary.is_safe else EXIT_UNSAFE


class Interrupted(Exception):  # noqa: N818 - asked for by the user
    """Ctrl-C, or a request to end."""


def run_line(options: argparse.Namespace, console: Console, stop: threading.Event) -> Summary:
    """Start what is not running yet, send all parts, wait for their verdicts, stop what was started."""
    manifest = load_package(options.models / options.model).manifest
    gate = GateSite(choose_distance_mm(options))
    traffic = plan_traffic(options, manifest, gate)
    with contextlib.ExitStack() as started:
        station = connect(options) if options.connect else start_station(options, manifest, gate, started)
        run_id = new_run()
        feed = Feed(station.belt, run_id, triggered=not options.free_running, faults=choose_faults(options))
        started.callback(feed.stop)
        verdicts = Verdicts(station.broker, run_id)
        started.callback(verdicts.close)
        gallery = Gallery(station.tap, lambda verdict: missed(traffic, verdict)) if options.picture else None
        if gallery:
            started.callback(gallery.close)

        def check() -> None:
            station.check()
            if stop.is_set():
                raise Interrupted
            if feed.error:
                raise feed.error
            if trouble := SUPERVISOR.trouble():
                raise InputError(f"the fake belt is broken: {trouble}")

        verdicts.wait_until_running(check, COMPILED_WITHIN_S if is_simulated(options) else READY_WITHIN_S)
        wait_for_page(station, check)
        if options.teach:
            model = f"{options.product}-{time.strftime('%Y%m%d-%H%M%S')}"
            verdicts.order("teach", {"parts": options.teach, "model": model})
            verdicts.wait_until_learning(check)
        began_s = time.monotonic()
        feed.start(traffic.journey)
        with View(console, Scenery(title(options, manifest), station.hint, traffic.parts)) as view:
            watch(traffic, feed, verdicts, view, check, quiet_s=SIMULATED_QUIET_S if is_simulated(options) else QUIET_S)
        state = verdicts.condition  # now: soon it will be idle, and miss the encoder of a belt that is gone
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
            passing=find_passing(station, traffic, feed, matched),
            state=state,
        )


def choose_distance_mm(options: argparse.Namespace) -> float:
    """From light barrier to gate."""
    if not options.as_fast_as_possible:
        return GATE_MM
    return float(options.speed * (SIMULATED_UNHURRIED_S if is_simulated(options) else UNHURRIED_S))


def choose_faults(options: argparse.Namespace) -> CameraFaults:
    return CameraFaults(options.frozen_after, options.late_frames, options.cut_jpeg, options.seed)


def choose_motion(options: argparse.Namespace) -> str:
    """What the board is told to believe. A belt that waits for it does not move as belts do."""
    if options.as_fast_as_possible:
        return "nothing"
    if options.free_running:
        return "view"
    return "encoder" if options.encoder else "barriers"


def is_simulated(options: argparse.Namespace) -> bool:
    return "fpga-sim" in options.engine


def missed(traffic: Traffic, verdict: Verdict) -> str:
    """The defect of a part that was judged OK; empty for all others."""
    (matched,) = traffic.match([verdict])
    return traffic.truth().get(matched.part_id, "") if verdict.decision == "OK" else ""


def find_passing(station: Station, traffic: Traffic, feed: Feed, verdicts: list[Verdict]) -> Passing | None:
    """None where nobody knows: of a gate that is elsewhere, or of a belt that waits for the board."""
    sensors = traffic.journey.sensors
    if sensors is None or station.gate_log is None:
        return None
    crossings = find_crossings(sensors.motion, sensors.centres_mm, sensors.gate_mm, feed.started_ns)
    return judge_passing(read_gate_log(station.gate_log), crossings, decide_parts(verdicts))


@dataclass(frozen=True)
class Station:
    broker: BrokerSettings
    belt: str  # endpoint of the board's source
    tap: str
    check: Callable[[], None]  # raises what is wrong when a process of the station has stopped
    page_port: int | None = None  # of the operator's page, where there is one
    gate_log: Path | None = None  # what its gate did

    @property
    def hint(self) -> str:
        """Where else to look."""
        verdicts = f"verdicts: mosquitto_sub -h {self.broker.host} -p {self.broker.port} -t 'beltsight/#'"
        return f"{verdicts}\npage: http://{LOOPBACK}:{self.page_port}/" if self.page_port else verdicts


def connect(options: argparse.Namespace) -> Station:
    """A station that runs already, and is watched by somebody else."""
    return Station(options.broker, options.connect, options.tap, lambda: None)


def start_station(
    options: argparse.Namespace, manifest: Manifest, gate: GateSite, started: contextlib.ExitStack
) -> Station:
    check_engines(options)
    folder = options.run_folder or ROOT / "runs" / time.strftime("%Y%m%d-%H%M%S")
    make_folder(folder)
    settings = StationSettings(
        model=manifest.id,
        models_dir=options.models,
        folder=folder,
        triggered=not options.free_running,
        belt_speed_mm_s=options.speed,
        gate_distance_mm=gate.distance_mm,
        window_mm=gate.window_mm,
        motion=choose_motion(options),
        part_mm=TYPICAL_PART_MM if options.source == "rendered" else CARD_MM,
        engines=tuple(options.engine),
        runtime=options.runtime,
        record=options.record,
        may_repeat=options.source != "rendered" and not options.effects and not options.frozen_after,
        mqtt_port=options.mqtt_port or free_port(),
        belt_port=free_port(),
        backbones=options.backbones if options.teach else None,
        tap_port=free_port(),
    )
    broker = started.enter_context(start_broker(folder, settings.mqtt_port))
    board = started.enter_context(start_board(settings))
    page_port = None
    if options.dashboard:
        page_port = options.dashboard_port or free_port()
        started.enter_context(start_dashboard(settings, page_port))

    def check() -> None:
        broker.check()
        board.check()

    address = f"tcp://{LOOPBACK}"
    mqtt = BrokerSettings(LOOPBACK, settings.mqtt_port)
    belt, tap = f"{address}:{settings.belt_port}", f"{address}:{settings.tap_port}"
    return Station(mqtt, belt, tap, check, page_port, folder / "gate.jsonl")


def check_engines(options: argparse.Namespace) -> None:
    """Raises: InputError."""
    if not is_simulated(options):
        return
    if not importlib.util.find_spec("amaranth"):
        raise InputError("fpga-sim needs what builds the overlay: .venv/bin/pip install -e '.[overlay]', then again")
    print("fpga-sim: the first start compiles the FPGA's logic, which takes some minutes", file=sys.stderr, flush=True)


def wait_for_page(station: Station, check: Callable[[], None]) -> None:
    """Until it takes verdicts: what went by before would be missing in its history. Raises: InputError."""
    deadline_s = time.monotonic() + PAGE_WITHIN_S
    while station.page_port and not has_heard(station.page_port):
        check()
        if time.monotonic() > deadline_s:
            raise InputError(f"the page hears nothing of the board after {PAGE_WITHIN_S:.0f} s: see its dashboard.log")


def watch(
    traffic: Traffic, feed: Feed, verdicts: Verdicts, view: View, check: Callable[[], None], *, quiet_s: float
) -> None:
    """Draw until every part has its verdict, or nothing has come for `quiet_s` since the belt has stopped, or has been
    held back by a board that stands still.
    """
    quiet_since_s = time.monotonic()
    seen = 0

    def known() -> dict[int, str]:
        return traffic.truth() if feed.triggered else {}  # free-running parts are matched at the end of the run

    def is_over() -> bool:
        return len(verdicts.items) >= traffic.parts and feed.finished.is_set()

    while not is_over():
        check()
        verdicts.wait(is_over, REFRESH_S)
        view.show(verdicts.items, known(), verdicts.condition)
        stands = feed.finished.is_set() or (feed.is_held_back and verdicts.state == "stopped")
        if len(verdicts.items) != seen or not stands:
            seen, quiet_since_s = len(verdicts.items), time.monotonic()
        if time.monotonic() - quiet_since_s > quiet_s:
            break
    check()
    view.show(verdicts.items, known(), verdicts.condition, is_last=True)


def title(options: argparse.Namespace, manifest: Manifest) -> str:
    pace = f"{options.rate:g} parts/s"
    if options.as_fast_as_possible:
        pace = "as fast as possible"
    elif options.pitch_mm:
        pace = f"{options.pitch_mm[0]:g} to {options.pitch_mm[1]:g} mm apart"
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
