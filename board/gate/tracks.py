"""What the overlay's timer opens the gate by: its clock, or the belt's positions where the encoder is wired to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from board.gate.keeper import Keeper, Opening
from board.gate.settings import EncoderSettings, GateSettings
from board.gate.timer import LineTimer
from board.overlay.registers import BY_POSITION, ENCODER_DIRECTED, ENCODER_QUADRATURE, ENCODER_TURNED
from protocol.units import NS_PER_S, UM_PER_MM

FAR_NS = 10_000_000_000  # for so long ahead windows are programmed
SOON_NS = 30_000_000  # what may still grow is programmed so late
SLACK_NS = 1_000_000  # by which an estimate of the belt may be off before the timer is programmed anew
AHEAD_CYCLES = 16  # a window must lie so far ahead
AHEAD_NS = 300_000  # it takes at most so long to program it
ROUNDED_NS = 10_000  # that are a few µm of belt
SOON_UM = 60_000
PATIENCE_NS = 10_000_000  # a belt that stands comes nowhere; one that runs is far from `SOON_UM` after it
SLACK_UM = 1000  # what the gate's own reaction makes of a speed that varies
GUARD_UM = 600  # a window does not end so near to the middle of a part, if the next one goes on from there
STEP_UM = 2000
SLOWEST = 5.0  # times slower than configured, the belt is too slow for one window
BACK_UM = 2000  # that a belt may give way when it stops


class Window(NamedTuple):
    """In ns of our clock, or in µm of the belt."""

    start: int
    end: int


class Track(Protocol):
    """Where windows lie: `start` and `end` are in its own unit."""

    soon: int  # what may still grow is programmed so late
    slack: int  # by which what is wanted may differ from what is programmed
    rounded: int  # by which the same opening differs from turn to turn: what is shorter is none
    most: int  # the longest window
    is_estimated: bool  # what is wanted varies a little though nothing new is told

    def registers(self, timer: LineTimer) -> dict[str, int]:
        """To be written after the start, and when the overlay was loaded anew."""

    def has_dropped(self, timer: LineTimer) -> bool:
        """The timer has shut the gate by itself, and dropped what was queued. Raises: EngineError."""

    def here(self, timer: LineTimer, now_ns: int) -> int | None:
        """None: the timer opens for nobody now. Raises: EngineError."""

    def times(self, places: list[int], here: int, now_ns: int) -> list[int]:
        """When they will be reached, in ns."""

    def wanted(self, keeper: Keeper, now_ns: int) -> list[Opening]:
        """Looks at the keeper, which the other methods do not."""

    def cut(self, window: Window) -> Window:
        """One that is to be followed by another: it must end where nobody is hurt."""

    def is_hurt(self, place: int, within: int) -> bool:
        """Would a gate that closes there for a moment stop a part?"""

    def place(self, timer: LineTimer, window: Window, now_ns: Callable[[], int]) -> Window:
        """In the timer's cycles or counts, as early as it can still be programmed. Raises: EngineError."""


class TimeTrack:
    soon, slack, rounded, is_estimated = SOON_NS, SLACK_NS, ROUNDED_NS, False

    def __init__(self, settings: GateSettings, belt_speed_mm_s: float) -> None:
        self.most = settings.window_ns(belt_speed_mm_s)
        self._limit = 0  # in cycles

    def registers(self, timer: LineTimer) -> dict[str, int]:
        self._limit = max(1, round(self.most * timer.clock_hz / NS_PER_S))
        return {"GATE_LIMIT": self._limit}

    def has_dropped(self, timer: LineTimer) -> bool:  # noqa: ARG002 - the seam of all tracks
        return False

    def here(self, timer: LineTimer, now_ns: int) -> int | None:  # noqa: ARG002
        return now_ns

    def times(self, places: list[int], here: int, now_ns: int) -> list[int]:  # noqa: ARG002
        return [max(place, now_ns + SLACK_NS) for place in places]

    def wanted(self, keeper: Keeper, now_ns: int) -> list[Opening]:
        return keeper.openings(now_ns, now_ns + FAR_NS)

    def cut(self, window: Window) -> Window:
        """The gate is closed for a cycle: that is nobody's middle."""
        return window

    def is_hurt(self, place: int, within: int) -> bool:  # noqa: ARG002
        return False

    def place(self, timer: LineTimer, window: Window, now_ns: Callable[[], int]) -> Window:
        moment, rate = timer.now(), timer.clock_hz / NS_PER_S
        start, end = (moment.cycles + round((t_ns - moment.t_ns) * rate) for t_ns in window)
        soonest = moment.cycles + AHEAD_CYCLES + round((now_ns() - moment.t_ns + AHEAD_NS) * rate)
        start = max(start, soonest)
        return Window(start, min(end, start + self._limit))


class BeltTrack:
    """The overlay compares its own count with the windows: no delay and no wrong speed reaches them."""

    soon, rounded, is_estimated = SOON_UM, 0, True

    def __init__(
        self, settings: GateSettings, encoder: EncoderSettings, belt_speed_mm_s: float, silence_ms: float
    ) -> None:
        self.most = int(settings.window_mm * UM_PER_MM)
        self._encoder, self._silence_ms = encoder, silence_ms
        self._um = encoder.um_per_count
        self.slack = max(SLACK_UM, int(8 * self._um))
        self._limit_ns = int(SLOWEST * settings.window_ns(belt_speed_mm_s))
        self._middles: list[int] = []
        self._pace_um_ns = belt_speed_mm_s * UM_PER_MM / NS_PER_S
        self._is_distrusted = True

    def registers(self, timer: LineTimer) -> dict[str, int]:
        encoder, cycles_per_ns = self._encoder, timer.clock_hz / NS_PER_S
        mode = BY_POSITION | (ENCODER_QUADRATURE if encoder.kind == "quadrature" else 0)
        mode |= (ENCODER_DIRECTED if encoder.kind == "directed" else 0) | (ENCODER_TURNED if encoder.turned else 0)
        return {
            "ENCODER_FILTER": min(0xFFFF, round(encoder.filter_us * 1000 * cycles_per_ns)),
            "ENCODER_SILENCE": round(self._silence_ms * 1e6 * cycles_per_ns),
            "ENCODER_BACK": min(0xFFFF, int(BACK_UM / self._um)),
            "GATE_LIMIT": max(1, round(self._limit_ns * cycles_per_ns)),
            "ENCODER_MODE": mode,
        }

    def has_dropped(self, timer: LineTimer) -> bool:
        """subtle: a fault that was cleared comes back at once if it is still one."""
        if not timer.read("ENCODER_FAULT")[0]:
            self._is_distrusted = False
            return False
        timer.write(ENCODER_FAULT=0xF)
        self._is_distrusted = timer.read("ENCODER_FAULT")[0] != 0
        return True

    def here(self, timer: LineTimer, now_ns: int) -> int | None:  # noqa: ARG002
        return None if self._is_distrusted else self._encoder.um(timer.counts())

    def times(self, places: list[int], here: int, now_ns: int) -> list[int]:
        return [now_ns + max(PATIENCE_NS, int((place - here) / self._pace_um_ns)) for place in places]

    def wanted(self, keeper: Keeper, now_ns: int) -> list[Opening]:
        self._middles = keeper.middles()
        self._pace_um_ns = keeper.pace_um_ns
        return keeper.stretches(now_ns)

    def cut(self, window: Window) -> Window:
        for end_um in range(window.end, window.start, -STEP_UM):
            if not self.is_hurt(end_um, GUARD_UM):
                return Window(window.start, end_um)
        return window

    def is_hurt(self, place: int, within: int) -> bool:
        return any(abs(middle_um - place) <= within for middle_um in self._middles)

    def place(self, timer: LineTimer, window: Window, now_ns: Callable[[], int]) -> Window:  # noqa: ARG002
        soonest = timer.counts() + 2 + int(self._pace_um_ns * AHEAD_NS / self._um)
        return Window(max(-int(-window.start // self._um), soonest), int(window.end // self._um))
