"""Who is better, by how much, and is it more than noise: comparisons within one table."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from leaderboard.collect import Cell, RowKey, Table
from leaderboard.formats import Grid
from leaderboard.statistics import (
    Across,
    Estimate,
    Paired,
    across_tasks,
    evaluation_error,
    holm,
    interval,
    paired_examples,
    permutation_p,
    sample_std,
    seeds_needed,
    welch,
)
from leaderboard.tables import at_target, entries, in_order, label, metrics_of, values
from zoo.trial import Result

RANKED = 3
"""Fewest seeds for which anything is ranked."""


@dataclass(frozen=True)
class Comparison:
    """One cell's first metric over seeds, against dense and against the reference method at the
    same target. What cannot be said is None; `why_not` says why there is no p."""

    row: RowKey
    task: str
    results: Sequence[Result]
    metric: str
    over_seeds: Estimate | None
    over_examples: float | None
    dense: Estimate | None
    reference: Estimate | None
    p: float | None
    corrected: float | None
    examples: Paired | None
    seeds_needed: int | None
    why_not: str


def reference_of(table: Table, wanted: str) -> str:
    """The method to compare with: the wanted one if the table has it, else the first that prunes by
    more than chance."""
    names = [row.method for row in in_order(table.rows) if row.density < 1]
    chosen = [name for name in names if name != "random"]
    return wanted if wanted in names or not chosen else chosen[0]


def compare(table: Table, plain: Table, reference: str) -> list[Comparison]:
    """Every cell at its target, in the order of the tables; Holm's correction is over all p values
    of the table. `plain` holds the dense trials."""
    found = [
        _compare(table, plain, reference, row, task, cell)
        for row, task, cell in entries(table)
        if at_target(cell) and metrics_of(table, task)
    ]
    told = [c.p for c in found if c.p is not None]
    adjusted = iter(holm(told))
    return [c if c.p is None else replace(c, corrected=next(adjusted)) for c in found]


def _compare(
    table: Table, plain: Table, reference: str, row: RowKey, task: str, cell: Cell
) -> Comparison:
    metric = metrics_of(table, task)[0]
    ours = [r for r in at_target(cell) if r.metrics.get(metric) is not None]
    dense = _scored(plain, RowKey(1.0, "dense"), task, metric)
    rival = _scored(table, RowKey(row.density, reference), task, metric)
    why_not = _why_not(row, ours, rival, reference)
    mine, theirs, top = (values(rs, metric) for rs in (ours, rival, dense))
    difference = None if why_not else welch(mine, theirs)
    spreads = [s for s in (sample_std(mine), sample_std(theirs)) if s is not None]
    pooled = float(np.sqrt(np.mean(np.square(spreads)))) if spreads else 0.0
    a, b = _paired_bits(ours, rival)
    return Comparison(
        row=row,
        task=task,
        results=ours,
        metric=metric,
        over_seeds=interval(mine),
        over_examples=evaluation_error(_bits(ours)) if len(_bits(ours)) else None,
        dense=None if row.method == "dense" else welch(mine, top),
        reference=difference,
        p=None if why_not else permutation_p(mine, theirs),
        corrected=None,
        examples=paired_examples(a, b) if len(a) and row.method != reference else None,
        seeds_needed=seeds_needed(difference.value, pooled) if difference else None,
        why_not=why_not,
    )


def _scored(table: Table, row: RowKey, task: str, metric: str) -> list[Result]:
    there = at_target(table.cells.get((row, task), Cell()))
    return [result for result in there if result.metrics.get(metric) is not None]


def _why_not(row: RowKey, ours: list[Result], rival: list[Result], reference: str) -> str:
    if row.method == reference:
        return "the reference"
    if not rival:
        return f"no {reference} at this target"
    if min(len(ours), len(rival)) < RANKED:
        return f"fewer than {RANKED} seeds"
    if {r.trial.seed for r in ours} != {r.trial.seed for r in rival}:
        return "other seeds"
    return ""


def _bits(results: Sequence[Result]) -> np.ndarray:
    """(seeds, examples): whether each example of the first evaluation set was right."""
    rows = [unpack(next(iter(sorted(r.correct.items())))[1]) for r in results if r.correct]
    if not rows or len({len(row) for row in rows}) > 1:
        return np.zeros((0, 0), bool)
    return np.stack(rows)


def unpack(text: str) -> np.ndarray:
    """Booleans from '<number>:<base64 of packed bits>'."""
    number, _, packed = text.partition(":")
    bits = np.frombuffer(base64.b64decode(packed), np.uint8)
    return np.unpackbits(bits, count=int(number)).astype(bool)


def _paired_bits(ours: Sequence[Result], rival: Sequence[Result]) -> tuple[np.ndarray, np.ndarray]:
    """The correctness of both on the seeds that both have; empty where the examples differ."""
    mine = {r.trial.seed: r for r in ours}
    theirs = {r.trial.seed: r for r in rival}
    both = sorted(set(mine) & set(theirs))
    a, b = _bits([mine[s] for s in both]), _bits([theirs[s] for s in both])
    return (a, b) if a.shape == b.shape else (np.zeros((0, 0), bool), np.zeros((0, 0), bool))


def agreement(one: Result, other: Result) -> float | None:
    """Jaccard index of two trials' masks, kept by both over kept by either, estimated from their
    sketches (Li et al. 2012) with a standard error of 3 points; None without sketches."""
    a, b = _sketch(one.sketch), _sketch(other.sketch)
    if not len(a) or len(a) != len(b):
        return None
    filled = (a != EMPTY) | (b != EMPTY)
    return float((a == b)[filled].mean()) if filled.any() else None


@lru_cache(maxsize=4096)
def _sketch(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<u4")


EMPTY = 2**32 - 1
"""A sketch's value where no kept weight fell."""


def best_cells(table: Table) -> set[tuple[RowKey, str, str]]:
    """(row, task, metric) of what is better than every other row of its target beyond the 95 %
    interval of the difference, with every seed that was planned. Methods that do not prune compete
    with nobody."""
    chosen = set()
    for task in table.tasks:
        for metric in metrics_of(table, task):
            for density in {row.density for row in table.rows if row.density < 1}:
                rivals = [row for row in table.rows if row.density == density]
                scores = {row: values(_scored(table, row, task, metric), metric) for row in rivals}
                chosen |= {
                    (row, task, metric)
                    for row in _winners(scores)
                    if len(scores[row]) == len(table.cells[row, task].seeds)
                }
    return chosen


def _winners(scores: dict[RowKey, list[float]]) -> list[RowKey]:
    ranked = {row: found for row, found in scores.items() if len(found) >= RANKED}
    if len(ranked) < 2 or any(found and row not in ranked for row, found in scores.items()):
        return []
    best = max(ranked, key=lambda row: sum(ranked[row]) / len(ranked[row]))
    rivals = [welch(ranked[best], other) for row, other in ranked.items() if row != best]
    return [best] if all(rival is not None and rival.low > 0 for rival in rivals) else []


@dataclass(frozen=True)
class Overall:
    """A row over all tasks of a table."""

    row: RowKey
    results: Sequence[Result]
    across: Across


def overall(table: Table, reference: str) -> list[Overall]:
    """Aggregates of the first metrics over tasks, for rows with every task and enough seeds."""
    tasks = [task for task in table.tasks if metrics_of(table, task)]
    found = []
    for row in in_order(table.rows):
        own = _first_scores(table, row, tasks)
        if len(tasks) > 1 and own is not None:
            rival = _first_scores(table, RowKey(row.density, reference), tasks)
            results = [r for task in tasks for r in at_target(table.cells[row, task])]
            same = row.method == reference
            found.append(Overall(row, results, across_tasks(own, None if same else rival)))
    return found


def _first_scores(table: Table, row: RowKey, tasks: Sequence[str]) -> dict[str, list[float]] | None:
    scores = {}
    for task in tasks:
        metric = metrics_of(table, task)[0]
        scores[task] = values(_scored(table, row, task, metric), metric)
        if len(scores[task]) < RANKED:
            return None
    return scores


def comparison_grid(found: Sequence[Comparison], reference: str) -> Grid:
    """Comparisons as texts: intervals are 95 %, differences in points."""
    header = [
        *("Method", "Target %", "Task", "Mean over seeds", "± of the evaluation set", "Δ dense"),
        *(f"Δ {reference}", "p", "p (Holm)", "Seeds to see it"),
        *(f"Δ {reference} over examples", "p over examples"),
    ]
    rows = [
        [
            label(c.row, c.results),
            f"{100 * c.row.density:g}",
            f"{c.task} {c.metric}",
            estimate_text(c.over_seeds) if c.over_seeds else _alone(c),
            "-" if c.over_examples is None else f"{1.96 * c.over_examples:.1f}",
            estimate_text(c.dense, signed=True),
            c.why_not or estimate_text(c.reference, signed=True),
            *(_p(c.p), _p(c.corrected)),
            "-" if c.seeds_needed is None else str(c.seeds_needed),
            estimate_text(c.examples.difference if c.examples else None, signed=True),
            _p(c.examples.p if c.examples else None),
        ]
        for c in found
    ]
    return Grid(header, rows)


def overall_grid(found: Sequence[Overall], reference: str) -> Grid:
    """Aggregates over tasks as texts."""
    header = [
        "Method",
        "Target %",
        "Mean over tasks",
        "Interquartile mean",
        f"P(beats {reference})",
    ]
    rows = [
        [
            label(o.row, o.results),
            f"{100 * o.row.density:g}",
            estimate_text(o.across.mean),
            estimate_text(o.across.interquartile),
            estimate_text(o.across.improvement, digits=2),
        ]
        for o in found
    ]
    return Grid(header, rows)


def estimate_text(estimate: Estimate | None, *, signed: bool = False, digits: int = 1) -> str:
    """'83.2 (82.9 to 83.5)', or '-'."""
    if estimate is None:
        return "-"
    form = f"{'+' if signed else ''}.{digits}f"
    return f"{estimate.value:{form}} ({estimate.low:{form}} to {estimate.high:{form}})"


def _alone(c: Comparison) -> str:
    """A mean without an interval: that of one seed, or none."""
    found = values(c.results, c.metric)
    return f"{found[0]:.1f} (n = 1)" if found else "-"


def _p(p: float | None) -> str:
    return "-" if p is None else f"{p:.4f}" if p >= 0.0001 else "< 0.0001"
