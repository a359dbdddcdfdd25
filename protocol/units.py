"""Factors between the units that names tell."""

from __future__ import annotations

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
UM_PER_MM = 1000
FIRST_YEAR, LAST_YEAR = 2026, 2100  # a clock that shows another one is wrong: no station was built before
