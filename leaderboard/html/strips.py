"""The strip chart: every seed of every method as a dot, one panel a task, as SVG for the page."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from statistics import median

from markupsafe import Markup

from leaderboard.panels import Panel, Strip

WIDTH, ROW, TOP, BOTTOM, MARGIN = 250, 20, 24, 46, 12
"""Pixels: of a panel, of a method's row, and around them."""
LABELS = 118
"""Pixels for the methods' names, left of the first panel."""


def strip_chart(panels: Sequence[Panel], labels: Mapping[str, str]) -> Markup:
    """All panels beside each other, wrapped where there is no room; "" without methods."""
    shown = [panel for panel in panels if panel.strips]
    targets = sorted({t for p in shown for s in p.strips for t in s.seeds}, reverse=True)
    key = "".join(
        f'<span class="t{number}">● {target:g} %</span> ' for number, target in enumerate(targets)
    )
    drawn = "".join(_panel(panel, labels, targets) for panel in shown)
    if not drawn:
        return Markup("")
    words = "one dot a seed, | the median, ○ over the target, shaded: no better than one answer"
    about = f'<p class="soft">{key}{words}</p>'
    return Markup(f'<div class="strips">{drawn}</div>{about}')


def _panel(panel: Panel, labels: Mapping[str, str], targets: Sequence[float]) -> str:
    height = TOP + ROW * len(panel.strips) + BOTTOM
    low, high = _range(panel)
    bottom = height - BOTTOM

    def x(value: float) -> float:
        return LABELS + MARGIN + (value - low) / (high - low) * (WIDTH - 2 * MARGIN)

    out = [
        f'<svg class="strip" viewBox="0 0 {LABELS + WIDTH} {height}" role="img"'
        f' aria-label="{escape(panel.title)}: every seed">',
        f'<text class="title" x="{LABELS + MARGIN}" y="14">{escape(panel.title)}</text>',
    ]
    if panel.constant is not None and panel.constant > low:
        wide = x(panel.constant) - LABELS
        place = f'x="{LABELS}" y="{TOP}" width="{wide:.1f}" height="{bottom - TOP}"'
        out.append(f'<rect class="chance" {place}/>')
    for number, baseline in enumerate(panel.baselines):
        at = f'x1="{x(baseline.y):.1f}" x2="{x(baseline.y):.1f}" y1="{TOP}" y2="{bottom}"'
        out.append(f'<line class="level l{number}" {at}/>')
        side = "right" if baseline.y > (low + high) / 2 else "left"
        place = f'x="{x(baseline.y):.1f}" y="{bottom + 22 + 10 * (number % 3)}"'
        out.append(f'<text class="tick {side}" {place}>{escape(baseline.name)}</text>')
    for number, strip in enumerate(panel.strips):
        out += _strip(strip, labels[strip.name], TOP + ROW * number + ROW / 2, x, targets)
    for value in (low, high):
        out.append(f'<text class="tick mid" x="{x(value):.1f}" y="{bottom + 11}">{value:g}</text>')
    return "".join([*out, "</svg>"])


def _strip(
    strip: Strip, label: str, y: float, x: Callable[[float], float], targets: Sequence[float]
) -> list[str]:
    out = [f'<text class="name" x="{LABELS - 4}" y="{y + 4:.1f}">{escape(label)}</text>']
    for number, target in enumerate(targets):
        at = y + 3 * (2 * number - len(targets) + 1)
        seeds, over = strip.seeds.get(target, ()), strip.over.get(target, ())
        drawn = [(value, "") for value in seeds] + [(value, " over") for value in over]
        for value, kind in drawn:
            title = f"<title>{escape(label)}, {target:g} %: {value:.1f}</title>"
            place = f'cx="{x(value):.1f}" cy="{at}" r="2.6"'
            out.append(f'<circle class="t{number}{kind}" {place}>{title}</circle>')
        if seeds:
            middle = f"{x(median(seeds)):.1f}"
            place = f'x1="{middle}" x2="{middle}" y1="{at - 5}" y2="{at + 5}"'
            out.append(f'<line class="t{number}" {place}/>')
    return out


def _range(panel: Panel) -> tuple[float, float]:
    """Round numbers around everything that is drawn, within 100."""
    parts = [found for s in panel.strips for found in (*s.seeds.values(), *s.over.values())]
    seen = [value for found in parts for value in found]
    seen += [baseline.y for baseline in panel.baselines]
    seen += [] if panel.constant is None else [panel.constant]
    low = 10 * (min(seen, default=0.0) // 10)
    high = min(100.0, 10 * (max(seen, default=100.0) // 10 + 1))
    return low, max(high, low + 10)
