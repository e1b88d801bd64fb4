"""Small drawings for the page as SVG: values on hover, colours from the page's style."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

from leaderboard.heat_maps import HeatMap
from leaderboard.lines import Curve, Dot, Line, Quality
from leaderboard.looks import RIVAL, Look, level_dash
from leaderboard.measured import ANOTHER
from leaderboard.series import Series


@dataclass(frozen=True)
class Frame:
    """Where a chart's values are in its drawing: remaining weights on a log axis, and the
    metric."""

    low_x: float
    high_x: float
    low_y: float
    high_y: float
    width: int = 420
    height: int = 300
    left: int = 44
    right: int = 12
    top: int = 28
    bottom: int = 40

    def x(self, value: float) -> float:
        """The horizontal position of remaining weights in percent."""
        part = (math.log(value) - self.low_x) / (self.high_x - self.low_x)
        return self.left + part * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        """The vertical position of a metric."""
        part = (value - self.low_y) / (self.high_y - self.low_y)
        return self.height - self.bottom - part * (self.height - self.top - self.bottom)


def frame_of(one: Quality) -> Frame:
    """A frame that holds all dots with their spread, the baselines and the targets."""
    dots = [dot for line in (*one.lines, *one.rivals) for dot in (*line.dots, *line.over)]
    xs = [dot.x for dot in dots] + list(one.targets)
    ys = [v for dot in dots for v in (dot.low, dot.high)]
    ys += [baseline.y for baseline in one.baselines]
    low, high = math.log(min(xs) / 1.15), math.log(max(xs) * 1.15)
    return Frame(low, high, *_padded(min(ys), max(ys)))


def quality_chart(one: Quality, labels: Mapping[str, str]) -> Markup:
    """Quality against remaining weights, one line per method; "" without any dot."""
    if not any(line.dots or line.over for line in one.lines):
        return Markup("")
    f, title = frame_of(one), f"{one.task}: {one.metric}"
    out = [
        f'<svg class="chart" viewBox="0 0 {f.width} {f.height}" role="img"'
        f' aria-label="{escape(title)}: quality against remaining weights">',
        f'<text class="title" x="{f.left}" y="16">{escape(title)}</text>',
        *_axes(f, one.targets),
    ]
    for number, baseline in enumerate(one.baselines):
        words = escape(f"{baseline.name}: {baseline.y:.1f}")
        out.append(
            f'<line class="level" stroke-dasharray="{dash_of(level_dash(number))}"'
            f' x1="{f.left}" x2="{f.width - f.right}" {_at(f.y(baseline.y))}>'
            f"<title>{words}</title></line>"
        )
    out += [_line(f, line, labels[line.name]) for line in one.lines]
    out += [_line(f, rival, f"{rival.name} ({ANOTHER})") for rival in one.rivals]
    return Markup("".join([*out, "</svg>"]))


def _axes(f: Frame, targets: Sequence[float]) -> list[str]:
    """Grid lines of the metric, targets, and the label below."""
    out = []
    for tick in _ticks(f.low_y, f.high_y):
        out.append(f'<line class="grid" x1="{f.left}" x2="{f.width - f.right}" {_at(f.y(tick))}/>')
        out.append(f'<text class="tick" x="{f.left - 6}" y="{f.y(tick) + 3:.1f}">{tick:g}</text>')
    for target in targets:
        place = f'x="{f.x(target):.1f}" y="{f.height - 22}"'
        out.append(f'<text class="tick mid" {place}>{target:g}</text>')
    middle = (f.left + f.width - f.right) / 2
    place = f'x="{middle}" y="{f.height - 6}"'
    return [*out, f'<text class="tick mid" {place}>remaining weights (%)</text>']


def _line(f: Frame, line: Line, label: str) -> str:
    """A method's line, error bars and marks; runs over their target stand alone."""
    path = " ".join(f"{f.x(dot.x):.1f},{f.y(dot.y):.1f}" for dot in line.dots)
    out = [
        f'<g class="mark {colour_class(line.look)}"><polyline points="{path}"'
        f' stroke-dasharray="{dash_of(line.look.dash)}"/>'
    ]
    for dot in (*line.dots, *line.over):
        if dot.low < dot.high:
            ends = f'y1="{f.y(dot.low):.1f}" y2="{f.y(dot.high):.1f}"'
            out.append(f'<line x1="{f.x(dot.x):.1f}" x2="{f.x(dot.x):.1f}" {ends}/>')
        out.append(mark(line.look, f.x(dot.x), f.y(dot.y), f"{label}: {_words(dot)}"))
    return "".join([*out, "</g>"])


def _words(dot: Dot) -> str:
    plus = f" ({dot.low:.1f} to {dot.high:.1f})" if dot.low < dot.high else ""
    return f"{dot.y:.1f}{plus} at {dot.x:.2f} %"


def dash_of(dash: Sequence[int]) -> str:
    """A dash as SVG's stroke-dasharray."""
    return " ".join(map(str, dash))


def colour_class(look: Look) -> str:
    """The class of the style that has a look's colour."""
    return "grey" if look.colour is None else f"c{look.colour}"


def legend(series: Series) -> Markup:
    """The methods of a page's charts, and the lines of those that keep every weight."""
    entries = []
    for name, look in series.looks.items():
        drawn = mark(look, 16, 8, series.labels[name])
        line = f'<line x1="0" x2="32" y1="8" y2="8" stroke-dasharray="{dash_of(look.dash)}"/>'
        entries.append(
            (f'<g class="mark {colour_class(look)}">{line}{drawn}</g>', series.labels[name])
        )
    names = dict.fromkeys(b.name for one in series.quality for b in one.baselines)
    for number, name in enumerate(names):
        dash = dash_of(level_dash(number))
        line = f'<line class="level" x1="0" x2="32" y1="8" y2="8" stroke-dasharray="{dash}"/>'
        entries.append((line, name))
    if any(one.rivals for one in series.quality):
        drawn = mark(RIVAL, 16, 8, ANOTHER)
        entries.append((f'<g class="mark {colour_class(RIVAL)}">{drawn}</g>', f"{ANOTHER}, dense"))
    keys = "".join(
        f'<span class="key"><svg viewBox="0 0 32 16" aria-hidden="true">{drawn}</svg>'
        f"{escape(name)}</span>"
        for drawn, name in entries
    )
    return Markup(f'<p class="legend">{keys}</p>')


def curve_drawing(title: str, shown: Curve) -> Markup:
    """A metric during the run, remaining weights behind it; "" for fewer than three evaluations."""
    if len(shown.steps) < 3:
        return Markup("")
    width, height = 210, 70
    low, high = _padded(min(shown.metric), max(shown.metric))
    xs = [4 + step / shown.steps[-1] * (width - 8) for step in shown.steps]
    ys = [height - 16 - (value - low) / (high - low) * 50 for value in shown.metric]
    path = " ".join(f"{x:.0f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
    kept = " ".join(
        f"{x:.0f},{height - 16 - fraction * 50:.1f}"
        for x, fraction in zip(xs, shown.remaining, strict=True)
    )
    words = escape(f"{title}: {shown.metric[0]:.1f} to {shown.metric[-1]:.1f}")
    return Markup(
        f'<svg class="curve" viewBox="0 0 {width} {height}" role="img" aria-label="{words}">'
        f'<polyline class="kept" points="{kept}"><title>remaining weights</title></polyline>'
        f'<polyline points="{path}"><title>{words}</title></polyline>'
        f'<text class="tick left" x="4" y="{height - 3}">{words}</text></svg>'
    )


def heat_map_drawing(one: HeatMap, labels: Mapping[str, str], most: float) -> Markup:
    """Percentages as shades, by layer and column; `most` is the darkest, the same for all maps of a
    page."""
    size, left, top = 26, 30, 34
    width, height = left + size * len(one.columns) + 4, top + size * len(one.values) + 4
    title = escape(labels[one.name])
    out = [
        f'<svg class="map" viewBox="0 0 {width} {height}" style="max-width:{2 * width}px"'
        f' role="img" aria-label="{title}">',
        f'<text class="title" x="2" y="13">{title}</text>',
    ]
    for j, name in enumerate(one.columns):
        x = left + size * (j + 0.5)
        out.append(f'<text class="tick mid" x="{x}" y="{top - 5}">{escape(name)}</text>')
    for i, row in enumerate(one.values):
        y = top + size * (i + 0.5) + 4
        out.append(f'<text class="tick" x="{left - 5}" y="{y}">{i + 1}</text>')
        for j, value in enumerate(row):
            words = escape(f"{i + 1}, {one.columns[j]}: {value:.2f} %")
            out.append(
                f'<rect x="{left + size * j}" y="{top + size * i}" width="{size - 1}"'
                f' height="{size - 1}" fill-opacity="{0.04 + 0.96 * value / most:.3f}">'
                f"<title>{words}</title></rect>"
            )
    return Markup("".join([*out, "</svg>"]))


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


def mark(look: Look, x: float, y: float, words: str, r: float = 4) -> str:
    """A look's mark, about 2 `r` wide, with its words if there are any; a group around it has class
    and colour."""
    wide = r + r / 4
    shapes = {
        "circle": f"M{x - r:.1f},{y:.1f}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0-{2 * r} 0z",
        "square": f"M{x - r:.1f},{y - r:.1f}h{2 * r}v{2 * r}h-{2 * r}z",
        "diamond": f"M{x:.1f},{y - wide:.1f}l{wide},{wide}l-{wide},{wide}l-{wide},-{wide}z",
        "triangle": f"M{x:.1f},{y - wide:.1f}l{wide},{2 * r}h-{2 * wide}z",
        "wedge": f"M{x:.1f},{y + wide:.1f}l{wide},-{2 * r}h-{2 * wide}z",
        "plus": f"M{x - r:.1f},{y:.1f}h{2 * r}m-{r},-{r}v{2 * r}",
        "cross": f"M{x - r:.1f},{y - r:.1f}l{2 * r},{2 * r}m0,-{2 * r}l-{2 * r},{2 * r}",
    }
    title = f"<title>{escape(words)}</title>" if words else ""
    return f'<path d="{shapes[look.mark]}">{title}</path>'
