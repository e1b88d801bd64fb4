"""Figures of metrics: against remaining weights, during training, against cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from leaderboard.figures.style import DASHES, panels, style, with_legend
from leaderboard.series import COSTS, Curve, Quality


def quality(found: Sequence[Quality]) -> Any:
    """Per task: mean and sample standard deviation over seeds against remaining weights on a log
    axis, with methods that do not prune and the constant answer as horizontal lines."""
    titles = [f"{one.task}: {one.metric}" for one in found]
    figure, axes = panels(titles, ["remaining weights (%)"] * len(found))
    for axis, one in zip(axes, found, strict=True):
        for number, baseline in enumerate(one.baselines):
            dash = DASHES[number % len(DASHES)]
            look = {"color": "#666666", "linestyle": dash, "linewidth": 1}
            axis.axhline(baseline.y, label=baseline.name, **look)
        if one.majority is not None:
            look = {"color": "#bbbbbb", "linewidth": 3, "alpha": 0.6}
            axis.axhline(one.majority, label="constant answer", **look)
        for line in one.lines:
            axis.errorbar(
                [dot.x for dot in line.dots],
                [dot.y for dot in line.dots],
                [[d.y - d.low for d in line.dots], [d.high - d.y for d in line.dots]],
                label=line.name,
                markersize=5,
                linewidth=1.3,
                capsize=2,
                **style(line.index),
            )
        axis.set_xscale("log")
        axis.set_xticks(one.targets, [f"{target:g}" for target in one.targets])
        axis.minorticks_off()
    return with_legend(figure, axes)


def curves(by_task: Mapping[str, Sequence[Curve]]) -> Any:
    """Per task, by the axis' title: the first metric during the run, and the density behind it."""
    figure, axes = panels(list(by_task), ["optimiser steps"] * len(by_task))
    for axis, found in zip(axes, by_task.values(), strict=True):
        behind = axis.twinx()
        behind.set_ylim(0, 100)
        behind.set_yticks([])
        for one in found:
            look = {"markersize": 4, "linewidth": 1.3, **style(one.index)}
            axis.plot(one.steps, one.metric, label=one.name, **look)
            kept = [100 * fraction for fraction in one.remaining]
            behind.plot(one.steps, kept, color="#999999", linestyle=":", linewidth=0.8)
    return with_legend(figure, axes)


def costs(found: Sequence[tuple[str, int, float, Mapping[str, float]]]) -> Any:
    """Per kind of cost: each method's mean cost against the mean of its first metrics."""
    figure, axes = panels(["mean of the first metrics"] * len(COSTS), list(COSTS))
    for name, index, metric, by_kind in found:
        look = style(index) | {"linestyle": "none", "markersize": 6}
        for axis, kind in zip(axes, COSTS, strict=True):
            axis.plot([by_kind[kind]], [metric], label=name, **look)
    return with_legend(figure, axes)
