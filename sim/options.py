"""The fake belt's command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from protocol.address import parse_address
from protocol.broker import BrokerSettings
from protocol.commands import FEWEST_TAUGHT_PARTS, MAX_TAUGHT_PARTS
from protocol.errors import InputError
from protocol.strict import FieldError
from sim.camera import CameraSettings
from sim.station import LOOPBACK, ROOT

DEFAULT_RATE_HZ = 5.0
PITCH_MM = (1.0, 100_000.0)  # the least and the greatest
SPEED_MM_S = (1.0, 100_000.0)
MAX_PORT = 65535
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")


FEWEST_DISTINCT = 5  # parts


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="beltsight run",
        description="A fake conveyor belt that brings up the whole inspection line without hardware.",
    )
    add = parser.add_argument
    add(
        "--product", choices=("orange", "bottle"), default="orange", help="what lies on the belt (default: %(default)s)"
    )
    add(
        "--source",
        default="rendered",
        help="'rendered' (default), or a folder of real pictures (MVTec layout, or fresh/rotten)",
    )
    add("--model", help="id of the model package (default: the one for the product)")
    add("--models", type=Path, default=ROOT / "models", help="folder of model packages (default: models)")
    add("--parts", type=int, default=60, help="how many parts go by (default: %(default)s)")
    add("--rate", type=float, help=f"parts a second, of a belt at its speed (default: {DEFAULT_RATE_HZ:g})")
    speed_mm_s = CameraSettings.belt_speed_mm_s  # that of the pictures that models are trained on
    add("--speed", type=float, default=speed_mm_s, help="of the belt in mm/s, as configured (default: %(default)s)")
    add_motion(parser.add_argument_group("the belt's own motion, in real time only"))
    add("--defect-share", type=float, help="share of defective parts (default: 0.2; a replay's own share)")
    add("--seed", type=int, default=1, help="the same seed brings the same parts (default: %(default)s)")
    effects = "the camera's doing: motion blur, noise, exposure, jitter (default: for rendered parts only)"
    add("--effects", action=argparse.BooleanOptionalAction, help=effects)
    add("--lamp-dims", type=float, default=0.0, metavar="SHARE", help="of its light that the lamp loses in 1000 parts")
    add("--lens-slips", type=float, default=0.0, metavar="PX", help="of blur that the lens gains in 1000 parts")
    add("--ages-from", type=int, default=0, metavar="PART", help="part with which both begin (default: the first)")
    add_faults(parser.add_argument_group("a camera that fails"))
    add("--free-running", action="store_true", help="a scrolling view, no light barrier; the board finds the parts")
    add(
        "--fps",
        type=float,
        default=30.0,
        choices=(30.0, 60.0),
        help="of the free-running camera (default: %(default)s)",
    )
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument(
        "--realtime", action="store_true", default=True, help="the belt does not wait for the board (default)"
    )
    pace.add_argument("--as-fast-as-possible", action="store_true", help="the belt waits for the board")
    add("--distinct", type=int, help="draw only so many parts and repeat them")
    add(
        "--engine",
        nargs="+",
        choices=("fpga", "fpga-sim", "arm"),
        default=["arm"],
        help="of the board, in the order in which they are tried; fpga-sim takes a second or more for a part, "
        "so give it a slow belt (default: arm)",
    )
    add(
        "--runtime",
        choices=("auto", "onnxruntime", "opencv"),
        default="auto",
        help="of the board's ARM engine (default: %(default)s)",
    )
    add("--connect", metavar="ENDPOINT", help="feed this board instead of starting one, e.g. tcp://127.0.0.1:5560")
    add(
        "--broker",
        metavar="HOST[:PORT]",
        default=f"{LOOPBACK}:1883",
        help="where that board's verdicts go (default: %(default)s)",
    )
    add(
        "--tap",
        metavar="ENDPOINT",
        default=f"tcp://{LOOPBACK}:5561",
        help="where that board shows its parts (default: %(default)s)",
    )
    add("--mqtt-port", type=int, default=0, help="port of the broker that is started (default: any free one)")
    page = "the operator's page, beside a station that is started here (default of scripts/run)"
    add("--dashboard", action=argparse.BooleanOptionalAction, default=False, help=page)
    add("--dashboard-port", type=int, default=0, help="its port (default: any free one)")
    teach = "the first N parts are good ones and teach the station the model that then judges; nothing passes before"
    add("--teach", type=int, metavar="N", help=teach)
    backbones = "folder with the backbone that `beltsight backbone` makes (default: %(default)s)"
    add("--backbones", type=Path, default=ROOT / "backbones", help=backbones)
    add("--record", action="store_true", help="have the board record every frame and verdict in the run's folder")
    add("--verdicts", type=Path, metavar="FILE.jsonl", help="write every verdict there, one JSON line each")
    add("--report", type=Path, metavar="FILE.json", help="write the summary there")
    add("--picture", type=Path, metavar="FILE.png", help="draw the last parts with their heat-maps there")
    add("--run-folder", type=Path, help="configuration, logs and outbox (default: runs/<time>)")
    options = parser.parse_args()
    check_options(options)
    return options


def add_motion(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    pitch = "random ways from part to part, in place of --rate; below a part's length it is as if parts were smaller"
    add("--pitch-mm", metavar="LOW:HIGH", help=pitch)
    speed = "the belt's true speed is so many times what is configured (default: %(default)g)"
    add("--speed-error", type=float, default=1.0, metavar="FACTOR", help=speed)
    add("--stop-and-go", action="store_true", help="the belt stops at random times")
    encoder = "the belt has an encoder (default: a second light barrier where a part's window at the gate begins)"
    add("--encoder", action="store_true", help=encoder)


def add_faults(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--frozen-after", type=int, metavar="N", help="from frame N on it sends the one before again")
    add("--late-frames", type=float, default=0.0, metavar="SHARE", help="of its frames that leave it 0.1 to 0.8 s late")
    add("--cut-jpeg", type=float, default=0.0, metavar="SHARE", help="of its frames that are JPEG without their end")


def check_options(options: argparse.Namespace) -> None:
    """Raises: InputError for values that make no run."""
    check_motion(options)
    check_faults(options)
    for name, value in {"--parts": options.parts, "--rate": options.rate}.items():
        if not 0 < value < float("inf"):
            raise InputError(f"{name} is {value}: give a number above 0")
    if options.seed < 0:
        raise InputError(f"--seed is {options.seed}: give 0 or more")
    check_speed(options)
    if options.distinct is not None and options.distinct < FEWEST_DISTINCT:
        raise InputError(
            f"--distinct is {options.distinct}: give {FEWEST_DISTINCT} or more, for a board takes fewer "
            "for a frozen camera"
        )
    if options.free_running and options.distinct:
        raise InputError("--distinct repeats single frames: leave it out with --free-running")
    check_ageing(options)
    check_teaching(options)
    check_places(options)
    if options.effects is None:
        options.effects = options.source == "rendered"
    options.broker = parse_broker(options.broker)
    options.model = options.model or find_model(options.models, options.product)


def check_teaching(options: argparse.Namespace) -> None:
    """Raises: InputError."""
    if options.teach is None:
        return
    if not FEWEST_TAUGHT_PARTS <= options.teach <= min(MAX_TAUGHT_PARTS, options.parts - 1):
        most = f"{MAX_TAUGHT_PARTS}, and fewer than --parts"
        raise InputError(f"--teach is {options.teach}: give {FEWEST_TAUGHT_PARTS} to {most}")
    if options.connect or options.free_running or options.source != "rendered":
        raise InputError("--teach is for a station that is started here and rendered parts: leave the other out")
    if options.as_fast_as_possible:
        raise InputError("--teach takes a second or two while the belt goes on: leave out --as-fast-as-possible")
    if not any(options.backbones.glob("*/backbone.json")):
        raise InputError(f"--teach needs a backbone, {options.backbones} has none: make one with `beltsight backbone`")


def check_places(options: argparse.Namespace) -> None:
    """Raises: InputError for ports and files that cannot be."""
    for name, port in (("--mqtt-port", options.mqtt_port), ("--dashboard-port", options.dashboard_port)):
        if not 0 <= port <= MAX_PORT:
            raise InputError(f"{name} is {port}: give 1 to {MAX_PORT}, or 0 for any free one")
    for name, path in (("--report", options.report), ("--verdicts", options.verdicts), ("--picture", options.picture)):
        if path and not path.resolve().parent.is_dir():
            raise InputError(f"{name}: there is no folder {path.parent}: make it first")
    if options.picture and options.picture.suffix.lower() not in PICTURE_SUFFIXES:
        raise InputError(f"--picture {options.picture}: name a file that ends in {' or '.join(PICTURE_SUFFIXES)}")


def check_motion(options: argparse.Namespace) -> None:
    """Raises: InputError."""
    if options.pitch_mm is not None:
        if options.rate is not None:
            raise InputError("--pitch-mm and --rate both say how far apart parts are: leave one out")
        options.pitch_mm = parse_pitch(options.pitch_mm)
    options.rate = DEFAULT_RATE_HZ if options.rate is None else options.rate
    if not 0.01 <= options.speed_error <= 100:
        raise InputError(f"--speed-error is {options.speed_error:g}: give a factor of 0.01 to 100")
    if options.encoder and options.free_running:
        raise InputError("--encoder with --free-running: the view itself shows how the belt moves; leave one out")
    wants_motion = options.pitch_mm or options.speed_error != 1 or options.stop_and_go or options.encoder
    if wants_motion and options.as_fast_as_possible:
        raise InputError("a belt that waits for the board has no motion of its own: leave out --as-fast-as-possible")


def parse_pitch(text: str) -> tuple[float, float]:
    """Raises: InputError."""
    low, _, high = text.partition(":")
    try:
        pitch_mm = (float(low), float(high or low))
    except ValueError:
        pitch_mm = (0.0, 0.0)
    if not PITCH_MM[0] <= pitch_mm[0] <= pitch_mm[1] <= PITCH_MM[1]:
        bounds = f"from {PITCH_MM[0]:g} to {PITCH_MM[1]:g}"
        raise InputError(f"--pitch-mm {text!r:.80}: give LOW:HIGH in mm, such as 20:150, {bounds}")
    return pitch_mm


def check_faults(options: argparse.Namespace) -> None:
    """Raises: InputError."""
    if options.frozen_after is not None and options.frozen_after < 1:
        raise InputError(f"--frozen-after is {options.frozen_after}: give 1 or more")
    for name, share in (("--late-frames", options.late_frames), ("--cut-jpeg", options.cut_jpeg)):
        if not 0 <= share <= 1:
            raise InputError(f"{name} is {share:g}: give a share of 0 to 1")
    if options.late_frames and options.as_fast_as_possible:
        raise InputError("--late-frames needs a belt that does not wait: leave out --as-fast-as-possible")


def find_model(models: Path, product: str) -> str:
    """The first package whose name begins with the product's."""
    named = sorted(path.parent.name for path in models.glob(f"{product}-*/manifest.json"))
    return named[0] if named else f"{product}-128"


def check_speed(options: argparse.Namespace) -> None:
    """Raises: InputError."""
    if not SPEED_MM_S[0] <= options.speed <= SPEED_MM_S[1]:
        raise InputError(f"--speed is {options.speed:g}: give {SPEED_MM_S[0]:g} to {SPEED_MM_S[1]:g} mm/s")
    apart_mm = options.speed / options.rate
    if options.pitch_mm is None and not PITCH_MM[0] <= apart_mm <= PITCH_MM[1]:
        way = f"a part every {apart_mm:g} mm of belt at {options.speed:g} mm/s"
        better = "lower" if apart_mm < PITCH_MM[0] else "higher"
        raise InputError(f"--rate is {options.rate:g}, {way}: give a {better} one")


def check_ageing(options: argparse.Namespace) -> None:
    """Raises: InputError."""
    ageing = {"--lamp-dims": options.lamp_dims, "--lens-slips": options.lens_slips, "--ages-from": options.ages_from}
    for name, value in ageing.items():
        if not 0 <= value < float("inf"):
            raise InputError(f"{name} is {value}: give 0 or more")
    if options.distinct and (options.lamp_dims or options.lens_slips):
        raise InputError("--distinct repeats frames: leave it out with --lamp-dims and --lens-slips")


def parse_broker(text: str) -> BrokerSettings:
    """Raises: InputError."""
    address = parse_address(text, port=1883)
    if address is None or not address[1]:
        raise InputError(f"--broker {text!r:.80}: use HOST or HOST:PORT")
    try:
        return BrokerSettings(*address)
    except FieldError as error:
        raise InputError(f"--broker {text!r:.80}: {error}") from None
