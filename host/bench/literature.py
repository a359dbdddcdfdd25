"""The full tables of host/bench/measured: hours. Interrupted, the same command goes on.

    beltsight bench literature DATA --out bench

DATA holds mvtec-bottle, orange-web, mnist.npz, cifar10-subset.npz and weights; what is not there is left out.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from protocol.errors import InputError, run_resumable

PICTURES = (
    ("--detectors", "padim*,patchcore*,lof,cblof,xg*,catboost"),
    ("--detectors", "ganomaly,patch-*,pg-*,tl-*,ae-*,ssl-*,alexnet-*"),
    ("--detectors", "anomalib-p*,anomalib-d*,anomalib-s*,anomalib-f*"),
    ("--detectors", "anomalib-cflow*", "--set", "epochs=5"),
)
CONTAMINATED = ("--detectors", "ae-mlp-mse", "--contamination", "1,5,10,25,50,100")
RUNS = (
    *(("mvtec-bottle", run) for run in PICTURES),
    *(("orange-web", run) for run in PICTURES),
    ("mvtec-bottle", ("--detectors", "padim,patchcore", "--ablate")),
    ("mnist.npz", ("--detectors", "ae-*", "--set", "epochs=20")),
    ("mnist.npz", ("--detectors", "ganomaly", "--class-is", "anomalous", "--set", "epochs=3", "--follow", "12")),
    ("mnist.npz", (*CONTAMINATED, "--set", "epochs=20")),
    ("cifar10-subset.npz", ("--detectors", "ae-*")),
    ("cifar10-subset.npz", CONTAMINATED),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="beltsight bench literature", description="The full tables: hours.")
    parser.add_argument("data", type=Path, help="folder of the sets, and of weights")
    parser.add_argument("--out", type=Path, default=Path("bench"), help="(default: %(default)s)")
    options = parser.parse_args()
    if not options.data.is_dir():
        raise InputError(f"no folder {options.data}: name the one that holds the sets")
    for name, words in RUNS:
        if not (options.data / name).exists():
            print(f"no {options.data / name}: left out", file=sys.stderr)
        elif code := compare(options.data, name, options.out, words):
            return code
    return 0


def compare(data: Path, name: str, out: Path, words: tuple[str, ...]) -> int:
    """In a process of its own, which gives its memory back. The exit code."""
    weights = ("--weights", str(data / "weights")) if (data / "weights").is_dir() else ()
    where = ("--data", str(data / name), "--out", str(out / name.removesuffix(".npz")))
    return subprocess.call([sys.executable, "-m", "host.bench", "--no-galleries", *where, *weights, *words])  # noqa: S603


if __name__ == "__main__":
    sys.exit(run_resumable(main))
