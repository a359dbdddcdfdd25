"""Which line runs which model, who signed it, and how it does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rich.table import Table

from host.deploy.lines import Report
from protocol.reports import HealthReport, LineState


@dataclass
class Seen:
    state: LineState | None = None
    health: HealthReport | None = None


def gather(reports: Iterable[tuple[str, Report]]) -> dict[str, Seen]:
    """The latest of each line, by "site/line"."""
    lines: dict[str, Seen] = {}
    for line, report in reports:
        if isinstance(report, LineState):
            lines.setdefault(line, Seen()).state = report
        elif isinstance(report, HealthReport):
            lines.setdefault(line, Seen()).health = report
    return dict(sorted(lines.items()))


def draw_fleet(lines: dict[str, Seen]) -> Table:
    columns = ("line", "state", "model", "manifest", "signed by", "parts", "rejected", "unknown", "infer p50 ms")
    table = Table(*columns)
    for line, seen in lines.items():
        table.add_row(line, *_state_cells(seen.state), *_health_cells(seen.health))
    return table


def _state_cells(state: LineState | None) -> tuple[str, ...]:
    if state is None:
        return ("?", "?", "?", "?")
    text = f"{state.state}: {state.reason}" if state.reason else state.state
    return (text, state.model_id, state.manifest_sha256[:12] or "?", state.signed_by or "nobody")


def _health_cells(health: HealthReport | None) -> tuple[str, ...]:
    if health is None:
        return ("", "", "", "")
    share = f"{health.reject / health.parts:.1%}" if health.parts else ""
    infer = health.stages_ms.get("infer")
    return (str(health.parts), share, str(health.unknown), f"{infer.p50:.1f}" if infer else "")
