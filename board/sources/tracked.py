"""Parts in the view of a free-running camera: found, tracked across views, each delivered once.

A part is due when its centre crosses the middle of the view; that is its trigger. Its picture comes from the view in
which its centre was nearest to the middle.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from itertools import product
from statistics import median

import numpy as np
from numpy.typing import NDArray

from board.condition import Complaint
from board.seams import Ahead, Deaf, FrameSource, LastPart
from board.sources.checks import Telling
from board.sources.finder import Blob, Finder
from protocol.errors import InputError
from protocol.messages import Frame, Location, Trigger
from protocol.strict import require
from protocol.units import UM_PER_MM

REACH = 0.45  # of a part's length: how far from its expected place a part is still the same one
NEAR_MIDDLE = 0.5  # of a part's length: a view that shows the part farther off than this is not its picture
MAX_UNSEEN_VIEWS = 60  # a part that vanished, and that a standing belt does not carry on, is given up after these
MAX_TRACKS = 64
STILL_PX = 0.5  # a view: a slower belt stands
FOLLOW = 0.3  # weight of a new view in the belt's measured speed

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class TrackerSettings:
    px_per_mm: float = 2.5  # scale of the view
    part_mm: float = 76.0  # length of a part along the belt

    def __post_init__(self) -> None:
        require(self.px_per_mm > 0, "px_per_mm", "must be above 0")
        require(self.px_per_mm * self.part_mm >= 8, "part_mm", "must be at least 8 pixels of the view")


@dataclass(frozen=True)
class Sighting:
    """What one view can give of a part: its picture, or the reason why that is none."""

    location: Location
    off_middle_px: float
    image: Image | None
    fault: str


@dataclass
class Track:
    """One part on its way through the view: where it is in this view, and where it was in the last."""

    x_px: float
    y_px: float
    t_ns: int
    last_x_px: float
    last_t_ns: int
    best: Sighting  # the one nearest to the middle of the view
    sightings: int = 1
    unseen_views: int = 0
    delivered: bool = False

    def advance(self, step_px: float, t_ns: int) -> None:
        """Carry the part on with the belt; `see` corrects it where the view shows it."""
        self.last_x_px, self.last_t_ns = self.x_px, self.t_ns
        self.x_px, self.t_ns = self.x_px + step_px, t_ns
        self.unseen_views += 1

    def see(self, blob: Blob, sighting: Sighting) -> None:
        self.x_px, self.y_px = blob.x_px, blob.y_px
        self.sightings, self.unseen_views = self.sightings + 1, 0
        if sighting.off_middle_px <= self.best.off_middle_px:
            self.best = sighting

    def passed_ns(self, x_px: float) -> int:
        """When the centre was at `x_px`, on the line through its last two places; now, if it is not yet there."""
        way_px = self.x_px - self.last_x_px
        share = min(1.0, (x_px - self.last_x_px) / way_px) if way_px else 1.0
        return max(0, self.last_t_ns + round(share * (self.t_ns - self.last_t_ns)))


class TrackedSource:
    """Turns the views of `source`, whose part ids count views, into one frame a part.

    The belt's speed and direction (+x or −x) are measured in pixels a view, by no clock: a replay gives the same parts
    at any rate. What lay beyond the middle when the belt was first seen to move has passed before the run.
    """

    def __init__(
        self,
        source: FrameSource,
        settings: TrackerSettings,
        frame_px: tuple[int, int],
        last: LastPart | None = None,
        ahead: Ahead | None = None,
    ) -> None:
        """`frame_px` (height, width) of the frames to deliver; the count goes on behind `last` in its run."""
        self._judged_before = last
        self._source = source
        self._ahead = ahead or Deaf()
        self._px_per_mm = settings.px_per_mm
        self._way_px = 0.0  # of the belt while parts were seen; it grows in the belt's direction
        self._part_px = settings.part_mm * settings.px_per_mm
        self._frame_px = frame_px
        self._view_px: tuple[int, ...] = ()  # (height, width) of the first view
        self._middle_px = 0.0
        self._ready: deque[Frame] = deque()  # never more than MAX_TRACKS
        self._begin_run(Trigger("none", 0, 0, ""))

    def read(self, timeout_s: float) -> Frame | None:
        """Raises: InputError if the views are smaller than the model's frames; what the source's `read` raises."""
        deadline_s = time.monotonic() + timeout_s
        while not self._ready:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                return None
            view = self._source.read(left_s)
            if view is not None:
                self._take(view)
        return self._ready.popleft()

    def counters(self) -> dict[str, int]:
        return self._source.counters() if isinstance(self._source, Telling) else {}

    def complaint(self) -> Complaint | None:
        return self._source.complaint() if isinstance(self._source, Telling) else None

    def close(self) -> None:
        self._source.close()

    def _begin_run(self, first: Trigger) -> None:
        self._last = first
        self._finder = Finder(self._part_px)
        self._tracks: list[Track] = []
        self._step_px = 0.0  # the belt's way from view to view; 0 until it was measured
        last = self._judged_before
        self._next_id = last.part_id + 1 if last and last.run == first.run else 0

    def _take(self, view: Frame) -> None:
        if view.trigger.run != self._last.run:
            self._begin_run(view.trigger)
        steps = max(1, view.trigger.part_id - self._last.part_id)  # more than 1 where views were lost
        for track in self._tracks:
            track.advance(self._step_px * steps, view.trigger.t_ns)
        if view.image is not None and self._fits(view.image):
            self._look(view, view.image, steps)
        due = [track for track in self._tracks if not track.delivered and self._is_due(track)]
        for track in sorted(due, key=lambda track: (track.passed_ns(self._middle_px), track.y_px)):
            self._deliver(track, view)
        self._tracks = [track for track in self._tracks if not self._is_gone(track)]
        # subtle: what crossed the middle since the view before may be first seen in this one, and is due with the next
        self._ahead.seen_until(self._last.t_ns)
        self._last = view.trigger

    def _fits(self, image: Image) -> bool:
        """False for a view that is not of the first one's size. Raises: InputError if the first one is too small."""
        if not self._view_px:
            (height, width), (view_height, view_width) = self._frame_px, image.shape[:2]
            if view_height < height or view_width < width:
                raise InputError(
                    f"views of {view_width}x{view_height} are smaller than the model's frames of {width}x{height}: "
                    "correct [camera] size_px, or choose another model"
                )
            self._view_px, self._middle_px = image.shape[:2], (view_width - 1) / 2
        return image.shape[:2] == self._view_px

    def _look(self, view: Frame, image: Image, steps: int) -> None:
        blobs = [blob for blob in self._finder.find(image) if self._has_centre(blob)]
        pairs = self._pair(blobs)
        moved_px = self._measure_step([(track, blob) for track, blob in pairs if not blob.cut_ends] or pairs, steps)
        if moved_px is not None:
            self._way_px += moved_px
            self._ahead.moved(round(self._way_px / self._px_per_mm * UM_PER_MM), view.trigger.t_ns)
        for track, blob in pairs:
            track.see(blob, self._sight(view.trigger.part_id, image, blob))
        paired = {id(blob) for _, blob in pairs}
        for blob in blobs:
            if id(blob) not in paired and self._is_new(blob):
                self._tracks.append(self._begin(view.trigger, blob, self._sight(view.trigger.part_id, image, blob)))

    def _has_centre(self, blob: Blob) -> bool:
        """A part at an end of the view shows only its edge, and is waited for, unless it reaches to the middle."""
        return not blob.cut_ends or abs(blob.x_px - self._middle_px) <= blob.length_px / 2

    def _pair(self, blobs: list[Blob]) -> list[tuple[Track, Blob]]:
        """Each track with the blob nearest to its expected place, the nearest pairs first."""
        pairs: list[tuple[Track, Blob]] = []
        taken: set[int] = set()
        for distance_px, track, blob in sorted(
            ((_distance_px(track, blob), track, blob) for track, blob in product(self._tracks, blobs)),
            key=lambda item: item[0],
        ):
            if distance_px <= REACH * self._part_px and taken.isdisjoint((id(track), id(blob))):
                pairs.append((track, blob))
                taken |= {id(track), id(blob)}
        return pairs

    def _measure_step(self, pairs: list[tuple[Track, Blob]], steps: int) -> float | None:
        """The belt carries all parts alike: what the seen ones moved, the unseen ones moved too.

        Its way since the last view, in its own direction; None when no part shows it.
        """
        if not pairs:
            return None
        seen_px = median(blob.x_px - track.last_x_px for track, blob in pairs) / steps
        for track in self._tracks:
            track.x_px = track.last_x_px + seen_px * steps
        if self._step_px:
            forward_px = seen_px * steps if self._step_px > 0 else -seen_px * steps
            self._step_px += FOLLOW * (seen_px - self._step_px)
            return forward_px
        self._step_px = seen_px if abs(seen_px) > STILL_PX else 0.0
        for track in self._tracks:
            track.delivered = self._is_beyond_middle(track.last_x_px)
        return abs(self._step_px) * steps

    def _is_new(self, blob: Blob) -> bool:
        """Neither a fragment of a known part nor one too many."""
        near_px = self._part_px / 2
        known = any(_distance_px(track, blob) < near_px for track in self._tracks)
        return not known and len(self._tracks) < MAX_TRACKS

    def _begin(self, now: Trigger, blob: Blob, sighting: Sighting) -> Track:
        last_x_px = blob.x_px - self._step_px * max(1, now.part_id - self._last.part_id)
        return Track(blob.x_px, blob.y_px, now.t_ns, last_x_px, self._last.t_ns, sighting)

    def _sight(self, view_number: int, image: Image, blob: Blob) -> Sighting:
        location = Location(view_number, blob.x_px, blob.y_px)
        off_middle_px = abs(blob.x_px - self._middle_px)
        fault = ""
        if off_middle_px > NEAR_MIDDLE * self._part_px:
            fault = "part was out of sight in the middle of the view"
        elif blob.touching:
            fault = "parts touch"
        elif blob.cut_ends or blob.cut_sides:
            fault = "part is not entirely in view"
        window = None if fault else cut_window(image, blob.x_px, blob.y_px, self._frame_px)
        return Sighting(location, off_middle_px, window, fault)

    def _is_beyond_middle(self, x_px: float) -> bool:
        return abs(self._step_px) > STILL_PX and (x_px - self._middle_px) * self._step_px >= 0

    def _is_due(self, track: Track) -> bool:
        """It crossed the middle, or will not. What is first seen beyond the middle must be seen, or missed, again."""
        is_known = track.sightings > 1 or track.unseen_views > 0
        return (is_known and self._is_beyond_middle(track.x_px)) or self._is_gone(track)

    def _is_gone(self, track: Track) -> bool:
        reach_px = self._part_px / 2
        is_inside = -reach_px < track.x_px < self._view_px[1] + reach_px
        return not is_inside or track.unseen_views > MAX_UNSEEN_VIEWS

    def _deliver(self, track: Track, view: Frame) -> None:
        track.delivered = True
        best, now = track.best, view.trigger
        trigger = Trigger(now.run, self._next_id, track.passed_ns(self._middle_px), now.clock)
        self._next_id += 1
        self._ahead.expect(trigger)
        self._ready.append(
            Frame(trigger, best.image, best.fault, view.readings, location=best.location, decode_ms=view.decode_ms)
        )


def cut_window(image: Image, x_px: float, y_px: float, shape_px: tuple[int, int]) -> Image:
    """A copy of the window (height, width) centred on a point, moved as little as keeps it inside the image."""
    height_px, width_px = shape_px
    top = min(max(round(y_px - (height_px - 1) / 2), 0), image.shape[0] - height_px)
    left = min(max(round(x_px - (width_px - 1) / 2), 0), image.shape[1] - width_px)
    return np.array(image[top : top + height_px, left : left + width_px])


def _distance_px(track: Track, blob: Blob) -> float:
    return float(np.hypot(track.x_px - blob.x_px, track.y_px - blob.y_px))
