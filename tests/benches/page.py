"""The operator's page at 30 parts/s: first paint, and whether page or program need more memory as time goes by.

beltsight bench page                  ten minutes
beltsight bench page --minutes 2

What matters is what cannot be given back: every half minute the browser is made to collect its garbage and to drop its
caches, and is then measured; three times, and the least counts, for pictures are on their way all the time. The page
has grown if what is left is more in the second half than in the first, by more than `LIMITS`; then the exit code is 1.
What the page's process holds just before each collection is in the table, too.

subtle: the page that is measured is opened without Playwright's own inspector. That one listens to the network, for
which Chromium keeps answers in the page's process, the endless stream of events too: see it with `--inspected`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser, sync_playwright
from rich.console import Console
from rich.table import Table

from host.export.trivial import write_trivial_package
from protocol.broker import BrokerSettings
from protocol.errors import InputError, run_main
from sim.camera import Camera, CameraSettings
from sim.parts import RenderedParts
from sim.station import LOOPBACK, free_port, start_broker
from tests.host.dashboard.running import Client, Speaker, page_of, summary, write_config

SAMPLE_S = 30.0
WARM_UP_S = 60.0  # tiles, caches and buffers fill up once
ANSWER_WITHIN_S = 60.0
DISTINCT = 40  # pictures
REJECTS_EVERY = 10
SIZE_PX = {"width": 1920, "height": 1080}
COLLECTIONS = 3
# Of the page, a tile's picture and canvas have 0.5 MB; the other processes take memory in large pieces.
LIMITS = {"heap_mb": 0.1, "nodes": 50, "listeners": 5, "page_mb": 2.0, "browser_mb": 10.0, "program_mb": 10.0}


@dataclass(frozen=True)
class Sample:
    """`_mb`: anonymous and shared memory of processes, without the files that are mapped into them."""

    at_s: float
    before_mb: float  # the page's process before the collection
    page_mb: float  # and after it, as all below
    browser_mb: float  # all of the browser's processes
    program_mb: float  # `beltsight dashboard`
    heap_mb: float  # of the page's scripts
    nodes: float  # DOM elements, in the page or still referred to
    listeners: float
    shown: float  # parts/s that the page says it has seen


def main() -> int:
    parser = argparse.ArgumentParser(prog="beltsight bench page")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=30.0, help="parts/s (default: %(default)g)")
    parser.add_argument("--inspected", action="store_true", help="the page is opened by Playwright, which costs memory")
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
        belt = Belt(speaker, options.rate)
        opened.callback(belt.stop)
        playwright = opened.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        opened.callback(browser.close)
        page = OpenPage(browser, page_program.url, is_inspected=options.inspected)
        samples = watch(page, program.pid, options.minutes * 60)
        seen = page.evaluate("document.getElementById('fig-parts').textContent")
        speed = float(summary(Client(page_program.port))["parts_per_s"])
        print(f"first paint {page.paint_ms:.0f} ms; parts sent {belt.sent}, counted on the page {seen}")
        print(f"{speed:.1f} parts/s by the program's own figures")
        return report(samples, options.rate)


class Belt:
    """Parts at an even pace, from a thread."""

    def __init__(self, speaker: Speaker, rate: float) -> None:
        camera, parts = Camera(CameraSettings(), seed=1), RenderedParts("orange", seed=1, defect_share=0.2)
        self._images = [camera.shoot(parts.part(number)).image for number in range(DISTINCT)]
        self._speaker, self._rate, self._stop, self.sent = speaker, rate, threading.Event(), 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        began_s = time.monotonic()
        self._speaker.say_state("running")
        while not self._stop.wait(max(0.0, began_s + self.sent / self._rate - time.monotonic())):
            is_reject = self.sent % REJECTS_EVERY == 0
            decision, score = ("REJECT", 1.5) if is_reject else ("OK", 0.2 + 0.001 * (self.sent % 300))
            part = self._speaker.part(self.sent, decision=decision, score=score, threshold=1.0)
            self._speaker.show_image(part, self._images[self.sent % DISTINCT])
            self._speaker.say(part)
            if self.sent % round(self._rate) == 0:
                self._speaker.say_health()
            self.sent += 1


class OpenPage:
    """A tab, spoken to over the browser's own protocol. Without `is_inspected` it is none of Playwright's pages."""

    def __init__(self, browser: Browser, url: str, *, is_inspected: bool) -> None:
        self._browser = browser.new_browser_cdp_session()
        self._answers: dict[int, dict[str, Any]] = {}
        self._sent = 0
        if is_inspected:
            browser.new_page().goto(url)
            (target,) = (t for t in self._browser.send("Target.getTargets")["targetInfos"] if t["url"] == url)
        else:
            target = self._browser.send("Target.createTarget", {"url": url})
        self._browser.on("Target.receivedMessageFromTarget", self._hear)
        attach = {"targetId": target["targetId"], "flatten": False}
        self._session = self._browser.send("Target.attachToTarget", attach)["sessionId"]
        self.send("Emulation.setDeviceMetricsOverride", **SIZE_PX, deviceScaleFactor=1, mobile=False)
        self.send("Performance.enable")
        time.sleep(5.0)
        self.pid = max(self._processes("renderer"), key=own_mb)  # Chromium keeps an empty one ready
        paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        self.paint_ms = float(self.evaluate(paint))

    def evaluate(self, script: str) -> Any:
        return self.send("Runtime.evaluate", expression=script, returnByValue=True)["result"]["value"]

    def measure(self) -> dict[str, float]:
        return {item["name"]: item["value"] for item in self.send("Performance.getMetrics")["metrics"]}

    def collect(self) -> float:
        """Garbage of scripts and elements, the caches that memory pressure empties, and what those referred to.

        What is left, in MB.
        """
        self.send("HeapProfiler.collectGarbage")
        self.send("Memory.simulatePressureNotification", level="critical")
        time.sleep(1.0)
        self.send("HeapProfiler.collectGarbage")
        return own_mb(self.pid)

    def browser_mb(self) -> float:
        return sum(own_mb(pid) for pid in self._processes())

    def send(self, method: str, **parameters: object) -> dict[str, Any]:
        """Raises: InputError."""
        self._sent += 1
        message = json.dumps({"id": self._sent, "method": method, "params": parameters})
        self._browser.send("Target.sendMessageToTarget", {"sessionId": self._session, "message": message})
        until_s = time.monotonic() + ANSWER_WITHIN_S
        while self._sent not in self._answers and time.monotonic() < until_s:
            self._browser.send("Browser.getVersion")  # Playwright hears the page's answer meanwhile
        answer = self._answers.pop(self._sent, {"error": "no answer"})
        if "error" in answer:
            raise InputError(f"Chromium does not take {method} ({answer['error']}): use a later one")
        result: dict[str, Any] = answer["result"]
        return result

    def _hear(self, event: dict[str, Any]) -> None:
        message = json.loads(event["message"])
        if "id" in message:
            self._answers[message["id"]] = message

    def _processes(self, kind: str = "") -> list[int]:
        found = self._browser.send("SystemInfo.getProcessInfo")["processInfo"]
        return [process["id"] for process in found if kind in ("", process["type"])]


def watch(page: OpenPage, program_pid: int, for_s: float) -> list[Sample]:
    began_s = time.monotonic()
    samples: list[Sample] = []
    while time.monotonic() - began_s < for_s:
        time.sleep(max(0.0, began_s + (len(samples) + 1) * SAMPLE_S - time.monotonic()))
        before_mb = own_mb(page.pid)
        page_mb = min(page.collect() for _ in range(COLLECTIONS))
        metrics = page.measure()
        samples.append(
            Sample(
                at_s=time.monotonic() - began_s,
                before_mb=before_mb,
                page_mb=page_mb,
                browser_mb=page.browser_mb(),
                program_mb=own_mb(program_pid),
                heap_mb=metrics["JSHeapUsedSize"] / 1e6,
                nodes=metrics["Nodes"],
                listeners=metrics["JSEventListeners"],
                shown=float(page.evaluate("document.getElementById('fig-speed').textContent").replace("–", "0")),
            )
        )
        print(" ".join(f"{value:9.2f}" for value in astuple(samples[-1])), flush=True)
    return samples


def report(samples: list[Sample], rate: float) -> int:
    """The exit code."""
    warm = [sample for sample in samples if sample.at_s > WARM_UP_S]
    if len(warm) < 2:
        raise InputError("too short for a trend: give --minutes 2 or more")
    half = len(warm) // 2
    title = f"{samples[-1].at_s:.0f} s of {rate:g} parts/s"
    table = Table("", "first half", "second half", "allowed more", "growth per hour", title=title)
    grown = []
    for name in [field.name for field in fields(Sample)][1:]:
        values = [float(getattr(sample, name)) for sample in warm]
        slope = float(np.polyfit([sample.at_s for sample in warm], values, 1)[0]) * 3600
        first, second = statistics.median(values[:half]), statistics.median(values[half:])
        limit = LIMITS.get(name)
        table.add_row(name, f"{first:.2f}", f"{second:.2f}", "" if limit is None else f"{limit:g}", f"{slope:+.1f}")
        if limit is not None and second - first > limit:
            grown.append(name)
    Console(width=100).print(table)
    print(f"grown: {', '.join(grown)}" if grown else "nothing has grown")
    return 1 if grown else 0


def own_mb(pid: int) -> float:
    """proc(5), status: RssAnon and RssShmem, in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "RssShmem:"))) * 1024 / 1e6


if __name__ == "__main__":
    sys.exit(run_main(main))
