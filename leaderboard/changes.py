"""What changed from one folder of results to another: trial by trial, and method by method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from leaderboard.collect import Board, Key, RowKey, Table, collect
from leaderboard.compare import RANKED, ByTask, judged
from leaderboard.formats import Entry, Grid, markdown, plain_text, quantity, target
from leaderboard.ranks import ALPHA, holm, rank_p, smallest_p
from leaderboard.statistics import Estimate, difference_over_tasks
from leaderboard.verdicts import estimate, p_entry
from zoo.records.result import Result

Meaning = tuple[str, ...]
"""What a table is about, whatever its model's, data's and plugins' hashes are."""


@dataclass(frozen=True)
class Change:
    """A method at a target in both folders, over the tasks that both have: means over tasks, their
    difference (after minus before) with its interval, Holm's p of the blocked rank test over all
    changes of a comparison (None where every result is equal), and the smallest p that these seeds
    could give before the correction."""

    title: str
    row: RowKey
    tasks: Sequence[str]
    before: float
    after: float
    difference: Estimate | None
    p: float | None
    smallest: float

    @property
    def verdict(self) -> str:
        """'worse', 'better', or why neither is said."""
        if self.p is None:
            return "equal, seed by seed"
        if self.p <= ALPHA:
            return "worse" if self.after < self.before else "better"
        return "no change seen" if self.smallest <= ALPHA else "too few seeds to tell"


@dataclass(frozen=True)
class Comparison:
    """Two folders: trials that both have, those of them whose metrics differ, what only one has,
    the changes of methods, and methods in both that cannot be judged: too few seeds, or no common
    task."""

    common: int
    differing: Sequence[tuple[Result, Result]]
    only: tuple[Sequence[str], Sequence[str]]
    changes: Sequence[Change]
    unjudged: Sequence[str]

    @property
    def worse(self) -> list[Change]:
        """The regressions."""
        return [change for change in self.changes if change.verdict == "worse"]


def compare_folders(before: Path, after: Path) -> Comparison:
    """Compare two folders: trials by their ids, methods by what their tables are about."""
    old, new = collect(before), collect(after)
    known = {result.trial.id: result for result in new.results}
    pairs = [(r, known[r.trial.id]) for r in old.results if r.trial.id in known]
    equal = {a.trial.id for a, b in pairs if a.metrics == b.metrics}
    ours, theirs = _rows(old), _rows(new)
    found = {key: _change(*ours[key], *theirs[key], equal) for key in ours if key in theirs}
    changes = [change for change in found.values() if change]
    tested = [change for change in changes if change.p is not None]
    adjusted = iter(holm([change.p or 0.0 for change in tested]))
    changes = [c if c.p is None else replace(c, p=next(adjusted)) for c in changes]
    return Comparison(
        common=len(pairs),
        differing=[(a, b) for a, b in pairs if a.trial.id not in equal],
        only=(_lacking(ours, theirs), _lacking(theirs, ours)),
        changes=changes,
        unjudged=[_name(*key) for key, change in found.items() if change is None],
    )


def _meaning(key: Key) -> Meaning:
    distilled = "with distillation" if key.distill else "without distillation"
    return (key.scale, key.recipe, distilled, *key.conditions.words)


Rows = Mapping[tuple[Meaning, RowKey], tuple[Table, RowKey]]
"""The rows of a board by what they mean."""


def _rows(board: Board) -> Rows:
    """Where several tables or variants mean the same, the first."""
    found: dict[tuple[Meaning, RowKey], tuple[Table, RowKey]] = {}
    for table in board.tables:
        for row in table.rows:
            if table.of_row(row):
                meant = RowKey(row.density, row.method)
                found.setdefault((_meaning(table.key), meant), (table, row))
    return found


def _lacking(these: Rows, those: Rows) -> list[str]:
    return [_name(meaning, row) for meaning, row in these if (meaning, row) not in those]


def _name(meaning: Meaning, row: RowKey) -> str:
    return f"{row.method} at {100 * row.density:g} % ({', '.join(meaning)})"


def _change(
    old: Table, old_row: RowKey, new: Table, new_row: RowKey, equal: set[str]
) -> Change | None:
    """None without a task on which both have enough seeds and the same first metric."""
    before, after = judged(old, old_row), judged(new, new_row)
    tasks = [t for t in before if t in after and old.first_metric(t) == new.first_metric(t)]
    if not tasks:
        return None
    ours, theirs = _values(after, tasks), _values(before, tasks)
    ids = {r.trial.id for r in old.of_row(old_row)}
    same = ids <= equal and ids == {r.trial.id for r in new.of_row(new_row)}
    return Change(
        title=", ".join(_meaning(old.key)),
        row=RowKey(old_row.density, old_row.method),
        tasks=tasks,
        before=fmean(map(fmean, theirs)),
        after=fmean(map(fmean, ours)),
        difference=difference_over_tasks(ours, theirs),
        p=None if same else rank_p(ours, theirs),
        smallest=smallest_p([(len(a), len(b)) for a, b in zip(ours, theirs, strict=True)]),
    )


def _values(found: ByTask, tasks: Sequence[str]) -> list[Sequence[float]]:
    return [found[task] for task in tasks]


SHOWN = 20
"""Trials with other metrics that the report lists."""


def report(before: Path, after: Path, found: Comparison) -> str:
    """The comparison as markdown."""
    names = [plain_text(str(folder)) for folder in (before, after)]
    parts = [f"# From {names[0]} to {names[1]}", *_sentences(found)]
    if found.changes:
        parts += [markdown(_grid(found.changes)), ABOUT]
    for name, only in zip(names, found.only, strict=True):
        if only:
            parts.append(f"Only in {name}: {plain_text('; '.join(only))}.")
    if found.unjudged:
        parts.append(
            f"In both, but with fewer than {RANKED} seeds on every common task:"
            f" {plain_text('; '.join(found.unjudged))}."
        )
    if found.differing:
        lines = [f"- {plain_text(_differing(*pair))}" for pair in found.differing[:SHOWN]]
        more = len(found.differing) - SHOWN
        lines += [f"- and {more} more"] * (more > 0)
        parts += ["## Trials of the same id with other metrics", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


ABOUT = (
    "Means over tasks, after minus before, in points; intervals are 95 % (Welch); p is of the exact"
    " rank test within tasks, corrected by Holm over all rows here. Worse and better are said at"
    " p up to 0.05; nothing that is equal seed by seed is tested."
)


def _sentences(found: Comparison) -> list[str]:
    said = {"worse": "Worse", "better": "Better"}
    lines = []
    for verdict, word in said.items():
        names = [
            f"{c.row.method} at {100 * c.row.density:g} % ({c.title})"
            for c in found.changes
            if c.verdict == verdict
        ]
        lines.append(f"{word}: {plain_text(', '.join(names) or 'nothing')}.")
    trials = f"{found.common} trials are in both folders"
    return [*lines, f"{trials}; {len(found.differing)} of them have other metrics."]


def _grid(changes: Sequence[Change]) -> Grid:
    header = ["Method", "Target %", "Table", "Before", "After", "Change", "p (Holm)", "Verdict"]
    rows: list[list[Entry]] = [
        [
            c.row.method,
            target(c.row.density),
            f"{c.title}: {', '.join(c.tasks)}",
            quantity(c.before, ".1f"),
            quantity(c.after, ".1f"),
            estimate(c.difference, signed=True),
            p_entry(c.p),
            c.verdict,
        ]
        for c in changes
    ]
    return Grid(header, rows)


def _differing(before: Result, after: Result) -> str:
    parts = []
    for name in dict.fromkeys((*before.metrics, *after.metrics)):
        was, now = before.metrics.get(name), after.metrics.get(name)
        if was != now:
            parts.append(f"{name} {_number(was)} to {_number(now)}")
    return f"{before.trial.id}: {', '.join(parts)}"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"
