"""Do the accepted parts still look, and score, as good parts did when the model was made?

A lamp that fades or a lens that slips out of focus makes good parts look strange; some day the model rejects them. This
observer sees it earlier, in simple statistics of the pictures that were accepted. It warns, with the evidence, and
touches no decision. It works in a thread of its own, on some of the parts where they come fast.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from board.drift.control_chart import ControlChart
from board.drift.picture_statistics import SCORE, measure_picture
from board.drift.sheet import LATEST, SheetFolder, draw_sheet
from board.log import say
from board.preprocess import preprocess
from protocol.drift import DriftReport, DriftState, Moved
from protocol.errors import InputError
from protocol.manifest import Calibration, Package
from protocol.messages import Frame, Verdict, rfc3339_now
from protocol.strict import require
from protocol.supervision import SUPERVISOR, Supervised, Supervisor

LOOK_UP_S = 0.1  # how soon the thread notices that the station stops
SILENT_S = 0.7
NOTE_WITHIN_S = 10.0  # with a sheet of pictures, drawn by a slow processor and written to a slow card
QUEUED_PARTS = 4  # waiting for the thread; what comes on top is left out and counted
TOLD_AGAIN_SIGMAS = 1.0  # a drift that went on so much farther is told again
ADVICE = {  # what a fall and a rise of a statistic usually mean
    "brightness": (
        "clean or renew the lamp, look at exposure and aperture",
        "look for stray light and at the exposure",
    ),
    "contrast": ("clean lens and window, look for stray light", "look at lamp and exposure"),
    "sharpness": ("focus the lens and lock it, clean it, look for vibration", "look at the focus, and for noise"),
    "red_share": ("look at the lamp's colour and the white balance",) * 2,
    "blue_share": ("look at the lamp's colour and the white balance",) * 2,
    SCORE: ("", "look at the latest parts: has the product changed?"),
}


@dataclass(frozen=True)
class DriftSettings:
    """A statistic is watched by the chart of `board.drift.control_chart`."""

    enabled: bool = True  # where the model's manifest has a calibration
    folder: Path = Path("drift")  # for the evidence: sheets of pictures
    max_sheets: int = 20  # the oldest goes first
    parts_per_s: float = 5.0  # no more are looked at, which leaves the board's processor to the parts
    weight: float = 0.02  # of one part in the moving average: smaller is slower and steadier
    limit: float = 4.5  # standard errors of the moving average
    tolerance: float = 0.5  # shift in standard deviations of a good part that is never warned of

    def __post_init__(self) -> None:
        require(1 <= self.max_sheets <= 1000, "max_sheets", "must be 1..1000")
        require(0 < self.parts_per_s <= 10_000, "parts_per_s", "must be above 0 and at most 10000")
        require(0.001 <= self.weight <= 0.5, "weight", "must be 0.001..0.5")
        require(2 <= self.limit <= 20, "limit", "must be 2..20: below, false warnings are the rule")
        require(0 <= self.tolerance <= 3, "tolerance", "must be 0..3")


class DriftWatch:
    """A `ResultSink` that sees every part and takes none over."""

    def __init__(
        self,
        settings: DriftSettings,
        current: Callable[[], Package],
        publish: Callable[[DriftReport], None],
        *,
        supervisor: Supervisor = SUPERVISOR,
    ) -> None:
        """`current` is the model at work."""
        self._settings, self._current = settings, current
        self._publish = publish
        self._sheets = SheetFolder(settings.folder, settings.max_sheets)
        self._queue: queue.Queue[tuple[Frame, Verdict]] = queue.Queue(QUEUED_PARTS)
        self._stop = threading.Event()
        self._due_s = 0.0
        self.skipped = 0  # accepted parts that were due and left out: the thread was busy
        self.warnings = 0
        self._begin(current())
        self._thread = supervisor.start("drift", self._run, silent_s=SILENT_S, is_needed=False)

    def publish(self, frame: Frame, verdict: Verdict, anomaly: NDArray[np.int8] | None) -> None:  # noqa: ARG002
        """Look at an accepted part later. Never waits."""
        now_s = time.monotonic()
        if verdict.decision != "OK" or now_s < self._due_s:
            return
        self._due_s = now_s + 1 / self._settings.parts_per_s
        try:
            self._queue.put_nowait((frame, verdict))
        except queue.Full:
            self.skipped += 1

    def counters(self) -> dict[str, int]:
        """For the health report."""
        return {
            "drift_parts": self._parts,
            "drift_skipped": self.skipped,
            "drift_warnings": self.warnings,
            "drifting": len(self._moved()),
        }

    def close(self) -> None:
        self._thread.stop(self._stop.set, NOTE_WITHIN_S)

    def _run(self, supervised: Supervised) -> None:
        self._tell()
        while not self._stop.is_set():
            supervised.beat()
            with contextlib.suppress(queue.Empty):
                waiting = self._queue.get(timeout=LOOK_UP_S)
                with supervised.busy(NOTE_WITHIN_S):
                    self._note(*waiting)

    def _begin(self, package: Package) -> None:
        """Charts for this model; without a calibration there are none."""
        self._package, self._manifest = package, package.manifest
        self._parts = 0
        self._told: dict[str, float] = {}  # sigmas of each statistic that was last reported as moved
        self._latest: deque[NDArray[np.uint8]] = deque(maxlen=LATEST)
        calibration = self._manifest.calibration
        self._charts = draw_charts(calibration, self._settings) if calibration else {}

    def _note(self, frame: Frame, verdict: Verdict) -> None:
        if verdict.model_id != self._manifest.id:
            self._follow(verdict.model_id)
        if not self._charts or frame.image is None or verdict.score is None or verdict.model_id != self._manifest.id:
            return
        try:
            picture = preprocess(frame.image, self._manifest.preprocess)
        except InputError:  # subtle: a frame that waited here while the model, and with it the frames' size, changed
            return
        self._latest.append(picture)
        self._parts += 1
        for name, value in (measure_picture(picture) | {SCORE: verdict.score}).items():
            if name in self._charts:
                self._charts[name].note(value)
        if self._is_news():
            self._tell()

    def _follow(self, model_id: str) -> None:
        """The line changed its model; a part of the model before it, judged just then, is of no interest any more."""
        package = self._current()
        if package.manifest.id == model_id:
            self._begin(package)
            self._tell()

    def _is_news(self) -> bool:
        moved = self._moved()
        if set(moved) != set(self._told):
            return True
        return any(abs(chart.sigmas) >= abs(self._told[name]) + TOLD_AGAIN_SIGMAS for name, chart in moved.items())

    def _tell(self) -> None:
        """Over MQTT and in the log; a warning with its sheet of pictures."""
        moved = self._moved()
        new = set(moved) - set(self._told)
        self.warnings += bool(new)
        was_drifting, self._told = bool(self._told), {name: chart.sigmas for name, chart in moved.items()}
        entries = list_moved(moved)
        lines = [describe(entry) for entry in entries]
        state: DriftState = "off" if not self._charts else "drifting" if moved else "steady"
        sheet = self._keep_sheet(lines) if moved else ""
        text = "; ".join(lines)
        if moved or was_drifting:
            where = f" (see {self._settings.folder / sheet})" if sheet else ""
            say(f"drift: {text}{where}" if moved else "drift: steady again", level="WARNING" if moved else "INFO")
        self._publish(DriftReport(state, text, entries, self._parts, sheet, self._manifest.id, rfc3339_now()))

    def _keep_sheet(self, lines: list[str]) -> str:
        """Its name; empty if it cannot be written: the warning goes out without."""
        try:
            return self._sheets.keep(draw_sheet(self._package, self._charts, list(self._latest), lines))
        except OSError as error:
            where = f"{self._settings.folder} ({error.strerror})"
            say(f"drift: no sheet in {where}: make room, or correct [drift] folder", level="WARNING")
            return ""

    def _moved(self) -> dict[str, ControlChart]:
        return {name: chart for name, chart in self._charts.items() if chart.is_beyond}


def draw_charts(calibration: Calibration, settings: DriftSettings) -> dict[str, ControlChart]:
    """Of the statistics that are known here."""
    return {
        name: ControlChart(
            calibrated,
            calibration.pictures,
            weight=settings.weight,
            limit=settings.limit,
            tolerance=settings.tolerance,
            both_sides=name != SCORE,  # parts that look better than good ones are no trouble
        )
        for name, calibrated in calibration.statistics.items()
        if name in ADVICE
    }


def list_moved(moved: dict[str, ControlChart]) -> tuple[Moved, ...]:
    """The farthest first."""
    entries = [
        Moved(name, round(chart.sigmas, 2), chart.average, chart.calibrated.mean, chart.calibrated.deviation)
        for name, chart in moved.items()
    ]
    return tuple(sorted(entries, key=lambda entry: -abs(entry.sigmas)))


def describe(entry: Moved) -> str:
    """For example "brightness fell by 1.3 sigma (61.2, calibrated 67.0 ± 4.4): clean or renew the lamp, …"."""
    rose = entry.sigmas > 0
    way = f"{entry.statistic.replace('_', ' ')} {'rose' if rose else 'fell'} by {abs(entry.sigmas):.1f} sigma"
    numbers = f"({entry.average:.4g}, calibrated {entry.calibrated:.4g} ± {entry.deviation:.2g})"
    return f"{way} {numbers}: {ADVICE[entry.statistic][rose]}"
