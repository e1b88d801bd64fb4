"""Figures of masks: where the remaining weights are, which ones they are, what compact models have
left, and how far masks agree."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from leaderboard.figures.style import Text, colour_of, set_margins, shortened, write_texts
from leaderboard.heat_maps import HeatMap
from leaderboard.looks import Look
from zoo.records.arrays import Distribution
from zoo.records.packed import unpack_heights

Distributions = Sequence[tuple[str, Look, Distribution]]
"""Name, look and distribution."""


LARGEST = 30
"""Inches of a figure of maps at most."""
LETTER, NAMED = 0.065, {"ha": "right", "va": "center", "fontsize": 7, "parse_math": False}
"""Inches of a letter of a line's name, and the look of that."""


def _sides(one: HeatMap) -> tuple[Sequence[Any], Sequence[Any]]:
    return one.values, one.columns


def heat_maps(maps: Sequence[HeatMap], below: str, what: str = "remaining weights (%)") -> Any:
    """Heat maps side by side, whose lines are layers or have names. All are one image with gaps
    between the maps: an axis for each would be slow. `below` labels the columns, `what` the
    colours."""
    import matplotlib.pyplot as plt

    tall, wide = (max(map(len, sides)) for sides in zip(*map(_sides, maps), strict=True))
    across = min(len(maps), 5)
    down = -(-len(maps) // across)
    gap, rise = 1, 2 + bool(below)  # cells between maps, beside and above them
    canvas = np.full((down * (tall + rise), across * (wide + gap)), np.nan)
    corners = [
        (index // across * (tall + rise) + rise - 1, index % across * (wide + gap))
        for index in range(len(maps))
    ]
    for one, (y, x) in zip(maps, corners, strict=True):
        canvas[y : y + len(one.values), x : x + len(one.columns)] = one.values
    cell = min(0.34 if tall * wide <= 60 else 0.22, LARGEST / max(canvas.shape))
    names = [shortened(name) for name in maps[0].lines]
    left = 0.25 + LETTER * max(map(len, names), default=0)
    size = (cell * canvas.shape[1] + 1.25 + left, cell * canvas.shape[0] + 0.3)
    figure, axes = plt.subplots(1, 1, figsize=size, squeeze=False)
    axis, top = axes[0][0], np.nanmax(canvas)
    look = {"cmap": "cividis", "aspect": "auto", "interpolation": "none"}
    image = axis.imshow(canvas, vmin=0, vmax=top, **look)
    axis.set_axis_off()
    texts: list[Text] = []
    for one, (y, x) in zip(maps, corners, strict=True):
        layers, middle = len(one.values), x + (len(one.columns) - 1) / 2
        axis.text(middle, y - 1, one.name, ha="center", va="center", fontsize=9)
        if not names:
            texts += [(x - 0.8, y + layer, str(layer + 1), "black") for layer in range(layers)]
        for line, name in enumerate(names if not x else ()):
            axis.text(-0.8, y + line, name, **NAMED)
        texts += [(x + j, y + layers - 0.1, name, "black") for j, name in enumerate(one.columns)]
        texts += [(middle, y + layers + 0.7, below, "black")] if below else []
        texts += _numbers(one.values, top, x, y) if tall * wide <= 60 else []
    set_margins(figure, left=left, right=0.95, bottom=0.15, top=0.05, between=0.0)
    write_texts(axis, texts)
    bar = figure.add_axes((1 - 0.8 / size[0], 0.2, 0.15 / size[0], 0.6))
    figure.colorbar(image, cax=bar, label=what)
    return figure


def agreements(names: Sequence[str], cells: Sequence[Sequence[float]]) -> Any:
    """One heat map: which methods, and which seeds of a method, keep the same weights."""
    import matplotlib.pyplot as plt

    side = 0.5 * len(names)
    figure, axes = plt.subplots(1, 1, figsize=(side + 2.6, side + 1.6), squeeze=False)
    axis = axes[0][0]
    image = axis.imshow(cells, vmin=0, vmax=100, cmap="cividis", interpolation="none")
    axis.set_xticks(range(len(names)), names, rotation=60, ha="right")
    axis.set_yticks(range(len(names)), names)
    set_margins(figure, left=1.5, right=1.1, bottom=1.4, top=0.2, between=0.0)
    write_texts(axis, _numbers(cells, 100))
    width = figure.get_size_inches()[0]
    bar = figure.add_axes((1 - 0.85 / width, 0.35, 0.15 / width, 0.55))
    figure.colorbar(image, cax=bar, label="Jaccard index (%)")
    return figure


def _numbers(
    cells: Sequence[Sequence[float]], top: float, left: int = 0, above: int = 0
) -> list[Text]:
    """A map's values, to be written in its cells."""
    return [
        (left + x, above + y, f"{value:.1f}", "black" if value > 0.6 * top else "white")
        for y, line in enumerate(cells)
        for x, value in enumerate(line)
        if value == value
    ]


def weights(shown: Distributions) -> Any:
    """One ridge per method: the distribution of the weights that remain (Sanh 2020, Figure 4)."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 1, figsize=(6.4, 0.55 * len(shown) + 1.1), squeeze=False)
    axis = axes[0][0]
    for number, (_, look, found) in enumerate(shown):
        base = len(shown) - 1 - number
        edges = np.linspace(found.range[0], found.range[1], len(found.all) + 1)
        middles = (edges[1:] + edges[:-1]) / 2
        for counts, shade in (
            (found.all, {"color": "#bbbbbb", "alpha": 0.6}),
            (found.kept, {"color": colour_of(look), "alpha": 0.75}),
        ):
            height = 0.9 * np.array(counts) / max(1, *counts)
            axis.fill_between(middles, base, base + height, linewidth=0, **shade)
    axis.set_yticks(range(len(shown) - 1, -1, -1), [name for name, *_ in shown])
    axis.set_xlabel("weight")
    axis.grid(axis="x", alpha=0.3)
    set_margins(figure, left=1.5, right=0.2, bottom=0.5, top=0.1, between=0.0)
    return figure


def plane_of(found: Distribution) -> np.ndarray:
    """Counts as round(8 log2(1 + count)): rows are scores from high to low, columns weights."""
    return unpack_heights(found.scores).reshape(len(found.all), -1).T[::-1]


def scores(shown: Distributions) -> Any:
    """Per method: how many weights have which value (across) and which learned score (up)."""
    import matplotlib.pyplot as plt

    planes = [plane_of(found) for *_, found in shown]
    tall, wide = np.max([plane.shape for plane in planes], axis=0)
    across = min(len(shown), 4)
    down, gap, rise = -(-len(shown) // across), 6, 14
    canvas = np.full((down * (tall + rise), across * (wide + gap) - gap), np.nan)
    size = (0.028 * canvas.shape[1] + 1.0, 0.028 * canvas.shape[0] + 0.3)
    figure, axes = plt.subplots(1, 1, figsize=size, squeeze=False)
    axis = axes[0][0]
    for number, ((name, _, found), plane) in enumerate(zip(shown, planes, strict=True)):
        y, x = number // across * (tall + rise) + rise - 5, number % across * (wide + gap)
        high, broad = plane.shape
        canvas[y : y + high, x : x + broad] = plane / 8 * np.log10(2)
        _annotate(axis, name, found, x, y, broad, high)
    image = axis.imshow(canvas, vmin=0, cmap="cividis", aspect="auto", interpolation="none")
    axis.set_axis_off()
    set_margins(figure, left=0.1, right=0.85, bottom=0.1, top=0.1, between=0.0)
    bar = figure.add_axes((1 - 0.75 / size[0], 0.2, 0.12 / size[0], 0.6))
    figure.colorbar(image, cax=bar, label="weights (log10)")
    return figure


def _annotate(
    axis: Any, name: str, found: Distribution, x: int, y: int, wide: int, tall: int
) -> None:
    """A plane's name, its ranges, and lines at weight 0 and score 0."""
    (left, right), (low, high) = found.range, found.score_range
    ends = f"W {left:.2g} to {right:.2g}, S {low:.2g} to {high:.2g}"
    middle = x + wide / 2 - 0.5
    axis.text(middle, y - 4, name, ha="center", va="center", fontsize=9)
    axis.text(middle, y + tall + 2, ends, ha="center", va="center", fontsize=7)
    zero = x - 0.5 + wide * -left / (right - left)
    axis.plot([zero, zero], [y - 0.5, y + tall - 0.5], color="white", linewidth=0.4)
    if low < 0 < high:
        level = y - 0.5 + tall * high / (high - low)
        axis.plot([x - 0.5, x + wide - 0.5], [level, level], color="white", linewidth=0.4)
