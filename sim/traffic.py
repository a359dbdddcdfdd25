"""What goes over the belt in one run: parts, their places, what the camera sees of them, and the truth about them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace

from protocol.errors import InputError
from protocol.manifest import Manifest
from protocol.messages import Verdict
from sim.camera import Camera, CameraSettings
from sim.drawing import Exposure, mark, repeat
from sim.feed import Journey
from sim.motion import BeltMotion, Stop, draw_stops, lay_parts
from sim.parts import Part, Parts, open_parts
from sim.scene import Scene
from sim.score import find_parts
from sim.sensors import Sensors


@dataclass(frozen=True)
class Traffic:
    """What goes over the belt, and the truth about it."""

    journey: Journey
    parts: int
    truth: Callable[[], dict[int, str]]  # of the parts drawn so far: their defects, '' for good
    match: Callable[[list[Verdict]], list[Verdict]]  # verdicts under the belt's own part numbers


@dataclass(frozen=True)
class GateSite:
    """Where the gate is, from the light barrier or the middle of the view."""

    distance_mm: float
    window_mm: float = 80.0  # length of belt, centred on a part, for which the gate may be open for it

    @property
    def begins_mm(self) -> float:
        """Where a part's window begins, and the second barrier stands."""
        return self.distance_mm - self.window_mm / 2


class RememberedParts:
    """Parts that note what they were when they were drawn."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.defects: dict[int, str] = {}

    def part(self, number: int) -> Part:
        part = self._parts.part(number)
        self.defects[number] = part.defect
        return part


def plan_traffic(options: argparse.Namespace, manifest: Manifest, gate: GateSite) -> Traffic:
    parts = RememberedParts(_open_parts(options, manifest))
    if options.free_running:
        return plan_free_running(options, parts, gate)
    return plan_triggered(options, manifest, parts, gate)


def _open_parts(options: argparse.Namespace, manifest: Manifest) -> Parts:
    depth_bits = manifest.preprocess.depth_bits
    parts = open_parts(options.product, options.source, options.seed, options.defect_share, depth_bits)
    if options.teach is None:
        return parts
    return GoodAtFirst(open_parts(options.product, options.source, options.seed, 0.0, depth_bits), options.teach, parts)


@dataclass(frozen=True)
class GoodAtFirst:
    """Good parts that teach, then others."""

    good: Parts
    count: int
    others: Parts

    def part(self, number: int) -> Part:
        return (self.good if number < self.count else self.others).part(number)


def plan_triggered(options: argparse.Namespace, manifest: Manifest, parts: RememberedParts, gate: GateSite) -> Traffic:
    camera = Camera(choose_camera(options), options.seed)
    centres_mm = lay_parts(options.parts, pitch_mm(options), options.seed)

    def expose(number: int) -> Exposure:
        return Exposure(number, camera.shoot(parts.part(number)).image, {"belt_mm": round(centres_mm[number], 1)})

    check_frame_size(expose(0), manifest)
    sensors = None
    if not options.as_fast_as_possible:
        motion = BeltMotion(true_speed_mm_s(options), choose_stops(options, centres_mm[-1] + gate.distance_mm))
        second_mm = None if options.encoder else gate.begins_mm
        sensors = Sensors(motion, centres_mm, second_mm, gate.distance_mm, has_encoder=options.encoder)
    distinct = options.distinct or options.parts

    def truth() -> dict[int, str]:
        drawn = dict(parts.defects)
        return {number: drawn[number % distinct] for number in range(options.parts) if number % distinct in drawn}

    exposures_s = sensors.exposures_s if sensors else lambda: iter(())
    again = repeat(expose, options.distinct)

    def draw(number: int) -> Exposure:
        return mark(again(number), distinct)

    journey = Journey(draw, options.parts, sensors, exposures_s)
    return Traffic(journey, options.parts, truth, match=list)


def plan_free_running(options: argparse.Namespace, parts: RememberedParts, gate: GateSite) -> Traffic:
    nearest_mm, farthest_mm = pitch_mm(options)
    scene = Scene(
        parts,
        choose_camera(options),
        belt_speed_mm_s=true_speed_mm_s(options),
        spacing_mm=nearest_mm,
        farthest_mm=farthest_mm,
        stops=choose_stops(options, options.parts * farthest_mm + gate.distance_mm),
        count=options.parts,
        seed=options.seed,
        fps=options.fps,
    )
    sensors = None
    if not options.as_fast_as_possible:
        sensors = Sensors(scene.motion, scene.middles_mm(), None, gate.distance_mm, has_encoder=False)
    frames = max(scene.n_frames, int(sensors.ends_s * options.fps) if sensors else 0)

    def match(verdicts: list[Verdict]) -> list[Verdict]:
        return find_parts(verdicts, {index: scene.visible(index) for index in range(frames)})

    journey = Journey(
        lambda index: Exposure(index, scene.frame(index), {}),
        frames,
        sensors,
        lambda: (index / options.fps for index in range(frames)),
    )
    return Traffic(journey, options.parts, lambda: dict(parts.defects), match)


def pitch_mm(options: argparse.Namespace) -> tuple[float, float]:
    """The least and the greatest way from part to part. The rate is that of a belt at its configured speed."""
    if options.pitch_mm:
        nearest_mm, farthest_mm = options.pitch_mm
        return nearest_mm, farthest_mm
    return options.speed / options.rate, options.speed / options.rate


def true_speed_mm_s(options: argparse.Namespace) -> float:
    return float(options.speed * options.speed_error)


def choose_stops(options: argparse.Namespace, way_mm: float) -> list[Stop]:
    return draw_stops(true_speed_mm_s(options), way_mm, options.seed) if options.stop_and_go else []


def choose_camera(options: argparse.Namespace) -> CameraSettings:
    """A rendered part needs the camera's frame size around it; a replayed picture is a frame already."""
    is_rendered = options.source == "rendered"
    settings = CameraSettings(belt_speed_mm_s=true_speed_mm_s(options)) if options.effects else CameraSettings.off()
    ageing = replace(
        settings, lamp_dims=options.lamp_dims, lens_slips_px=options.lens_slips, ages_from=options.ages_from
    )
    return replace(ageing, frame_px=CameraSettings().frame_px if is_rendered else None)


def check_frame_size(exposure: Exposure, manifest: Manifest) -> None:
    """Raises: InputError if the model was made for frames of another size."""
    height, width = exposure.image.shape[:2]
    if not manifest.preprocess.takes((height, width)):
        wanted = manifest.preprocess.frame_px
        raise InputError(
            f"the pictures are {width}x{height}, model {manifest.id} expects {wanted[1]}x{wanted[0]}: "
            "export a model from such pictures with scripts/export.sh and name it with --model"
        )
