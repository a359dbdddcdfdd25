"""What the page's addresses have in common: the line's history, its station, and who may act."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from host.aside import Aside
from host.dashboard.audit import Audit
from host.dashboard.figures import Figures
from host.dashboard.history import History, Row
from host.dashboard.hub import Hub
from host.dashboard.link import Link
from host.dashboard.looker import Looker
from host.dashboard.pictures import PictureStore
from host.dashboard.retention import Retention
from host.dashboard.reversals import Reversals
from host.dashboard.sessions import Guesses, Sessions
from host.dashboard.station import Station
from host.dashboard.tables import first_line
from host.dashboard.writer import Writer


@dataclass(frozen=True)
class Desk:
    site: str
    line: str
    models_dir: Path
    captures_dir: Path
    drift_dir: Path
    passwords: Path
    is_encrypted: bool  # the page itself is served over TLS
    history: History
    audit: Audit
    reversals: Reversals
    pictures: PictureStore
    station: Station
    figures: Figures
    writer: Writer
    aside: Aside
    retention: Retention
    link: Link
    looker: Looker | None
    hub: Hub
    sessions: Sessions
    guesses: Guesses


def summarize(
    history: History,
    station: Station,
    figures: Figures,
    reversals: Reversals,
    *,
    trouble: str,
    speaker: tuple[str, str],
) -> dict[str, Any]:
    """What the page shows at the top, once a second: also while the database is away."""
    shift: Row | None = None
    reversals.write_down()
    try:
        shift = shift_now(history)
    except SQLAlchemyError as error:
        trouble = trouble or f"the history cannot be read ({first_line(error)}): start the database"
    condition = station.condition()
    figured = figures.summary()
    return {
        "site": speaker[0],
        "line": speaker[1],
        "state": condition.state,
        "reason": condition.reason,
        **figured,
        "model_id": station.model_id or figured["model_id"],
        "health": station.health,
        "trouble": trouble,
        "drift": station.drift.text,
        "challenge": station.challenge,
        "taken_back": reversals.latest,
        "shift": shift,
    }


def shift_now(history: History) -> Row:
    """Totals of the present shift. Raises: SQLAlchemyError."""
    begun = history.current_shift()
    none: Row = {"shift": begun, "OK": 0, "REJECT": 0, "UNKNOWN": 0}
    return next((shift for shift in history.shifts() if shift["shift"] == begun), none)
