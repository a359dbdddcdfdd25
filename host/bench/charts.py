"""Curves and points as inline SVG, which needs no library and no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

SIDE, MARGIN = 260, 34
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22")

Points = Sequence[Sequence[float]]


def draw_lines(title: str, axes: tuple[str, str], lines: Mapping[str, Points]) -> str:
    """Curves in the unit square, with a legend."""
    drawn = []
    for number, (name, points) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        dashes = "" if number < len(COLOURS) else ' stroke-dasharray="4 2"'
        path = " ".join(f"{MARGIN + x * SIDE:.1f},{MARGIN + (1 - y) * SIDE:.1f}" for x, y in points)
        drawn.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.5"{dashes} points="{path}"/>')
        y_px = MARGIN + 12 * number + 8
        drawn.append(f'<text x="{SIDE + MARGIN + 10}" y="{y_px}" fill="{colour}">{escape(name)}</text>')
    height = max(SIDE + 2 * MARGIN, MARGIN + 12 * len(lines) + 10)
    return _frame(title, axes, drawn, height)


def draw_points(title: str, points: Points) -> str:
    """(x, y, 1 if defective), scaled to fill the square."""
    if not points:
        return ""
    xs, ys = [point[0] for point in points], [point[1] for point in points]
    wide, high = max(xs) - min(xs) or 1.0, max(ys) - min(ys) or 1.0
    drawn = [
        f'<circle cx="{MARGIN + (x - min(xs)) / wide * SIDE:.1f}" cy="{MARGIN + (y - min(ys)) / high * SIDE:.1f}" '
        f'r="2.2" fill="{COLOURS[int(is_bad)]}" fill-opacity="0.7"/>'
        for x, y, is_bad in points
    ]
    for number, name in enumerate(("good", "defective")):
        place = f'x="{SIDE + MARGIN + 10}" y="{MARGIN + 12 * number + 8}"'
        drawn.append(f'<text {place} fill="{COLOURS[number]}">{name}</text>')
    return _frame(title, ("", ""), drawn, SIDE + 2 * MARGIN)


def _frame(title: str, axes: tuple[str, str], drawn: Sequence[str], height: int) -> str:
    middle, low = MARGIN + SIDE / 2, MARGIN + SIDE
    return "\n".join(
        [
            f'<svg width="{SIDE + MARGIN + 270}" height="{height}" font-family="sans-serif" font-size="10">',
            f'<text x="{middle}" y="20" text-anchor="middle" font-size="12">{escape(title)}</text>',
            f'<rect x="{MARGIN}" y="{MARGIN}" width="{SIDE}" height="{SIDE}" fill="none" stroke="#999"/>',
            *drawn,
            f'<text x="{middle}" y="{low + 22}" text-anchor="middle">{escape(axes[0])}</text>',
            f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">{escape(axes[1])}</text>',
            "</svg>",
        ]
    )
