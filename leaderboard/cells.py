"""Rows on single tasks: means and differences with intervals, over seeds and over examples too."""

from collections.abc import Sequence
from dataclasses import dataclass

from leaderboard.answers import answers_of, bits
from leaderboard.collect import RowKey, Table
from leaderboard.compare import bounded, judged
from leaderboard.crossed import crossed
from leaderboard.statistics import Estimate, interval, mcnemar_p, of_examples, welch
from leaderboard.targets import at_target
from zoo.records.result import Result


@dataclass(frozen=True)
class Cell:
    """A row on one task by its first metric: intervals of the mean and of differences to dense and
    to the reference over seeds, and of the difference over seeds and examples; `one_seed` is p of
    McNemar's test where both have one seed alone."""

    row: RowKey
    task: str
    results: Sequence[Result]
    metric: str
    mean: Estimate | None
    dense: Estimate | None
    difference: Estimate | None
    crossed: Estimate | None
    one_seed: float | None


def cells(table: Table, plain: Table, reference: str) -> list[Cell]:
    """Every row on every task with a result, in the order of the table; `plain` holds the dense
    trials."""
    found = []
    for row, task, _ in table.entries():
        metric = table.first_metric(task)
        if at_target(table, row, task).values(metric):
            found.append(_cell(table, plain, reference, row, task, metric))
    return found


def _cell(table: Table, plain: Table, reference: str, row: RowKey, task: str, metric: str) -> Cell:
    here = at_target(table, row, task)
    same = [r for r in table.rows if (r.density, r.method) == (row.density, reference)]
    chosen = next((r for r in same if judged(table, r)), RowKey(row.density, reference))
    rival = at_target(table, chosen, task)
    dense = at_target(plain, plain.teacher, task) if plain.teacher else None
    mine, theirs = here.values(metric), rival.values(metric)
    own, theirs_too = bits(here.runs, metric), bits(rival.runs, metric)
    apart = row != chosen
    mine_of, by = answers_of(here.runs, metric)
    theirs_of, _ = answers_of(rival.runs, metric)
    whole = len(mine_of) == len(mine) and len(theirs_of) == len(theirs)
    comparable = apart and whole and bool(mine_of) and bool(theirs_of)
    alone = comparable and len(own) == len(theirs_too) == 1 and own.shape == theirs_too.shape
    return Cell(
        row=row,
        task=task,
        results=[run for reading in here.readings for run in reading.runs],
        metric=metric,
        mean=bounded(
            interval(mine, of_examples(own) if len(own) == len(mine) > 0 else None), table, [task]
        ),
        dense=welch(mine, dense.values(metric)) if dense and row != plain.teacher else None,
        difference=welch(mine, theirs) if apart else None,
        crossed=crossed(mine_of, theirs_of, by) if comparable and len(mine_of) > 1 else None,
        one_seed=mcnemar_p(own[0], theirs_too[0]) if alone else None,
    )
