"""Published numbers beside ours: never averaged in, and compared only where that is fair."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from statistics import fmean

from leaderboard.answers import bits
from leaderboard.collect import RowKey, Table
from leaderboard.formats import NOTHING, Entry, Grid, Quantity, target
from leaderboard.statistics import Estimate, of_examples, pooled, sample_std, t_quantile
from leaderboard.tables import label, spread
from leaderboard.targets import at_target
from zoo.errors import ConfigError, cause_of, one_line
from zoo.records.result import GIVEN, Result

FILE = Path(__file__).with_name("published.csv")
"""Every number of the papers' tables, of their authors' run logs, pages and model cards that could
be read; conflicts are several rows."""
SAME_DENSITY, NEAR = 0.0051, 0.05
"""Published run logs hold measured remaining weights; within half a point and within a twentieth of
the target they are at it."""


@dataclass(frozen=True)
class Published:
    """One printed number. `name` is our method that reproduces it, or empty; `distill` is yes, no
    or not stated; `mean` in percent where the metric is a share, None where only a spread is
    printed; `split` is what it was measured on, "dev" or "test"."""

    source: str
    table: str
    method: str
    name: str
    model: str
    distill: str
    density: float
    task: str
    metric: str
    mean: float | None
    std: float | None
    seeds: int | None
    note: str
    split: str = "dev"


@lru_cache
def published(split: str = "dev") -> tuple[Published, ...]:
    """The rows of the file of a split. Ours are measured on dev sets, so that those of another
    split are asked for by name."""
    with FILE.open(newline="", encoding="utf-8") as file:
        found = map(_read, csv.DictReader(file))
        return tuple(p for p in found if p.split == split)


def read_published(path: Path) -> tuple[Published, ...]:
    """A user's own file, with the columns of the project's; without `split` all rows are of dev
    sets. Raises ConfigError that names the line."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            needed = [f.name for f in fields(Published) if f.default is MISSING]
            missing = [name for name in needed if name not in (rows.fieldnames or ())]
            if missing:
                raise ConfigError(
                    f"{path}: no column {', '.join(missing)}; the columns are those of"
                    " leaderboard/published.csv"
                )
            found = []
            for row in rows:
                try:
                    found.append(_read(row))
                except (ValueError, TypeError) as error:
                    raise ConfigError(f"{path}, line {rows.line_num}: {one_line(error)}") from None
    except (OSError, UnicodeError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read: {cause_of(error)}") from None
    return tuple(found)


def _read(row: Mapping[str, str]) -> Published:
    """A row of a file; raises ValueError for what cannot be meant."""
    found = Published(
        source=row["source"],
        table=row["table"],
        method=row["method"],
        name=row["name"],
        model=row["model"],
        distill=row["distill"],
        density=float(row["density"]),
        task=row["task"],
        metric=row["metric"],
        mean=float(row["mean"]) if row["mean"] else None,
        std=float(row["std"]) if row["std"] else None,
        seeds=int(row["seeds"]) if row["seeds"] else None,
        note=row["note"],
        split=row.get("split") or "dev",
    )
    if not 0 < found.density <= 1:
        raise ValueError(f"density must be a fraction in (0, 1], got {row['density']}")
    if not all(math.isfinite(number) for number in (found.mean or 0.0, found.std or 0.0)):
        raise ValueError("mean and std must be finite, or empty")
    if (found.std or 0.0) < 0 or (found.seeds or 1) < 1:
        raise ValueError("std must be at least 0 and seeds at least 1, or empty")
    if found.distill not in DISTILL:
        raise ValueError(f"distill must be one of {', '.join(DISTILL)}, got {row['distill']!r}")
    if found.split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {found.split!r}")
    return found


DISTILL = ("yes", "no", "not stated")
"""What a source says of distillation."""
SPLITS = ("dev", "test")
"""What a number was measured on: as ours, or a test set, such as that of GLUE's server."""


def printed_of(
    table: Table, row: RowKey, task: str, metric: str, more: Sequence[Published] = ()
) -> list[Published]:
    """Printed means of a row's metric on dev sets, in the order of the file, a user's `more` behind
    them: for the table's model, or for all models if there are none for it. Dense ones are in every
    table."""
    found = _printed(table, row, task, metric, (*published(), *more), "dev")
    return [p for p in found if p.model == table.key.model] or found


def _printed(
    table: Table, row: RowKey, task: str, metric: str, among: Sequence[Published], split: str
) -> list[Published]:
    """Printed means of a row's metric on a split, of any model."""
    dense = table.facts_of(row).teaches
    return [
        p
        for p in among
        if (p.name, p.task, p.metric, p.split) == (row.method, task, metric, split)
        and p.mean is not None
        and abs(p.density - row.density) <= min(SAME_DENSITY, NEAR * row.density)
        and (dense or p.distill == ("yes" if table.key.distill else "no"))
    ]


def why_not(table: Table, results: Sequence[Result], printed: Published) -> str:
    """Why results cannot be compared with a printed number; "" if they can."""
    key = table.key
    if key.model != printed.model:
        return f"other model ({printed.model})"
    if key.conditions.words:
        return ", ".join(key.conditions.words)
    if key.recipe != "released":
        return f"recipe {key.recipe}"
    if any(GIVEN in result.environment.sources.values() for result in results):
        return f"values {GIVEN}"
    return "" if all(result.whole_data for result in results) else "part of the data"


def verdict(ours: Sequence[float], printed: Published, examples: Estimate | None = None) -> str:
    """'above', 'below', or 'no difference seen', with the smallest that could have been.

    Student's t with the degrees of freedom of the seeds behind it; a source that prints no spread
    has ours. `examples` is the interval of our mean over evaluation examples, whose error is added;
    half a unit of the last printed digit is allowed.
    """
    spread = sample_std(ours)
    if spread is None or printed.mean is None:
        return "one seed"
    seeds = printed.seeds or 1
    parts = [(spread**2 / len(ours), len(ours) - 1.0)]
    if printed.std is not None and seeds > 1:
        parts.append((printed.std**2 / seeds, seeds - 1.0))
    variance, freedom = pooled(parts)
    if len(parts) == 1:  # one spread for both
        variance += spread**2 / seeds
    half = t_quantile(freedom) * math.sqrt(variance)
    if examples is not None:
        half = math.hypot(half, (examples.high - examples.low) / 2)
    difference = fmean(ours) - printed.mean
    if abs(difference) <= half + PRINTED_TO:
        return f"no difference seen; one of {1.5 * half + PRINTED_TO:.1f} points would have been"
    return "above" if difference > 0 else "below"


PRINTED_TO = 0.05
"""Half a unit of the last digit of printed numbers."""


def _ours(ours: Sequence[float]) -> Quantity:
    """'83.2 ± 0.4 (n = 5)'."""
    found = spread(ours)
    return replace(
        found, text=f"{found.text} (n = {len(ours)})", parts=[*found.parts, ("n", len(ours))]
    )


def _paper(printed: Published) -> Entry:
    """'83.2 ± 0.4', with as many digits as are printed."""
    if printed.mean is None:
        return NOTHING
    std = "" if printed.std is None else f" ± {printed.std:g}"
    parts = [] if printed.std is None else [("std", printed.std)]
    return Quantity(printed.mean, f"{printed.mean:g}{std}", parts=parts)


def published_grid(table: Table, more: Sequence[Published] = ()) -> Grid:
    """Our metrics that have a printed counterpart, with every source that prints one."""
    rows: list[list[Entry]] = []
    for row, task, _ in table.entries():
        read = at_target(table, row, task)
        there = [run for reading in read.readings for run in reading.runs]
        for metric in table.metrics_of(task):
            ours, answers = read.values(metric), bits(read.runs, metric)
            examples = of_examples(answers) if len(answers) == len(ours) > 0 else None
            for printed in printed_of(table, row, task, metric, more) if ours else ():
                reason = why_not(table, there, printed)
                rows.append(
                    [
                        label(row, there),
                        target(row.density),
                        f"{task} {metric}",
                        _ours(ours),
                        _paper(printed),
                        f"not comparable: {reason}" if reason else verdict(ours, printed, examples),
                        _source(printed),
                    ]
                )
    header = ["Method", "Target %", "Metric", "Ours", "Paper", "Verdict", "Source"]
    return Grid(header, rows)


def of_test_sets(table: Table, more: Sequence[Published] = ()) -> Grid:
    """Numbers that are printed of test sets for the table's model, beside none of ours, which are
    of dev sets."""
    among = (*published("test"), *more)
    rows: list[list[Entry]] = [
        [
            label(row, group.results),
            target(row.density),
            f"{task} {metric}",
            _paper(printed),
            REFUSED,
            _source(printed),
        ]
        for row, task, group in table.entries()
        for metric in table.metrics_of(task)
        for printed in _printed(table, row, task, metric, among, "test")
        if printed.model == table.key.model
    ]
    return Grid(["Method", "Target %", "Metric", "Paper", "Verdict", "Source"], rows)


REFUSED = "not compared: test set, ours is the dev set"
"""The word on every number of a test set."""


def _source(printed: Published) -> str:
    """'SMP paper (ACL 2023), 1; a note'."""
    where = f"{printed.source}, {printed.table}".rstrip(", ")
    return "; ".join(filter(None, (where, printed.note)))
