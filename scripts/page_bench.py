"""The operator's page at 30 parts/s: first paint, and whether page or program need more memory as time goes by.

scripts/bench page                  ten minutes
scripts/bench page --minutes 2
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, Page, sync_playwright
from rich.console import Console
from rich.table import Table

from host.trivial import write_trivial_package
from protocol.broker import BrokerSettings
from protocol.errors import InputError, run_main
from sim.camera import Camera, CameraSettings
from sim.parts import RenderedParts
from sim.station import LOOPBACK, free_port, start_broker
from tests.dashboard.running import Client, Speaker, page_of, summary, write_config

PARTS_PER_S = 30.0
SAMPLE_S = 5.0
WARM_UP_S = 30.0  # tiles, caches and buffers fill up once
DISTINCT = 40  # pictures
REJECTS_EVERY = 10


@dataclass(frozen=True)
class Sample:
    at_s: float
    heap_mb: float  # of the page's scripts, after a garbage collection
    nodes: int
    renderer_mb: float  # resident
    program_mb: float
    shown: float  # parts/s that the page says it has seen


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench page")
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise InputError("there is no Chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as opened:
        folder, tap_port, mqtt_port = Path(name), free_port(), free_port()
        write_trivial_package(folder / "models" / "trivial")
        opened.enter_context(start_broker(folder, mqtt_port))
        broker = BrokerSettings(LOOPBACK, mqtt_port)
        page_program = page_of(write_config(folder, broker, "bench", tap_port))
        program = opened.enter_context(page_program.run())
        speaker = Speaker(broker, "bench", tap_port)
        opened.callback(speaker.close)
        belt = Belt(speaker)
        opened.callback(belt.stop)
        playwright = opened.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        opened.callback(browser.close)
        page = browser.new_page(viewport={"width": 1920, "height": 1080})
        page.goto(page_program.url)
        paint_ms = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        samples = watch(browser, page, program.pid, options.minutes * 60)
        seen = int(page.locator("#fig-parts").inner_text().replace(",", ""))
        speed = float(summary(Client(page_program.port))["parts_per_s"])
        report(paint_ms, samples, belt.sent, seen, speed)
    return 0


class Belt:
    """Parts at an even pace, from a thread."""

    def __init__(self, speaker: Speaker) -> None:
        camera, parts = Camera(CameraSettings(), seed=1), RenderedParts("orange", seed=1, defect_share=0.2)
        self._images = [camera.shoot(parts.part(number)).image for number in range(DISTINCT)]
        self._speaker, self._stop, self.sent = speaker, threading.Event(), 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        began_s = time.monotonic()
        self._speaker.say_state("running")
        while not self._stop.wait(max(0.0, began_s + self.sent / PARTS_PER_S - time.monotonic())):
            is_reject = self.sent % REJECTS_EVERY == 0
            decision, score = ("REJECT", 1.5) if is_reject else ("OK", 0.2 + 0.001 * (self.sent % 300))
            part = self._speaker.part(self.sent, decision=decision, score=score, threshold=1.0)
            self._speaker.show_image(part, self._images[self.sent % DISTINCT])
            self._speaker.say(part)
            if self.sent % PARTS_PER_S == 0:
                self._speaker.say_health()
            self.sent += 1


def watch(browser: Browser, page: Page, program_pid: int, for_s: float) -> list[Sample]:
    inspector = page.context.new_cdp_session(page)
    inspector.send("Performance.enable")
    processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    renderers = [process["id"] for process in processes if process["type"] == "renderer"]
    began_s = time.monotonic()
    samples = []
    while time.monotonic() - began_s < for_s:
        page.wait_for_timeout(SAMPLE_S * 1e3)
        inspector.send("HeapProfiler.collectGarbage")
        metrics = {item["name"]: item["value"] for item in inspector.send("Performance.getMetrics")["metrics"]}
        samples.append(
            Sample(
                time.monotonic() - began_s,
                metrics["JSHeapUsedSize"] / 1e6,
                int(metrics["Nodes"]),
                sum(resident_mb(pid) for pid in renderers),
                resident_mb(program_pid),
                float(page.locator("#fig-speed").inner_text().replace("–", "0")),
            )
        )
    return samples


def report(paint_ms: float, samples: list[Sample], sent: int, counted: int, speed: float) -> None:
    warm = [sample for sample in samples if sample.at_s > WARM_UP_S]
    if len(warm) < 4:
        raise InputError("too short for a trend: give --minutes 2 or more")
    half = len(warm) // 2
    table = Table("", "first half", "second half", "growth per hour", title=f"{samples[-1].at_s:.0f} s of 30 parts/s")
    for name in ("heap_mb", "nodes", "renderer_mb", "program_mb", "shown"):
        values = [float(getattr(sample, name)) for sample in warm]
        slope = float(np.polyfit([sample.at_s for sample in warm], values, 1)[0]) * 3600
        first, second = statistics.median(values[:half]), statistics.median(values[half:])
        table.add_row(name, f"{first:.2f}", f"{second:.2f}", f"{slope:+.1f}")
    console = Console(width=100)
    console.print(table)
    console.print(
        f"first paint {paint_ms:.0f} ms; parts sent {sent}, counted on the page {counted}, {speed:.1f} parts/s"
    )


def resident_mb(pid: int) -> float:
    """proc(5), statm field 2, pages of 4 KiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6


if __name__ == "__main__":
    sys.exit(run_main(main))
