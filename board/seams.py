"""The seams of the line. Each driver is one file that fits one of these; the fakes fit the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from protocol.messages import Decision, Frame, Trigger, Verdict


class FrameSource(Protocol):
    def read(self, timeout_s: float) -> Frame | None:
        """The next part's frame, or None when none came in time. Blocks for at most `timeout_s`.

        A part whose picture is lost or corrupt comes as a Frame with a `fault`, never not at all.
        Raises: SourceError when the source broke; EndOfStream when a finite one has delivered its last frame.
        """

    def close(self) -> None: ...


@dataclass(frozen=True)
class LastPart:
    """The newest part that has a verdict: a source that starts again goes on behind it."""

    run: str
    part_id: int


class EndOfStream(Exception):  # noqa: N818 - an end is no error
    """A folder or a recording is finished."""


class Engine(Protocol):
    name: str

    def infer(self, image: NDArray[np.uint8]) -> NDArray[np.int8]:
        """The anomaly map int8 (h', w') of an image uint8 (h, w, 3) RGB; never a view of a reused buffer.

        Raises: EngineError.
        """

    def close(self) -> None: ...


class Actuator(Protocol):
    def deadline_ns(self, trigger: Trigger) -> int:
        """The latest time, on our monotonic clock, at which a verdict can still move the gate for this part."""

    def apply(self, trigger: Trigger, decision: Decision) -> None:
        """Have the gate let the part through if the decision is OK; reject it otherwise. Does not block."""

    def close(self) -> None: ...


class ResultSink(Protocol):
    def publish(self, frame: Frame, verdict: Verdict, anomaly: NDArray[np.int8] | None) -> None:
        """Take over a judged part; `anomaly` is its map, None when no engine spoke. Does not wait for the network.

        Raises: SinkError when the verdict could not be taken over: the line then rejects until it can.
        """

    def close(self) -> None: ...
