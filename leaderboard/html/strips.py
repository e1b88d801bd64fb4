"""The strip chart: every seed of every method as a mark, one panel a task, as SVG for the page."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from statistics import median

from markupsafe import Markup

from leaderboard.html.svg import dash_of, mark
from leaderboard.looks import level_dash
from leaderboard.panels import Panel, Strip, range_of, target_look, targets_of

WIDTH, ROW, TOP, BOTTOM, MARGIN = 180, 20, 24, 46, 12
"""Pixels: of a panel, of a method's row, and around them."""
LABELS, LETTERS = 118, 17
"""Pixels for the methods' names, left of each panel, and letters that fit there."""


def strip_chart(panels: Sequence[Panel], labels: Mapping[str, str]) -> Markup:
    """All panels beside each other, wrapped where there is no room; "" without methods."""
    shown = [panel for panel in panels if panel.strips]
    targets = targets_of(shown)
    key = "".join(map(_key, enumerate(targets)))
    drawn = "".join(_panel(panel, labels, targets) for panel in shown)
    if not drawn:
        return Markup("")
    words = "Each mark is a run; bar: the median; hollow: kept more than its target; shaded: not"
    about = f'<p class="legend">{key}<span class="soft">{words} above one answer.</span></p>'
    return Markup(f'<div class="strips">{drawn}</div>{about}')


def _key(numbered: tuple[int, float]) -> str:
    """A target's mark for the legend."""
    number, target = numbered
    drawn = f'<g class="seed c{number}">{mark(target_look(number), 8, 8, f"{target:g} %")}</g>'
    svg = f'<svg viewBox="0 0 16 16" aria-hidden="true">{drawn}</svg>'
    return f'<span class="key">{svg}{target:g} %</span>'


def _panel(panel: Panel, labels: Mapping[str, str], targets: Sequence[float]) -> str:
    height = TOP + ROW * len(panel.strips) + BOTTOM
    low, high = range_of(panel)
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
        out.append(f'<line class="level" stroke-dasharray="{dash_of(level_dash(number))}" {at}/>')
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
    short = label if len(label) <= LETTERS else f"{label[: LETTERS - 1]}…"
    out = [
        f'<text class="name" x="{LABELS - 4}" y="{y + 4:.1f}"><title>{escape(label)}</title>'
        f"{escape(short)}</text>"
    ]
    for number, target in enumerate(targets):
        apart = min(6.0, (ROW - 6) / len(targets))
        at, look = y + apart * (number - (len(targets) - 1) / 2), target_look(number)
        seeds, over = strip.seeds.get(target, ()), strip.over.get(target, ())
        for values, kind in ((seeds, "seed"), (over, "seed over")):
            drawn = "".join(mark(look, x(value), at, "", 2.5) for value in values)
            if values and kind == "seed":
                middle = f"{x(median(values)):.1f}"
                drawn += f'<path class="median" d="M{middle} {at - 5:g}v10"/>'
            numbers = ", ".join(f"{value:.1f}" for value in values)
            words = f"<title>{escape(label)}, {target:g} %: {numbers}</title>"
            out += [f'<g class="{kind} c{look.colour}">{words}{drawn}</g>'] if values else []
    return out
