"""Photograph rendered parts into a folder of MVTec's layout: pictures to train and test a model with.

    beltsight photograph --product orange --parts 100 --seed 7 --defect-share 0 --out pictures

A defect share of 0 fills train/good; any other fills test/<kind> and ground_truth/<kind>/*_mask.png.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

from protocol.errors import InputError, run_main
from sim.camera import Camera, CameraSettings, Shot
from sim.parts import DEFECTS, open_parts


def main() -> int:
    options = _parse()
    if options.parts < 1:
        raise InputError(f"{options.parts} parts are none: give at least 1")
    if options.seed < 0:
        raise InputError(f"--seed is {options.seed}: give 0 or more")
    parts = open_parts(options.product, "rendered", options.seed, options.defect_share)
    camera = Camera(CameraSettings(), options.seed)
    for number in range(options.parts):
        part = parts.part(number)
        kind = part.defect or "good"
        folder = Path("test" if options.defect_share else "train") / kind
        _store(camera.shoot(part), options.out, folder, f"{options.seed:06d}_{number:05d}", part.defect)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="beltsight photograph", description="Photograph rendered parts.")
    parser.add_argument("--product", required=True, choices=sorted(DEFECTS))
    parser.add_argument("--parts", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True, help="draws the parts, the belt and the camera's noise")
    parser.add_argument("--defect-share", type=float, default=0.0, help="0 for training pictures")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def _store(shot: Shot, out: Path, folder: Path, name: str, defect: str) -> None:
    _write(out / folder / f"{name}.png", cv2.cvtColor(shot.image, cv2.COLOR_RGB2BGR))
    if defect:
        _write(out / "ground_truth" / defect / f"{name}_mask.png", shot.mask.astype(np.uint8) * 255)


def _write(path: Path, picture: cv2.typing.MatLike) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): choose another --out") from None


if __name__ == "__main__":
    sys.exit(run_main(main))
