"""Who is better, by how much, and is it more than noise: verdicts within a table."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from leaderboard.collect import RowKey, Table
from leaderboard.ranks import against, shift, smallest_p, top_group, wins
from leaderboard.statistics import (
    CORRELATIONS,
    Estimate,
    difference_over_tasks,
    mean_over_tasks,
    smallest_difference,
)
from leaderboard.targets import Reading, at_target, collapses
from zoo.records.result import Result

RANKED = 2
"""Smallest number of seeds on a task for which a method is ranked there."""

CONTROL = "a control"
"""Why a control takes no part in the test."""


@dataclass(frozen=True)
class Verdict:
    """A row over the tasks that it can be judged on: its mean with interval, the difference to the
    reference on their common tasks, the probability that a seed of it beats one of the reference
    (`wins`), the direction of the blocked rank test (`shift`), its p after Holm within the target,
    the smallest difference that these seeds could show, and whether it is in the top group.

    `tasks` it was judged on, `kept` their mean remaining weights in percent, `runs` that count
    there of so many `planned`, `collapsed` ones of the `judged` that can be. `why_not` says why it
    takes no part in the test: controls and the reference. `dominated_by` is the best row, of any
    target, that keeps no more weights and has a higher mean.
    """

    row: RowKey
    results: Sequence[Result]
    tasks: Sequence[str]
    kept: float | None
    runs: int
    planned: int
    collapsed: int
    judged: int
    mean: Estimate | None
    difference: Estimate | None
    wins: float | None
    shift: float
    p: float | None
    smallest: float | None
    top: bool
    why_not: str
    dominated_by: RowKey | None = None


@dataclass(frozen=True)
class Family:
    """The rows of one target: verdicts, best mean first; the smallest p that Holm's correction
    leaves possible with these seeds, 0 without a test; the tasks of the table; and the best control
    that keeps every weight, with its mean over tasks."""

    density: float
    verdicts: Sequence[Verdict]
    reference: RowKey | None
    smallest_p: float
    tasks: Sequence[str]
    control: tuple[str, float] | None


ByTask = Mapping[str, Sequence[float]]
"""The first metric of a row, by task and seed."""


def reference_of(table: Table, wanted: str | None) -> str:
    """The method to compare with: `wanted` if the table has it, otherwise the first that prunes
    and is not a control; "" if no method qualifies."""
    rows = [row for row in table.rows if row.density < 1]
    names = [row.method for row in rows]
    chosen = [row.method for row in rows if not table.facts_of(row).control]
    if wanted in names:
        return wanted
    return next(iter(chosen or names), "")


def families(table: Table, plain: Table, reference: str) -> list[Family]:
    """The verdicts of every target, most remaining weights first; `plain` holds the controls that
    keep every weight."""
    densities = sorted({row.density for row in table.rows if row.density < 1}, reverse=True)
    control = _best_control(plain)
    return _with_dominance([_family(table, reference, d, control) for d in densities])


def _with_dominance(found: Sequence[Family]) -> list[Family]:
    """Name, for each row, the best of those that keep no more weights and have a higher mean over
    the same tasks."""
    every = [v for family in found for v in family.verdicts if v.mean]

    def over(v: Verdict) -> RowKey | None:
        better = [
            w
            for w in every
            if v.mean and w.mean and w.mean.value > v.mean.value
            if v.kept is not None and w.kept is not None and w.kept <= v.kept
            if w.tasks == v.tasks
        ]
        best = max(better, key=lambda w: w.mean.value if w.mean else 0.0, default=None)
        return best.row if best else None

    return [
        replace(f, verdicts=[replace(v, dominated_by=over(v)) for v in f.verdicts]) for f in found
    ]


def _family(
    table: Table, reference: str, density: float, control: tuple[str, float] | None
) -> Family:
    rows = [row for row in table.rows if row.density == density]
    found = {row: judged(table, row) for row in rows}
    rival = next((row for row in rows if row.method == reference and found[row]), None)
    tested = [r for r in rows if found[r] and not table.facts_of(r).control and r != rival]
    contenders, p, least = list(tested), dict[RowKey, float](), 1.0
    if rival:
        contenders.append(rival)
        tested = [row for row in tested if _common(found, row, rival)]
        p = _against(found, tested, rival)
        least = min((len(tested) * _smallest(found, r, rival) for r in tested), default=1.0)
    top = _top(found, contenders)
    verdicts = [_verdict(table, row, found[row], rival, found, p, row in top) for row in rows]
    verdicts.sort(key=lambda v: -(v.mean.value if v.mean else float("-inf")))
    least = min(1.0, least) if tested and rival else 0.0
    return Family(density, verdicts, rival, least, table.tasks, control)


def _smallest(found: Mapping[RowKey, ByTask], row: RowKey, rival: RowKey) -> float:
    common = _common(found, row, rival)
    return smallest_p([(len(found[row][task]), len(found[rival][task])) for task in common])


def _best_control(table: Table) -> tuple[str, float] | None:
    """The control with the highest mean among those that keep every weight, on all tasks."""
    rows = [row for row in table.rows if row.density == 1 and table.facts_of(row).control]
    rows = [row for row in rows if row != table.teacher]
    found = {row.method: judged(table, row) for row in rows}
    whole = {name: own for name, own in found.items() if set(own) == set(table.tasks)}
    means = [(name, fmean(map(fmean, own.values()))) for name, own in whole.items() if own]
    return max(means, key=lambda pair: pair[1], default=None)


def judged(table: Table, row: RowKey) -> ByTask:
    """A row's first metrics, on tasks with enough seeds to judge it."""
    found = {}
    for task in table.tasks:
        metric = table.first_metric(task)
        numbers = at_target(table, row, task).values(metric)
        if len(numbers) >= RANKED:
            found[task] = numbers
    return found


def _common(found: Mapping[RowKey, ByTask], row: RowKey, rival: RowKey) -> list[str]:
    return [task for task in found[row] if task in found[rival]]


def _against(
    found: Mapping[RowKey, ByTask], tested: Sequence[RowKey], rival: RowKey
) -> dict[RowKey, float]:
    """Holm's p of each tested row against the rival, over the tasks that both have."""
    tasks = list(found[rival])
    named = {str(i): [found[row].get(t, ()) for t in tasks] for i, row in enumerate(tested)}
    p = against("rival", {"rival": [found[rival][t] for t in tasks], **named})
    return {row: p[str(i)] for i, row in enumerate(tested)}


def _top(found: Mapping[RowKey, ByTask], rows: Sequence[RowKey]) -> list[RowKey]:
    """The top group among the rows that have all tasks which any of them has."""
    tasks = list(dict.fromkeys(task for row in rows for task in found[row]))
    whole = [row for row in rows if all(task in found[row] for task in tasks)]
    named = {str(i): [found[row][t] for t in tasks] for i, row in enumerate(whole)}
    chosen = top_group(named) if tasks else []
    return [row for i, row in enumerate(whole) if str(i) in chosen]


def _verdict(
    table: Table,
    row: RowKey,
    own: ByTask,
    rival: RowKey | None,
    found: Mapping[RowKey, ByTask],
    p: Mapping[RowKey, float],
    top: bool,
) -> Verdict:
    read = [
        reading
        for task in own
        for reading in at_target(table, row, task).readings
        if reading.metrics.get(table.first_metric(task)) is not None
    ]
    lost = [
        one
        for task in own
        for one in collapses(at_target(table, row, task).readings, table.first_metric(task))
    ]
    common = _common(found, row, rival) if rival is not None and row != rival else []
    ours = [own[task] for task in common]
    theirs = [found[rival][task] for task in common if rival is not None]
    return Verdict(
        row=row,
        results=table.of_row(row),
        tasks=list(own),
        kept=_kept(table, row, read),
        runs=len(read),
        planned=sum(len(table.group(row, task).seeds) for task in own),
        collapsed=sum(lost),
        judged=len(lost),
        mean=bounded(mean_over_tasks(list(own.values())), table, list(own)),
        difference=difference_over_tasks(ours, theirs),
        wins=wins(ours, theirs) if common else None,
        shift=shift(ours, theirs),
        p=p.get(row),
        smallest=smallest_difference(ours, theirs),
        top=top,
        why_not=_why_not(table, row, own, rival, found[rival] if rival else ()),
    )


def over_tasks(table: Table, row: RowKey) -> Estimate | None:
    """The mean over tasks of a row that can be judged on all of them, with its interval; None for
    any other."""
    found = judged(table, row)
    whole = bool(found) and set(found) == set(table.tasks)
    return bounded(mean_over_tasks(list(found.values())), table, list(found)) if whole else None


def _kept(table: Table, row: RowKey, read: Sequence[Reading]) -> float | None:
    """Mean remaining weights in percent of what was read, else of all that ended; None if nothing
    was measured."""
    found = [r.kept for r in read] or [r.remaining.density for r in table.of_row(row) if r.ok]
    return 100 * fmean(found) if found else None


def least_of(metric: str) -> float:
    """The lower end of a metric's range in percent."""
    return -100.0 if metric in CORRELATIONS else 0.0


def bounded(found: Estimate | None, table: Table, tasks: Sequence[str]) -> Estimate | None:
    """An interval of a mean of first metrics without what no mean can be."""
    if found is None:
        return None
    low = fmean(least_of(table.first_metric(task)) for task in tasks)
    return found.within(low, 100.0)


def _why_not(
    table: Table, row: RowKey, own: ByTask, rival: RowKey | None, common: Iterable[str]
) -> str:
    if row == rival:
        return "the reference"
    if table.facts_of(row).control:
        return CONTROL
    if not own:
        return f"fewer than {RANKED} seeds on every task"
    if rival is None:
        return "nothing to compare with"
    return "" if set(own) & set(common) else "no task in common with the reference"
