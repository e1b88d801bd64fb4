"""The strip chart as a figure: every seed of every method as a mark, one panel a task."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from leaderboard.figures.style import colour_of, dashed, set_margins, shortened, style
from leaderboard.looks import level_dash
from leaderboard.panels import Panel, Strip, range_of, target_look, targets_of

LABELS = 1.75
"""Inches for the methods' names."""


def strips(found: Sequence[Panel], labels: Mapping[str, str]) -> Any:
    """All panels beside each other; the methods' names stand at the first."""
    import matplotlib.pyplot as plt

    rows = max(len(panel.strips) for panel in found)
    size = (max(LABELS + 2.5 * len(found), 7.5), 0.24 * rows + 1.35)
    figure, axes = plt.subplots(1, len(found), figsize=size, squeeze=False, sharey=True)
    targets = targets_of(found)
    for axis, panel in zip(axes[0], found, strict=True):
        _panel(axis, panel, targets)
    names = [shortened(labels[strip.name]) for strip in found[0].strips]
    axes[0][0].set_yticks(range(len(names)), names)
    axes[0][0].set_ylim(rows - 0.4, -0.6)
    handles = [_mark(axes[0][0], [], [], number, hollow=False) for number in range(len(targets))]
    words = [f"a seed at {target:g} %" for target in targets]
    handles.append(_mark(axes[0][0], [], [], 0, hollow=True))
    words.append("hollow: over its target; bar: the median; shaded: no better than one answer")
    below = {"loc": "lower center", "ncols": len(words), "frameon": False, "handletextpad": 0.1}
    figure.legend(handles, words, fontsize=8, columnspacing=1.0, **below)
    set_margins(figure, left=LABELS, right=0.15, bottom=0.8, top=0.3, between=0.3)
    return figure


def _panel(axis: Any, panel: Panel, targets: Sequence[float]) -> None:
    low, high = range_of(panel)
    axis.set(title=panel.title, xlim=(low, high))
    axis.grid(axis="x", alpha=0.3)
    axis.tick_params(axis="y", length=0)
    if panel.constant is not None:
        axis.axvspan(low, panel.constant, color="#e4e4e4", linewidth=0)
    for number, baseline in enumerate(panel.baselines):
        look = {"color": "#444444", "linewidth": 1, "linestyle": dashed(level_dash(number))}
        axis.axvline(baseline.y, **look)
        side = "right" if baseline.y > (low + high) / 2 else "left"
        place = {"xycoords": ("data", "axes points"), "ha": side, "va": "center", "fontsize": 7}
        axis.annotate(baseline.name, (baseline.y, -20 - 8 * (number % 3)), **place)
    apart = min(0.3, 0.7 / len(targets))
    for number, target in enumerate(targets):
        _marks(axis, panel.strips, target, number, apart * (number - (len(targets) - 1) / 2))


def _marks(axis: Any, strips: Sequence[Strip], target: float, number: int, shift: float) -> None:
    """All seeds of a target in a panel at once, beside the middle of their rows by `shift`: a call
    for each would be slow."""
    for hollow in (False, True):
        found = [(strip.over if hollow else strip.seeds).get(target, ()) for strip in strips]
        xs = [value for values in found for value in values]
        ys = [row + shift for row, values in enumerate(found) for _ in values]
        _mark(axis, xs, ys, number, hollow=hollow)
    places = [(row + shift, strip.seeds.get(target)) for row, strip in enumerate(strips)]
    middles = [(y, median(values)) for y, values in places if values]
    ends = {"color": colour_of(target_look(number)), "linewidth": 1.8}
    low, high = [y - 0.2 for y, _ in middles], [y + 0.2 for y, _ in middles]
    axis.vlines([value for _, value in middles], low, high, **ends)


def _mark(axis: Any, x: Sequence[float], y: Sequence[float], number: int, hollow: bool) -> Any:
    """The seeds of one target; the legend's mark without any."""
    look = style(target_look(number)) | {"linestyle": "none", "markersize": 4, "alpha": 0.8}
    face = "none" if hollow else look["color"]
    return axis.plot(x, y, clip_on=False, **look | {"markerfacecolor": face})[0]
