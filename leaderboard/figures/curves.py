"""Figures of metrics: against remaining weights, during training, against cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from leaderboard.beside import short
from leaderboard.figures.style import dashed, panels, shortened, style, with_legend
from leaderboard.lines import Curve, Line, Quality
from leaderboard.looks import RIVAL, Look, level_dash
from leaderboard.measured import ANOTHER
from leaderboard.series import COSTS


def quality(found: Sequence[Quality], labels: Mapping[str, str]) -> Any:
    """Per task: mean and sample standard deviation over seeds against remaining weights on a log
    axis, runs over their target apart, with methods that do not prune and the constant answer as
    horizontal lines, and other checkpoints by name."""
    titles = [f"{one.task}: {one.metric}" for one in found]
    names = len(labels) + 1 + max(len(one.baselines) + bool(one.rivals) for one in found)
    figure, axes = panels(titles, ["remaining weights (%)"] * len(found), names)
    for axis, one in zip(axes, found, strict=True):
        for number, baseline in enumerate(one.baselines):
            look = {"color": "#444444", "linestyle": dashed(level_dash(number)), "linewidth": 1}
            axis.axhline(baseline.y, label=baseline.name, **look)
        if one.majority is not None:
            look = {"color": "#bbbbbb", "linewidth": 3, "alpha": 0.6}
            axis.axhline(one.majority, label="constant answer", **look)
        for line in one.lines:
            alone = [([dot], False) for dot in line.over]
            for dots, joined in [(line.dots, True)] * bool(line.dots) + alone:
                look = style(line.look) | ({} if joined else {"linestyle": "none"})
                axis.errorbar(
                    [dot.x for dot in dots],
                    [dot.y for dot in dots],
                    [[d.y - d.low for d in dots], [d.high - d.y for d in dots]],
                    label=labels[line.name] if joined else None,
                    markersize=5,
                    linewidth=1.3,
                    capsize=2,
                    **look,
                )
        _rivals(axis, one.rivals)
        axis.set_xscale("log")
        axis.set_xticks(one.targets, [f"{target:g}" for target in one.targets])
        axis.minorticks_off()
    return with_legend(figure, axes)


def _rivals(axis: Any, found: Sequence[Line]) -> None:
    """Other checkpoints as hollow marks with their names, which nothing joins."""
    look = style(RIVAL) | {"linestyle": "none", "markerfacecolor": "white", "capsize": 2}
    at: dict[str, Any] = {"xytext": (5, 4), "textcoords": "offset points", "fontsize": 6.5}
    for number, one in enumerate(found):
        (dot,), name = one.dots, None if number else ANOTHER
        ends = [[dot.y - dot.low], [dot.high - dot.y]]
        axis.errorbar([dot.x], [dot.y], ends, label=name, **look)
        axis.annotate(
            shortened(short(one.name)), (dot.x, dot.y), color="#444444", parse_math=False, **at
        )


def curves(by_task: Mapping[str, Sequence[Curve]]) -> Any:
    """Per task, by the axis' title: the first metric during the run, and the density behind it."""
    names = max(map(len, by_task.values()))
    figure, axes = panels(list(by_task), ["optimiser steps"] * len(by_task), names)
    for axis, found in zip(axes, by_task.values(), strict=True):
        behind = axis.twinx()
        behind.set_ylim(0, 100)
        behind.set_yticks([])
        for one in found:
            look = {"markersize": 4, "linewidth": 1.3, **style(one.look)}
            axis.plot(one.steps, one.metric, label=one.name, **look)
            kept = [100 * fraction for fraction in one.remaining]
            behind.plot(one.steps, kept, color="#999999", linestyle=":", linewidth=0.8)
    return with_legend(figure, axes)


def costs(found: Sequence[tuple[str, Look, float, Mapping[str, float]]]) -> Any:
    """Per kind of cost: each method's mean cost against the mean of its first metrics."""
    titles = ["mean of the first metrics"] * len(COSTS)
    figure, axes = panels(titles, list(COSTS), len(found))
    for name, own, metric, by_kind in found:
        look = style(own) | {"linestyle": "none", "markersize": 6}
        for axis, kind in zip(axes, COSTS, strict=True):
            axis.plot([by_kind[kind]], [metric], label=name, **look)
    return with_legend(figure, axes)
