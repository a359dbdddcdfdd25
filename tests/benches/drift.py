"""How early a drift is told: a lamp that dims, a lens that slips, and a belt on which nothing happens.

    beltsight bench drift --product orange --picture drift.png

Pictures are those of the fake belt, the model is a shipped one through ONNX Runtime, the charts are the board's own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from board.drift.picture_statistics import PICTURE_STATISTICS, SCORE, measure_picture
from board.drift.watch import DriftSettings, draw_charts
from board.preprocess import as_input, preprocess
from board.score import score_map
from host.export.calibration import calibrate
from protocol.errors import run_main
from protocol.manifest import MODEL_ONNX, Calibration, Manifest, load_package
from sim.camera import Camera, CameraSettings
from sim.options import find_model
from sim.parts import DEFECTS, RenderedParts
from sim.station import ROOT

CALIBRATION_PARTS = 300
AGES_FROM = 200
GROUP = 100  # parts of one row of the table
RUNS = {
    "lamp: 8 % of its light lost in 100 parts": {"lamp_dims": 0.8},
    "lens: 0.4 px of blur gained in 100 parts": {"lens_slips_px": 4.0},
}
COLOURS = ((66, 133, 244), (15, 157, 88), (219, 68, 55), (244, 160, 0), (171, 71, 188), (60, 60, 60))  # RGB
PLOT_PX = (300, 900)


@dataclass(frozen=True)
class Part:
    defect: str
    score: float
    is_accepted: bool
    sigmas: dict[str, float]  # of each chart behind this part
    drifting: tuple[str, ...]


class Bench:
    def __init__(self, product: str, model: Path) -> None:
        package = load_package(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(package.path(MODEL_ONNX)), options)
        self._product = product
        self.manifest: Manifest = package.manifest
        self._threshold = package.manifest.threshold.value
        self.calibration = package.manifest.calibration or self._calibrate()

    def run(self, settings: CameraSettings, seed: int, parts: int, bad: float) -> list[Part]:
        charts = draw_charts(self.calibration, DriftSettings())
        judged = []
        for defect, picture, score in self._look(settings, seed, parts, bad):
            is_accepted = score < self._threshold
            if is_accepted:
                for name, value in (measure_picture(picture) | {SCORE: score}).items():
                    charts[name].note(value)
            sigmas = {name: chart.sigmas for name, chart in charts.items()}
            drifting = tuple(name for name, chart in charts.items() if chart.is_beyond)
            judged.append(Part(defect, score, is_accepted, sigmas, drifting))
        return judged

    def _calibrate(self) -> Calibration:
        """Of a model that was exported before there was a calibration: on parts of another belt."""
        seen = list(self._look(CameraSettings(), 901, CALIBRATION_PARTS, 0.0))
        scores = np.array([score for _, _, score in seen])
        made = calibrate(np.stack([picture for _, picture, _ in seen]), scores, self._threshold)
        if made is None:
            raise ValueError("a model that rejects nearly all good parts cannot be calibrated")
        return made

    def _look(
        self, settings: CameraSettings, seed: int, parts: int, bad: float
    ) -> Iterator[tuple[str, NDArray[np.uint8], float]]:
        belt, camera, name = RenderedParts(self._product, seed, bad), Camera(settings, seed), "input"
        name = self._session.get_inputs()[0].name
        for number in range(parts):
            part = belt.part(number)
            picture = preprocess(camera.shoot(part).image, self.manifest.preprocess)
            anomaly = self._session.run(None, {name: as_input(picture)})[0].reshape(self.manifest.map.shape)
            yield part.defect, picture, score_map(anomaly, self.manifest.map)


def main() -> int:
    options = parse_options()
    console = Console()
    bench = Bench(options.product, options.models / (options.model or find_model(options.models, options.product)))
    steady = bench.run(CameraSettings(), 1, options.steady_parts, 0.2)
    warned = first_warning(steady)
    farthest = max(abs(value) for part in steady for value in part.sigmas.values())
    limit = next(iter(draw_charts(bench.calibration, DriftSettings()).values())).limit
    console.print(
        f"{bench.manifest.id}: {len(steady)} parts, a fifth of them defective, nothing ages: "
        f"{'no warning' if warned is None else f'warned at part {warned}'}; "
        f"farthest average {farthest:.2f} sigma, limit {limit:.2f}"
    )
    plots = []
    for title, ageing in RUNS.items():
        settings = replace(CameraSettings(), ages_from=AGES_FROM, **ageing)  # type: ignore[arg-type]
        judged = bench.run(settings, 2, options.parts, 0.0)
        console.print(draw_table(f"{bench.manifest.id}, {title}, from part {AGES_FROM} on", judged))
        plots.append(draw_plot(f"{bench.manifest.id}: {title}", judged, limit))
    if options.picture:
        cv2.imwrite(str(options.picture), cv2.cvtColor(np.vstack(plots), cv2.COLOR_RGB2BGR))
    return 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="beltsight bench drift", description="How early a drift is told.")
    parser.add_argument("--product", choices=sorted(DEFECTS), default="orange")
    parser.add_argument("--model", help="id of the model package (default: the first of the product)")
    parser.add_argument("--models", type=Path, default=ROOT / "models")
    parser.add_argument("--parts", type=int, default=1000, help="of each ageing run (default: %(default)s)")
    parser.add_argument("--steady-parts", type=int, default=1000, help="where nothing ages (default: %(default)s)")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="draw averages and false rejects there")
    return parser.parse_args()


def first_warning(judged: list[Part]) -> int | None:
    return next((number for number, part in enumerate(judged) if part.drifting), None)


def draw_table(title: str, judged: list[Part]) -> Table:
    table = Table(title=title)
    for heading in ("parts", "good parts rejected", "brightness", "sharpness", "score", "warned of"):
        table.add_column(heading, justify="left" if heading == "warned of" else "right")
    for start in range(0, len(judged), GROUP):
        group = judged[start : start + GROUP]
        rejected = sum(not part.is_accepted for part in group) / len(group)
        sigmas = [f"{group[-1].sigmas[name]:+.1f} σ" for name in ("brightness", "sharpness", SCORE)]
        begun = [f"{name} at {start + at}" for name in group[-1].drifting if (at := begin(name, group)) is not None]
        table.add_row(f"{start}..{start + len(group) - 1}", f"{rejected:.0%}", *sigmas, ", ".join(begun))
    return table


def begin(name: str, group: list[Part]) -> int | None:
    """Where in the group the statistic left its limits; None if it was away before."""
    at = next(number for number, part in enumerate(group) if name in part.drifting)
    return at or None


def draw_plot(title: str, judged: list[Part], limit: float) -> NDArray[np.uint8]:
    """Averages in sigmas on the left axis, from −4 to 4; good parts rejected of the latest 100, filled, from 0 to 1."""
    height, width = PLOT_PX
    plot = np.full((height, width, 3), 255, np.uint8)
    rejected = np.array([not part.is_accepted for part in judged], float)
    share = np.convolve(rejected, np.ones(GROUP) / GROUP)[: len(judged)]

    def at_x(number: int) -> int:
        return round(number * (width - 1) / max(len(judged) - 1, 1))

    for number, value in enumerate(share):
        cv2.line(plot, (at_x(number), height - 1), (at_x(number), round((height - 1) * (1 - value))), (250, 215, 210))
    for sigmas in (-limit, 0.0, limit):
        y = round(height * (0.5 - sigmas / 8))
        cv2.line(plot, (0, y), (width - 1, y), (190, 190, 190), 1)
    for colour, name in zip(COLOURS, (*PICTURE_STATISTICS, SCORE), strict=True):
        line = [(at_x(n), round(height * (0.5 - part.sigmas[name] / 8))) for n, part in enumerate(judged)]
        cv2.polylines(plot, [np.array(line)], False, colour, 2, cv2.LINE_AA)
    warned = first_warning(judged)
    if warned is not None:
        cv2.line(plot, (at_x(warned), 0), (at_x(warned), height - 1), (20, 20, 20), 1)
        _write(plot, f"warned at part {warned}", (at_x(warned) + 6, height - 12), (20, 20, 20))
    _write(plot, f"{title}; averages in sigma, share of good parts rejected (filled)", (8, 16), (20, 20, 20))
    for place, (colour, name) in enumerate(zip(COLOURS, (*PICTURE_STATISTICS, SCORE), strict=True)):
        _write(plot, name.replace("_", " "), (8, 36 + 17 * place), colour)
    return plot


def _write(plot: NDArray[np.uint8], text: str, at: tuple[int, int], colour: tuple[int, int, int]) -> None:
    cv2.putText(plot, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)


if __name__ == "__main__":
    sys.exit(run_main(main))
