"""What goes over the belt in one run: exposures at a pace, and the truth about them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from protocol.errors import InputError
from protocol.manifest import Manifest
from protocol.messages import Verdict
from sim.camera import Camera, CameraSettings
from sim.feed import Exposure, repeat
from sim.parts import Part, Parts, open_parts
from sim.scene import Scene
from sim.score import find_parts


@dataclass(frozen=True)
class Traffic:
    """What goes over the belt, and the truth about it."""

    exposures: Iterator[Exposure]
    frames: int
    parts: int
    rate_hz: float | None
    truth: Callable[[], dict[int, str]]  # of the parts drawn so far: their defects, '' for good
    match: Callable[[list[Verdict]], list[Verdict]]  # verdicts under the belt's own part numbers


class RememberedParts:
    """Parts that note what they were when they were drawn."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.defects: dict[int, str] = {}

    def part(self, number: int) -> Part:
        part = self._parts.part(number)
        self.defects[number] = part.defect
        return part


def plan_traffic(options: argparse.Namespace, manifest: Manifest) -> Traffic:
    parts = RememberedParts(open_parts(options.product, options.source, options.seed, options.defect_share))
    if options.free_running:
        return plan_free_running(options, parts)
    return plan_triggered(options, manifest, parts)


def plan_triggered(options: argparse.Namespace, manifest: Manifest, parts: RememberedParts) -> Traffic:
    camera = Camera(choose_camera(options), options.seed)
    spacing_mm = options.speed / options.rate

    def expose(number: int) -> Exposure:
        return Exposure(number, camera.shoot(parts.part(number)).image, {"belt_mm": round(number * spacing_mm, 1)})

    check_frame_size(expose(0), manifest)
    rate_hz = None if options.as_fast_as_possible else options.rate
    distinct = options.distinct or options.parts

    def truth() -> dict[int, str]:
        drawn = parts.defects
        return {number: drawn[number % distinct] for number in range(options.parts) if number % distinct in drawn}

    return Traffic(repeat(expose, options.distinct), options.parts, options.parts, rate_hz, truth, match=list)


def choose_camera(options: argparse.Namespace) -> CameraSettings:
    """A rendered part needs the camera's frame size around it; a replayed picture is a frame already."""
    is_rendered = options.source == "rendered"
    settings = CameraSettings(belt_speed_mm_s=options.speed) if options.effects else CameraSettings.off()
    ageing = replace(
        settings, lamp_dims=options.lamp_dims, lens_slips_px=options.lens_slips, ages_from=options.ages_from
    )
    return replace(ageing, frame_px=CameraSettings().frame_px if is_rendered else None)


def plan_free_running(options: argparse.Namespace, parts: RememberedParts) -> Traffic:
    scene = Scene(
        parts,
        choose_camera(options),
        belt_speed_mm_s=options.speed,
        spacing_mm=options.speed / options.rate,
        count=options.parts,
        seed=options.seed,
        fps=options.fps,
    )

    def match(verdicts: list[Verdict]) -> list[Verdict]:
        return find_parts(verdicts, {index: scene.visible(index) for index in range(scene.n_frames)})

    exposures = (Exposure(index, scene.frame(index), {}) for index in range(scene.n_frames))
    rate_hz = None if options.as_fast_as_possible else options.fps
    return Traffic(exposures, scene.n_frames, options.parts, rate_hz, lambda: parts.defects, match)


def check_frame_size(exposure: Exposure, manifest: Manifest) -> None:
    """Raises: InputError if the model was made for frames of another size."""
    height, width = exposure.image.shape[:2]
    if (height, width) != manifest.preprocess.frame_px:
        wanted = manifest.preprocess.frame_px
        raise InputError(
            f"the pictures are {width}x{height}, model {manifest.id} expects {wanted[1]}x{wanted[0]}: "
            "export a model from such pictures with scripts/export.sh and name it with --model"
        )
