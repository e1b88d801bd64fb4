"""Figures like the papers': quality against remaining weights, and where those weights are."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from leaderboard.collect import Board, Cell, RowKey, Table, reference
from leaderboard.compare import agreement
from leaderboard.statistics import mean, sample_std
from leaderboard.tables import at_target, in_order, metrics_of, off_target, values
from zoo.trial import Result

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999933")
"""Okabe and Ito's colours, told apart by the colour-blind; markers and dashes tell the rest."""
MARKERS = "osD^vPX*<>"
DASHES = ("-", "--", "-.", ":")
Chosen = Sequence[tuple[RowKey, Sequence[Result]]]
"""Rows with the results that a figure shows."""
LEGEND = 2.2
"""Inches that the legend takes beside the charts."""
TYPES = {
    "attention.self.query": "Q",
    "attention.self.key": "K",
    "attention.self.value": "V",
    "attention.output.dense": "O",
    "intermediate.dense": "U",
    "output.dense": "D",
}


def draw(board: Board, folder: Path) -> list[tuple[str, Path]]:
    """Draw all figures of a board as SVG and PNG; returns captions and the PNGs' paths."""
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams.update({"svg.hashsalt": "leaderboard", "font.size": 9, "figure.dpi": 110})
    made = []
    for number, table in enumerate(board.tables):
        suffix = f"-{number + 1}" if len(board.tables) > 1 else ""
        for name, caption, figure in _figures(board, table):
            path = folder / f"{name}{suffix}.png"
            _save(figure, path)
            made.append((caption, path))
    return made


def _figures(board: Board, table: Table) -> Iterator[tuple[str, str, Any]]:
    """Name, caption and figure, one at a time: each is saved and closed before the next."""
    curve = quality(board, table)
    if curve is not None:
        yield "quality", "Quality against measured remaining weights", curve
    lowest = {task: _at_lowest(table, task) for task in table.tasks}
    tasks = [task for task in table.tasks if lowest[task] and metrics_of(table, task)]
    least = min((100 * row.density for chosen in lowest.values() for row, _ in chosen), default=0)
    if tasks:
        caption = f"Training at target {least:g} %: the first metric, means over seeds"
        yield (
            "curves",
            f"{caption}; dots: density, from 100 % at the top",
            curves(table, tasks, lowest),
        )
        caption = (
            f"Cost against quality at target {least:g} %: seconds of a trial, means over seeds"
        )
        yield "cost", caption, costs(table, tasks, lowest)
    for task in table.tasks:
        chosen, where = lowest[task], f"{task}, target {least:g} %"
        uneven = [(row, results) for row, results in chosen if any(map(_uneven, results))]
        if uneven:
            caption = f"Remaining weights by layer and matrix ({where}; where they differ)"
            yield f"matrices-{task}", caption, matrices(uneven)
        if chosen:
            yield (
                f"heads-{task}",
                f"Remaining weights by attention head ({where})",
                heads(chosen),
            )
        masked = [(row, results) for row, results in chosen if any(r.sketch for r in results)]
        if masked:
            caption = (
                f"Agreement between masks: Jaccard index, in percent, between methods at the same"
                f" seed, on the diagonal between seeds of one method ({where}; by chance"
                f" {100 * least / (200 - least):.1f})"
            )
            yield f"agreement-{task}", caption, agreements(masked)


def _uneven(result: Result) -> bool:
    """Whether matrices keep different fractions, more than rounding to whole weights makes."""
    kept, total = result.remaining["kept"], result.remaining["total"]
    fractions = [kept[name] / total[name] for name in total]
    return max(fractions) - min(fractions) > 1 / min(total.values())


def _save(figure: Any, path: Path) -> None:
    import matplotlib.pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def quality(board: Board, table: Table) -> Any:
    """Per task: mean and sample std over seeds against remaining weights on a log axis."""
    source = reference(board, table) or table
    tasks = [task for task in table.tasks if metrics_of(table, task)]
    pruned = [row for row in in_order(table.rows) if row.density < 1]
    names = list(dict.fromkeys((row.method, row.variant) for row in pruned))
    if not tasks or not names:
        return None
    figure, axes = _panels(table, tasks, "remaining weights (%)")
    for axis, task in zip(axes, tasks, strict=True):
        metric = metrics_of(table, task)[0]
        _references(axis, source, task, metric)
        for index, (method, variant) in enumerate(names):
            rows = [row for row in pruned if (row.method, row.variant) == (method, variant)]
            _line(axis, table, rows, task, metric, index)
        targets = sorted({100 * row.density for row in pruned})
        axis.set_xscale("log")
        axis.set_xticks(targets, [f"{target:g}" for target in targets])
        axis.minorticks_off()
    return _with_legend(figure, axes)


def curves(table: Table, tasks: Sequence[str], lowest: Mapping[str, Chosen]) -> Any:
    """Per task: the first metric over the run, and the density behind it."""
    figure, axes = _panels(table, tasks, "optimiser steps")
    for axis, task in zip(axes, tasks, strict=True):
        metric = metrics_of(table, task)[0]
        behind = axis.twinx()
        behind.set_ylim(0, 100)
        behind.set_yticks([])
        for index, (row, results) in enumerate(lowest[task]):
            points: dict[int, list[Mapping[str, Any]]] = {}
            for result in results:
                for point in result.curve:
                    if point.get(metric) is not None:
                        points.setdefault(point["step"], []).append(point)
            steps = sorted(points)
            shown = [mean([p[metric] for p in points[step]]) for step in steps]
            kept = [100 * mean([p["density"] for p in points[step]]) for step in steps]
            axis.plot(steps, shown, label=_name(row), markersize=4, linewidth=1.3, **_style(index))
            behind.plot(steps, kept, color="#999999", linestyle=":", linewidth=0.8)
    return _with_legend(figure, axes)


def costs(table: Table, tasks: Sequence[str], lowest: Mapping[str, Chosen]) -> Any:
    """Per task: seconds of a trial against its first metric, a mark per method."""
    figure, axes = _panels(table, tasks, "seconds")
    for axis, task in zip(axes, tasks, strict=True):
        metric = metrics_of(table, task)[0]
        for index, (row, results) in enumerate(lowest[task]):
            scores = values(results, metric)
            if scores:
                seconds = mean([result.cost["seconds"] for result in results])
                style = _style(index) | {"linestyle": "none"}
                axis.plot([seconds], [mean(scores)], label=_name(row), markersize=6, **style)
    return _with_legend(figure, axes)


def _panels(table: Table, tasks: Sequence[str], below: str) -> tuple[Any, list[Any]]:
    """A figure with an axis per task, at most four beside each other, and room for a legend."""
    import matplotlib.pyplot as plt

    across = min(len(tasks), 4)
    down = -(-len(tasks) // across)
    size = (3.4 * across + LEGEND, 3.4 * down)
    figure, axes = plt.subplots(down, across, figsize=size, squeeze=False)
    for axis in axes.flat[len(tasks) :]:
        axis.set_visible(False)
    for axis, task in zip(axes.flat, tasks, strict=False):
        axis.set_xlabel(below)
        axis.set_title(f"{task}: {metrics_of(table, task)[0]}")
        axis.grid(alpha=0.3)
    return figure, list(axes.flat[: len(tasks)])


def _with_legend(figure: Any, axes: Sequence[Any]) -> Any:
    handles, labels = axes[0].get_legend_handles_labels()
    place = (1 - (LEGEND - 0.1) / figure.get_size_inches()[0], 0.5)
    figure.legend(handles, labels, loc="center left", bbox_to_anchor=place, frameon=False)
    _margins(figure, left=0.55, right=LEGEND, bottom=0.55, top=0.35, between=0.6)
    return figure


def _style(index: int) -> dict[str, Any]:
    """Colour, mark and dash of a method's line."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": DASHES[index // len(COLOURS) % len(DASHES)],
    }


def _name(row: RowKey) -> str:
    return row.method + (f" ({row.variant})" if row.variant else "")


def _margins(
    figure: Any, *, left: float, right: float, bottom: float, top: float, between: float
) -> None:
    """Set margins in inches, as quick as matplotlib's own layouts are slow."""
    width, height = figure.get_size_inches()
    down, across = figure.axes[0].get_subplotspec().get_gridspec().get_geometry()
    wide = (width - left - right - between * (across - 1)) / across
    above = between + 0.25  # a title and an axis label meet there
    tall = (height - bottom - top - above * (down - 1)) / down
    figure.subplots_adjust(
        left=left / width,
        right=1 - right / width,
        bottom=bottom / height,
        top=1 - top / height,
        wspace=between / wide,
        hspace=above / tall,
    )


def _line(
    axis: Any, table: Table, rows: Sequence[RowKey], task: str, metric: str, index: int
) -> None:
    points = []
    for row in rows:
        cell = table.cells.get((row, task), Cell())
        alone = [[result] for result in cell.ok if off_target(result)]
        for results in (at_target(cell), *alone):
            scores = values(results, metric)
            if scores:
                x = mean([100 * result.remaining["density"] for result in results])
                points.append((x, mean(scores), sample_std(scores) or 0.0))
    axis.errorbar(
        [p[0] for p in sorted(points)],
        [p[1] for p in sorted(points)],
        [p[2] for p in sorted(points)],
        label=_name(rows[0]),
        markersize=5,
        linewidth=1.3,
        capsize=2,
        **_style(index),
    )


def _references(axis: Any, table: Table, task: str, metric: str) -> None:
    """Horizontal lines: what does not prune, and the majority class."""
    for index, row in enumerate(r for r in in_order(table.rows) if r.density == 1):
        scores = values(table.cells.get((row, task), Cell()).ok, metric)
        if scores:
            dash = DASHES[index % len(DASHES)]
            axis.axhline(
                mean(scores), color="#666666", linestyle=dash, linewidth=1, label=row.method
            )
    chance = [r.majority.get(metric) for r in table.results if r.trial.task == task]
    known = [value for value in chance if value is not None]
    if known:
        axis.axhline(known[0], color="#bbbbbb", linewidth=3, alpha=0.6, label="majority class")


def _at_lowest(table: Table, task: str) -> Chosen:
    """Rows at the lowest density with results that have masks."""
    rows = [row for row in in_order(table.rows) if row.density < 1]
    if not rows:
        return []
    lowest = min(row.density for row in rows)
    chosen = [
        (row, [r for r in at_target(table.cells.get((row, task), Cell())) if r.remaining["heads"]])
        for row in rows
        if row.density == lowest
    ]
    return [(row, results) for row, results in chosen if results]


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
            for head, density in enumerate(densities):
                found.setdefault((_place(name)[0], str(head + 1)), []).append(100 * density)
        return {place: mean(parts) for place, parts in found.items()}

    number = max(len(d) for _, rs in chosen for d in rs[0].remaining["heads"].values())
    return _heat_maps(chosen, grid, [str(head + 1) for head in range(number)], "head")


def agreements(chosen: Chosen) -> Any:
    """One heat map: which methods, and which seeds of a method, keep the same weights."""
    import matplotlib.pyplot as plt

    names = [_name(row) for row, _ in chosen]
    cells = [
        [_agreement(a, b, i == j) for j, (_, b) in enumerate(chosen)]
        for i, (_, a) in enumerate(chosen)
    ]
    side = 0.5 * len(names)
    figure, axes = plt.subplots(1, 1, figsize=(side + 2.6, side + 1.6), squeeze=False)
    axis = axes[0][0]
    image = axis.imshow(cells, vmin=0, vmax=100, cmap="cividis")
    axis.set_xticks(range(len(names)), names, rotation=60, ha="right")
    axis.set_yticks(range(len(names)), names)
    _numbers(axis, cells, 100)
    _margins(figure, left=1.5, right=1.1, bottom=1.4, top=0.2, between=0.0)
    width = figure.get_size_inches()[0]
    bar = figure.add_axes((1 - 0.85 / width, 0.35, 0.15 / width, 0.55))
    figure.colorbar(image, cax=bar, label="Jaccard index (%)")
    return figure


def _agreement(ours: Sequence[Result], theirs: Sequence[Result], same: bool) -> float:
    """Mean Jaccard index in percent: of the same seeds, or of different seeds of one method."""
    pairs = [
        (a, b)
        for a in ours
        for b in theirs
        if (a.trial.seed < b.trial.seed if same else a.trial.seed == b.trial.seed)
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
    image = axis.imshow(canvas, vmin=0, vmax=top, cmap="cividis", aspect="auto")
    axis.set_axis_off()
    small: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7}
    for index, (row, cells) in enumerate(maps):
        y, x = index // across * (tall + rise) + rise - 1, index % across * (wide + gap)
        axis.text(x + (wide - 1) / 2, y - 1, _name(row), ha="center", va="center", fontsize=9)
        for layer in range(tall):
            axis.text(x - 0.8, y + layer, str(layer + 1), **small)
        for place, label in enumerate(columns):
            axis.text(x + place, y + tall - 0.1, label, **small)
        if below:
            axis.text(x + (wide - 1) / 2, y + tall + 0.7, below, **small)
        if tall * wide <= 60:
            _numbers(axis, cells, top, x, y)
    _margins(figure, left=0.25, right=0.95, bottom=0.15, top=0.05, between=0.0)
    bar = figure.add_axes((1 - 0.8 / size[0], 0.2, 0.15 / size[0], 0.6))
    figure.colorbar(image, cax=bar, label="remaining weights (%)")
    return figure


def _numbers(
    axis: Any, cells: Sequence[Sequence[float]], top: float, left: int = 0, above: int = 0
) -> None:
    for y, line in enumerate(cells):
        for x, value in enumerate(line):
            colour = "black" if value > 0.6 * top else "white"
            place = {"ha": "center", "va": "center", "fontsize": 7, "color": colour}
            axis.text(left + x, above + y, f"{value:.1f}", **place)
