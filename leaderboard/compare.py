"""Who is better, by how much, and is it more than noise: comparisons within a table."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from leaderboard.collect import RowKey, SeedGroup, Table
from leaderboard.formats import NOTHING, Entry, Grid, Quantity, quantity
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
from leaderboard.tables import at_target, label, values
from zoo.records.packed import EMPTY, unpack_bits, unpack_sketch
from zoo.records.result import Result

RANKED = 3
"""Smallest number of seeds for which anything is ranked."""


@dataclass(frozen=True)
class Comparison:
    """A group's first metric over seeds, compared with dense and with the reference method at the
    same target. What cannot be compared is None; `why_not` says why there is no p."""

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


def reference_of(table: Table, wanted: str | None) -> str:
    """The method to compare with: `wanted` if the table has it, otherwise the first that prunes
    and is not a control; "" if no method qualifies."""
    rows = [row for row in table.rows if row.density < 1]
    names = [row.method for row in rows]
    chosen = [row.method for row in rows if not table.facts_of(row).control]
    if wanted in names:
        return wanted
    return next(iter(chosen or names), "")


def compare(table: Table, plain: Table, reference: str) -> list[Comparison]:
    """Every group that reached its target, in the order of the table; Holm's correction is over all
    p values of the table. `plain` holds the dense trials."""
    found = [
        _compare(table, plain, reference, row, task, group)
        for row, task, group in table.entries()
        if at_target(group) and table.metrics_of(task)
    ]
    told = [c.p for c in found if c.p is not None]
    adjusted = iter(holm(told))
    return [c if c.p is None else replace(c, corrected=next(adjusted)) for c in found]


def _compare(
    table: Table, plain: Table, reference: str, row: RowKey, task: str, group: SeedGroup
) -> Comparison:
    metric = table.metrics_of(task)[0]
    ours = [r for r in at_target(group) if r.metrics.get(metric) is not None]
    dense = _measured(plain, plain.teacher, task, metric)
    rival = _measured(table, RowKey(row.density, reference), task, metric)
    why_not = _why_not(row, ours, rival, reference)
    mine, theirs, top = (values(rs, metric) for rs in (ours, rival, dense))
    difference = None if why_not else welch(mine, theirs)
    spreads = [s for s in (sample_std(mine), sample_std(theirs)) if s is not None]
    pooled = float(np.sqrt(np.mean(np.square(spreads)))) if spreads else 0.0
    a, b = _paired_bits(ours, rival, metric)
    bits = _bits(ours, metric)
    return Comparison(
        row=row,
        task=task,
        results=ours,
        metric=metric,
        over_seeds=interval(mine),
        over_examples=evaluation_error(bits) if len(bits) else None,
        dense=None if row == plain.teacher else welch(mine, top),
        reference=difference,
        p=None if why_not else permutation_p(mine, theirs),
        corrected=None,
        examples=paired_examples(a, b) if len(a) and row.method != reference else None,
        seeds_needed=seeds_needed(difference.value, pooled) if difference else None,
        why_not=why_not,
    )


def _measured(table: Table, row: RowKey | None, task: str, metric: str) -> list[Result]:
    """Results of a row at their target that have a value of the metric."""
    there = at_target(table.group(row, task)) if row else []
    return [result for result in there if result.metrics.get(metric) is not None]


def _why_not(row: RowKey, ours: list[Result], rival: list[Result], reference: str) -> str:
    if row.method == reference:
        return "the reference"
    if not reference:
        return "no method to compare with"
    if not rival:
        return f"no {reference} at this target"
    if min(len(ours), len(rival)) < RANKED:
        return f"fewer than {RANKED} seeds"
    if {r.trial.seed for r in ours} != {r.trial.seed for r in rival}:
        return "other seeds"
    return ""


def _bits(results: Sequence[Result], metric: str) -> np.ndarray:
    """Whether each example of the first evaluation set was answered correctly, (seeds, examples);
    empty unless the metric is the fraction of correct answers (accuracy, exact match)."""
    rows = [unpack_bits(next(iter(sorted(r.correct.items())))[1]) for r in results if r.correct]
    shown = values(results, metric)
    if len(rows) != len(shown) or not rows or len({len(row) for row in rows}) > 1:
        return NO_BITS
    found = np.stack(rows)
    return found if np.allclose(100 * found.mean(1), shown, atol=1e-6, rtol=0) else NO_BITS


NO_BITS = np.zeros((0, 0), bool)


def _paired_bits(
    ours: Sequence[Result], rival: Sequence[Result], metric: str
) -> tuple[np.ndarray, np.ndarray]:
    """The correctness of both methods on their common seeds; empty where the examples differ."""
    mine = {r.trial.seed: r for r in ours}
    theirs = {r.trial.seed: r for r in rival}
    both = sorted(set(mine) & set(theirs))
    a, b = _bits([mine[s] for s in both], metric), _bits([theirs[s] for s in both], metric)
    return (a, b) if a.shape == b.shape else (NO_BITS, NO_BITS)


def agreement(one: Result, other: Result) -> float | None:
    """The Jaccard index of two trials' masks, kept by both over kept by either, estimated from
    their sketches (Li et al. 2012) with a standard error of 3 points; None without sketches."""
    a, b = unpack_sketch(one.sketch), unpack_sketch(other.sketch)
    if not len(a) or len(a) != len(b):
        return None
    filled = (a != EMPTY) | (b != EMPTY)
    return float((a == b)[filled].mean()) if filled.any() else None


def best_entries(table: Table) -> set[tuple[RowKey, str, str]]:
    """(row, task, metric) of rows that are better than every other row of their target beyond the
    95 % interval of the difference, with all planned seeds. Methods that do not prune take no
    part."""
    chosen = set()
    for task in table.tasks:
        for metric in table.metrics_of(task):
            for density in {row.density for row in table.rows if row.density < 1}:
                rivals = [row for row in table.rows if row.density == density]
                found = {r: values(_measured(table, r, task, metric), metric) for r in rivals}
                chosen |= {
                    (row, task, metric)
                    for row in _winners(found)
                    if len(found[row]) == len(table.groups[row, task].seeds)
                }
    return chosen


def _winners(found: dict[RowKey, list[float]]) -> list[RowKey]:
    ranked = {row: numbers for row, numbers in found.items() if len(numbers) >= RANKED}
    if len(ranked) < 2 or any(numbers and row not in ranked for row, numbers in found.items()):
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
    """Aggregates of the first metrics over tasks, for rows with all tasks and enough seeds."""
    tasks = [task for task in table.tasks if table.metrics_of(task)]
    found = []
    for row in table.rows:
        own = _first_metrics(table, row, tasks)
        if len(tasks) > 1 and own is not None:
            rival = _first_metrics(table, RowKey(row.density, reference), tasks)
            results = [r for task in tasks for r in at_target(table.groups[row, task])]
            same = row.method == reference
            found.append(Overall(row, results, across_tasks(own, None if same else rival)))
    return found


def _first_metrics(
    table: Table, row: RowKey, tasks: Sequence[str]
) -> dict[str, list[float]] | None:
    """The first metric of a row by task; None where a task has too few seeds."""
    found = {}
    for task in tasks:
        metric = table.metrics_of(task)[0]
        found[task] = values(_measured(table, row, task, metric), metric)
        if len(found[task]) < RANKED:
            return None
    return found


def comparison_grid(found: Sequence[Comparison], reference: str) -> Grid:
    """Comparisons as a grid: intervals are 95 %, differences in points."""
    reference = reference or "reference"
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
            estimate(c.over_seeds) if c.over_seeds else _alone(c),
            quantity(None if c.over_examples is None else 1.96 * c.over_examples, ".1f"),
            estimate(c.dense, signed=True),
            c.why_not or estimate(c.reference, signed=True),
            *(_p(c.p), _p(c.corrected)),
            quantity(c.seeds_needed, "d"),
            estimate(c.examples.difference if c.examples else None, signed=True),
            _p(c.examples.p if c.examples else None),
        ]
        for c in found
    ]
    return Grid(header, rows)


def overall_grid(found: Sequence[Overall], reference: str) -> Grid:
    """Aggregates over tasks as a grid."""
    reference = reference or "reference"
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
            estimate(o.across.mean),
            estimate(o.across.interquartile),
            estimate(o.across.improvement, digits=2),
        ]
        for o in found
    ]
    return Grid(header, rows)


def estimate(found: Estimate | None, *, signed: bool = False, digits: int = 1) -> Entry:
    """'83.2 (82.9 to 83.5)', or '-'."""
    if found is None:
        return NOTHING
    form = f"{'+' if signed else ''}.{digits}f"
    text = f"{found.value:{form}} ({found.low:{form}} to {found.high:{form}})"
    return Quantity(found.value, text)


def _alone(c: Comparison) -> Entry:
    """The metric of a single seed, which has no interval."""
    found = values(c.results, c.metric)
    return Quantity(found[0], f"{found[0]:.1f} (n = 1)") if found else NOTHING


def _p(p: float | None) -> Entry:
    if p is None:
        return NOTHING
    return Quantity(p, f"{p:.4f}" if p >= 0.0001 else "< 0.0001")
