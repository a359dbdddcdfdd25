"""The rows as one report, in Markdown and as a self-contained HTML page."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from host.bench.charts import draw_lines, draw_points
from host.bench.rows import Row
from host.bench.tables import Table, list_tables

REPORT_MD, REPORT_HTML = "report.md", "report.html"
STYLE = """body{font:14px/1.45 sans-serif;margin:2em;max-width:1500px}table{border-collapse:collapse;margin:1em 0}
td,th{border:1px solid #ccc;padding:2px 7px;text-align:right;white-space:nowrap}td:first-child,th:first-child
{text-align:left}img{max-width:100%}tr:nth-child(even){background:#f6f6f6}"""
INTRODUCTION = (
    "Every row says seed, data (digest of its pictures) and commit. Thresholds are set on held-out good pictures; "
    "only 'F1, 30 % labels' sees labels: its threshold is the best on 30 % of the labelled test pictures, its F1 that "
    "of the other 70 %. The trivial F1 is that of calling everything bad. Time and memory are those of one picture at "
    "a time in a process of its own, on one thread; memory counts what it needs beyond the loaded libraries. Best "
    "values are over all thresholds, and flatter every detector alike. 'Best while training' is the highest image "
    "AUROC on the test pictures along the way, which some papers state; no row was chosen by it."
)


def write_report(folder: Path, rows: Iterable[Row], *, galleries: bool = True) -> None:
    """Both files, each whole or not at all."""
    ordered = sorted(rows, key=lambda row: (row.problem, row.detector, row.variant, row.seed))
    tables = list_tables(ordered)
    shown = [row for row in ordered if galleries and "gallery" in row.pictures]
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / REPORT_MD, _as_markdown(tables, shown))
    _write(folder / REPORT_HTML, _as_html(tables, ordered, shown, folder))


def _write(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    os.replace(partial, path)


def _as_markdown(tables: Sequence[Table], shown: Sequence[Row]) -> str:
    parts = ["# Detectors side by side", INTRODUCTION]
    for table in tables:
        lines = ["| " + " | ".join(table.columns) + " |", "|---" * len(table.columns) + "|"]
        lines += ["| " + " | ".join(cells) + " |" for cells in table.rows]
        parts += [f"## {table.title}", *([table.remark] if table.remark else []), "\n".join(lines)]
    if shown:
        parts.append("## Heat-maps\n\nPictures, maps and true masks.")
        parts += [f"{_name(row)}\n\n![{_name(row)}]({row.pictures['gallery']})" for row in shown]
    return "\n\n".join(parts) + "\n"


def _as_html(tables: Sequence[Table], rows: Sequence[Row], shown: Sequence[Row], folder: Path) -> str:
    parts = [f"<h1>Detectors side by side</h1><p>{escape(INTRODUCTION)}</p>"]
    for table in tables:
        head = "".join(f"<th>{escape(name)}</th>" for name in table.columns)
        body = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in cells) + "</tr>" for cells in table.rows)
        parts.append(f"<h2>{escape(table.title)}</h2><p>{escape(table.remark)}</p><table><tr>{head}</tr>{body}</table>")
    parts += [_draw_curves(problem, rows) for problem in dict.fromkeys(row.problem for row in rows if row.curves)]
    parts += [draw_points(f"t-SNE, {_name(row)}", row.curves["tsne"]) for row in rows if "tsne" in row.curves]
    parts += ["<h2>Heat-maps</h2>"] if shown else []
    parts += [f"<h3>{escape(_name(row))}</h3>{_embed(folder / row.pictures['gallery'])}" for row in shown]
    title = "<title>Detectors side by side</title>"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8">{title}<style>{STYLE}</style>{"".join(parts)}</html>\n'
    )


def _draw_curves(problem: str, rows: Sequence[Row]) -> str:
    """Of each detector its first seed, as it is."""
    shown: dict[str, Row] = {}
    for row in rows:
        if row.problem == problem and row.curves and not row.variant:
            shown.setdefault(row.detector, row)
    roc = {name: row.curves["roc"] for name, row in shown.items()}
    precision = {name: row.curves["pr"] for name, row in shown.items()}
    course = {name: row.curves["course"] for name, row in shown.items() if "course" in row.curves}
    return (
        f"<h2>Curves, {escape(problem)}</h2>"
        + draw_lines("ROC", ("false-reject rate", "recall"), roc)
        + draw_lines("precision and recall", ("recall", "precision"), precision)
        + (draw_lines("while training", ("share of the training", "image AUROC"), course) if course else "")
    )


def _embed(path: Path) -> str:
    if not path.is_file():
        return "<p>the picture's file is gone</p>"
    return f'<img alt="heat-maps" src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}">'


def _name(row: Row) -> str:
    variant = f", {row.variant}" if row.variant else ""
    return f"{row.detector}{variant} on {row.problem}, seed {row.seed}"
