"""The line as fast as it can for many parts: does it grow, or slow down? `beltsight soak --parts 1000000`.

The real station, broker and sockets. The first tenth is the warm-up. Latency is from light barrier to decision, behind
a belt that always waits for the station.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from array import array
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import paho.mqtt.client as mqtt
from numpy.typing import NDArray
from paho.mqtt.enums import CallbackAPIVersion
from rich.console import Console
from rich.table import Table

from host.export.trivial import write_trivial_package
from protocol.errors import InputError, run_main
from protocol.messages import decode_verdict, new_run
from sim.station import LOOPBACK
from tests.survival.broker import MOSQUITTO, MortalBroker, wait_until
from tests.survival.station import Belt, Station

TOPIC = "beltsight/sim/line1/verdict"
MAX_GROWTH_MB, MAX_SLOWDOWN = 5.0, 1.1
TENTHS = 10
SAMPLE_S = 1.0
QUIET_S = 60.0
PLOT_PX = (720, 900)  # height, width
MARGIN_PX = 60


@dataclass
class Tally:
    """Of the verdicts' events and latencies, in their order."""

    run: str

    def __post_init__(self) -> None:
        self.seen = bytearray()  # one byte a part: how many verdicts
        self.latencies_ms = array("f")

    def take(self, payload: bytes) -> None:
        verdict = decode_verdict(payload)
        if verdict.run == self.run:
            if verdict.part_id >= len(self.seen):
                self.seen.extend(bytes(verdict.part_id + 1 - len(self.seen)))
            self.seen[verdict.part_id] = min(255, self.seen[verdict.part_id] + 1)
            self.latencies_ms.append(verdict.latency_ms)


@dataclass(frozen=True)
class Sample:
    parts: int
    rss_mb: float
    descriptors: int
    threads: int


@dataclass(frozen=True)
class Report:
    parts: int
    lost: int
    repeated: int
    parts_per_s: float
    growth_mb: float  # of the resident memory, from the end of the first tenth to the highest of the last
    more_descriptors: int
    more_threads: int
    p99_ms: list[float]  # of each tenth
    samples: list[Sample]

    def problems(self) -> list[str]:
        slowdown = self.p99_ms[-1] / self.p99_ms[0]
        found = {
            f"{self.lost} lost": self.lost > 0,
            f"memory grew by {self.growth_mb:.1f} MB": self.growth_mb >= MAX_GROWTH_MB,
            f"{self.more_descriptors} more file descriptors": self.more_descriptors > 0,
            f"{self.more_threads} more threads": self.more_threads > 0,
            f"p99 of the last tenth is {slowdown:.2f} × the first": slowdown > MAX_SLOWDOWN,
        }
        return [problem for problem, is_there in found.items() if is_there]


def look(pid: int, parts: int) -> Sample:
    """proc(5)."""
    process = Path(f"/proc/{pid}")
    rss_mb = int((process / "statm").read_text().split()[1]) * 4096 / 1e6
    return Sample(parts, rss_mb, len(list((process / "fd").iterdir())), len(list((process / "task").iterdir())))


def soak(folder: Path, parts: int) -> Report:
    write_trivial_package(folder / "models" / "trivial")
    broker, tally = MortalBroker(folder, TOPIC), Tally(new_run())
    with contextlib.ExitStack() as opened:
        broker.start()
        opened.callback(broker.kill)
        client = mqtt.Client(CallbackAPIVersion.VERSION2, "soak")
        client.on_message = lambda _client, _data, message: tally.take(bytes(message.payload))
        client.on_connect = lambda client, *_: client.subscribe(TOPIC, 1)
        client.connect(LOOPBACK, broker.settings.port)
        client.loop_start()
        opened.callback(client.loop_stop)
        wait_until(client.is_connected)
        station = Station(folder, broker.settings.port, logs_gate=False)
        opened.callback(station.stop)
        belt, began_s = Belt(station.belt_port, tally.run, parts, rate_hz=None), time.monotonic()
        samples = watch(station, tally, parts)
        took_s = time.monotonic() - began_s
        belt.finish()
    return judge(parts, tally, samples, took_s)


def watch(station: Station, tally: Tally, parts: int) -> list[Sample]:
    samples = [look(station.pid, 0)]
    known, quiet_until_s = 0, time.monotonic() + QUIET_S
    while len(tally.latencies_ms) < parts and time.monotonic() < quiet_until_s:
        time.sleep(SAMPLE_S)
        samples.append(look(station.pid, len(tally.latencies_ms)))
        if samples[-1].parts > known:
            known, quiet_until_s = samples[-1].parts, time.monotonic() + QUIET_S
    return samples


def judge(parts: int, tally: Tally, samples: list[Sample], took_s: float) -> Report:
    tenths = np.array_split(np.array(tally.latencies_ms), TENTHS)
    warm = next((sample for sample in samples if sample.parts >= parts // TENTHS), samples[-1])
    last = [sample for sample in samples if sample.parts >= parts * (TENTHS - 1) // TENTHS] or samples[-1:]
    return Report(
        parts=parts,
        lost=parts - sum(map(bool, tally.seen)),
        repeated=sum(count - 1 for count in tally.seen if count),
        parts_per_s=round(len(tally.latencies_ms) / took_s, 1),
        growth_mb=round(max(sample.rss_mb for sample in last) - warm.rss_mb, 2),
        more_descriptors=last[-1].descriptors - warm.descriptors,
        more_threads=last[-1].threads - warm.threads,
        p99_ms=[round(float(np.percentile(tenth, 99)), 3) for tenth in tenths],
        samples=samples,
    )


def plot(report: Report) -> NDArray[np.uint8]:
    """uint8 (h, w, 3): memory, file descriptors, threads over the parts, and p99 of the tenths, each from nought."""
    height, width = PLOT_PX
    image = np.full((height, width, 3), 255, np.uint8)
    parts = [sample.parts for sample in report.samples]
    middles = [report.parts * (2 * number + 1) / (2 * TENTHS) for number in range(TENTHS)]
    rows = (
        ("resident memory, MB", parts, [sample.rss_mb for sample in report.samples]),
        ("file descriptors", parts, [float(sample.descriptors) for sample in report.samples]),
        ("threads", parts, [float(sample.threads) for sample in report.samples]),
        ("latency p99 of each tenth, ms", middles, report.p99_ms),
    )
    row_px = height // len(rows)
    for number, (title, across, values) in enumerate(rows):
        bottom, top_value = (number + 1) * row_px - 20, max(values) * 1.1 or 1.0
        x = MARGIN_PX + np.array(across) / report.parts * (width - 2 * MARGIN_PX)
        y = bottom - np.array(values) / top_value * (row_px - 60)
        line = np.stack([x, y], axis=1).round().astype(np.int32)
        cv2.line(image, (MARGIN_PX, bottom), (width - MARGIN_PX, bottom), (160, 160, 160), 1)
        cv2.polylines(image, [line], isClosed=False, color=(180, 60, 0), thickness=2, lineType=cv2.LINE_AA)
        text = f"{title}: {values[0]:.1f} ... {values[-1]:.1f}, max {max(values):.1f}"
        cv2.putText(image, text, (MARGIN_PX, bottom - row_px + 50), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1)
    return image


def show(report: Report) -> Table:
    table = Table(show_header=False, title=f"{report.parts} parts as fast as they go")
    table.add_row("lost, repeated", f"{report.lost}, {report.repeated}")
    table.add_row("parts/s", f"{report.parts_per_s}")
    table.add_row("growth of resident memory", f"{report.growth_mb} MB, of {report.samples[-1].rss_mb:.1f} MB")
    table.add_row("more file descriptors, threads", f"{report.more_descriptors}, {report.more_threads}")
    table.add_row("p99 of each tenth, ms", "  ".join(f"{value:.1f}" for value in report.p99_ms))
    table.add_row("problems", "; ".join(report.problems()) or "none")
    return table


def main() -> int:
    parser = argparse.ArgumentParser(prog="beltsight soak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", type=int, default=20_000, help="default: %(default)s")
    parser.add_argument("--report", type=Path, default=Path("soak.json"), help="with a plot beside it, soak.png")
    options = parser.parse_args()
    if not MOSQUITTO:
        raise InputError("mosquitto is not installed: apt-get install mosquitto")
    if options.parts < 100:
        raise InputError("--parts: at least 100, ten for each tenth")
    with tempfile.TemporaryDirectory() as folder:
        report = soak(Path(folder), options.parts)
    try:
        options.report.write_text(json.dumps({**asdict(report), "problems": report.problems()}, indent=1))
    except OSError as error:
        raise InputError(f"cannot write {options.report} ({error.strerror}): correct --report") from None
    cv2.imwrite(str(options.report.with_suffix(".png")), plot(report))
    Console(width=120).print(show(report))
    return 1 if report.problems() else 0


if __name__ == "__main__":
    sys.exit(run_main(main))
