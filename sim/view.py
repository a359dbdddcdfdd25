"""The live view of a run in a terminal; a few plain lines where the output is no terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from protocol.messages import Verdict
from sim.score import Summary, percentiles

COLOURS = {"OK": "green", "REJECT": "red", "UNKNOWN": "yellow"}
GLYPHS = {"OK": "●", "REJECT": "✗", "UNKNOWN": "?"}
BELT_SHOWS = 40  # parts
NAMED = 5  # parts in one row of the summary
PLAIN_EVERY_S = 2.0


@dataclass(frozen=True)
class Scenery:
    """What stays the same during a run."""

    title: str
    hint: str  # where else to look
    parts: int


class View:
    """`with View(...) as view: view.show(...)` a few times a second."""

    def __init__(self, console: Console, scenery: Scenery) -> None:
        self._console, self._scenery = console, scenery
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._started_s = time.monotonic()
        self._plain_due_s = 0.0
        self._said = ""

    def __enter__(self) -> View:
        if self._live:
            self._live.start()
        else:
            self._console.print(self._scenery.title, self._scenery.hint, sep="\n", highlight=False, soft_wrap=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, verdicts: Sequence[Verdict], truth: Mapping[int, str], state: str, *, is_last: bool = False) -> None:
        """`truth` maps the part ids known so far to their defects, '' for good; `state` has its reason with it."""
        if self._live:
            self._live.update(self.draw(verdicts, truth, state), refresh=True)
        elif (verdicts or _is_trouble(state)) and (is_last or time.monotonic() >= self._plain_due_s):
            self._plain_due_s = time.monotonic() + PLAIN_EVERY_S
            said = plain_line(verdicts, self._scenery.parts) + (f"   {state}" if _is_trouble(state) else "")
            if said != self._said:
                self._console.print(said, highlight=False, soft_wrap=True, markup=False)
            self._said = said

    def draw(self, verdicts: Sequence[Verdict], truth: Mapping[int, str], state: str) -> Panel:
        """Belt, progress, counts and the newest part."""
        rows: list[RenderableType] = [
            Text.assemble(("camera ▶ ", "dim"), *_belt(verdicts)),
            _progress(len(verdicts), self._scenery.parts, time.monotonic() - self._started_s),
            _counts(verdicts, state),
            _tally(verdicts, truth),
            _newest(verdicts),
            Text(self._scenery.hint, style="dim"),
        ]
        return Panel(Group(*rows), title=self._scenery.title, title_align="left", border_style="blue")


def _is_trouble(state: str) -> bool:
    return state not in ("", "running")


def _belt(verdicts: Sequence[Verdict]) -> list[tuple[str, str]]:
    shown = verdicts[-BELT_SHOWS:]
    return [(GLYPHS[verdict.decision] + " ", COLOURS[verdict.decision]) for verdict in reversed(shown)]


def _progress(done: int, total: int, elapsed_s: float) -> Table:
    row = Table.grid(padding=(0, 1))
    left_s = elapsed_s / done * (total - done) if done else 0.0
    pace = f"{done / elapsed_s:.1f} parts/s" if elapsed_s > 0 else ""
    row.add_row(ProgressBar(total, done, width=40), f"{done}/{total} parts", pace, f"{left_s:.0f} s left")
    return row


def _counts(verdicts: Sequence[Verdict], state: str) -> Text:
    latency = percentiles([verdict.latency_ms for verdict in verdicts])
    pieces: list[tuple[str, str]] = []
    for decision, colour in COLOURS.items():
        count = sum(verdict.decision == decision for verdict in verdicts)
        pieces.append((f"{GLYPHS[decision]} {decision} {count}   ", colour))
    pieces.append((f"latency p50 {latency['p50']:.1f} ms, p99 {latency['p99']:.1f} ms   ", ""))
    pieces.append((state, "green" if state == "running" else "bold yellow"))
    return Text.assemble(*pieces)


def _tally(verdicts: Sequence[Verdict], truth: Mapping[int, str]) -> Text:
    """What only a fake belt can know: how many of the decisions were right."""
    judged = [verdict for verdict in verdicts if verdict.part_id in truth]
    bad = [verdict for verdict in judged if truth[verdict.part_id]]
    caught = sum(verdict.decision == "REJECT" for verdict in bad)
    wronged = sum(verdict.decision == "REJECT" for verdict in judged) - caught
    return Text(f"in truth: {caught} of {len(bad)} defects caught, {wronged} of {len(judged) - len(bad)} good rejected")


def _newest(verdicts: Sequence[Verdict]) -> Text:
    if not verdicts:
        return Text("waiting for the first verdict …", style="dim")
    verdict = verdicts[-1]
    decision = (verdict.decision, COLOURS[verdict.decision])
    return Text.assemble(f"part {verdict.part_id}: ", decision, f" {_why(verdict)}, {verdict.engine}")


def _why(verdict: Verdict) -> str:
    if verdict.score is None:
        return f"({verdict.reason})"
    sign = "≥" if verdict.score >= verdict.threshold else "<"
    return f"score {verdict.score:.2f} {sign} {verdict.threshold:.2f}"


def plain_line(verdicts: Sequence[Verdict], total: int) -> str:
    counts = ", ".join(f"{name} {sum(v.decision == name for v in verdicts)}" for name in COLOURS)
    latency = percentiles([verdict.latency_ms for verdict in verdicts])
    return f"{len(verdicts):>6}/{total} parts   {counts}   latency p50 {latency['p50']:.1f} ms"


def print_summary(console: Console, summary: Summary) -> None:
    """The end-of-run table: every key of the report, in words a person reads."""
    table = Table(title="Summary", title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in _summary_rows(summary):
        table.add_row(name, value)
    console.print(table, highlight=False)


def _summary_rows(summary: Summary) -> list[tuple[str, str]]:
    latency = summary.latency_ms
    stages = ", ".join(f"{name} {figures['p50']:.2f}" for name, figures in summary.stages_ms.items())
    return [
        ("parts, verdicts, lost", f"{summary.parts}, {summary.verdicts}, {summary.lost}"),
        ("OK, REJECT, UNKNOWN", f"{summary.ok}, {summary.reject}, {summary.unknown}"),
        ("recall on defects", _rate(summary.recall)),
        ("false rejects", _rate(summary.false_reject_rate) + _of_few(summary)),
        ("image AUROC", "–" if summary.auroc is None else f"{summary.auroc:.4f}{_of_few(summary)}"),
        ("throughput", f"{summary.parts_per_s:.1f} parts/s"),
        ("trigger → verdict", f"p50 {latency['p50']:.1f} ms, p99 {latency['p99']:.1f} ms, max {latency['max']:.1f} ms"),
        ("  of it, p50 in ms", stages),
        *_missed_rows(summary),
        *_gate_rows(summary),
        ("engine, model", f"{summary.engine or '–'}, {summary.model_id}"),
        *([] if summary.state in ("", "running") else [("the line at the end", summary.state)]),
    ]


def _of_few(summary: Summary) -> str:
    """What makes a figure look better than it is."""
    judged = summary.ok + summary.reject
    return f", but only {judged} of {summary.parts} parts were judged" if 0 < judged < summary.parts else ""


def _missed_rows(summary: Summary) -> list[tuple[str, str]]:
    """Which defective parts were let through as good."""
    if not summary.missed:
        return []
    named = [f"part {part_id} ({defect})" for part_id, defect in list(summary.missed.items())[:NAMED]]
    more = f" and {len(summary.missed) - NAMED} more" if len(summary.missed) > NAMED else ""
    return [("judged OK by mistake", ", ".join(named) + more)]


def _gate_rows(summary: Summary) -> list[tuple[str, str]]:
    late = f"{summary.missed_deadlines}"
    if summary.missed_deadlines:
        late += f" of {summary.parts}: the belt is too fast for the engine; give a lower --rate or --speed"
    if summary.crossed_open is None:
        return [("gate deadlines missed", late)]
    crossed = ", ".join(f"{decision} {count}" for decision, count in summary.crossed_open.items())
    if summary.crossed_wrongly:
        named = ", ".join(map(str, summary.crossed_wrongly[:NAMED]))
        crossed += f": part{'s' if len(summary.crossed_wrongly) > 1 else ''} {named} should not have"
    return [
        ("gate deadlines missed", late),
        ("crossed an open gate", crossed),
        ("good parts stopped", str(summary.good_stopped)),
    ]


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
