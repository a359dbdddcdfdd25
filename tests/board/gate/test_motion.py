"""What proves the belt's motion, and what refutes it: by encoder, by view, by two light barriers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from board.gate.barriers import KEPT, Barriers
from board.gate.encoder import Encoder
from board.gate.keeper import Keeper
from board.gate.motion import MotionSettings, Origin
from board.gate.settings import GateSettings
from board.gate.view import View
from protocol.messages import Trigger

MS = 1_000_000
SPEED_MM_S = 400.0
CLEAR_UM = 340_000
CARRIED_UM = 39_000
SETTINGS = MotionSettings()
TRAVEL_MS = 650  # 260 mm from barrier to barrier


def run(motion: Encoder | View, from_ms: int, until_ms: int, mm_s: float = SPEED_MM_S, start_um: int = 0) -> int:
    """Readings every 5 ms; where the belt is then."""
    for t_ms in range(from_ms, until_ms, 5):
        motion.moved(start_um + round((t_ms - from_ms) * mm_s), t_ms * MS)
    return start_um + round((until_ms - from_ms) * mm_s)


def trigger(t_ms: float, part_id: int = 0, position_um: int | None = None) -> Trigger:
    return Trigger("run", part_id, int(t_ms * MS), "clock", position_um)


@pytest.fixture
def encoder() -> Encoder:
    return Encoder(SETTINGS, SPEED_MM_S, CLEAR_UM)


@pytest.mark.parametrize("mm_s", [200.0, 400.0, 800.0])
def test_an_encoder_knows_where_the_belt_is_at_any_speed(encoder: Encoder, mm_s: float) -> None:
    run(encoder, 0, 1000, mm_s)
    reach = encoder.reach(1000 * MS)
    assert reach.low == pytest.approx(1000 * mm_s, abs=10)
    assert reach.high == reach.low
    assert encoder.speed_mm_s == pytest.approx(mm_s)
    assert encoder.trouble(1000 * MS) == ""
    assert encoder.came(trigger(502)) == encoder.place(502 * MS)


def test_without_a_word_of_the_encoder_nothing_is_believed(encoder: Encoder) -> None:
    assert "nothing is heard" in encoder.trouble(0)
    assert encoder.came(trigger(10)) is None
    assert not encoder.is_moving(0)


def test_an_encoder_that_ceases_leaves_the_belt_in_doubt_by_all_that_it_may_have_run(encoder: Encoder) -> None:
    end_um = run(encoder, 0, 1000)
    for t_ms in range(1000, 1080, 5):
        encoder.moved(end_um, t_ms * MS)  # a cable that broke looks like a belt that stands
    reach = encoder.reach(1080 * MS)
    assert reach.low == end_um
    assert reach.high - end_um >= 0.7 * 80 * SPEED_MM_S
    assert not encoder.is_moving(1110 * MS)


def test_a_part_that_comes_while_the_encoder_stands_refutes_it_until_the_belt_is_clear(encoder: Encoder) -> None:
    end_um = run(encoder, 0, 1000)
    run(encoder, 1000, 1500, 0.0, end_um)
    encoder.came(trigger(1300))
    assert encoder.trouble(1350 * MS) == ""  # it may have begun to run just then
    assert "parts come while" in encoder.trouble(1401 * MS)
    run(encoder, 1500, 2340, SPEED_MM_S, end_um)
    assert "parts come while" in encoder.trouble(2340 * MS)
    run(encoder, 2340, 2400, SPEED_MM_S, end_um + 840 * 400)
    assert encoder.trouble(2400 * MS) == ""


@pytest.mark.parametrize(("step_um", "said"), [(-5000, "backwards"), (50_000, "jumps")])
def test_an_encoder_that_contradicts_itself_is_not_believed(encoder: Encoder, step_um: int, said: str) -> None:
    end_um = run(encoder, 0, 1000)
    doubts = encoder.doubts
    encoder.moved(end_um + step_um, 1000 * MS)
    assert said in encoder.trouble(1000 * MS)
    assert encoder.doubts == doubts + 1


def test_a_silent_encoder_is_said_while_it_lasts(encoder: Encoder) -> None:
    end_um = run(encoder, 0, 1000)
    assert "silent" in encoder.trouble(1300 * MS)
    run(encoder, 1300, 1400, SPEED_MM_S, end_um)
    assert encoder.trouble(1400 * MS) == ""


@pytest.mark.parametrize("mm_s", [240.0, 600.0, 800.0])
def test_a_view_of_a_wrong_speed_is_said_and_not_believed_until_the_belt_is_clear(mm_s: float) -> None:
    view = View(SETTINGS, SPEED_MM_S, CLEAR_UM, CARRIED_UM)
    end_um = run(view, 0, 1000)
    assert view.is_moving(1000 * MS)
    end_um = run(view, 1000, 2000, mm_s, end_um)
    assert view.speed_mm_s == pytest.approx(mm_s)
    assert "mm/s, not 400: set the belt right" in view.trouble(2000 * MS)  # said once, and not anew at each view
    end_um = run(view, 2000, 2700, SPEED_MM_S, end_um)
    assert view.trouble(2700 * MS) == ""
    assert not view.is_moving(2700 * MS)
    run(view, 2700, 3700, SPEED_MM_S, end_um)
    assert view.is_moving(3700 * MS)


def test_a_part_that_came_after_the_last_view_is_not_taken_to_have_come_where_that_was() -> None:
    view = View(SETTINGS, SPEED_MM_S, CLEAR_UM, CARRIED_UM)
    run(view, 0, 1000)
    place = view.came(trigger(1015))
    assert place is not None
    assert place.low == pytest.approx(view.reach(995 * MS).low + 20 * 400, abs=10)


def test_what_is_not_seen_is_not_carried_past_the_gate() -> None:
    """A belt that stops when nobody sees it: who was last seen before the gate's line has not left its window."""
    view = View(SETTINGS, SPEED_MM_S, CLEAR_UM, CARRIED_UM)
    run(view, 0, 1000)
    seen_um = view.reach(995 * MS).low
    assert all(view.reach((995 + t_ms) * MS).low - seen_um <= CARRIED_UM for t_ms in range(500))


def test_while_a_view_shows_nothing_the_belt_may_stand_or_run() -> None:
    view = View(SETTINGS, SPEED_MM_S, CLEAR_UM, CARRIED_UM)
    run(view, 0, 1000)
    before, after = view.reach(1000 * MS), view.reach(2000 * MS)
    assert after.low <= before.low
    assert after.high == pytest.approx(before.high + 400_000, abs=1000)


class Belt:
    """Two barriers, and parts that are told of as they come."""

    def __init__(self) -> None:
        self.barriers = Barriers(SETTINGS, SPEED_MM_S, 260_000)

    def events(self, came_ms: Sequence[float], passed_ms: Sequence[float]) -> Iterator[object]:
        """The key of the part that each passage belongs to; None where that is in doubt."""
        events = [(t_ms, number, "came") for number, t_ms in enumerate(came_ms)]
        events += [(t_ms, number, "passed") for number, t_ms in enumerate(passed_ms)]
        for t_ms, number, what in sorted(events):
            self.barriers.look(int(t_ms * MS))
            if what == "came":
                self.barriers.came(number, int(t_ms * MS))
            else:
                arrival = self.barriers.passed(int(t_ms * MS))
                yield arrival.key if arrival else None


IRREGULAR_MS = [0, 120, 390, 510, 800, 1190, 1300, 1480, 1790, 2000, 2310, 2400, 2700, 2860, 3200, 3290, 3600, 3700]


@pytest.fixture
def belt() -> Belt:
    return Belt()


def test_on_a_right_belt_each_passage_is_its_parts(belt: Belt) -> None:
    passed = [t_ms + TRAVEL_MS for t_ms in IRREGULAR_MS]
    assert list(belt.events(IRREGULAR_MS, passed)) == list(range(len(IRREGULAR_MS)))
    assert belt.barriers.trouble() == ""
    assert belt.barriers.speed_mm_s == pytest.approx(400)


@pytest.mark.parametrize("pitch_ms", [50, 100, 144, 217, 433])
@pytest.mark.parametrize("factor", [0.5, 0.6, 0.75, 0.9, 1.1, 1.5, 2.0])
def test_a_wrong_speed_is_said_and_nobody_is_known_however_regular_the_parts(
    belt: Belt, pitch_ms: int, factor: float
) -> None:
    """subtle: at some distances each part is just where another one should be."""
    came = [number * pitch_ms for number in range(40)]
    assert set(belt.events(came, [t_ms + TRAVEL_MS / factor for t_ms in came])) == {None}
    assert f"the belt runs at {400 * factor:.0f} mm/s, not 400" in belt.barriers.trouble()


def test_after_a_stop_parts_are_known_again_once_one_made_its_whole_way(belt: Belt) -> None:
    came = [number * 100 for number in range(30)]
    came = [t_ms if t_ms < 1000 else t_ms + 3000 for t_ms in came]
    passed = [t_ms + TRAVEL_MS if t_ms + TRAVEL_MS < 1000 or t_ms >= 4000 else t_ms + TRAVEL_MS + 3000 for t_ms in came]
    known = list(belt.events(came, passed))
    assert known[:4] == [0, 1, 2, 3]
    assert set(known[4:10]) == {None}
    assert known[-5:] == [25, 26, 27, 28, 29]
    assert all(key in {None, number} for number, key in enumerate(known))


def test_a_part_that_is_taken_off_makes_nobody_another(belt: Belt) -> None:
    passed = [t_ms + TRAVEL_MS for t_ms in IRREGULAR_MS]
    taken = passed[:3] + passed[4:]
    known = list(belt.events(IRREGULAR_MS, taken))
    owners = [0, 1, 2, *range(4, len(IRREGULAR_MS))]
    assert all(key in {None, owner} for key, owner in zip(known, owners, strict=True))
    assert known[3] is None
    assert known[-1] == owners[-1]  # the pattern of distances has told


def test_a_part_that_is_put_on_makes_nobody_another(belt: Belt) -> None:
    passed = sorted([*(t_ms + TRAVEL_MS for t_ms in IRREGULAR_MS), 1000.0])
    owners: dict[float, int] = {t_ms + TRAVEL_MS: number for number, t_ms in enumerate(IRREGULAR_MS)}
    known = list(belt.events(IRREGULAR_MS, passed))
    assert all(key in {None, owners.get(t_ms)} for key, t_ms in zip(known, passed, strict=True))
    assert known[-1] == len(IRREGULAR_MS) - 1


def test_of_regular_parts_nobody_is_guessed_after_one_was_taken_off_until_there_is_a_gap(belt: Belt) -> None:
    came = [number * 200 for number in range(30)] + [8000 + number * 200 for number in range(20)]
    passed = [t_ms + TRAVEL_MS for number, t_ms in enumerate(came) if number != 5]
    known = list(belt.events(came, passed))
    assert set(known[5:29]) == {None}
    assert known[-1] == 49
    owners = [number for number in range(50) if number != 5]
    assert all(key in {None, owner} for key, owner in zip(known, owners, strict=True))


def test_a_part_that_never_passes_is_noticed_when_it_is_due(belt: Belt) -> None:
    list(belt.events([0], []))
    assert belt.barriers.look(682 * MS)
    assert not belt.barriers.look(683 * MS)


def keep(by: Origin) -> Keeper:
    keeper = Keeper(GateSettings(lead_ms=0), SPEED_MM_S, MotionSettings(by=by))
    keeper.seen_until(10_000 * MS, 0)
    return keeper


def test_with_two_barriers_a_good_part_opens_from_its_passage_on() -> None:
    keeper = keep("barriers")
    keeper.judge(trigger(0), 100 * MS, is_ok=True)
    assert not keeper.look(655 * MS)
    keeper.at_gate(660 * MS)
    assert keeper.look(661 * MS)
    assert not keeper.look(861 * MS)


def test_a_bad_part_closes_where_it_should_be_though_nobody_saw_it_pass() -> None:
    keeper = keep("barriers")
    keeper.judge(trigger(0), 100 * MS, is_ok=True)
    keeper.expect(trigger(100, 1), 100 * MS)
    keeper.at_gate(650 * MS)
    assert keeper.look(749 * MS)
    assert not keeper.look(751 * MS)


@pytest.mark.parametrize(("behind_mm", "passes"), [(30, False), (40, False), (42, True)])
def test_nobody_follows_a_bad_part_that_may_stand_at_the_gate(behind_mm: int, passes: bool) -> None:
    """The belt stops when the good one has been timed: by the clock, the bad one before it has left long ago."""
    keeper, behind_ms = keep("barriers"), behind_mm / 0.4
    keeper.expect(trigger(0, 0), 0)
    keeper.judge(trigger(behind_ms, 1), 200 * MS, is_ok=True)
    keeper.at_gate(650 * MS)
    keeper.at_gate(int((650 + behind_ms) * MS))
    found = {keeper.look(t_ms * MS) for t_ms in range(int(650 + behind_ms), 1100, 2)}
    assert found == ({False, True} if passes else {False})


def test_a_stop_before_a_part_was_timed_leaves_the_one_ahead_of_it_in_doubt() -> None:
    """It came 30 ms late, and 30 ms are 12 mm: the bad one is 40 mm before it, or 52."""
    keeper = keep("barriers")
    keeper.expect(trigger(0, 0), 0)
    keeper.judge(trigger(101, 1), 200 * MS, is_ok=True)
    keeper.at_gate(650 * MS)
    keeper.at_gate(781 * MS)
    assert not any(keeper.look(t_ms * MS) for t_ms in range(781, 1100, 2))


def test_where_the_belt_was_not_known_nobody_passes_until_the_part_has_left() -> None:
    keeper = keep("encoder")
    keeper.judge(trigger(0), 0, is_ok=True)  # before the encoder said a word
    for t_ms in range(5, 1200, 5):
        keeper.moved(t_ms * 400, t_ms * MS)
        assert not keeper.look(t_ms * MS)


def test_barriers_stand_more_parts_than_they_can_remember() -> None:
    """A part passed, and then hundreds came of which none does."""
    barriers = Barriers(MotionSettings(by="barriers"), 600.0, 260_000)
    barriers.came(0, 0)
    barriers.passed(433_333_333)
    for number in range(KEPT + 10):
        barriers.came(number + 1, 10**9 + number)
    assert "parts do not reach the gate" in barriers.trouble()
