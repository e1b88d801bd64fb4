"""The candidates of `--tune`: every value that was tried, and how it did."""

from collections.abc import Sequence

from leaderboard.collect import Table
from leaderboard.formats import NOTHING, Entry, Grid, quantity, target
from leaderboard.tables import label
from zoo.records.result import Candidate


def candidate_grid(table: Table) -> Grid:
    """Every candidate of every method, target and task: once for all seeds, best first."""
    rows: list[list[Entry]] = []
    for row, task, group in table.entries():
        if group.results and group.results[0].candidates:
            start: list[Entry] = [label(row, group.results), target(row.density), task]
            first, *_ = tried = group.results[0].candidates
            rows += [[*start, *_shown(one, one is first)] for one in _in_order(tried)]
    header = ["Method", "Target %", "Task", "Values", "First metric", "Kept %", "Outcome"]
    return Grid(header, rows)


def _in_order(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The chosen one, then the others by their metric; those cut short last."""

    def place(one: Candidate) -> tuple[bool, int, bool, float]:
        metric = -1000.0 if one.metric is None else one.metric
        return not one.chosen, -(one.steps or 10**9), not one.eligible, -metric

    return sorted(candidates, key=place)


def _shown(one: Candidate, recipe: bool) -> list[Entry]:
    values = ", ".join(f"{name} {value}" for name, value in one.values.items())
    outcome = ["chosen"] * one.chosen + ["the recipe's"] * recipe
    if one.remaining is None:
        outcome.append("diverged or failed")
    elif one.metric is None:
        outcome.append("no metric")
    elif not one.eligible:
        outcome.append("over its target")
    if one.steps is not None:
        outcome.append(f"after {one.steps} steps")
    kept = None if one.remaining is None else 100 * one.remaining
    return [
        values or "the recipe's",
        quantity(one.metric, ".1f"),
        quantity(kept, ".2f"),
        ", ".join(outcome) or NOTHING,
    ]
