"""Figures of trained models: quality against latency, multiply-accumulates or bytes, with the
Pareto front."""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from leaderboard.figures.style import colour_of, shortened
from leaderboard.forms import three_digits
from leaderboard.fronts import Front, Spot
from leaderboard.looks import DASHES, Look
from zoo.records.forms import (
    COMPACT,
    FORMS,
    INT8,
    ONNX,
    ONNX_COMPACT,
    PACKED,
    SHALLOW,
    SPARSE,
    STOCK,
    ZEROS,
)

FORM_MARKS = {
    STOCK: "*",
    SHALLOW: "p",
    ZEROS: "o",
    COMPACT: "s",
    SPARSE: "D",
    PACKED: "P",
    INT8: "^",
    ONNX: "v",
    ONNX_COMPACT: "X",
}
"""matplotlib's letters for the marks of forms; "h" for others."""
UNPRUNED = ("#6a3d9a", "#a6611a", "#b2182b")
"""Colours of rows that prune nothing, which have no look."""
WIDE, TALL, LEFT, RIGHT, TOP, BETWEEN = 3.3, 3.1, 0.5, 2.25, 0.35, 0.5
"""Inches: a panel, the space around all panels, and between them."""
LINE, BELOW, ENTRY = 0.135, 0.52, 0.195
"""Inches: a line of the key below a panel, from the panel to its first line, and an entry of the
legend."""
LOG_FROM = 3.0
"""Costs that span more than this have a log axis."""
DEEP = 3.0
"""A panel shows at most so many times the distance from the best metric to the median one."""
LETTERS = 57
"""Letters of a line of the key that fit below a panel."""


def fronts(
    found: Sequence[Front], looks: Mapping[str, Look | None], unit: str, *, log: bool = False
) -> Any:
    """Per task: every form of every row, marks by form, hollow where it is not exact, colours by
    method; a line joins the forms of a row. The forms on the front have numbers, with a key below
    their panel. `unit` is that of the horizontal axes; `log` asks for log ones."""
    import matplotlib.pyplot as plt

    across = min(len(found), 3)
    down = -(-len(found) // across)
    key = LINE * max(len(front.steps) for front in found) + BELOW + 0.1
    wide = LEFT + across * WIDE + (across - 1) * BETWEEN + RIGHT
    high = max(down * (TOP + TALL + key), TOP + ENTRY * (len(looks) + len(FORMS) + 6))
    figure = plt.figure(figsize=(wide, high))
    colours = colours_of(looks)
    for number, front in enumerate(found):
        x = LEFT + number % across * (WIDE + BETWEEN)
        y = high - (number // across + 1) * (TOP + TALL) - number // across * key
        axis = figure.add_axes((x / wide, y / high, WIDE / wide, TALL / high))
        axis.set(title=front.title)
        axis.set_xlabel(unit, labelpad=2)
        axis.grid(alpha=0.25, linewidth=0.6)
        _panel(axis, front, colours, log=log)
        _key(axis, front, unit)
    _legends(figure, found, colours)
    return figure


def colours_of(looks: Mapping[str, Look | None]) -> dict[str, str]:
    """A colour for each method, by label. Marks stand for forms here, so that methods of one colour
    differ in how dark it is."""
    unpruned = [name for name, look in looks.items() if look is None]
    dark = {name: UNPRUNED[place % len(UNPRUNED)] for place, name in enumerate(unpruned)}
    return {name: _shaded(look) if look else dark[name] for name, look in looks.items()}


def _shaded(look: Look) -> str:
    """The colour of a look, darker in each round of the colours; black gets lighter."""
    from matplotlib.colors import to_hex, to_rgb

    share, own = 0.6 ** DASHES.index(look.dash), to_rgb(colour_of(look))
    return str(to_hex([share * part for part in own] if any(own) else [0.75 * (1 - share)] * 3))


def _panel(axis: Any, front: Front, colours: Mapping[str, str], *, log: bool) -> None:
    least, rows = _least(front), dict[tuple[str, float], list[Spot]]()
    shown = [spot for spot in front.spots if spot.y >= least]
    for spot in shown:
        rows.setdefault((spot.label, spot.target), []).append(spot)
    for (name, _), spots in rows.items():
        _joined(axis, spots, colours[name])
    best = [front.spots[place] for step in front.steps for place in step]
    for spot in shown:
        _spot(axis, spot, colours[spot.label], order=5 if spot in best else 4)
    ends = [edge for spot in shown for edge in (spot.low, spot.high)]
    ends += [] if front.dense is None else [front.dense]
    _scale(axis, min(ends), max(ends), log=log)
    _limit(axis, front, least)
    if front.dense is not None:
        axis.axvline(front.dense, color="#888888", linestyle=(0, (2, 2)), linewidth=1, zorder=1)
    _staircase(axis, front)
    _numbers(axis, front)


def _joined(axis: Any, spots: Sequence[Spot], colour: str) -> None:
    """A line through the exact forms of a row, and dotted ones from there to the others."""
    look = {"color": colour, "alpha": 0.5, "zorder": 2}
    exact = sorted((spot for spot in spots if spot.exact), key=lambda spot: spot.x)
    axis.plot([spot.x for spot in exact], [spot.y for spot in exact], linewidth=0.8, **look)
    for spot in (spot for spot in spots if exact and not spot.exact):
        start = next((one for one in exact if one.kind == spot.kind), exact[-1])
        ends = [start.x, spot.x], [start.y, spot.y]
        axis.plot(*ends, linewidth=0.9, linestyle=(0, (1, 1.5)), **look)


def _spot(axis: Any, spot: Spot, colour: str, *, order: float) -> None:
    """A mark with its interval; marks of a higher `order` cover others."""
    if spot.low < spot.high:
        axis.hlines(spot.y, spot.low, spot.high, color=colour, linewidth=1.1, alpha=0.6, zorder=3)
    axis.plot([spot.x], [spot.y], zorder=order, **_mark(spot.kind, colour, exact=spot.exact))


def _mark(kind: str, colour: str, *, exact: bool) -> dict[str, Any]:
    """How a form is marked; marks with less ink are larger."""
    mark = FORM_MARKS.get(kind, "h")
    return {
        "marker": mark,
        "markersize": {"*": 9.5, "P": 6.5, "X": 6.5, "s": 5, "D": 4.8}.get(mark, 5.5),
        "markerfacecolor": colour if exact else "white",
        "markeredgecolor": "white" if exact else colour,
        "markeredgewidth": 0.5 if exact else 1.1,
        "linestyle": "none",
    }


def _scale(axis: Any, low: float, high: float, *, log: bool) -> None:
    """Limits of the horizontal axis with room for numbers, and round ticks."""
    if log or high > LOG_FROM * low:
        axis.set_xscale("log")
        room = (high / low) ** 0.08 * 1.02
        axis.set_xlim(low / room, high * room)
        ticks = round_ticks(low / room, high * room)
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.minorticks_off()
    else:
        room = 0.08 * (high - low) or 0.1 * high
        axis.set_xlim(low - room, high + room)


def round_ticks(low: float, high: float) -> list[float]:
    """Round numbers between two ends for a log axis: 1, 2 and 5, or more and fewer of them, so that
    there are about three to seven."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
        found = [round(step * 10.0**n, 12) for n in decades for step in steps]
        found = [tick for tick in found if low <= tick <= high]
        if len(found) >= 4:
            break
    return found


def _staircase(axis: Any, front: Front) -> None:
    """The front as steps, to the panel's edges; what lies above them nothing reaches."""
    best = [front.spots[step[0]] for step in front.steps]
    xs = [best[0].x, *(spot.x for spot in best), axis.get_xlim()[1]]
    ys = [axis.get_ylim()[0], *(spot.y for spot in best), best[-1].y]
    axis.plot(xs, ys, drawstyle="steps-post", color="#555555", linewidth=1.0, alpha=0.8, zorder=1.5)


def _least(front: Front) -> float:
    """The lowest metric that a panel shows: the front and what is not far below the others."""
    ys = [spot.y for spot in front.spots]
    lowest = min(front.spots[step[0]].y for step in front.steps)
    least = min(lowest, max(ys) - DEEP * (max(ys) - median(ys)))
    return min(y for y in ys if y >= least)


def _limit(axis: Any, front: Front, least: float) -> None:
    """Limits of the metric, with the names of the rows that have forms below."""
    top = max(spot.y for spot in front.spots)
    room = (top - least) or 1.0
    axis.set_ylim(least - 0.08 * room, top + 0.1 * room)
    below = [spot for spot in front.spots if spot.y < least]
    names = dict.fromkeys(f"{shortened(spot.label)}{spot.rest}" for spot in below)
    text = f"below: {', '.join(names)}" if names else ""
    text = text if len(text) <= LETTERS else f"{len(names)} rows have forms below"
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.85 * bool(text)}
    look = {"fontsize": 7, "color": "#555555", "ha": "right", "bbox": box, "parse_math": False}
    axis.text(0.985, 0.02, text, transform=axis.transAxes, zorder=6, **look)


def _numbers(axis: Any, front: Front) -> None:
    """The numbers of the forms on the front, above and left of their marks, each clear of those
    before it."""
    placed: list[tuple[float, float]] = []
    for number, (place, *_) in enumerate(front.steps, 1):
        spot = front.spots[place]
        x, y = axis.transData.transform((spot.x, spot.y)) * 72 / axis.figure.dpi
        at = _clear(x, y, placed)
        placed.append(at)
        offset = {"xytext": (at[0] - x, at[1] - y), "textcoords": "offset points"}
        look = {"ha": "center", "va": "center", "fontsize": 7, "fontweight": "bold"}
        axis.annotate(str(number), (spot.x, spot.y), color="#222222", zorder=6, **offset, **look)


def _clear(x: float, y: float, placed: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Where a number's middle can be, in points: near the mark at (x, y), clear of others."""
    offsets = ((-6, 6), (0, 9), (-9, 0), (-6, 14), (0, 17), (-15, 6), (-12, 13), (6, 14), (0, 24))
    for right, up in offsets:
        at = (x + right, y + up)
        if all(abs(at[0] - a) > 8 or abs(at[1] - b) > 7.5 for a, b in placed):
            return at
    return x + offsets[0][0], y + offsets[0][1]


def _key(axis: Any, front: Front, unit: str) -> None:
    """What the numbers mean, a line each below the panel, the cheapest first."""
    at: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
    at |= {"va": "top", "fontsize": 7.5, "parse_math": False}
    for number, step in enumerate(front.steps, 1):
        first, down = front.spots[step[0]], -72 * (BELOW + LINE * (number - 1))
        kinds: dict[str, list[str]] = {}
        for spot in (front.spots[place] for place in step):
            kinds.setdefault(f"{spot.label}{spot.rest}", []).append(spot.words)
        names = " / ".join(f"{name}, {' / '.join(words)}" for name, words in kinds.items())
        numbers = f": {first.y:.1f}, {three_digits(first.x)} {unit.split()[0]}"
        room = LETTERS - len(numbers)
        names = names if len(names) <= room else f"{names[: room - 1]}…"
        axis.annotate(str(number), (0, 0), xytext=(8, down), ha="right", fontweight="bold", **at)
        axis.annotate(names + numbers, (0, 0), xytext=(13, down), ha="left", **at)


def _legends(figure: Any, found: Sequence[Front], colours: Mapping[str, str]) -> None:
    """Methods, forms, and what else is drawn, right of the panels."""
    from matplotlib.lines import Line2D

    spots = [spot for front in found for spot in front.spots]
    kinds = [kind for kind in FORMS if any(spot.kind == kind for spot in spots)]
    kinds += sorted({spot.kind for spot in spots} - set(FORMS))
    ink = "#333333"
    methods = [Line2D([], [], color=colour, linewidth=4) for colour in colours.values()]
    marks = [Line2D([], [], **_mark(kind, ink, exact=True)) for kind in kinds]
    words = [kind.replace("_", " ") for kind in kinds]
    if not all(spot.exact for spot in spots):
        marks.append(Line2D([], [], **_mark(COMPACT, ink, exact=False)))
        words.append("hollow: not exact")
    marks.append(Line2D([], [], color="#555555", linewidth=1))
    words.append("Pareto front")
    if any(front.dense is not None for front in found):
        marks.append(Line2D([], [], color="#888888", linestyle=(0, (2, 2)), linewidth=1))
        words.append("the dense model")
    wide, high = figure.get_size_inches()
    left, top = 1 - (RIGHT - 0.1) / wide, 1 - TOP / high
    look: dict[str, Any] = {
        "loc": "upper left",
        "frameon": False,
        "alignment": "left",
        "borderaxespad": 0,
    }
    names = list(map(shortened, colours))
    first = {"handlelength": 1.2, "title": "Method", "bbox_to_anchor": (left, top)}
    named = figure.legend(methods, names, **look, **first)
    for text in named.get_texts():
        text.set_parse_math(False)
    under = top - (ENTRY * (len(names) + 1) + 0.15) / high
    figure.legend(marks, words, title="Form", bbox_to_anchor=(left, under), **look)
