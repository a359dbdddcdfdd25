"""The seams of the line. Each driver is one file that fits one of these; the fakes fit the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from board.condition import Complaint
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


class Ahead(Protocol):
    """What a source tells the gate the moment it knows it, from its own thread; never blocks, never raises.

    All times are of our monotonic clock. Sources take it as the keyword `ahead`.
    """

    def expect(self, trigger: Trigger) -> None:
        """A part broke the light barrier: the gate is closed over its window until the part is judged OK.

        Told of every part, also of one that is lost, and again for the same part without harm.
        """

    def seen_until(self, t_ns: int) -> None:
        """Every trigger before this time has been told. To be called many times a second, also while no part comes."""

    def at_gate(self, t_ns: int) -> None:
        """The second barrier, at the beginning of the gate's window, was broken."""

    def moved(self, position_um: int, t_ns: int) -> None:
        """The belt's position at a time: of an encoder, or summed up from view to view while parts are seen.

        It grows with the belt's way; where it begins does not matter. An encoder tells it also while the belt stands.
        """


class Deaf:
    """An `Ahead` where no gate listens."""

    def expect(self, trigger: Trigger) -> None: ...

    def seen_until(self, t_ns: int) -> None: ...

    def at_gate(self, t_ns: int) -> None: ...

    def moved(self, position_um: int, t_ns: int) -> None: ...


class EndOfStream(Exception):  # noqa: N818 - an end is no error
    """A folder or a recording is finished."""


class Files(Protocol):
    """What an engine reads its network from: a model's package, or a backbone."""

    def path(self, name: str) -> Path:
        """Raises: ManifestError or InputError if there is none of that name."""


class Engine(Protocol):
    name: str

    def infer(self, image: NDArray[np.uint8]) -> NDArray[np.int8]:
        """The anomaly map int8 (h', w') of an image uint8 (h, w, 3) RGB; never a view of a reused buffer.

        Of a network that gives more than one channel, a backbone: its features int8 (channels, h', w').

        Raises: EngineError.
        """

    def close(self) -> None: ...


class Actuator(Protocol):
    def deadline_ns(self, trigger: Trigger) -> int:
        """The latest time, on our monotonic clock, at which a verdict can still move the gate for this part."""

    def apply(self, trigger: Trigger, decision: Decision) -> None:
        """Have the gate let the part through if the decision is OK; reject it otherwise. Does not block."""

    def complaint(self) -> Complaint | None:
        """What is wrong with the gate, or with what is known of the belt."""

    @property
    def distrust(self) -> str:
        """Why it is not known where the gate stands: no part may be OK meanwhile. Empty if it does as it is told."""

    def hold(self, is_held: bool) -> None:
        """While it is held it is closed, whatever was decided. From any thread, while all others may be dead or hang:
        it closes at once, without waiting for any of them, and may be called again and again.
        """

    def close(self) -> None: ...


class ResultSink(Protocol):
    def publish(self, frame: Frame, verdict: Verdict, anomaly: NDArray[np.int8] | None) -> None:
        """Take over a judged part; `anomaly` is its map, None when no engine spoke. Does not wait for the network.

        Raises: SinkError when the verdict could not be taken over: the line then rejects until it can.
        """

    def close(self) -> None: ...
