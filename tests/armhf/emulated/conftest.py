"""Everything here runs programs of the ARM userland, which scripts/test-armhf builds first."""

from __future__ import annotations

import pytest

from tests.armhf import userland


@pytest.fixture(scope="session", autouse=True)
def _userland() -> None:
    userland.build()
