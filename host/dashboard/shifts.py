"""Shifts of the plant: each begins at a time of the day, on the plant's clock."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, time, timedelta, timezone, tzinfo

from protocol.errors import InputError

_TIME = re.compile(r"([01]\d|2[0-3]):[0-5]\d", re.ASCII)
MAX_SHIFTS = 24


def parse_shifts(text: str) -> tuple[time, ...]:
    """Of "06:00,14:00,22:00". Raises: InputError."""
    words = text.split(",")
    if not all(_TIME.fullmatch(word) for word in words) or len(set(words)) < len(words) or len(words) > MAX_SHIFTS:
        raise InputError(f"--shifts {text!r:.80}: use times of the day, such as 06:00,14:00,22:00")
    return tuple(sorted(time.fromisoformat(word) for word in words))


def shift_start(moment: datetime, starts: Sequence[time], zone: tzinfo | None = None) -> datetime:
    """When the shift of `moment` began, UTC. `zone` None: the machine's own."""
    local = moment.astimezone(zone)
    days = [local.date() - timedelta(days=1), local.date()]
    # subtle: each start is placed in the zone by itself, for the clock may have been put forward or back since
    begun = [_at(datetime.combine(day, start), zone) for day in days for start in starts]
    return max(start for start in begun if start <= moment)


def _at(local: datetime, zone: tzinfo | None) -> datetime:
    placed = local.astimezone() if zone is None else local.replace(tzinfo=zone)
    return placed.astimezone(timezone.utc)
