"""Figures like the papers': quality against remaining weights, and where those weights are."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from leaderboard.collect import Board, Cell, RowKey, Table, reference
from leaderboard.drawing import DASHES, Chosen, name_of, panels, save, style, with_legend
from leaderboard.maps import agreements, heads, matrices, scores, weights
from leaderboard.statistics import mean, sample_std
from leaderboard.tables import at_target, in_order, metrics_of, off_target, values
from zoo.trial import Result


def draw(
    board: Board, folder: Path, step: Callable[[int, int], object] = lambda done, of: None
) -> list[tuple[str, Path]]:
    """Draw all figures of a board as SVG and PNG; returns captions and the PNGs' paths. `step` is
    told how many are done, and of how many."""
    import matplotlib

    matplotlib.use("agg")
    defaults = {name: v for name, v in matplotlib.rcParamsDefault.items() if name != "backend"}
    own = {"svg.hashsalt": "leaderboard", "font.size": 9, "figure.dpi": 110}
    with matplotlib.rc_context(defaults | own):  # a user's own settings would change the files
        return _draw(board, folder, step)


def _draw(board: Board, folder: Path, step: Callable[[int, int], object]) -> list[tuple[str, Path]]:
    planned = [
        (folder / f"{name}{f'-{number}' if len(board.tables) > 1 else ''}.png", caption, make)
        for number, table in enumerate(board.tables, 1)
        for name, caption, make in _figures(board, table)
    ]
    made = []
    for done, (path, caption, make) in enumerate(planned, 1):
        save(make(), path)
        made.append((caption, path))
        step(done, len(planned))
    return made


def _figures(board: Board, table: Table) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """Name, caption and maker of each figure; it is made, saved and closed before the next."""
    scored = [task for task in table.tasks if metrics_of(table, task)]
    if scored and any(row.density < 1 for row in table.rows):
        yield (
            "quality",
            "Quality against measured remaining weights",
            partial(quality, board, table, scored),
        )
    lowest = {task: _at_lowest(table, task) for task in table.tasks}
    tasks = [task for task in scored if lowest[task]]
    least = min((100 * row.density for chosen in lowest.values() for row, _ in chosen), default=0)
    if tasks:
        what = f"Training at target {least:g} %: the first metric, means over seeds"
        caption = f"{what}; dots: density, from 100 % at the top"
        yield "curves", caption, partial(curves, table, tasks, lowest)
        what = f"Cost against quality at target {least:g} %"
        caption = f"{what}: time, memory and trainable parameters, means over tasks and seeds"
        yield "cost", caption, partial(costs, table, tasks, lowest)
    for task in table.tasks:
        where, chosen = f"{task}, target {least:g} %", lowest[task]
        uneven = _those(chosen, _uneven)
        if uneven:
            caption = f"Remaining weights by layer and matrix ({where}; where they differ)"
            yield f"matrices-{task}", caption, partial(matrices, uneven)
        if chosen:
            caption = f"Remaining weights by attention head ({where})"
            yield f"heads-{task}", caption, partial(heads, chosen)
    yield from _of_weights(least, lowest)


def _of_weights(
    least: float, lowest: Mapping[str, Chosen]
) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """Distributions for the first task that has them, agreement over all tasks."""
    for task, chosen in lowest.items():
        shown = _those(chosen, lambda result: bool(result.distribution))
        if shown:
            where = f"{task}, target {least:g} %, one seed"
            what = "Weights that remain, by their value, each method to its own height"
            yield "weights", f"{what}; grey: all weights ({where})", partial(weights, shown)
            learned = _those(chosen, lambda result: "scores" in result.distribution)
            what = "Weights (across) against learned scores (up), pruned ones too"
            if learned:
                yield "scores", f"{what} ({where})", partial(scores, learned)
            break
    masked: dict[RowKey, list[Result]] = {}
    for chosen in lowest.values():
        for row, results in chosen:
            masked.setdefault(row, []).extend(r for r in results if r.sketch)
    there = [(row, masked[row]) for row in in_order(list(masked)) if masked[row]]
    if there:
        caption = (
            "Agreement between masks: Jaccard index, in percent, between methods at the same task"
            " and seed, on the diagonal between seeds of one method; means over tasks (target"
            f" {least:g} %; by chance {100 * least / (200 - least):.1f})"
        )
        yield "agreement", caption, partial(agreements, there)


def _those(chosen: Chosen, such: Callable[[Result], bool]) -> Chosen:
    """The rows of which any result is such."""
    return [(row, results) for row, results in chosen if any(map(such, results))]


def _uneven(result: Result) -> bool:
    """Whether matrices keep different fractions, more than rounding to whole weights makes."""
    kept, total = result.remaining["kept"], result.remaining["total"]
    fractions = [kept[name] / total[name] for name in total]
    return max(fractions) - min(fractions) > 1 / min(total.values())


def quality(board: Board, table: Table, tasks: Sequence[str]) -> Any:
    """Per task: mean and sample std over seeds against remaining weights on a log axis."""
    source = reference(board, table) or table
    pruned = [row for row in in_order(table.rows) if row.density < 1]
    names = list(dict.fromkeys((row.method, row.variant) for row in pruned))
    figure, axes = _of_tasks(table, tasks, "remaining weights (%)")
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
    return with_legend(figure, axes)


def curves(table: Table, tasks: Sequence[str], lowest: Mapping[str, Chosen]) -> Any:
    """Per task: the first metric over the run, and the density behind it."""
    figure, axes = _of_tasks(table, tasks, "optimiser steps")
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
            axis.plot(steps, shown, label=name_of(row), markersize=4, linewidth=1.3, **style(index))
            behind.plot(steps, kept, color="#999999", linestyle=":", linewidth=0.8)
    return with_legend(figure, axes)


def costs(table: Table, tasks: Sequence[str], lowest: Mapping[str, Chosen]) -> Any:
    """Seconds, memory and trainable parameters of a trial against the first metrics, means over
    tasks and seeds; methods that have them all."""
    about = {
        "seconds": lambda result: result.cost["seconds"],
        "peak memory (MiB)": lambda result: result.cost["peak_bytes"] / 2**20,
        "trainable parameters (millions)": lambda result: result.parameters["trainable"] / 1e6,
    }
    figure, axes = panels(["mean of the first metrics"] * len(about), list(about))
    rows = in_order(list({row for task in tasks for row, _ in lowest[task]}))
    for index, row in enumerate(rows):
        own = {task: results for task in tasks for key, results in lowest[task] if key == row}
        found = {task: values(own.get(task, ()), metrics_of(table, task)[0]) for task in tasks}
        if all(found.values()):
            level = mean([mean(scores) for scores in found.values()])
            look = style(index) | {"linestyle": "none", "markersize": 6}
            for axis, of_result in zip(axes, about.values(), strict=True):
                cost = mean([mean([of_result(r) for r in own[task]]) for task in tasks])
                axis.plot([cost], [level], label=name_of(row), **look)
    return with_legend(figure, axes)


def _of_tasks(table: Table, tasks: Sequence[str], below: str) -> tuple[Any, list[Any]]:
    titles = [f"{task}: {metrics_of(table, task)[0]}" for task in tasks]
    return panels(titles, [below] * len(tasks))


def _line(
    axis: Any, table: Table, rows: Sequence[RowKey], task: str, metric: str, index: int
) -> None:
    points = []
    for row in rows:
        cell = table.cells.get((row, task), Cell())
        alone = [[result] for result in cell.ok if off_target(result)]
        for results in (at_target(cell), *alone):
            found = values(results, metric)
            if found:
                x = mean([100 * result.remaining["density"] for result in results])
                points.append((x, mean(found), sample_std(found) or 0.0))
    axis.errorbar(
        [p[0] for p in sorted(points)],
        [p[1] for p in sorted(points)],
        [p[2] for p in sorted(points)],
        label=name_of(rows[0]),
        markersize=5,
        linewidth=1.3,
        capsize=2,
        **style(index),
    )


def _references(axis: Any, table: Table, task: str, metric: str) -> None:
    """Horizontal lines: what does not prune, and the majority class."""
    for index, row in enumerate(r for r in in_order(table.rows) if r.density == 1):
        level = values(table.cells.get((row, task), Cell()).ok, metric)
        if level:
            dash = DASHES[index % len(DASHES)]
            axis.axhline(
                mean(level), color="#666666", linestyle=dash, linewidth=1, label=row.method
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
