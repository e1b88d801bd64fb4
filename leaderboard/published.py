"""Published numbers beside ours: never averaged in, and compared only where that is fair."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import fmean

from leaderboard.answers import bits
from leaderboard.collect import RowKey, Table
from leaderboard.formats import Entry, Grid
from leaderboard.statistics import Estimate, of_examples, pooled, sample_std, t_quantile
from leaderboard.tables import label, spread_text
from leaderboard.targets import at_target
from zoo.records.result import GIVEN, Result

FILE = Path(__file__).with_name("published.csv")
"""Every number of the papers' tables and of their authors' run log; conflicts are several rows."""
SAME_DENSITY = 0.0051
"""Published run logs hold measured remaining weights; within half a point they are at the
target."""


@dataclass(frozen=True)
class Published:
    """One printed number. `name` is our method that reproduces it, or empty; `distill` is yes, no
    or not stated; `mean` in percent, None where only a spread is printed."""

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


@lru_cache
def published() -> tuple[Published, ...]:
    """All rows of the file, but those with two numbers in one entry."""
    found = []
    with FILE.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            try:
                number = float(row["mean"]) if row["mean"] else None
            except ValueError:  # two figures in one cell, as printed
                continue
            found.append(
                Published(
                    source=row["source"],
                    table=row["table"],
                    method=row["method"],
                    name=row["name"],
                    model=row["model"],
                    distill=row["distill"],
                    density=float(row["density"]),
                    task=row["task"],
                    metric=row["metric"],
                    mean=number,
                    std=float(row["std"]) if row["std"] else None,
                    seeds=int(row["seeds"]) if row["seeds"] else None,
                    note=row["note"],
                )
            )
    return tuple(found)


def printed_of(table: Table, row: RowKey, task: str, metric: str) -> list[Published]:
    """Printed means of a row's metric, in the order of the file: for the table's model, or for all
    models if there are none for it. Dense ones are in every table."""
    dense = table.facts_of(row).teaches
    found = [
        p
        for p in published()
        if (p.name, p.task, p.metric) == (row.method, task, metric)
        and p.mean is not None
        and abs(p.density - row.density) <= SAME_DENSITY
        and (dense or p.distill == ("yes" if table.key.distill else "no"))
    ]
    return [p for p in found if p.model == table.key.model] or found


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


def published_grid(table: Table) -> Grid:
    """Our metrics that have a printed counterpart, with every source that prints one."""
    rows: list[list[Entry]] = []
    for row, task, _ in table.entries():
        read, there = at_target(table, row, task), at_target(table, row, task).runs
        for metric in table.metrics_of(task):
            ours, answers = read.values(metric), bits(there, metric)
            examples = of_examples(answers) if len(answers) == len(ours) > 0 else None
            for printed in printed_of(table, row, task, metric) if ours else ():
                reason = why_not(table, there, printed)
                std = "" if printed.std is None else f" ± {printed.std:g}"
                where = f"{printed.source}, {printed.table}".rstrip(", ")
                rows.append(
                    [
                        label(row, there),
                        f"{100 * row.density:g}",
                        f"{task} {metric}",
                        f"{spread_text(ours)} (n = {len(ours)})",
                        f"{printed.mean:g}{std}",
                        f"not comparable: {reason}" if reason else verdict(ours, printed, examples),
                        "; ".join(filter(None, (where, printed.note))),
                    ]
                )
    header = ["Method", "Target %", "Metric", "Ours", "Paper", "Verdict", "Source"]
    return Grid(header, rows)
