"""A model package: one folder under `models/` whose `manifest.json` says how to use the other files.

The manifest is the contract between host and board: how a frame becomes the network's image, what the integers of the
anomaly map mean, where the threshold lies. Every file beside it is named with its SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from protocol.arrays import load_arrays
from protocol.errors import ManifestError
from protocol.fitness import Fitness
from protocol.known_bad import CHALLENGE_BIN, MAX_CHALLENGE_FRAMES, decode_known_bad
from protocol.onnx_weights import weights_fault
from protocol.signing import TrustedKeys
from protocol.strict import FieldError, build, require

FORMAT = 1
MANIFEST = "manifest.json"
MODEL_ONNX = "model.onnx"  # int8 image in, int8 map out, as QDQ: the integer truth
CARRIED_ONNX = "carried.onnx"  # the same integers carried in float32, for runtimes without quantized kernels
GOLDEN_NPZ = "golden.npz"  # frames, images, maps: what every engine must reproduce bit for bit
CALIBRATION_JPG = "calibration.jpg"  # what good parts looked like, for a person to compare with
FAIR_SHARE = 0.5  # a model that finds fewer of its own known-bad parts is used with a warning
MAX_MANIFEST_BYTES = 1 << 20
MAX_SIDE_PX = 8192
MOST_ENLARGED = 4  # times: more shows nothing that is not there
MAX_IGNORED = 4096  # numbers
MAX_STATISTIC = 1e9  # far above any that a picture has, and far below where sums of squares overflow


@dataclass(frozen=True)
class Preprocess:
    """From a frame to the network's image (`board.preprocess` is the one implementation)."""

    frame_px: tuple[int, int]  # (height, width) of the frames this model was trained on; others are refused
    crop_px: tuple[int, int, int, int]  # (top, left, height, width) inside the frame
    input_px: tuple[int, int]  # (height, width) of the network's image, RGB
    # What follows came later; without it frames have one size, and of 16-bit pictures the highest 8 bits are taken.
    depth_bits: int = 16  # in use of 16-bit pictures
    fit: Literal["exact", "pad", "scale"] = (
        "exact"  # of frames of other sizes: none; edges repeated; scaled, then edges
    )
    sides_px: tuple[int, int, int, int] | None = None  # least and most (height, height, width, width) that are fitted
    ignored: tuple[int, ...] = ()  # first pixel and count, first and count, … of the network's image: not looked at

    def __post_init__(self) -> None:
        for key, sides in (("frame_px", self.frame_px), ("input_px", self.input_px)):
            require(all(1 <= side <= MAX_SIDE_PX for side in sides), key, f"sides must be 1..{MAX_SIDE_PX}")
        top, left, height, width = self.crop_px
        inside = min(top, left) >= 0 and top + height <= self.frame_px[0] and left + width <= self.frame_px[1]
        require(inside and min(height, width) >= 1, "crop_px", f"must lie inside the frame {self.frame_px}")
        enough = MOST_ENLARGED * height >= self.input_px[0] and MOST_ENLARGED * width >= self.input_px[1]
        require(enough, "input_px", f"must not be more than {MOST_ENLARGED} times the crop")
        require(8 <= self.depth_bits <= 16, "depth_bits", "must be 8..16")
        require((self.fit == "exact") == (self.sides_px is None), "sides_px", "must be there where frames are fitted")
        if self.sides_px:
            low, high = self.sides_px[0::2], self.sides_px[1::2]
            sound = all(1 <= least <= most <= MAX_SIDE_PX for least, most in zip(low, high, strict=True))
            require(sound, "sides_px", f"must be least and most of each side, 1..{MAX_SIDE_PX}")
        require(
            len(self.ignored) <= MAX_IGNORED and len(self.ignored) % 2 == 0, "ignored", "must be pairs, not too many"
        )
        pixels, at = self.input_px[0] * self.input_px[1], 0
        for first, count in zip(self.ignored[0::2], self.ignored[1::2], strict=True):
            require(first >= at and count >= 1 and first + count <= pixels, "ignored", "must rise inside the image")
            at = first + count

    def takes(self, size_px: tuple[int, ...]) -> bool:
        """Whether frames of (height, width) can be inspected."""
        if size_px == self.frame_px or self.sides_px is None or len(size_px) != 2:
            return size_px == self.frame_px
        least_height, most_height, least_width, most_width = self.sides_px
        return least_height <= size_px[0] <= most_height and least_width <= size_px[1] <= most_width


@dataclass(frozen=True)
class AnomalyMap:
    """Meaning of the network's int8 output: anomaly = integer × scale."""

    shape: tuple[int, int]  # (height, width)
    scale: float  # a power of two
    top_pixels: int  # the score is the mean of this many highest pixels: a maximum that one pixel cannot set alone

    def __post_init__(self) -> None:
        require(self.scale > 0 and np.frexp(self.scale)[0] == 0.5, "scale", "must be a power of two")
        require(2.0**-64 <= self.scale <= 2.0**64, "scale", "must be 2^-64..2^64, so that every score is finite")
        require(1 <= self.top_pixels <= self.shape[0] * self.shape[1], "top_pixels", "must be 1..pixels of the map")

    @property
    def lowest(self) -> float:
        """Of all scores that there can be. Exact, as is `highest`: an int8 times a power of two."""
        return -128 * self.scale

    @property
    def highest(self) -> float:
        return 127 * self.scale

    def threshold_fault(self, value: float) -> str:
        """Why no line may judge by it; empty when it may: a score at the threshold is rejected, one below it is not."""
        if self.lowest < value <= self.highest:
            return ""
        what = "every part" if value <= self.lowest else "no part, however bad,"  # also where it is no number
        bounds = f"must be above {self.lowest} and at most {self.highest}, the scores that this model can give"
        return f"{bounds}: at {value} {what} would be rejected"


@dataclass(frozen=True)
class Threshold:
    """A part is rejected when its score is at or above `value`."""

    value: float
    method: str  # how it was set, e.g. "target false-reject rate 0.01 on 42 held-out good pictures"


@dataclass(frozen=True)
class Distribution:
    """One statistic over the calibration's pictures."""

    mean: float
    deviation: float  # standard deviation, with n − 1
    quantiles: tuple[float, float, float]  # 5 %, 50 %, 95 %

    def __post_init__(self) -> None:
        require(self.deviation >= 0, "deviation", "must be 0 or more")
        require(max(map(abs, (self.mean, self.deviation, *self.quantiles))) <= MAX_STATISTIC, "", "is out of range")
        low, middle, high = self.quantiles
        require(low <= middle <= high, "quantiles", "must not fall")


@dataclass(frozen=True)
class Calibration:
    """How held-out good pictures look to the board, and score: those that the model accepts, as does the line."""

    pictures: int
    statistics: dict[str, Distribution]  # "score" and those of `board.drift.picture_statistics`

    def __post_init__(self) -> None:
        require(self.pictures >= 2, "pictures", "must be 2 or more: one picture has no deviation")


@dataclass(frozen=True)
class Challenge:
    """Frames of known-bad parts in the package, which must be rejected whenever the line is asked to."""

    frames: int
    goods: int  # of so many good frames they were made
    kinds: dict[str, int]  # kind of defect -> frames; the file has them in this order
    found: int  # of the frames, by the exported integers at the package's own threshold
    least_share: float  # of the frames that a station must find: the package's own share

    def __post_init__(self) -> None:
        require(1 <= self.frames <= MAX_CHALLENGE_FRAMES, "frames", f"must be 1..{MAX_CHALLENGE_FRAMES}")
        require(1 <= self.goods <= self.frames, "goods", "must be 1..frames")
        each = self.kinds.values()
        require(min(each, default=0) >= 1 and sum(each) == self.frames, "kinds", "must add up to frames")
        require(0 <= self.found <= self.frames, "found", "must be 0..frames")
        require(0 <= self.least_share <= self.found / self.frames, "least_share", "must be 0..found / frames")

    def fewest(self, least_share: float | None = None) -> int:
        """How many frames must be found. A model that finds none of them proves nothing, whatever its share."""
        share = self.least_share if least_share is None else least_share
        return max(1, math.ceil(share * self.frames - 1e-9))


@dataclass(frozen=True)
class Manifest:
    format: int
    id: str
    product: str
    preprocess: Preprocess
    map: AnomalyMap
    threshold: Threshold
    files: dict[str, str]  # name -> SHA-256 in hexadecimal
    cost: dict[str, float] = field(default_factory=dict)  # macs, parameters, weight_bytes
    figures: dict[str, float] = field(default_factory=dict)  # measured on the exported integers
    provenance: dict[str, str] = field(default_factory=dict)  # seed, commit, command, data
    calibration: Calibration | None = None  # None: made before there was one, or too few held-out pictures
    challenge: Challenge | None = None  # None: made before there was one
    fitness: Fitness | None = None  # None: not judged

    def __post_init__(self) -> None:
        plain = self.id.replace("-", "").replace("_", "").replace(".", "").isalnum() and self.id[0] != "."
        require(plain, "id", "must be letters, digits, '-', '_' and '.'")
        for name in self.files:
            is_plain = name == Path(name).name and name not in ("", "..", MANIFEST)
            # subtle: neither control characters nor halves of surrogate pairs, which no file system takes
            require(is_plain and name.isprintable() and len(name.encode()) <= 255, "files", f"{name!r} is no file name")
        fault = self.map.threshold_fault(self.threshold.value)
        require(not fault, "threshold.value", fault)

    @property
    def calibrated_score(self) -> Distribution | None:
        """How the model scored good parts."""
        return self.calibration.statistics.get("score") if self.calibration else None

    @property
    def calibrated_brightness(self) -> Distribution | None:
        """How light the network's images of good parts were, in levels."""
        return self.calibration.statistics.get("brightness") if self.calibration else None


@dataclass(frozen=True)
class Golden:
    """What the model must answer: `frames` uint8 (n, H, W, 3), `images` uint8 (n, h, w, 3), `maps` int8 (n, h', w')."""

    frames: NDArray[np.uint8]
    images: NDArray[np.uint8]
    maps: NDArray[np.int8]


@dataclass(frozen=True)
class Package:
    """A model folder whose files were checked against the manifest."""

    folder: Path
    manifest: Manifest
    sha256: str = ""  # of the manifest, which names all files: two packages with the same are the same
    signed_by: str = ""  # name of the trusted key, empty where signatures are not asked for

    def path(self, name: str) -> Path:
        """Path of a file of the package. Raises: ManifestError if the package has none of that name."""
        if name not in self.manifest.files:
            raise ManifestError(f"{self.folder} has no {name}: export the model again with scripts/export.sh")
        return self.folder / name

    def load_golden(self) -> Golden:
        """Raises: ManifestError if the vectors do not fit the manifest: what tests the engines must be sound itself."""
        path = self.path(GOLDEN_NPZ)
        try:
            with path.open("rb") as file:
                arrays = load_arrays(file, ("frames", "images", "maps"))
        except (OSError, ValueError) as error:
            raise ManifestError(f"{path} cannot be read ({error}): export the model again") from None
        golden = Golden(**arrays)
        how = self.manifest.preprocess
        count = golden.maps.shape[0] if golden.maps.ndim else 0
        shapes = [(count, *how.frame_px, 3), (count, *how.input_px, 3), (count, *self.manifest.map.shape)]
        found = (golden.frames, golden.images, golden.maps)
        dtypes = [np.dtype(np.uint8), np.dtype(np.uint8), np.dtype(np.int8)]
        if count == 0 or [each.shape for each in found] != shapes or [each.dtype for each in found] != dtypes:
            raise ManifestError(f"{path} does not fit the manifest: export the model again")
        return golden

    def load_known_bad(self) -> Iterator[NDArray[np.uint8]]:
        """The frames of known-bad parts, uint8 (H, W, 3), one at a time; none where the package carries none.

        Raises: ManifestError if they do not fit the manifest.
        """
        challenge = self.manifest.challenge
        if challenge is None:
            return iter(())
        path = self.path(CHALLENGE_BIN)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ManifestError(f"{path} cannot be read ({error.strerror}): copy the model folder again") from None
        return decode_known_bad(data, challenge.goods, challenge.frames, self.manifest.preprocess.frame_px)


def encode_manifest(manifest: Manifest) -> bytes:
    return (json.dumps(asdict(manifest), indent=2) + "\n").encode()


def decode_manifest(data: bytes) -> Manifest:
    """Raises: ManifestError for anything that is not a manifest of this format version."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise ManifestError(f"manifest of {len(data)} bytes is too large: export the model again")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"manifest is not JSON ({error}): export the model again") from None
    version = content.get("format") if isinstance(content, dict) else None
    if version != FORMAT:
        raise ManifestError(f"manifest format {version!r:.40}, this program reads {FORMAT}: export the model again")
    try:
        return build(Manifest, content)
    except FieldError as error:
        raise ManifestError(f"manifest: {error}: export the model again") from None


def load_package(folder: Path, trusted: TrustedKeys | None = None) -> Package:
    """Read a model folder and check every file against its SHA-256; with `trusted`, also who signed the manifest.

    Raises: ManifestError naming the file and what to do.
    """
    if not (folder / MANIFEST).is_file():
        raise ManifestError(f"no model at {folder}: make one with scripts/export.sh, or correct `model`")
    data = (folder / MANIFEST).read_bytes()
    signed_by = trusted.require_signed(folder, data) if trusted else ""
    try:
        manifest = decode_manifest(data)
    except ManifestError as error:
        raise ManifestError(f"{folder / MANIFEST}: {error}") from None
    if trusted and manifest.id != folder.name:  # another model, signed for another line, is not this one
        raise ManifestError(f"{folder} holds the signed model {manifest.id}: rename the folder, or correct `model`")
    for name, digest in manifest.files.items():
        if not (folder / name).is_file():
            raise ManifestError(f"{folder / name} is missing: copy the whole model folder again")
        require_as_exported(folder / name, (folder / name).read_bytes(), digest)
    return Package(folder, manifest, hashlib.sha256(data).hexdigest(), signed_by)


def require_as_exported(path: Path, content: bytes, digest: str | None) -> None:
    """Raises: ManifestError for other content than was exported, or a network that is not all in its file."""
    if hashlib.sha256(content).hexdigest() != digest:
        raise ManifestError(f"{path} is not the file that was exported: copy the model folder again")
    fault = weights_fault(content) if path.suffix == ".onnx" else ""
    if fault:
        raise ManifestError(f"{path} {fault}")


def file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
