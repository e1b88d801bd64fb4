"""Small drawings for the page as SVG text: values on hover, colours from the page's style."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

MARKERS = ("circle", "square", "triangle", "diamond", "cross", "plus")
DASHES = ("", "6 3", "2 2", "8 2 2 2")
COLOURS = 8
"""Line colours that the style defines as .c0, .c1, ..."""


@dataclass(frozen=True)
class Point:
    """A mean with its spread and the words shown on hover."""

    x: float
    y: float
    spread: float
    words: str


@dataclass(frozen=True)
class Line:
    """A horizontal reference."""

    y: float
    words: str


def quality_chart(
    title: str,
    series: Mapping[str, Sequence[Point]],
    order: Sequence[str],
    lines: Sequence[Line],
    targets: Sequence[float],
) -> str:
    """Quality against remaining weights (percent, log axis), one line per method; `order` gives
    each method its colour, marker and dash, the same in every chart of a page."""
    points = [p for found in series.values() for p in found]
    if not points:
        return ""
    width, height, left, right, top, bottom = 420, 300, 44, 12, 28, 40
    xs = [p.x for p in points] + list(targets)
    low_x, high_x = math.log(min(xs) / 1.15), math.log(max(xs) * 1.15)
    values = [v for p in points for v in (p.y - p.spread, p.y + p.spread)]
    values += [line.y for line in lines]
    low_y, high_y = _padded(min(values), max(values))

    def x(value: float) -> float:
        return left + (math.log(value) - low_x) / (high_x - low_x) * (width - left - right)

    def y(value: float) -> float:
        return height - bottom - (value - low_y) / (high_y - low_y) * (height - top - bottom)

    out = [
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img"'
        f' aria-label="{escape(title)}: quality against remaining weights">',
        f'<text class="title" x="{left}" y="16">{escape(title)}</text>',
    ]
    for tick in _ticks(low_y, high_y):
        out.append(f'<line class="grid" x1="{left}" x2="{width - right}" {_at(y(tick))}/>')
        out.append(f'<text class="tick" x="{left - 6}" y="{y(tick) + 3:.1f}">{tick:g}</text>')
    for target in targets:
        out.append(
            f'<text class="tick mid" x="{x(target):.1f}" y="{height - 22}">{target:g}</text>'
        )
    middle = (left + width - right) / 2
    out.append(f'<text class="tick mid" x="{middle}" y="{height - 6}">remaining weights (%)</text>')
    for number, line in enumerate(lines):
        out.append(
            f'<line class="level l{number}" x1="{left}" x2="{width - right}" {_at(y(line.y))}>'
            f"<title>{escape(line.words)}</title></line>"
        )
    for name, found in series.items():
        index = order.index(name)
        style = f'class="c{index % COLOURS}"'
        dash = DASHES[index // COLOURS % len(DASHES)]
        ordered = sorted(found, key=lambda p: p.x)
        path = " ".join(f"{x(p.x):.1f},{y(p.y):.1f}" for p in ordered)
        out.append(f'<g {style}><polyline points="{path}" stroke-dasharray="{dash}"/>')
        for p in ordered:
            if p.spread:
                ends = f'y1="{y(p.y - p.spread):.1f}" y2="{y(p.y + p.spread):.1f}"'
                out.append(f'<line x1="{x(p.x):.1f}" x2="{x(p.x):.1f}" {ends}/>')
            out.append(_marker(index, x(p.x), y(p.y), p.words))
        out.append("</g>")
    return "".join([*out, "</svg>"])


def legend(order: Sequence[str], labels: Mapping[str, str]) -> str:
    """The methods of a page's charts with their marks."""
    entries = []
    for index, name in enumerate(order):
        dash = DASHES[index // COLOURS % len(DASHES)]
        mark = _marker(index, 16, 8, labels[name])
        entries.append(
            f'<span class="key"><svg viewBox="0 0 32 16" aria-hidden="true">'
            f'<g class="c{index % COLOURS}"><line x1="0" x2="32" y1="8" y2="8"'
            f' stroke-dasharray="{dash}"/>{mark}</g></svg>{escape(labels[name])}</span>'
        )
    return f'<p class="legend">{"".join(entries)}</p>'


def curve(title: str, points: Sequence[tuple[float, float]], density: Sequence[float]) -> str:
    """A score over the fraction of the run (0 to 1), with the density behind it."""
    if len(points) < 2:
        return ""
    width, height = 210, 70
    low, high = _padded(min(y for _, y in points), max(y for _, y in points))

    def place(x: float, y: float) -> str:
        return f"{4 + x * (width - 8):.0f},{height - 16 - (y - low) / (high - low) * 50:.1f}"

    path = " ".join(place(x, y) for x, y in points)
    kept = " ".join(
        f"{4 + x * (width - 8):.0f},{height - 16 - d * 50:.1f}"
        for (x, _), d in zip(points, density, strict=True)
    )
    last = f"{title}: {points[0][1]:.1f} to {points[-1][1]:.1f}"
    return (
        f'<svg class="curve" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(last)}">'
        f'<polyline class="kept" points="{kept}"><title>density</title></polyline>'
        f'<polyline points="{path}"><title>{escape(last)}</title></polyline>'
        f'<text class="tick left" x="4" y="{height - 3}">{escape(last)}</text></svg>'
    )


def heat_map(
    title: str, rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float]]
) -> str:
    """Percentages as shades, by row and column, the largest darkest."""
    size, left, top = 26, 30, 34
    width, height = left + size * len(columns) + 4, top + size * len(rows) + 4
    most = max((v for row in values for v in row), default=0.0) or 1.0
    out = [
        f'<svg class="map" viewBox="0 0 {width} {height}" style="max-width:{2 * width}px"'
        f' role="img" aria-label="{escape(title)}">',
        f'<text class="title" x="2" y="13">{escape(title)}</text>',
    ]
    for j, name in enumerate(columns):
        place = left + size * (j + 0.5)
        out.append(f'<text class="tick mid" x="{place}" y="{top - 5}">{escape(name)}</text>')
    for i, name in enumerate(rows):
        place = top + size * (i + 0.5) + 4
        out.append(f'<text class="tick" x="{left - 5}" y="{place}">{escape(name)}</text>')
        for j, value in enumerate(values[i]):
            words = escape(f"{name}, {columns[j]}: {value:.2f} %")
            out.append(
                f'<rect x="{left + size * j}" y="{top + size * i}" width="{size - 1}"'
                f' height="{size - 1}" fill-opacity="{0.04 + 0.96 * value / most:.3f}">'
                f"<title>{words}</title></rect>"
            )
    return "".join([*out, "</svg>"])


def _at(y: float) -> str:
    return f'y1="{y:.1f}" y2="{y:.1f}"'


def _padded(low: float, high: float) -> tuple[float, float]:
    room = 0.05 * (high - low) or 1.0
    return low - room, high + room


def _ticks(low: float, high: float) -> list[float]:
    """Round values between two ends, three to eight of them."""
    step = 10 ** math.floor(math.log10((high - low) / 3))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= 8)
    first = math.ceil(low / step)
    return [round(step * n, 10) for n in range(first, math.floor(high / step) + 1)]


def _marker(index: int, x: float, y: float, words: str) -> str:
    """A mark of about 8 units with its words; shapes tell lines apart without colour."""
    kind, r = MARKERS[index % len(MARKERS)], 4
    shapes = {
        "circle": f"M{x - r:.1f},{y:.1f}a{r},{r} 0 1,0 {2 * r},0a{r},{r} 0 1,0 -{2 * r},0z",
        "square": f"M{x - r:.1f},{y - r:.1f}h{2 * r}v{2 * r}h-{2 * r}z",
        "triangle": f"M{x:.1f},{y - r - 1:.1f}l{r + 1},{2 * r}h-{2 * r + 2}z",
        "diamond": f"M{x:.1f},{y - r - 1:.1f}l{r + 1},{r + 1}l-{r + 1},{r + 1}l-{r + 1},-{r + 1}z",
        "cross": f"M{x - r:.1f},{y - r:.1f}l{2 * r},{2 * r}m0,-{2 * r}l-{2 * r},{2 * r}",
        "plus": f"M{x - r:.1f},{y:.1f}h{2 * r}m-{r},-{r}v{2 * r}",
    }
    return f'<path class="mark" d="{shapes[kind]}"><title>{escape(words)}</title></path>'
