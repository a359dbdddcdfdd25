"""The detectors of the literature, side by side on your own pictures.

    beltsight bench detectors --data mvtec-bottle --detectors all --weights weights
    beltsight bench detectors --data mnist.npz --detectors ganomaly --class-is anomalous --seeds 0,1,2
    beltsight bench detectors --data rendered:orange --detectors padim,patchcore --weights weights

Interrupted, the same command goes on. The report is OUT/report.md and OUT/report.html.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import torch
from rich.progress import Progress, TaskID

from host.bench.cost import share_libraries
from host.bench.problems import OneClass, list_tasks
from host.bench.report import REPORT_MD, write_report
from host.bench.rows import append_row, load_rows
from host.bench.runner import Plan, list_variants, prepare_row, run_row
from host.bench.table import find_entries, list_entries, make
from host.bench.weights import Weights
from host.export.order import parse_seeds, source_commit
from host.progress import open_progress
from protocol.errors import InputError, run_resumable

TINY_PICTURES = 24
MOST_FOLLOWED = 1000


def main() -> int:
    options = parse_options(sys.argv[1:])
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        run_bench(options)
    except OSError as error:
        raise InputError(f"{error.filename or options.out}: {error.strerror or error}: choose another --out") from None
    print(f"report: {options.out / REPORT_MD}")
    return 0


def parse_options(words: list[str]) -> argparse.Namespace:
    """Raises: InputError for an option that cannot be used."""
    parser = argparse.ArgumentParser(
        prog="beltsight bench detectors", description="Compare detectors on your pictures."
    )
    add = parser.add_argument
    add("--data", action="append", help="folder of pictures, .npz of a labelled set, or rendered[:PRODUCT]; repeatable")
    add("--detectors", default="all", help="names, with commas; ae-* is all that begin so (default: all)")
    add("--weights", type=Path, help="folder of pretrained weights; nothing is downloaded")
    add("--seeds", default="0", help="as 0,1,2 (default: 0)")
    add("--classes", default="0,1,2,3,4,5,6,7,8,9", help="of a labelled set, each against the rest (default: 0 to 9)")
    add("--class-is", choices=("normal", "anomalous"), default="normal", help="the class's part (default: normal)")
    add("--contamination", default="0", help="per cent of the training set that is anomalous, as 0,5,10 (default: 0)")
    add("--pictures", type=int, help="at most as many for training, and for the test (default: all)")
    add("--tiny", action="store_true", help="a trial of seconds a detector: its figures say nothing")
    add("--ablate", action="store_true", help="each detector also with other settings, and with flipped pictures")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of all chosen detectors")
    add("--follow", type=int, default=0, help="also measure AUROC so often while GANomaly or an autoencoder trains")
    add("--out", type=Path, default=Path("bench"), help="folder of rows and report (default: bench)")
    add("--no-galleries", action="store_true", help="leave out heat-maps: for pictures that must not be passed on")
    add("--list", action="store_true", help="name the detectors and go")
    options = parser.parse_args(words)
    if options.list:
        print("\n".join(entry.name for entry in list_entries()))
        raise SystemExit(0)
    if not options.data:
        raise InputError("no --data: give a folder of pictures, an .npz of a labelled set, or 'rendered'")
    if options.weights is not None and not options.weights.is_dir():
        raise InputError(f"no folder {options.weights}: correct --weights")
    if options.pictures is not None and options.pictures < 8:
        raise InputError(f"--pictures {options.pictures}: at least 8 are needed")
    if not 0 <= options.follow <= MOST_FOLLOWED:
        raise InputError(f"--follow {options.follow}: give 0 to {MOST_FOLLOWED}")
    return options


def run_bench(options: argparse.Namespace) -> None:
    """Raises: InputError for data or settings that cannot be used."""
    entries, seeds = find_entries(options.detectors), parse_seeds(options.seeds)
    classes = OneClass(_parse_classes(options.classes), options.class_is, _parse_shares(options.contamination))
    most = min(options.pictures or TINY_PICTURES, TINY_PICTURES) if options.tiny else options.pictures
    settings = parse_settings(options.set)
    plan = Plan(Weights(options.weights), options.out, source_commit(), options.tiny, settings, options.follow)
    for entry in entries:
        make(entry, plan.settings)  # a setting that is not there is told at once
    tasks = [task for data in options.data for task in list_tasks(data, classes, most, options.out / "drawn")]
    rows = load_rows(options.out)
    wanted = [
        (task, entry, seed, variant)
        for task in tasks
        for entry in entries
        for seed in seeds
        for variant in list_variants(entry, options.ablate)
    ]
    share_libraries(entry.module for entry in entries)
    with open_progress() as progress:
        for task, entry, seed, variant in progress.track(wanted, description="rows"):
            row, made, problem = prepare_row(entry, task, seed, variant, plan)
            known = rows.get(row.key)
            if known is None or known.skipped:
                shown = progress.add_task(f"{entry.name} {task.name} {variant.name}", total=1.0)
                rows[row.key] = run_row(row, made, problem, plan, partial(_show, progress, shown))
                append_row(options.out, rows[row.key])
                write_report(options.out, rows.values(), galleries=not options.no_galleries)
                progress.remove_task(shown)
    write_report(options.out, rows.values(), galleries=not options.no_galleries)


def _show(progress: Progress, shown: TaskID, share: float) -> None:
    progress.update(shown, completed=share)


def parse_settings(words: list[str]) -> Mapping[str, Any]:
    """Of "epochs=3": numbers are numbers. Raises: InputError."""
    settings: dict[str, Any] = {}
    for word in words:
        name, separator, text = word.partition("=")
        if not separator or not name or not text:
            raise InputError(f"--set {word}: write NAME=VALUE")
        settings[name] = _parse_value(text)
    return settings


def _parse_value(text: str) -> bool | float | int | str:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _parse_classes(text: str) -> tuple[int, ...]:
    words = text.split(",")
    if not all(word.isdecimal() for word in words):
        raise InputError(f"--classes {text}: give numbers with commas")
    return tuple(dict.fromkeys(map(int, words)))


def _parse_shares(text: str) -> tuple[float, ...]:
    words = text.split(",")
    if not all(word.isdecimal() and int(word) <= 100 for word in words):
        raise InputError(f"--contamination {text}: give per cent of 0..100 with commas")
    return tuple(int(word) / 100 for word in words)


if __name__ == "__main__":
    sys.exit(run_resumable(main))
