"""Run the inspection station: `board/run.py --config board/line.toml`."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

if not __package__:  # started as a file: import from the repository, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import cv2

from board.config import LineConfig, load_config
from board.drift.watch import DriftWatch
from board.engines.fpga_pynq import find_logic
from board.gate.gate import Gate, open_gate
from board.gate.timer import LineTimer
from board.gate.timer_gate import TimerGate
from board.log import say, start_log
from board.loop.line import Line
from board.loop.panel import Panel
from board.loop.signals import stop_on_signals
from board.loop.watchdog import Watchdog
from board.models.change import Models, require_taken
from board.packages import choose_package, open_lessons, open_models
from board.seams import Ahead, FrameSource, LastPart, ResultSink
from board.sinks.capture import CaptureSink
from board.sinks.metrics import MetricsSink
from board.sinks.mqtt import MqttSink
from board.sinks.recorder import RecorderSink
from board.sinks.second_opinion import SecondOpinion, SecondOpinionSettings
from board.sinks.tap import TapSink
from board.sources.belt import BeltSource
from board.sources.checks import CheckedSource
from board.sources.overlay_belt import OverlayBelt, tell_passages, tell_position
from board.sources.stamps import Stamps
from board.sources.tracked import TrackedSource
from protocol.console import STDERR, occupy_standard_files
from protocol.errors import EXIT_BAD_INPUT, BeltsightError, InputError, run_main
from protocol.manifest import Distribution, Package, load_package
from protocol.signing import TrustedKeys
from protocol.supervision import SUPERVISOR, describe

EXIT_UNWANTED = 1
SWITCH_S = 0.0005  # between threads: the one that judges does not wait for those that tell of it


def main() -> int:
    occupy_standard_files()
    sys.setswitchinterval(SWITCH_S)
    arguments = parse_arguments()
    config = load_config(arguments.config)
    stop = threading.Event()
    start_log(config.log)
    SUPERVISOR.see_everything()
    try:
        with stop_on_signals(stop) as looks:
            run_station(config, stop, looks.set)
    except BeltsightError as error:
        say(str(error), level="ERROR")
        return EXIT_BAD_INPUT
    except SystemExit as error:  # of a library: whatever its code says, it was not we who wanted an end
        say(f"ended: {describe(error)}", level="ERROR")
        return EXIT_UNWANTED
    trouble = SUPERVISOR.trouble()
    return EXIT_UNWANTED if trouble and trouble.is_needed else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Inspect the parts of one line and publish a verdict for each.")
    default = Path(__file__).resolve().parent / "line.toml"
    parser.add_argument("--config", type=Path, default=default, help="the line's TOML file (default: %(default)s)")
    return parser.parse_args()


def run_station(config: LineConfig, stop: threading.Event, begin: Callable[[], None] = lambda: None) -> None:
    """Open everything the configuration names, judge parts until `stop` or the source's end, close everything.

    `begin` is called once all is open: from then on `stop` is looked at.
    """
    cv2.setNumThreads(config.engines.threads)
    watchdog = Watchdog(os.environ)
    trusted = TrustedKeys(config.trusted_keys) if config.trusted_keys else None
    config, package, chosen = choose_package(config, trusted)
    with contextlib.ExitStack() as opened:
        opened.callback(watchdog.close)
        logic = find_logic(config.engines.fpga)
        timer = LineTimer(logic) if config.needs_timer else None
        if timer:
            opened.callback(timer.close)
        gate = open_station_gate(config, timer)  # first: a crash may have left it open
        opened.callback(gate.close)
        panel = Panel(timer) if config.panel and timer else None
        if panel:
            opened.callback(panel.close)
        mqtt = MqttSink(config.mqtt, config.broker, config.site, config.line, package.manifest.id)
        opened.callback(mqtt.close)
        models = open_models(config, package, trusted, chosen, logic)
        opened.callback(models.close)
        mqtt.set_model(package)
        source = open_source(config, models, mqtt.last_part, timer, gate)
        opened.callback(source.close)
        belt = open_overlay_belt(config, timer, gate)
        if belt:
            opened.callback(belt.close)
        others = open_sinks(config, models)
        if config.second_opinion:
            others.append(open_second_opinion(config, config.second_opinion, package, trusted, mqtt))
        if config.drift.enabled:
            others.append(DriftWatch(config.drift, lambda: models.current.package, mqtt.publish_drift))
        if config.metrics.listen:
            read = partial(read_counters, mqtt, models, gate, source, others)
            others.append(MetricsSink(config.metrics, read, lambda: mqtt.state))
        for sink in others:
            opened.callback(sink.close)
        capture = CaptureSink(config.recorder)
        opened.callback(capture.close)
        opened.push(partial(leave, gate, mqtt))
        mqtt.require_broker()
        speaker = models.current.engines.speaker
        engine = speaker.name if speaker else "none"
        say(f"line {config.line} runs, model {package.manifest.id}, engine {engine}", line=config.line)
        line = Line(
            config=config,
            models=models,
            lessons=open_lessons(config, models, trusted, logic),
            source=source,
            gate=gate,
            mqtt=mqtt,
            capture=capture,
            others=others,
            counters=lambda: {**count_losses(source, others), **gate.counters(), "log_lost": STDERR.lost},
            complaints=[source.complaint],
            watchdog=watchdog,
            panel=panel,
        )
        begin()
        line.run(stop.is_set)


def leave(gate: Gate | TimerGate, mqtt: MqttSink, _kind: object, error: BaseException | None, _where: object) -> None:
    """However the line ends: the gate is closed before anything else is, and the state says why."""
    gate.hold(True)
    if error:
        mqtt.farewell = str(error) if isinstance(error, BeltsightError) else f"ended: {describe(error)}"


def open_station_gate(config: LineConfig, timer: LineTimer | None) -> Gate | TimerGate:
    """Raises: InputError; EngineError."""
    return open_gate(config.gate, config.belt_speed_mm_s, timer, motion=config.motion, mode=config.mode)


def open_source(
    config: LineConfig, models: Models, last: LastPart | None, timer: LineTimer | None, ahead: Ahead | None = None
) -> CheckedSource | TrackedSource:
    """The configured source; in free-running mode with the tracker behind it. Raises: InputError; EngineError."""
    package = models.current.package

    def brightness() -> Distribution | None:
        return models.current.manifest.calibrated_brightness

    if config.mode == "triggered":
        source = open_camera_or_replay(config, package, last, timer, ahead)
        return CheckedSource(source, config.frames, brightness, shows_parts=config.source != "replay")
    views = CheckedSource(open_camera_or_replay(config, package, None, None, None), config.frames, brightness)
    return TrackedSource(views, config.tracker, package.manifest.preprocess.frame_px, last, ahead)


def open_camera_or_replay(
    config: LineConfig, package: Package, last: LastPart | None, timer: LineTimer | None, ahead: Ahead | None
) -> FrameSource:
    if config.source == "belt":
        return BeltSource(config.belt, last, ahead, counts_views=config.mode == "free-running")
    if config.source == "replay":
        from board.sources.replay import ReplaySource  # noqa: PLC0415

        expected = package.manifest.preprocess if config.mode == "triggered" else None
        return ReplaySource(config.replay, expected, ahead)
    if config.mode == "triggered":
        from board.sources.barrier import open_barrier_source  # noqa: PLC0415

        return open_barrier_source(config.camera, timer, ahead, config.motion.encoder)
    from board.sources.camera import open_camera_source  # noqa: PLC0415

    return open_camera_source(config.camera)


def open_overlay_belt(config: LineConfig, timer: LineTimer | None, ahead: Ahead) -> OverlayBelt | None:
    """None where nothing of the belt but parts is wired to the overlay. Raises: EngineError."""
    encoder, camera = config.motion.encoder, config.camera
    if timer and encoder:
        return OverlayBelt(partial(tell_position, timer, encoder, ahead))
    if timer and config.has_second_barrier:
        stamps = Stamps(timer, "PASSAGE", camera.barrier_filter_us, inverted=camera.barrier_inverted)
        return OverlayBelt(partial(tell_passages, stamps, ahead))
    return None


def open_sinks(config: LineConfig, models: Models) -> list[ResultSink]:
    sinks: list[ResultSink] = []
    if config.tap.endpoint:
        sinks.append(TapSink(config.tap, lambda: models.current.manifest.map.scale))
    if config.recorder.keep != "nothing":
        sinks.append(RecorderSink(config.recorder))
    return sinks


def open_second_opinion(
    config: LineConfig, settings: SecondOpinionSettings, package: Package, trusted: TrustedKeys | None, mqtt: MqttSink
) -> SecondOpinion:
    """Raises: ManifestError for the server's model; InputError if it takes other frames than the line's."""
    second = load_package(config.models_dir / settings.model, trusted)
    require_taken(settings.model, second.manifest, config.model_change)
    frame_px, expected = second.manifest.preprocess.frame_px, package.manifest.preprocess.frame_px
    if frame_px != expected:
        raise InputError(
            f"{settings.model} takes frames of {frame_px}, {config.model} of {expected}: make both from pictures of "
            "one size, or correct [second_opinion] model"
        )
    folder = config.recorder.folder / "disagreements"
    captures = RecorderSink(replace(config.recorder, keep="everything", folder=folder))
    return SecondOpinion(settings, config.engines.remote, second, mqtt.publish_opinion, captures)


def read_counters(
    mqtt: MqttSink,
    models: Models,
    gate: Gate | TimerGate,
    source: CheckedSource | TrackedSource,
    sinks: list[ResultSink],
) -> dict[str, object]:
    return {**mqtt.counters(), **models.counters(), **gate.counters(), **count_losses(source, sinks)}


def count_losses(source: CheckedSource | TrackedSource, sinks: list[ResultSink]) -> dict[str, int]:
    """What source and sinks could not take, for the health report."""
    recorders = [sink for sink in sinks if isinstance(sink, RecorderSink)]
    observers = [sink for sink in sinks if isinstance(sink, (SecondOpinion, DriftWatch))]
    return {
        "refused_messages": 0,
        **source.counters(),
        "recorder_dropped": sum(recorder.dropped for recorder in recorders),
        **{name: count for observer in observers for name, count in observer.counters().items()},
    }


if __name__ == "__main__":
    sys.exit(run_main(main))
