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
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # started as a file: import from the repository, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import cv2
from rich.console import Console

from protocol.broker import BrokerSettings
from protocol.errors import InputError, run_main
from protocol.manifest import Manifest, load_package
from protocol.messages import Verdict, new_run
from sim.camera import Camera, CameraSettings
from sim.feed import Exposure, Feed, repeat
from sim.parts import Part, RenderedParts, ReplayedParts, open_parts
from sim.scene import Scene
from sim.score import Summary, find_parts, summarize
from sim.station import LOOPBACK, ROOT, Process, StationSettings, free_port, start_board, start_broker
from sim.verdicts import Verdicts
from sim.view import Scenery, View, print_summary

REFRESH_S = 0.1
READY_WITHIN_S = 30.0
QUIET_S = 5.0  # after the last frame: without a verdict for so long, what is missing is lost
UNHURRIED_MM = 4000.0  # gate distance when the belt waits for the board: no part races the gate


@dataclass(frozen=True)
class Run:
    """What goes over the belt, and the truth about it."""

    exposures: Iterator[Exposure]
    frames: int
    parts: int
    rate_hz: float | None
    truth: Callable[[], dict[int, str]]  # once all were sent: part → its defect, '' for good
    match: Callable[[list[Verdict]], list[Verdict]]  # verdicts under the belt's own part numbers


class RememberedParts:
    """Parts that note what they were when they were drawn."""

    def __init__(self, parts: RenderedParts | ReplayedParts) -> None:
        self._parts = parts
        self.defects: dict[int, str] = {}

    def part(self, number: int) -> Part:
        part = self._parts.part(number)
        self.defects[number] = part.defect
        return part


def main() -> int:
    options = parse_options()
    console = Console()
    cv2.setNumThreads(1)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        summary = run_line(options, console)
    except KeyboardInterrupt:
        console.print("stopped; broker, board and belt are shut down")
        return 130
    print_summary(console, summary)
    if options.report:
        write_report(options.report, summary, options)
    return 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="A fake conveyor belt that brings up the whole inspection line without hardware.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--product", choices=("orange", "bottle"), default="orange", help="what lies on the belt")
    add("--source", default="rendered", help="'rendered', or a folder of real pictures (MVTec layout, or fresh/rotten)")
    add("--model", help="id of the model package (default: PRODUCT-128)")
    add("--models", type=Path, default=ROOT / "models", help="folder of model packages")
    add("--parts", type=int, default=60, help="how many parts go by")
    add("--rate", type=float, default=5.0, help="parts a second")
    add("--speed", type=float, default=600.0, help="belt speed in mm/s")
    add("--defect-share", type=float, help="share of defective parts (default: 0.2; a replay's own share)")
    add("--seed", type=int, default=1, help="the same seed brings the same parts")
    add("--free-running", action="store_true", help="a scrolling view, no light barrier; the board finds the parts")
    add("--fps", type=float, default=30.0, choices=(30.0, 60.0), help="of the free-running camera")
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument("--realtime", action="store_true", default=True, help="the belt does not wait for the board")
    pace.add_argument("--as-fast-as-possible", action="store_true", help="the belt waits for the board")
    add("--distinct", type=int, help="draw only so many parts and repeat them")
    add("--runtime", choices=("auto", "onnxruntime", "opencv"), default="auto", help="of the board's ARM engine")
    add("--connect", metavar="ENDPOINT", help="feed this board instead of starting one, e.g. tcp://127.0.0.1:5560")
    add("--broker", metavar="HOST[:PORT]", default=f"{LOOPBACK}:1883", help="where that board's verdicts go")
    add("--mqtt-port", type=int, default=0, help="port of the broker that is started; 0: any free one")
    add("--record", action="store_true", help="have the board record every frame and verdict in the run's folder")
    add("--report", type=Path, metavar="FILE.json", help="write the summary there")
    add("--run-folder", type=Path, help="configuration, logs and outbox (default: runs/<time>)")
    options = parser.parse_args()
    check_options(options)
    return options


def check_options(options: argparse.Namespace) -> None:
    """Raises: InputError for values that make no run."""
    positive = {"--parts": options.parts, "--rate": options.rate, "--speed": options.speed}
    for name, value in positive.items():
        if not value > 0:
            raise InputError(f"{name} is {value}: give a number above 0")
    if options.distinct is not None and options.distinct < 1:
        raise InputError(f"--distinct is {options.distinct}: give 1 or more")
    if options.free_running and options.distinct:
        raise InputError("--distinct repeats single frames: leave it out with --free-running")
    if options.report and not options.report.resolve().parent.is_dir():
        raise InputError(f"--report: there is no folder {options.report.parent}: make it first")
    options.model = options.model or f"{options.product}-128"


def run_line(options: argparse.Namespace, console: Console) -> Summary:
    """Start what is not running yet, send all parts, wait for their verdicts, stop what was started."""
    manifest = load_package(options.models / options.model).manifest
    run = plan_run(options, manifest)
    with contextlib.ExitStack() as started:
        broker, endpoint, processes = (
            (parse_broker(options.broker), options.connect, [])
            if options.connect
            else start_station(options, manifest, started)
        )
        run_id = new_run()
        verdicts = Verdicts(broker, run_id)
        started.callback(verdicts.close)

        def check() -> None:
            for process in processes:
                process.check()

        verdicts.wait_until_running(check, READY_WITHIN_S)
        feed = Feed(endpoint, run_id, triggered=not options.free_running, rate_hz=run.rate_hz)
        started.callback(feed.stop)
        began_s = time.monotonic()
        feed.start(run.exposures, run.frames)
        hint = f"verdicts: mosquitto_sub -h {broker.host} -p {broker.port} -t 'beltsight/#'"
        with View(console, Scenery(title(options, manifest), hint, run.parts)) as view:
            watch(run, feed, verdicts, view, check)
        ended_ns = verdicts.arrived_ns[-1] if verdicts.arrived_ns else time.monotonic_ns()
        matched = run.match(verdicts.items)
        stages = verdicts.health.get("stages_ms")
        return summarize(
            run.truth(),
            matched,
            duration_s=ended_ns / 1e9 - began_s,
            duplicates=verdicts.duplicates,
            publish_ms=stages.get("publish") if isinstance(stages, dict) else None,
        )


def start_station(
    options: argparse.Namespace, manifest: Manifest, started: contextlib.ExitStack
) -> tuple[BrokerSettings, str, list[Process]]:
    folder = options.run_folder or ROOT / "runs" / time.strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True, exist_ok=True)
    settings = StationSettings(
        model=manifest.id,
        models_dir=options.models,
        folder=folder,
        triggered=not options.free_running,
        belt_speed_mm_s=options.speed,
        gate_distance_mm=UNHURRIED_MM if options.as_fast_as_possible else 300.0,
        runtime=options.runtime,
        record=options.record,
        mqtt_port=options.mqtt_port or free_port(),
        belt_port=free_port(),
        tap_port=free_port(),
    )
    broker = started.enter_context(start_broker(folder, settings.mqtt_port))
    board = started.enter_context(start_board(settings))
    return BrokerSettings(LOOPBACK, settings.mqtt_port), f"tcp://{LOOPBACK}:{settings.belt_port}", [broker, board]


def plan_run(options: argparse.Namespace, manifest: Manifest) -> Run:
    share = options.defect_share
    if share is None and options.source == "rendered":
        share = 0.2
    parts = RememberedParts(open_parts(options.product, options.source, options.seed, share))
    if options.free_running:
        return plan_free_running(options, parts)
    return plan_triggered(options, manifest, parts)


def plan_triggered(options: argparse.Namespace, manifest: Manifest, parts: RememberedParts) -> Run:
    rendered = options.source == "rendered"
    settings = CameraSettings(belt_speed_mm_s=options.speed) if rendered else CameraSettings.off()
    camera = Camera(settings, options.seed)
    spacing_mm = options.speed / options.rate

    def expose(number: int) -> Exposure:
        return Exposure(number, camera.shoot(parts.part(number)).image, {"belt_mm": round(number * spacing_mm, 1)})

    check_frame_size(expose(0), manifest)
    rate_hz = None if options.as_fast_as_possible else options.rate
    distinct = options.distinct or options.parts

    def truth() -> dict[int, str]:
        return {number: parts.defects[number % distinct] for number in range(options.parts)}

    return Run(repeat(expose, options.distinct), options.parts, options.parts, rate_hz, truth, match=list)


def plan_free_running(options: argparse.Namespace, parts: RememberedParts) -> Run:
    scene = Scene(
        parts,
        CameraSettings(),
        belt_speed_mm_s=options.speed,
        spacing_mm=options.speed / options.rate,
        count=options.parts,
        seed=options.seed,
        fps=options.fps,
    )

    def match(verdicts: list[Verdict]) -> list[Verdict]:
        return find_parts(verdicts, {index: scene.visible(index) for index in range(scene.n_frames)})

    exposures = (Exposure(index, scene.frame(index), {}) for index in range(scene.n_frames))
    rate_hz = None if options.as_fast_as_possible else options.fps
    return Run(exposures, scene.n_frames, options.parts, rate_hz, lambda: parts.defects, match)


def check_frame_size(exposure: Exposure, manifest: Manifest) -> None:
    """Raises: InputError if the model was made for frames of another size."""
    height, width = exposure.image.shape[:2]
    if (height, width) != manifest.preprocess.frame_px:
        wanted = manifest.preprocess.frame_px
        raise InputError(
            f"the pictures are {width}x{height}, model {manifest.id} expects {wanted[1]}x{wanted[0]}: "
            "export a model from such pictures with scripts/export.sh and name it with --model"
        )


def watch(run: Run, feed: Feed, verdicts: Verdicts, view: View, check: Callable[[], None]) -> None:
    """Draw until every part has its verdict, or nothing has come for QUIET_S after the last frame."""
    quiet_since_s = time.monotonic()
    seen = 0
    while len(verdicts.items) < run.parts:
        check()
        verdicts.wait(lambda: len(verdicts.items) >= run.parts, REFRESH_S)
        view.show(verdicts.items, verdicts.state)
        if len(verdicts.items) != seen or not feed.finished.is_set():
            seen, quiet_since_s = len(verdicts.items), time.monotonic()
        if time.monotonic() - quiet_since_s > QUIET_S:
            break
    view.show(verdicts.items, verdicts.state, is_last=True)


def title(options: argparse.Namespace, manifest: Manifest) -> str:
    pace = "as fast as possible" if options.as_fast_as_possible else f"{options.rate:g} parts/s"
    source = "" if options.source == "rendered" else f" from {options.source}"
    return f"Beltsight · {options.product}{source} · model {manifest.id} · {pace}, {options.speed:g} mm/s"


def parse_broker(text: str) -> BrokerSettings:
    """Raises: InputError."""
    host, _, port = text.partition(":")
    if not host or (port and not port.isdigit()):
        raise InputError(f"--broker {text!r}: use HOST or HOST:PORT")
    return BrokerSettings(host, int(port or 1883))


def write_report(path: Path, summary: Summary, options: argparse.Namespace) -> None:
    report = {**summary.as_json(), "seed": options.seed, "product": options.product, "source": str(options.source)}
    part = path.with_suffix(path.suffix + ".part")
    part.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    part.replace(path)


if __name__ == "__main__":
    sys.exit(run_main(main))
