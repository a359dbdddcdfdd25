"""`bank.npz`: what was taught on a backbone, without the backbone. A package that has it carries no network."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from board.teaching.bank import BANK_PATCHES, Bank, Detector
from board.teaching.whitening import Whitening
from protocol.arrays import load_arrays
from protocol.errors import ManifestError

BANK_NPZ = "bank.npz"
MAX_BANK_BYTES = 1 << 22
MAX_CHANNELS = 1024
DIGEST_BYTES = 32


def encode_bank(detector: Detector, backbone_sha256: str) -> bytes:
    file, white = io.BytesIO(), detector.bank.white
    np.savez_compressed(
        file,
        backbone=np.frombuffer(bytes.fromhex(backbone_sha256), np.uint8),
        weights=white.weights,
        weight_exponents=white.weight_exponents,
        bias=white.bias,
        feature_exponent=np.array(white.feature_exponent, np.int32),
        patches=detector.bank.patches,
        farthest=np.array(detector.farthest, np.float64),
    )
    return file.getvalue()


_ARRAYS = ("weights", "weight_exponents", "bias", "feature_exponent", "patches", "farthest", "backbone")


def load_bank(path: Path) -> tuple[Detector, str]:
    """With the SHA-256 of the backbone's manifest. Raises: ManifestError for anything that is no bank."""
    trouble = "it is not what `beltsight teach` writes"
    try:
        if path.stat().st_size > MAX_BANK_BYTES:
            raise ManifestError(f"{path} is too large for a bank: teach again")
        with path.open("rb") as file:
            arrays = load_arrays(file, _ARRAYS)
        white = Whitening(
            arrays["weights"], arrays["weight_exponents"], arrays["bias"], int(arrays["feature_exponent"])
        )
        detector = Detector(Bank(white, arrays["patches"]), float(arrays["farthest"]))
        sha256 = arrays["backbone"]
    except (OSError, ValueError, TypeError, OverflowError) as error:
        raise ManifestError(f"{path} cannot be read ({error!s:.80}): teach again") from None
    if not _is_sound(detector) or sha256.dtype != np.uint8 or sha256.shape != (DIGEST_BYTES,):
        raise ManifestError(f"{path} holds no bank, {trouble}: teach again")
    return detector, sha256.tobytes().hex()


def _is_sound(detector: Detector) -> bool:
    """Shapes, types and ranges that the arithmetic relies on."""
    white, patches = detector.bank.white, detector.bank.patches
    arrays = ((white.weights, np.int8, 2), (patches, np.int8, 2), (white.bias, np.int32, 1))
    if any(array.dtype != kind or array.ndim != sides for array, kind, sides in arrays):
        return False
    outputs, channels = white.weights.shape
    exponents = white.weight_exponents
    is_shaped = exponents.dtype == np.int32 and exponents.shape == white.bias.shape == (outputs,)
    is_bounded = 1 <= channels <= MAX_CHANNELS and 1 <= outputs <= MAX_CHANNELS and 1 <= len(patches) <= BANK_PATCHES
    if not is_shaped or not is_bounded or patches.shape[1] != outputs:
        return False
    shifts = white.shifts
    return bool((shifts >= 0).all() and (shifts <= 31).all() and 1 <= detector.farthest < 1 << 30)
