"""Parts in the view of a free-running camera: found, tracked across views, each delivered once.

A part is due when its centre crosses the middle of the view; that is its trigger. Its picture comes from the view in
which its centre was nearest to the middle. Parts are remembered for a while beyond the view, on both sides: a belt that
runs back brings them again, and none is judged twice.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
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
MAX_TRACKS = 64  # in the view
REMEMBERED = 4.0  # lengths of the view, beyond either end: so far the belt may run back
MAX_REMEMBERED = 128
DECIDED = 0.1  # of a part's length: so far the belt must have run, until its direction is known
FOLLOW = 0.3  # weight of a new view in the belt's measured speed
SATURATED = (0, 255)
BLIND_S = 2.0  # a camera that gives no view for so long is blind
COMPLAIN_VIEWS = 100  # whole ones, after which nothing is said any more of those that were not

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
    first_x_px: float
    fault: str = ""  # whatever the sightings show
    age_views: int = 0
    sightings: int = 1
    unseen_views: int = 0  # of those that had to show it
    delivered: bool = False

    def advance(self, step_px: float, t_ns: int) -> None:
        """Carry the part on with the belt; `see` corrects it where the view shows it."""
        self.last_x_px, self.last_t_ns = self.x_px, self.t_ns
        self.x_px, self.t_ns = self.x_px + step_px, t_ns
        self.age_views += 1

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
        *,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`frame_px` (height, width) of the frames to deliver; the count goes on behind `last` in its run."""
        self._judged_before = last
        self._source = source
        self._ahead = ahead or Deaf()
        self._now_s = now_s
        self._viewed_s: float | None = None  # when the last view came
        self._px_per_mm = settings.px_per_mm
        self._way_px = 0.0  # of the belt while parts were seen; it grows in the belt's direction
        self._part_px = settings.part_mm * settings.px_per_mm
        self._frame_px = frame_px
        self._view_px: tuple[int, ...] = ()  # (height, width) of the first view
        self._middle_px = 0.0
        self._own_flat: frozenset[str] = frozenset()  # sides that are all black or all white in the first view, too
        self._broken_views = 0
        self._whole_since = COMPLAIN_VIEWS
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
                self._viewed_s = self._now_s()
                self._take(view)
        return self._ready.popleft()

    def counters(self) -> dict[str, int]:
        inner = self._source.counters() if isinstance(self._source, Telling) else {}
        return inner | {"views_broken": self._broken_views}

    def complaint(self) -> Complaint | None:
        said = self._source.complaint() if isinstance(self._source, Telling) else None
        if said:
            return said
        if self._viewed_s is not None and self._now_s() - self._viewed_s > BLIND_S:
            return Complaint("degraded", "no view of the belt comes any more: check the camera, its cable and power")
        if self._whole_since < COMPLAIN_VIEWS:
            return Complaint("degraded", "the camera's views are not whole: check its cable, power and USB hub")
        return None

    def close(self) -> None:
        self._source.close()

    def _begin_run(self, first: Trigger) -> None:
        self._last = first
        self._finder = Finder(self._part_px)
        self._tracks: list[Track] = []
        self._step_px = 0.0  # the belt's way from view to view; 0 until it was measured
        self._direction = 0  # of the belt: +1 or -1 along x; 0 until it is known
        self._run_px = 0.0  # along x, until the direction is known; then the way back from the farthest place
        self._blind_views = 1  # since a view last showed how the belt moves; 0: this one does
        last = self._judged_before
        self._next_id = last.part_id + 1 if last and last.run == first.run else 0

    def _take(self, view: Frame) -> None:
        if view.trigger.run != self._last.run:
            self._begin_run(view.trigger)
        steps = max(1, view.trigger.part_id - self._last.part_id)  # more than 1 where views were lost
        for track in self._tracks:
            # subtle: beyond the view, parts go on only while others show how: the belt may stop, and bring them back
            is_carried = not self._blind_views or self._is_in_view(track.x_px)
            track.advance(self._step_px * steps if is_carried else 0.0, view.trigger.t_ns)
            track.unseen_views += self._is_in_view(track.x_px)
        self._blind_views += 1
        if view.image is not None and self._fits(view.image) and self._is_whole(view.image):
            self._look(view, view.image, steps)
        due = [track for track in self._tracks if not track.delivered and self._is_due(track)]
        for track in sorted(due, key=lambda track: (track.passed_ns(self._middle_px), track.y_px)):
            self._deliver(track, view)
        self._tracks = self._keep([track for track in self._tracks if not self._is_gone(track)])
        # subtle: what crossed the middle since the view before may be first seen in this one, and is due with the next
        if self._direction:
            self._ahead.seen_until(self._last.t_ns)
        self._last = view.trigger

    def _keep(self, tracks: list[Track]) -> list[Track]:
        """Of what was delivered and is out of view, no more than there is room for."""
        remembered = [track for track in tracks if track.delivered and not self._is_in_view(track.x_px)]
        forgotten = {id(track) for track in remembered[:-MAX_REMEMBERED]}
        return [track for track in tracks if id(track) not in forgotten]

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
            self._own_flat = frozenset(side for side, level in _flat_sides(image).items() if level in SATURATED)
        return image.shape[:2] == self._view_px

    def _is_whole(self, image: Image) -> bool:
        """False for a view of which a side is all of one colour: decoders leave that of what is missing."""
        is_whole = not (_flat_sides(image).keys() - self._own_flat)
        self._broken_views += not is_whole
        self._whole_since = self._whole_since + 1 if is_whole else 0
        return is_whole

    def _look(self, view: Frame, image: Image, steps: int) -> None:
        blobs = [blob for blob in self._finder.find(image) if self._has_centre(blob)]
        pairs = self._pair(blobs)
        moved_px = self._measure_step([(track, blob) for track, blob in pairs if not blob.cut_ends] or pairs, steps)
        if moved_px is not None:
            self._follow(moved_px, view.trigger.t_ns)
        for track, blob in pairs:
            track.see(blob, self._sight(view.trigger.part_id, image, blob))
        paired = {id(blob) for _, blob in pairs}
        for blob in blobs:
            if id(blob) not in paired and self._is_new(blob):
                self._meet(blob, view.trigger, self._sight(view.trigger.part_id, image, blob), steps)
        if pairs:
            self._blind_views = 0

    def _meet(self, blob: Blob, now: Trigger, sighting: Sighting, steps: int) -> None:
        """A part that no track led to."""
        track = self._begin(now, blob, sighting)
        if steps == 1 and self._is_beyond_middle(blob.x_px) and self._is_in_view(track.last_x_px):
            # it did not come with the belt: the view before would have shown it
            track.fault = "it came against the belt, or was put there"
        self._tracks.append(track)

    def _has_centre(self, blob: Blob) -> bool:
        """A part at an end of the view shows only its edge, and is waited for, unless it reaches to the middle."""
        return not blob.cut_ends or abs(blob.x_px - self._middle_px) <= blob.length_px / 2

    def _pair(self, blobs: list[Blob]) -> list[tuple[Track, Blob]]:
        """Each track with the blob nearest to its expected place; if that leaves some, as if the belt had stopped, or
        had begun to run back.
        """
        best: list[tuple[Track, Blob]] = []
        for shift_px in (0.0, -self._step_px, -2 * self._step_px):
            pairs = self._pair_shifted(blobs, shift_px)
            best = max(best, pairs, key=len)
            if len(best) == len(blobs):
                break
        return best

    def _pair_shifted(self, blobs: list[Blob], shift_px: float) -> list[tuple[Track, Blob]]:
        """The nearest pairs first."""
        pairs: list[tuple[Track, Blob]] = []
        taken: set[int] = set()
        for distance_px, track, blob in sorted(
            ((_distance_px(track, blob, shift_px), track, blob) for track, blob in product(self._tracks, blobs)),
            key=lambda item: item[0],
        ):
            if distance_px <= REACH * self._part_px and taken.isdisjoint((id(track), id(blob))):
                pairs.append((track, blob))
                taken |= {id(track), id(blob)}
        return pairs

    def _measure_step(self, pairs: list[tuple[Track, Blob]], steps: int) -> float | None:
        """The belt carries all parts alike: what the seen ones moved, the unseen ones moved too.

        Its way along x since the last view; None when no part shows it.
        """
        if not pairs:
            return None
        seen_px = median(blob.x_px - track.last_x_px for track, blob in pairs) / steps
        for track in self._tracks:
            track.x_px = track.last_x_px + seen_px * steps
        self._step_px = self._step_px + FOLLOW * (seen_px - self._step_px) if self._step_px else seen_px
        return seen_px * steps

    def _follow(self, moved_px: float, t_ns: int) -> None:
        """Where the belt is, and which way it runs."""
        if not self._direction:
            self._run_px += moved_px
            if abs(self._run_px) >= DECIDED * self._part_px:
                self._turn(1 if self._run_px > 0 else -1)
            return
        self._run_px = max(0.0, self._run_px - moved_px * self._direction)
        if self._run_px > REMEMBERED * self._view_px[1]:
            self._turn(-self._direction)
        self._way_px += moved_px * self._direction
        self._ahead.moved(round(self._way_px / self._px_per_mm * UM_PER_MM), t_ns)

    def _turn(self, direction: int) -> None:
        """What lay beyond the middle before the belt ran this way has passed."""
        self._direction, self._run_px = direction, 0.0
        for track in self._tracks:
            track.delivered = track.delivered or self._is_beyond_middle(track.first_x_px)

    def _is_new(self, blob: Blob) -> bool:
        """Neither a fragment of a known part nor one too many."""
        near_px = self._part_px / 2
        known = any(_distance_px(track, blob) < near_px for track in self._tracks)
        return not known and sum(self._is_in_view(track.x_px) for track in self._tracks) < MAX_TRACKS

    def _begin(self, now: Trigger, blob: Blob, sighting: Sighting) -> Track:
        last_x_px = blob.x_px - self._step_px * max(1, now.part_id - self._last.part_id)
        return Track(blob.x_px, blob.y_px, now.t_ns, last_x_px, self._last.t_ns, sighting, blob.x_px)

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
        return self._direction != 0 and (x_px - self._middle_px) * self._direction >= 0

    def _is_in_view(self, x_px: float) -> bool:
        """All of a part whose centre is there."""
        reach_px = self._part_px / 2
        return bool(self._view_px) and reach_px <= x_px <= self._view_px[1] - reach_px

    def _is_due(self, track: Track) -> bool:
        """It crossed the middle, or will not. What is first seen beyond the middle must be seen, or missed, again."""
        is_known = track.sightings > 1 or track.age_views > 0
        return (is_known and self._is_beyond_middle(track.x_px)) or self._is_gone(track)

    def _is_gone(self, track: Track) -> bool:
        beyond_px = abs(track.x_px - self._middle_px) - self._view_px[1] / 2
        return beyond_px > REMEMBERED * self._view_px[1] or track.unseen_views > MAX_UNSEEN_VIEWS

    def _deliver(self, track: Track, view: Frame) -> None:
        track.delivered = True
        best, now = track.best, view.trigger
        fault = track.fault or best.fault
        trigger = Trigger(now.run, self._next_id, track.passed_ns(self._middle_px), now.clock)
        self._next_id += 1
        self._ahead.expect(trigger)
        self._ready.append(
            Frame(
                trigger,
                None if fault else best.image,
                fault,
                view.readings,
                location=best.location,
                decode_ms=view.decode_ms,
            )
        )


def cut_window(image: Image, x_px: float, y_px: float, shape_px: tuple[int, int]) -> Image:
    """A copy of the window (height, width) centred on a point, moved as little as keeps it inside the image."""
    height_px, width_px = shape_px
    top = min(max(round(y_px - (height_px - 1) / 2), 0), image.shape[0] - height_px)
    left = min(max(round(x_px - (width_px - 1) / 2), 0), image.shape[1] - width_px)
    return np.array(image[top : top + height_px, left : left + width_px])


def _flat_sides(view: Image) -> dict[str, int]:
    """Sides of the picture whose outermost pixels are all alike, and their level; -1 for a colour."""
    sides = {"top": view[0], "bottom": view[-1], "left": view[:, 0], "right": view[:, -1]}
    flat = {name: line[0] for name, line in sides.items() if (line == line[0]).all()}
    return {name: int(pixel[0]) if (pixel == pixel[0]).all() else -1 for name, pixel in flat.items()}


def _distance_px(track: Track, blob: Blob, shift_px: float = 0.0) -> float:
    return float(np.hypot(track.x_px + shift_px - blob.x_px, track.y_px - blob.y_px))
