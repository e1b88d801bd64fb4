"""Figures of masks: where the remaining weights are, and which ones."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from leaderboard.compare import agreement
from leaderboard.drawing import COLOURS, Chosen, Words, name_of, set_margins, write_words
from leaderboard.statistics import mean
from zoo.trial import Result

TYPES = {
    "attention.self.query": "Q",
    "attention.self.key": "K",
    "attention.self.value": "V",
    "attention.output.dense": "O",
    "intermediate.dense": "U",
    "output.dense": "D",
}


def matrices(chosen: Chosen) -> Any:
    """Heat maps, one per method: rows are layers, columns Q K V O U D, percent, mean over seeds."""
    return _heat_maps(chosen, by_matrix, list(TYPES.values()), "")


def by_matrix(result: Result) -> dict[tuple[int, str], float]:
    """Remaining weights in percent by layer (from 0) and type of matrix."""
    kept, total = result.remaining["kept"], result.remaining["total"]
    return {_place(name): 100 * kept[name] / total[name] for name in total}


def heads(chosen: Chosen) -> Any:
    """Heat maps, one per method: rows are layers, columns attention heads (Q, K, V, O together)."""

    def grid(result: Result) -> dict[tuple[int, str], float]:
        found: dict[tuple[int, str], list[float]] = {}
        for name, densities in result.remaining["heads"].items():
            layer = _place(name)[0]
            for head, density in enumerate(densities, 1):
                found.setdefault((layer, str(head)), []).append(100 * density)
        return {place: mean(parts) for place, parts in found.items()}

    number = max(len(d) for _, rs in chosen for d in rs[0].remaining["heads"].values())
    return _heat_maps(chosen, grid, [str(head + 1) for head in range(number)], "head")


def agreements(chosen: Chosen) -> Any:
    """One heat map: which methods, and which seeds of a method, keep the same weights."""
    import matplotlib.pyplot as plt

    names = [name_of(row) for row, _ in chosen]
    cells = [
        [_agreement(a, b, i == j) for j, (_, b) in enumerate(chosen)]
        for i, (_, a) in enumerate(chosen)
    ]
    side = 0.5 * len(names)
    figure, axes = plt.subplots(1, 1, figsize=(side + 2.6, side + 1.6), squeeze=False)
    axis = axes[0][0]
    image = axis.imshow(cells, vmin=0, vmax=100, cmap="cividis", interpolation="none")
    axis.set_xticks(range(len(names)), names, rotation=60, ha="right")
    axis.set_yticks(range(len(names)), names)
    set_margins(figure, left=1.5, right=1.1, bottom=1.4, top=0.2, between=0.0)
    write_words(axis, _numbers(cells, 100))
    width = figure.get_size_inches()[0]
    bar = figure.add_axes((1 - 0.85 / width, 0.35, 0.15 / width, 0.55))
    figure.colorbar(image, cax=bar, label="Jaccard index (%)")
    return figure


def _agreement(ours: Sequence[Result], theirs: Sequence[Result], same: bool) -> float:
    """Mean Jaccard index in percent, task by task: of the same seeds, or of different seeds of one
    method."""
    pairs = [
        (a, b)
        for a in ours
        for b in theirs
        if a.trial.task == b.trial.task
        and (a.trial.seed < b.trial.seed if same else a.trial.seed == b.trial.seed)
    ]
    found = [value for a, b in pairs if (value := agreement(a, b)) is not None]
    return 100 * mean(found) if found else float("nan")


def _place(name: str) -> tuple[int, str]:
    """Layer (from 0) and type of a matrix by its name."""
    layer, _, kind = name.split(".layer.")[-1].partition(".")
    return int(layer), TYPES[kind]


def _heat_maps(chosen: Chosen, grid: Any, columns: Sequence[str], below: str) -> Any:
    """One image of all methods' maps with gaps between them: an axis for each would be slow."""
    import matplotlib.pyplot as plt

    maps = []
    for row, results in chosen:
        grids = [grid(result) for result in results]
        layers = sorted({layer for layer, _ in grids[0]})
        maps.append(
            (row, [[mean([g[layer, c] for g in grids]) for c in columns] for layer in layers])
        )
    tall, wide, across = len(maps[0][1]), len(columns), min(len(maps), 5)
    down = -(-len(maps) // across)
    gap, rise = 1, 2 + bool(below)  # cells between maps, beside and above them
    canvas = np.full((down * (tall + rise), across * (wide + gap)), np.nan)
    for index, (_, cells) in enumerate(maps):
        y, x = index // across * (tall + rise) + rise - 1, index % across * (wide + gap)
        canvas[y : y + tall, x : x + wide] = cells
    cell = 0.34 if tall * wide <= 60 else 0.22
    size = (cell * canvas.shape[1] + 1.5, cell * canvas.shape[0] + 0.3)
    figure, axes = plt.subplots(1, 1, figsize=size, squeeze=False)
    axis, top = axes[0][0], np.nanmax(canvas)
    image = axis.imshow(
        canvas, vmin=0, vmax=top, cmap="cividis", aspect="auto", interpolation="none"
    )
    axis.set_axis_off()
    words: list[Words] = []
    for index, (row, cells) in enumerate(maps):
        y, x = index // across * (tall + rise) + rise - 1, index % across * (wide + gap)
        axis.text(x + (wide - 1) / 2, y - 1, name_of(row), ha="center", va="center", fontsize=9)
        words += [(x - 0.8, y + layer, str(layer + 1), "black") for layer in range(tall)]
        words += [(x + j, y + tall - 0.1, name, "black") for j, name in enumerate(columns)]
        words += [(x + (wide - 1) / 2, y + tall + 0.7, below, "black")] if below else []
        words += _numbers(cells, top, x, y) if tall * wide <= 60 else []
    set_margins(figure, left=0.25, right=0.95, bottom=0.15, top=0.05, between=0.0)
    write_words(axis, words)
    bar = figure.add_axes((1 - 0.8 / size[0], 0.2, 0.15 / size[0], 0.6))
    figure.colorbar(image, cax=bar, label="remaining weights (%)")
    return figure


def _numbers(
    cells: Sequence[Sequence[float]], top: float, left: int = 0, above: int = 0
) -> list[Words]:
    """A map's values, to be written in its cells."""
    return [
        (left + x, above + y, f"{value:.1f}", "black" if value > 0.6 * top else "white")
        for y, line in enumerate(cells)
        for x, value in enumerate(line)
    ]


def weights(chosen: Chosen) -> Any:
    """One ridge per method: the distribution of the weights that remain (Sanh 2020, Figure 4)."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 1, figsize=(6.4, 0.55 * len(chosen) + 1.1), squeeze=False)
    axis = axes[0][0]
    for index, (_, results) in enumerate(chosen):
        found = next(r.distribution for r in results if r.distribution)
        bins, base = len(found["all"]), len(chosen) - 1 - index
        left, right = found["range"]
        edges = np.linspace(left, right, bins + 1)
        middles = (edges[1:] + edges[:-1]) / 2
        for counts, look in (
            (found["all"], {"color": "#bbbbbb", "alpha": 0.6}),
            (found["kept"], {"color": COLOURS[index % len(COLOURS)], "alpha": 0.75}),
        ):
            height = 0.9 * np.array(counts) / max(1, *counts)
            axis.fill_between(middles, base, base + height, linewidth=0, **look)
    axis.set_yticks(range(len(chosen) - 1, -1, -1), [name_of(row) for row, _ in chosen])
    axis.set_xlabel("weight")
    axis.grid(axis="x", alpha=0.3)
    set_margins(figure, left=1.5, right=0.2, bottom=0.5, top=0.1, between=0.0)
    return figure


def scores(chosen: Chosen) -> Any:
    """Per method: how many weights have which value (across) and which learned score (up)."""
    import matplotlib.pyplot as plt

    shown = []
    for row, results in chosen:
        found = next(r.distribution for r in results if "scores" in r.distribution)
        plane = np.frombuffer(base64.b64decode(found["scores"]), np.uint8)
        shown.append((row, plane.reshape(len(found["all"]), -1).T[::-1], found))
    tall, wide = shown[0][1].shape
    across = min(len(shown), 4)
    down, gap, rise = -(-len(shown) // across), 6, 14
    canvas = np.full((down * (tall + rise), across * (wide + gap) - gap), np.nan)
    size = (0.028 * canvas.shape[1] + 1.0, 0.028 * canvas.shape[0] + 0.3)
    figure, axes = plt.subplots(1, 1, figsize=size, squeeze=False)
    axis = axes[0][0]
    for index, (row, plane, found) in enumerate(shown):
        y, x = index // across * (tall + rise) + rise - 5, index % across * (wide + gap)
        canvas[y : y + tall, x : x + wide] = plane / 8 * np.log10(2)
        (left, right), (low, high) = found["range"], found["score_range"]
        ends = f"W {left:.2g} to {right:.2g}, S {low:.2g} to {high:.2g}"
        middle = x + wide / 2 - 0.5
        axis.text(middle, y - 4, name_of(row), ha="center", va="center", fontsize=9)
        axis.text(middle, y + tall + 2, ends, ha="center", va="center", fontsize=7)
        zero = x - 0.5 + wide * -left / (right - left)
        axis.plot([zero, zero], [y - 0.5, y + tall - 0.5], color="white", linewidth=0.4)
        if low < 0 < high:
            level = y - 0.5 + tall * high / (high - low)
            axis.plot([x - 0.5, x + wide - 0.5], [level, level], color="white", linewidth=0.4)
    image = axis.imshow(canvas, vmin=0, cmap="cividis", aspect="auto", interpolation="none")
    axis.set_axis_off()
    set_margins(figure, left=0.1, right=0.85, bottom=0.1, top=0.1, between=0.0)
    bar = figure.add_axes((1 - 0.75 / size[0], 0.2, 0.12 / size[0], 0.6))
    figure.colorbar(image, cax=bar, label="weights (log10)")
    return figure
