"""What a station says of its accepted parts' looks: do lamp and lens still give what the model was made with?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from protocol.messages import decode_json, encode_json

DriftState = Literal["off", "steady", "drifting"]  # off: the model says nothing to compare with


@dataclass(frozen=True)
class Moved:
    """One statistic that left its calibration."""

    statistic: str
    sigmas: float  # moving average against calibration, in standard deviations of a single good part
    average: float  # of the latest accepted parts
    calibrated: float  # mean when the model was made
    deviation: float  # standard deviation then


@dataclass(frozen=True)
class DriftReport:
    """Retained on the drift topic. It is a warning: no decision depends on it."""

    state: DriftState
    text: str  # what moved and what to do, for a person; empty when nothing did
    moved: tuple[Moved, ...]  # the farthest first
    parts: int  # accepted parts that were looked at since the start, or since the model changed
    sheet: str  # name of a picture in the station's drift folder: calibration above, latest parts below; may be empty
    model_id: str
    time: str  # RFC 3339, UTC


def encode_drift(report: DriftReport) -> bytes:
    return encode_json(report)


def decode_drift(data: bytes) -> DriftReport:
    """Raises: MessageError for anything that is not a drift report."""
    return decode_json(DriftReport, data)
