"""What changed from one folder of results to another: trial by trial, and method by method."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from leaderboard.collect import Board, RowKey, Table, collect
from leaderboard.compare import RANKED, judged
from leaderboard.formats import Entry, Grid, markdown, plain_text, quantity
from leaderboard.ranks import ALPHA, holm, rank_p, shift, smallest_p
from leaderboard.statistics import Estimate, difference_over_tasks
from leaderboard.targets import at_target
from leaderboard.verdicts import estimate, p_entry
from zoo.records.result import Result

Meaning = tuple[str, ...]
"""What a row is about, whatever the hashes of its model, data and settings are."""


@dataclass(frozen=True)
class Change:
    """A method at a target in both folders, over the tasks on which both can be judged: means over
    tasks, their difference (after minus before) with its interval, the direction of the blocked
    rank test, its p after Holm over all changes of a comparison (None where every value is equal),
    and the smallest p that these seeds could give before the correction. `lost` says what befell
    runs or tasks that were there before."""

    name: str
    tasks: Sequence[str]
    before: float
    after: float
    difference: Estimate | None
    shift: float
    p: float | None
    smallest: float
    lost: str

    @property
    def worse(self) -> bool:
        """Whether it is a regression: lower in ranks, or runs that no longer end well."""
        return bool(self.lost) or (self.p is not None and self.p <= ALPHA and self.shift < 0)

    @property
    def verdict(self) -> str:
        """'worse', 'better', or why neither is said; where means disagree with ranks, that too."""
        parts = [self.lost] if self.lost else []
        if not self.tasks:
            return "; ".join([*parts, f"fewer than {RANKED} seeds on every common task"])
        if self.p is None:
            parts.append("equal, seed by seed")
        elif self.p <= ALPHA:
            higher = self.after > self.before
            parts.append("worse" if self.shift < 0 else "better")
            if (self.shift > 0) != higher:
                parts.append(f"{'higher' if higher else 'lower'} in the mean")
        else:
            parts.append("no change seen" if self.smallest <= ALPHA else "too few seeds to tell")
        return "; ".join(parts)


@dataclass(frozen=True)
class Comparison:
    """Two folders: trials that both have, those of them whose metrics differ, what only one has,
    what could not be matched, the changes of methods, and files that cannot be read or are left
    out."""

    common: int
    differing: Sequence[tuple[Result, Result]]
    only: tuple[Sequence[str], Sequence[str]]
    unmatched: Sequence[str]
    changes: Sequence[Change]
    unreadable: Sequence[str]

    @property
    def worse(self) -> list[Change]:
        """The regressions."""
        return [change for change in self.changes if change.worse]


def compare_folders(before: Path, after: Path) -> Comparison:
    """Compare two folders: trials by their ids, methods by what their tables are about."""
    old, new = collect(before), collect(after)
    known = {result.trial.id: result for result in new.results}
    pairs = [(r, known[r.trial.id]) for r in old.results if r.trial.id in known]
    ours, theirs = _rows(old), _rows(new)
    matched, only, unmatched = _matched(ours, theirs)
    changes = [_change(*pair) for pair in matched]
    tested = [change for change in changes if change.p is not None]
    adjusted = iter(holm([change.p or 0.0 for change in tested]))
    return Comparison(
        common=len(pairs),
        differing=[(a, b) for a, b in pairs if a.metrics != b.metrics],
        only=only,
        unmatched=unmatched,
        changes=[c if c.p is None else replace(c, p=next(adjusted)) for c in changes],
        unreadable=[str(f.path) for b in (old, new) for f in (*b.unreadable, *b.left_out)],
    )


Row = tuple[Table, RowKey]


def _rows(board: Board) -> dict[Meaning, list[Row]]:
    """The rows of a board by what they mean, whatever the hashes of model, data and settings."""
    found: dict[Meaning, list[Row]] = {}
    for table in board.tables:
        for row in table.rows:
            if any(table.group(row, task).seeds for task in table.tasks):
                meaning = (*table.key.words, RowKey(row.density, row.method).words)
                found.setdefault(meaning, []).append((table, row))
    return found


Matched = tuple[list[tuple[Row, Row]], tuple[list[str], list[str]], list[str]]


def _matched(ours: Mapping[Meaning, list[Row]], theirs: Mapping[Meaning, list[Row]]) -> Matched:
    """Rows of both, those that only one has, and those that might be any of several: equal hashes
    go together, then what is left where it is one on each side."""
    pairs: list[tuple[Row, Row]] = []
    only: tuple[list[str], list[str]] = ([], [])
    unmatched: list[str] = []
    for meaning in dict.fromkeys((*ours, *theirs)):
        left, right = list(ours.get(meaning, ())), list(theirs.get(meaning, ()))
        for row in list(left):
            same = next((other for other in right if _exact(other) == _exact(row)), None)
            if same:
                pairs.append((row, same))
                left.remove(row)
                right.remove(same)
        if len(left) == len(right) == 1:
            pairs.append((left[0], right[0]))
        elif left and right:
            unmatched += [_name(row) for row in (*left, *right)]
        else:
            only[0].extend(map(_name, left))
            only[1].extend(map(_name, right))
    return pairs, only, list(dict.fromkeys(unmatched))


def _exact(row: Row) -> tuple[object, ...]:
    table, key = row
    return (table.key.model_sha, table.key.data, key.variant)


def _name(row: Row) -> str:
    table, key = row
    where = ", ".join(filter(None, (*table.key.words, table.key.variant, table.key.data)))
    return f"{key.words} ({where})"


def _change(old: Row, new: Row) -> Change:
    before, after = judged(*old), judged(*new)
    tasks = [t for t in before if t in after]
    tasks = [t for t in tasks if old[0].first_metric(t) == new[0].first_metric(t)]
    ours, theirs = [after[task] for task in tasks], [before[task] for task in tasks]
    smallest = smallest_p([(len(a), len(b)) for a, b in zip(ours, theirs, strict=True)])
    equal = list(map(list, ours)) == list(map(list, theirs))
    return Change(
        name=_name(old),
        tasks=tasks,
        before=fmean(map(fmean, theirs)) if tasks else float("nan"),
        after=fmean(map(fmean, ours)) if tasks else float("nan"),
        difference=None if equal else difference_over_tasks(ours, theirs),
        shift=shift(ours, theirs),
        p=None if equal else rank_p(ours, theirs),
        smallest=smallest,
        lost=_lost(old, new),
    )


def _lost(old: Row, new: Row) -> str:
    """What befell runs: more of them diverged, failed or keep too much, or a task is gone."""
    parts = []
    for word, count in TROUBLES.items():
        was, now = (sum(count(t, row, task) for task in t.tasks) for t, row in (old, new))
        parts += [f"{word} {now} runs instead of {was}"] if now > was else []
    gone = [task for task in judged(*old) if not new[0].group(new[1], task).seeds]
    return "; ".join(parts + [f"nothing on {', '.join(gone)} any more"] * bool(gone))


TROUBLES: Mapping[str, Callable[[Table, RowKey, str], int]] = {
    "diverged": lambda table, row, task: sum(not r.ok for r in table.group(row, task).results),
    "failed": lambda table, row, task: len(table.group(row, task).failures),
    "over the target": lambda table, row, task: len(at_target(table, row, task).over),
}


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
    if found.unmatched:
        names_of = plain_text("; ".join(found.unmatched))
        parts.append(f"Not compared, because several of them mean the same: {names_of}.")
    if found.unreadable:
        files = plain_text(", ".join(found.unreadable))
        parts.append(f"Files that cannot be read or are left out: {files}.")
    if found.differing:
        lines = [f"- {plain_text(_differing(*pair))}" for pair in found.differing[:SHOWN]]
        more = len(found.differing) - SHOWN
        lines += [f"- and {more} more"] * (more > 0)
        parts += ["## Trials of the same id with other metrics", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


ABOUT = (
    "Means over tasks, after minus before, in points; intervals are 95 % (Welch); p is of the exact"
    " rank test within tasks, corrected by Holm over all rows here. Worse and better are said of"
    " ranks, at p up to 0.05; nothing that is equal seed by seed is tested. Worse is also what"
    " diverged, failed, kept too much or lost a task that it had."
)


def _sentences(found: Comparison) -> list[str]:
    better = [c for c in found.changes if not c.worse and c.verdict.startswith("better")]
    worse = "; ".join(f"{c.name}: {c.verdict}" for c in found.worse)
    lines = [f"Worse: {plain_text(worse or 'nothing')}."]
    lines.append(f"Better: {plain_text('; '.join(c.name for c in better) or 'nothing')}.")
    trials = f"{found.common} trials are in both folders"
    return [*lines, f"{trials}; {len(found.differing)} of them have other metrics."]


def _grid(changes: Sequence[Change]) -> Grid:
    header = ["Method", "Tasks", "Before", "After", "Change", "p (Holm)", "Verdict"]
    rows: list[list[Entry]] = [
        [
            c.name,
            ", ".join(c.tasks),
            quantity(c.before if c.tasks else None, ".1f"),
            quantity(c.after if c.tasks else None, ".1f"),
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
