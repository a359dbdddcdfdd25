"""Free-running mode against ground truth: rendered belts, a belt of plain discs for the special cases, real videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from board.seams import EndOfStream, LastPart
from board.sources.replay import ReplaySettings, ReplaySource
from board.sources.tracked import TrackedSource, TrackerSettings
from protocol.errors import InputError
from protocol.messages import Frame, Trigger
from sim.camera import CameraSettings
from sim.parts import open_parts
from sim.scene import Scene

VIDEOS = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "video"
FRAME_PX = (256, 256)
MIDDLE_PX = 319.5
VIEW_NS = 33_333_333
PART_PX = 190  # what TrackerSettings() expects: 76 mm at 2.5 px/mm


class Film:
    """Finished views as a source."""

    def __init__(self, views: Sequence[Frame]) -> None:
        self._views = iter(views)

    def read(self, timeout_s: float) -> Frame | None:  # noqa: ARG002 - a film never waits
        for view in self._views:
            return view
        raise EndOfStream

    def close(self) -> None:
        self._views = iter(())


def track(views: Sequence[Frame]) -> list[Frame]:
    return read_all(TrackedSource(Film(views), TrackerSettings(), FRAME_PX))


def read_all(source: TrackedSource) -> list[Frame]:
    frames = []
    try:
        while True:
            frame = source.read(10.0)
            assert frame is not None
            frames.append(frame)
    except EndOfStream:
        source.close()
    return frames


def test_after_a_restart_the_count_of_the_run_goes_on() -> None:
    """A number that was given already would be a second verdict for that part."""
    views = draw_run([(-100, 240), (-400, 240)], 20, 60)
    for last, first_id in ((LastPart("run", 41), 42), (LastPart("another", 41), 0)):
        frames = read_all(TrackedSource(Film(views), TrackerSettings(), FRAME_PX, last))
        assert [frame.trigger.part_id for frame in frames] == [first_id, first_id + 1]


def view_of(number: int, image: NDArray[np.uint8] | None, run: str = "run") -> Frame:
    return Frame(Trigger(run, number, 1_000 + number * VIEW_NS, "clock"), image, "" if image is not None else "lost")


@pytest.mark.parametrize("product", ["orange", "bottle"])
@pytest.mark.parametrize(
    ("speed_mm_s", "fps", "spacing_mm", "count"),
    [(600, 30, 90, 16), (600, 60, 110, 14), (350, 30, 90, 12), (250, 60, 250, 5), (100, 30, 89, 7)],
)
def test_every_rendered_part_is_found_once(
    product: str, speed_mm_s: float, fps: float, spacing_mm: float, count: int
) -> None:
    scene = Scene(
        open_parts(product, "rendered", 5, 0.3),
        CameraSettings(),
        belt_speed_mm_s=speed_mm_s,
        spacing_mm=spacing_mm,
        count=count,
        seed=5,
        fps=fps,
    )
    frames = track([view_of(index, scene.frame(index)) for index in range(scene.n_frames)])
    assert [frame.trigger.part_id for frame in frames] == list(range(count))
    assert [frame.fault for frame in frames] == [""] * count
    for number, frame in enumerate(frames):
        assert frame.location is not None
        places = {part: (x, y) for part, x, y in scene.visible(frame.location.frame)}
        x, y = places[number]
        assert np.hypot(frame.location.x_px - x, frame.location.y_px - y) < 2
        assert frame.image is not None
        assert_is_window(frame.image, scene.frame(frame.location.frame), x, y)
        step_px = speed_mm_s / fps * 2.5
        assert abs(x - MIDDLE_PX) <= step_px / 2 + 2
        passed_view = frame.location.frame + (MIDDLE_PX - x) / step_px
        off_px = ((frame.trigger.t_ns - 1_000) / VIEW_NS - passed_view) * step_px
        assert abs(off_px) < 3


def assert_is_window(image: NDArray[np.uint8], view: NDArray[np.uint8], x: float, y: float) -> None:
    """The frame is a piece of the view, centred on (x, y) within 6 px as far as the view reaches."""
    assert image.shape == (*FRAME_PX, 3)
    assert image.flags.c_contiguous
    top, left = (round(place - (side - 1) / 2) for place, side in zip((y, x), FRAME_PX, strict=True))
    assert any(
        np.array_equal(image, view[max(0, row) :, max(0, column) :][: FRAME_PX[0], : FRAME_PX[1]])
        for row in range(top - 6, top + 7)
        for column in range(left - 6, left + 7)
    )


def draw_view(centres: Sequence[tuple[float, float]], gain: float = 1.0, radius_px: int = 85) -> NDArray[np.uint8]:
    """Plain orange discs on dark rubber with some noise."""
    rng = np.random.default_rng(len(centres))
    view = rng.normal(47, 3, (480, 640, 3))
    for x, y in centres:
        disc = np.zeros((480, 640), np.uint8)
        cv2.circle(disc, (round(x * 16), round(y * 16)), radius_px * 16, 255, cv2.FILLED, cv2.LINE_AA, shift=4)
        view[disc > 127] = (230, 130, 30)
    return np.clip(view * gain, 0, 255).astype(np.uint8)


def draw_run(places: Sequence[tuple[float, float]], step_px: float, views: int) -> list[Frame]:
    """Discs that start at `places` and move `step_px` a view."""
    return [view_of(n, draw_view([(x + n * step_px, y) for x, y in places])) for n in range(views)]


def test_an_empty_belt_has_no_parts() -> None:
    assert track(draw_run([], 10, 40)) == []


@pytest.mark.parametrize(("start_px", "step_px"), [(-90, 30), (730, -30)])
def test_the_belt_may_run_either_way(start_px: float, step_px: float) -> None:
    spaced = 240 if step_px < 0 else -240
    frames = track(draw_run([(start_px + i * spaced, 240) for i in range(3)], step_px, 50))
    assert [frame.fault for frame in frames] == ["", "", ""]
    passed_ns = [1_000 + VIEW_NS * (MIDDLE_PX - start_px - i * spaced) / step_px for i in range(3)]
    assert [frame.trigger.t_ns for frame in frames] == pytest.approx(passed_ns, abs=VIEW_NS / 20)


def test_parts_side_by_side_come_in_the_order_of_their_passing() -> None:
    frames = track(draw_run([(-100, 110), (-104, 370)], 20, 45))
    assert [(frame.trigger.part_id, frame.fault) for frame in frames] == [(0, ""), (1, "")]
    assert [frame.location.y_px for frame in frames if frame.location] == pytest.approx([110, 370], abs=2)


def test_each_of_touching_parts_is_a_fault_without_a_picture() -> None:
    frames = track(draw_run([(-100, 240), (-268, 240), (-600, 240)], 20, 65))
    assert [frame.fault for frame in frames] == ["parts touch", "parts touch", ""]
    assert [frame.image is None for frame in frames] == [True, True, False]


def test_a_part_beyond_the_side_of_the_view_is_a_fault() -> None:
    frames = track(draw_run([(-100, 30)], 20, 45))
    assert [(frame.fault, frame.image) for frame in frames] == [("part is not entirely in view", None)]


def test_a_part_longer_than_the_view_is_a_fault() -> None:
    views = []
    for n in range(70):
        view = draw_view([])
        left, right = max(0, n * 30 - 700), max(0, n * 30)
        view[150:330, left:right] = (230, 130, 30)
        views.append(view_of(n, view))
    assert [(frame.fault, frame.image) for frame in track(views)] == [("part is not entirely in view", None)]


def test_a_window_at_the_edge_is_moved_into_the_view() -> None:
    (frame,) = track(draw_run([(-100, 100)], 20, 45))
    assert frame.image is not None
    assert frame.image.shape == (*FRAME_PX, 3)
    assert frame.location is not None
    assert frame.location.y_px == pytest.approx(100, abs=2)


@pytest.mark.parametrize("first", [17, 18, 19, 20, 21, 22])
def test_a_short_loss_of_views_loses_no_part(first: int) -> None:
    views = draw_run([(-90, 240), (-330, 240)], 20, 60)  # the first part passes the middle after view 20
    for number in (first, first + 1):
        views[number] = view_of(number, None)
    frames = track(views)
    assert [frame.fault for frame in frames] == ["", ""]
    assert frames[0].trigger.t_ns == pytest.approx(1_000 + VIEW_NS * 20.475, abs=VIEW_NS / 10)


def test_a_part_that_passes_while_views_are_lost_is_a_fault() -> None:
    views = draw_run([(-90, 240), (-330, 240)], 20, 60)
    views[13:28] = [view_of(number, None) for number in range(13, 28)]
    assert [(frame.fault, frame.image is None) for frame in track(views)] == [
        ("part was out of sight in the middle of the view", True),
        ("", False),
    ]


def test_views_that_are_missing_from_the_count_are_lost_views() -> None:
    views = draw_run([(-90, 240), (-330, 240)], 20, 60)
    frames = track(views[:13] + views[28:])
    assert [frame.fault for frame in frames] == ["part was out of sight in the middle of the view", ""]
    assert frames[0].trigger.t_ns == pytest.approx(1_000 + VIEW_NS * 20.475, abs=VIEW_NS / 5)


def test_a_view_of_another_size_is_a_lost_view() -> None:
    views = draw_run([(-90, 240)], 20, 50)
    views[20] = replace(views[20], image=np.zeros((240, 320, 3), np.uint8))
    assert [frame.fault for frame in track(views)] == [""]


def test_a_part_that_vanishes_still_gets_its_frame() -> None:
    views = draw_run([(-90, 240)], 20, 12) + [view_of(n, draw_view([])) for n in range(12, 50)]
    (frame,) = track(views)
    assert frame.fault == "part was out of sight in the middle of the view"
    assert frame.trigger.t_ns == pytest.approx(1_000 + VIEW_NS * 20.475, abs=VIEW_NS / 5)


def test_what_passed_before_the_run_is_not_judged() -> None:
    frames = track(draw_run([(500, 240), (200, 240)], 20, 30))
    assert [frame.trigger.t_ns for frame in frames] == pytest.approx([1_000 + VIEW_NS * 5.975], abs=VIEW_NS / 20)


def test_a_standing_belt_gives_no_part() -> None:
    assert track([view_of(n, draw_view([(319.4 + 0.3 * (n % 2), 240)])) for n in range(100)]) == []


def test_a_belt_that_stops_and_goes_on_gives_each_part_once() -> None:
    ways = list(np.concatenate([np.arange(0, 400, 20), np.full(90, 400), np.arange(400, 900, 20)]))
    frames = track([view_of(n, draw_view([(-90 + way, 240)])) for n, way in enumerate(ways)])
    assert [frame.fault for frame in frames] == [""]


@pytest.mark.parametrize(("step_px", "back"), [(20, 15), (-40, 20), (45, 40)])
def test_a_belt_that_runs_back_brings_no_part_twice(step_px: int, back: int) -> None:
    """Out of the view downstream and back, and out of it upstream and back."""
    turns = [step_px] * 30 + [-step_px] * back + [step_px] * (back + 10)
    ways = np.cumsum([0, *turns])
    places = [(-100 - 250 * i if step_px > 0 else 740 + 250 * i) for i in range(8)]
    frames = track([view_of(n, draw_view([(x + way, 240) for x in places])) for n, way in enumerate(ways)])
    crossed = sum(
        (x - MIDDLE_PX) * np.sign(step_px) < 0 <= (x + max(ways, key=abs) - MIDDLE_PX) * np.sign(step_px)
        for x in places
    )
    assert len(frames) == crossed


def test_a_belt_that_runs_back_unseen_brings_no_part_twice() -> None:
    ways = [*range(0, 1100, 20), *range(1100, 420, -20), *range(420, 900, 20)]  # for a while it shows nothing
    frames = track([view_of(n, draw_view([(-90 + way, 240)])) for n, way in enumerate(ways)])
    assert [frame.fault for frame in frames] == [""]


def test_what_comes_against_the_belt_unknown_is_not_judged_good() -> None:
    views = draw_run([(-90, 240)], 20, 14)
    views += [view_of(n, draw_view([(-90 + 20 * n, 240), (500 + 20 * (n - 14), 110)])) for n in range(14, 50)]
    frames = track(views)
    assert [frame.fault for frame in frames] == ["it came against the belt, or was put there", ""]


@pytest.mark.parametrize(
    ("cut", "level"), [(np.s_[240:], 128), (np.s_[240:], 0), (np.s_[:100], 90), (np.s_[:, 300:], 255)]
)
def test_views_that_are_not_whole_bring_no_phantoms(cut: tuple[slice, ...], level: int) -> None:
    views = draw_run([(-90, 240), (-480, 240)], 20, 70)
    for number in (*range(30, 35), *range(50, 55)):  # the first part has passed, the second is on its way or passes
        views[number].image[cut] = level
    source = TrackedSource(Film(views), TrackerSettings(), FRAME_PX)
    frames = read_all(source)
    assert len(frames) == 2
    assert frames[0].fault == ""
    assert source.counters()["views_broken"] == 10
    complaint = source.complaint()
    assert complaint is not None
    assert complaint.state == "degraded"


def test_a_line_that_sees_nothing_any_more_says_so() -> None:
    now_s = [0.0]

    class Blind(Film):
        def read(self, timeout_s: float) -> Frame | None:
            try:
                return super().read(timeout_s)
            except EndOfStream:
                now_s[0] += timeout_s
                return None

    source = TrackedSource(Blind(draw_run([], 0, 3)), TrackerSettings(), FRAME_PX, now_s=lambda: now_s[0])
    assert source.complaint() is None  # nothing has come yet
    deadline_s = 30.0
    while now_s[0] < deadline_s and source.complaint() is None:
        source.read(0.001)
        now_s[0] += 0.5
    complaint = source.complaint()
    assert complaint is not None
    assert complaint.reason.startswith("no view of the belt comes any more")


class Listener:
    """An `Ahead` that holds the tracker to its word."""

    def __init__(self) -> None:
        self.expected: list[int] = []
        self.seen_ns = -1

    def expect(self, trigger: Trigger) -> None:
        assert trigger.t_ns >= self.seen_ns
        self.expected.append(trigger.part_id)

    def seen_until(self, t_ns: int) -> None:
        self.seen_ns = max(self.seen_ns, t_ns)

    def at_gate(self, t_ns: int) -> None: ...

    def moved(self, position_um: int, t_ns: int) -> None: ...


def test_the_gate_hears_of_no_part_too_late() -> None:
    """All is told by the line's own thread: a line that is late has also not said that nobody else comes."""
    ahead, views = Listener(), draw_run([(-90, 240), (-380, 240), (-700, 240)], 40, 40)
    source = TrackedSource(Film(views), TrackerSettings(), FRAME_PX, ahead=ahead)
    assert source.read(10.0) is not None
    told_ns = ahead.seen_ns
    assert told_ns < views[12].trigger.t_ns  # of the view in which the part crossed, and no later
    read_all(source)
    assert ahead.expected == [0, 1, 2]


def test_exposure_may_drift_and_jump() -> None:
    gains = [1 - 0.004 * n for n in range(70)] + [1.3] * 70
    places = [(-90 - 260 * i, 240) for i in range(6)]
    views = [view_of(n, draw_view([(x + 15 * n, y) for x, y in places], gain)) for n, gain in enumerate(gains)]
    assert [frame.fault for frame in track(views)] == [""] * 6


def test_the_belt_is_learnt_on_a_crowded_first_view() -> None:
    frames = track(draw_run([(590 - 200 * i, 240) for i in range(8)], 20, 90))
    assert [frame.fault for frame in frames] == [""] * 6  # two had passed


def test_a_new_run_counts_from_zero() -> None:
    first, second = draw_run([(-90, 240)], 20, 40), draw_run([(-90, 240)], 20, 40)
    second = [replace(view, trigger=replace(view.trigger, run="next")) for view in second]
    frames = track(first + second)
    assert [(frame.trigger.run, frame.trigger.part_id) for frame in frames] == [("run", 0), ("next", 0)]


def test_the_end_comes_after_the_last_part_and_stays() -> None:
    source = TrackedSource(Film(draw_run([(-90, 110), (-90, 370)], 20, 22)), TrackerSettings(), FRAME_PX)
    assert [frame.trigger.part_id for frame in (source.read(5), source.read(5)) if frame] == [0, 1]
    for _ in range(2):
        with pytest.raises(EndOfStream):
            source.read(5)


def test_a_source_that_gives_nothing_costs_the_timeout_only() -> None:
    class Silent(Film):
        def read(self, timeout_s: float) -> Frame | None:  # noqa: ARG002
            return None

    assert TrackedSource(Silent([]), TrackerSettings(), FRAME_PX).read(0.05) is None


def test_the_same_views_give_the_same_frames() -> None:
    views = draw_run([(-90, 240), (-330, 200)], 17, 60)
    once, twice = track(views), track(views)
    assert [(f.trigger, f.location) for f in once] == [(f.trigger, f.location) for f in twice]
    for a, b in zip(once, twice, strict=True):
        assert a.image is not None
        assert b.image is not None
        assert np.array_equal(a.image, b.image)


def test_views_smaller_than_the_frame_are_refused() -> None:
    with pytest.raises(InputError, match="views of 200x300 are smaller than the model's frames of 256x256: correct"):
        track([view_of(0, np.zeros((300, 200, 3), np.uint8))])


def test_a_hidden_flow_of_time_changes_nothing() -> None:
    """Replayed as fast as possible, views have crowded times; parts are the same."""
    views = draw_run([(-90, 240), (-330, 240)], 20, 60)
    crowded = [replace(view, trigger=replace(view.trigger, t_ns=7 + n * n)) for n, view in enumerate(views)]
    assert [f.location for f in track(crowded)] == [f.location for f in track(views)]


@pytest.mark.skipif(not VIDEOS.is_dir(), reason=f"no videos at {VIDEOS.parent.name}/{VIDEOS.name} beside the checkout")
@pytest.mark.parametrize("name", ["bottle-detection.mp4", "fruit-and-vegetable-detection.gif", "prototype_demo.mp4"])
def test_real_videos_run_to_their_end(name: str) -> None:
    source = TrackedSource(
        ReplaySource(ReplaySettings(VIDEOS / name), None), TrackerSettings(px_per_mm=1, part_mm=130), (128, 128)
    )
    frames = read_all(source)
    assert [frame.trigger.part_id for frame in frames] == list(range(len(frames)))
    if name.startswith("fruit"):  # an apple, a broccoli, a cauliflower and an orange, from right to left
        assert [frame.fault for frame in frames if frame.image is not None] == [""] * 4
