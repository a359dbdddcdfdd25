"""When a shift began: across midnight, and when the clock is put forward or back."""

from __future__ import annotations

from datetime import datetime, time, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.dashboard.shifts import parse_shifts, shift_start
from protocol.errors import InputError

BERLIN = ZoneInfo("Europe/Berlin")
THREE = parse_shifts("14:00,06:00,22:00")


@pytest.mark.parametrize(
    ("local", "begun"),
    [
        ("2026-01-10T06:00", "2026-01-10T06:00"),
        ("2026-01-10T05:59", "2026-01-09T22:00"),
        ("2026-01-10T23:00", "2026-01-10T22:00"),
        ("2026-03-29T03:30", "2026-03-28T22:00"),  # the night of seven hours
        ("2026-03-29T06:10", "2026-03-29T06:00"),
        ("2026-10-25T02:30", "2026-10-24T22:00"),  # the night of nine
    ],
)
def test_where_a_moment_belongs(local: str, begun: str) -> None:
    moment = datetime.fromisoformat(local).replace(tzinfo=BERLIN)
    assert shift_start(moment, THREE, BERLIN) == datetime.fromisoformat(begun).replace(tzinfo=BERLIN)


@given(
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(timezone.utc)),
    st.lists(st.times().map(lambda at: time(at.hour, at.minute)), min_size=1, max_size=5, unique=True),
)
def test_a_shift_has_begun_and_belongs_to_itself(moment: datetime, starts: list[time]) -> None:
    begun = shift_start(moment, sorted(starts), BERLIN)
    assert begun <= moment
    assert (moment - begun).total_seconds() <= 25 * 3600
    assert shift_start(begun, sorted(starts), BERLIN) == begun


@pytest.mark.parametrize("text", ["", "6:00", "24:00", "06:00;14:00", "06:00,06:00", ",".join(["00:00"] * 30)])
def test_what_is_no_list_of_times_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--shifts"):
        parse_shifts(text)
