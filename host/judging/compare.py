"""A new model beside the one that runs, on parts that the line recorded: what would have been decided otherwise?

beltsight compare models/orange-256 models/orange-new --recordings runs/line1/recordings

Both judge as on the line, bit for bit. The picture shows the parts over which they disagree: the frame, and what each
model sees in it, the contour at its threshold.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from board.engines.onnx_runtime import OnnxRuntimeEngine
from board.preprocess import preprocess
from board.records.recording import Record
from board.score import score_map
from host.pictures.reading import encode_png
from host.pictures.recorded import read_recordings
from protocol.errors import InputError, run_main
from protocol.manifest import MODEL_ONNX, Package, load_package

TILE_PX = 192
MOST_SHOWN = 24
HEAT_SHARE = 0.45  # of the heat-map over the picture
CONTOUR_RGB = (255, 255, 255)

Picture = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Judged:
    score: float
    is_rejected: bool
    heat: NDArray[np.float32]  # (h', w'), in the unit of scores


@dataclass(frozen=True, eq=False)
class Pair:
    """One recorded part, as two models see it."""

    record: Record
    old: Judged
    new: Judged


class Judge:
    """A model as the line runs it, without a line."""

    def __init__(self, package: Package) -> None:
        self.manifest = package.manifest
        self._engine = OnnxRuntimeEngine(package.path(MODEL_ONNX), threads=1)

    def judge(self, frame: Picture) -> Judged:
        """Raises: InputError for a frame of another size."""
        anomaly = self._engine.infer(preprocess(frame, self.manifest.preprocess))
        score = score_map(anomaly, self.manifest.map)
        heat = anomaly.astype(np.float32) * np.float32(self.manifest.map.scale)
        return Judged(score, score >= self.manifest.threshold.value, heat)


def main() -> int:
    parser = argparse.ArgumentParser(prog="beltsight compare", description="Two models on recorded parts.")
    parser.add_argument("old", type=Path, help="the model that runs")
    parser.add_argument("new", type=Path, help="the one that may follow it")
    parser.add_argument("--recordings", type=Path, required=True, help="the recorder's folder, or a capture's")
    parser.add_argument("--picture", type=Path, help="write the parts that are decided otherwise there, as PNG")
    options = parser.parse_args()
    if options.picture and not options.picture.resolve().parent.is_dir():
        raise InputError(f"--picture: there is no folder {options.picture.parent}: make it first")
    old, new = (Judge(load_package(folder)) for folder in (options.old, options.new))
    pairs = list(compare(old, new, read_recordings(options.recordings)))
    Console(width=None if sys.stdout.isatty() else 100).print(draw_table(old, new, pairs))
    changed = [pair for pair in pairs if pair.old.is_rejected != pair.new.is_rejected]
    if options.picture and changed:
        thresholds = (old.manifest.threshold.value, new.manifest.threshold.value)
        options.picture.write_bytes(encode_png(draw_changes(changed[:MOST_SHOWN], thresholds)))
        print(f"{min(len(changed), MOST_SHOWN)} of the {len(changed)} parts decided otherwise: {options.picture}")
    return 0


def compare(old: Judge, new: Judge, records: Iterator[Record]) -> Iterator[Pair]:
    """Raises: InputError for frames that one of the models does not take."""
    for record in records:
        if record.frame.image is not None:
            yield Pair(record, old.judge(record.frame.image), new.judge(record.frame.image))


def draw_table(old: Judge, new: Judge, pairs: list[Pair]) -> Table:
    table = Table("recorded parts", str(len(pairs)))
    rejected = [(pair.old.is_rejected, pair.new.is_rejected) for pair in pairs]
    for name, judge, side in (("old", old, 0), ("new", new, 1)):
        count = sum(both[side] for both in rejected)
        table.add_row(f"rejected by {judge.manifest.id} ({name})", f"{count} ({count / max(len(pairs), 1):.1%})")
    table.add_row("rejected by the old one alone", str(rejected.count((True, False))))
    table.add_row("rejected by the new one alone", str(rejected.count((False, True))))
    for name, judge, scores in (
        ("old", old, [pair.old.score for pair in pairs]),
        ("new", new, [pair.new.score for pair in pairs]),
    ):
        spread = " / ".join(f"{value:.3f}" for value in np.percentile(scores, (50, 95, 99))) if scores else ""
        table.add_row(f"scores of the {name} one: p50 / p95 / p99", spread)
        table.add_row("its threshold", f"{judge.manifest.threshold.value:.3f}")
    return table


def draw_changes(pairs: list[Pair], thresholds: tuple[float, float]) -> Picture:
    """uint8 RGB, one row a part: frame, the old model's view, the new one's."""
    rows = []
    for pair in pairs:
        image = pair.record.frame.image
        if image is not None:
            tile = np.asarray(cv2.resize(image, (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA), np.uint8)
            views = [_lay(tile, judged, limit) for judged, limit in zip((pair.old, pair.new), thresholds, strict=True)]
            rows.append(np.hstack([tile, *views]))
    return np.vstack(rows)


def _lay(tile: Picture, judged: Judged, threshold: float) -> Picture:
    heat = np.asarray(cv2.resize(judged.heat, (TILE_PX, TILE_PX)), np.float32)
    strength = np.clip(128 + 64 * (heat - threshold), 0, 255).astype(np.uint8)  # half strength at the threshold
    colours = cv2.cvtColor(cv2.applyColorMap(strength, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    laid = cv2.addWeighted(tile, 1 - HEAT_SHARE, colours, HEAT_SHARE, 0)
    outlines, _ = cv2.findContours((heat >= threshold).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(laid, outlines, -1, CONTOUR_RGB, 1)
    word = f"{judged.score:.2f} {'REJECT' if judged.is_rejected else 'OK'}"
    cv2.putText(laid, word, (6, TILE_PX - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, CONTOUR_RGB, 1, cv2.LINE_AA)
    return np.asarray(laid, np.uint8)


if __name__ == "__main__":
    sys.exit(run_main(main))
