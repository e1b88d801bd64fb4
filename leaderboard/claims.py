"""Size and speed of our trained models beside what others print about theirs, on other hardware."""

import csv
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from leaderboard.collect import Table
from leaderboard.formats import NOTHING, Entry, Grid, Quantity, quantity, ranged, target
from leaderboard.forms import EXACT, full_bytes, speed_entry
from leaderboard.measured import Measured, Shape, form_names, measured, shapes
from leaderboard.tables import label
from zoo.records.forms import COMPACT, SPARSE

FILE = Path(__file__).with_name("published_forms.csv")
"""Published sizes in percent, speed-ups, milliseconds, and changes of quality in points."""
ELSEWHERE = "other hardware, not stated"
"""Marks every published line."""
HEADER = ("Method", "Target %", "Form", "Size %", "Size of", "Speed-up", "Change", "Where")


def claims_grid(table: Table, plain: Table) -> Grid:
    """Per method at the lowest target: the compact forms and the sparse one, then every published
    claim; no rows where no model of the table was measured."""
    found = [one for one in measured(table) if one.row.density < 1]
    least = min((one.row.density for one in found), default=1.0)
    first = next(iter(shapes(found)), None)
    rows: list[list[Entry]] = []
    for row in dict.fromkeys(one.row for one in found if one.row.density == least):
        own = [m for m in found if m.row == row and m.form.name in (COMPACT, SPARSE)]
        for name in form_names(own):
            same = [one for one in own if one.form.label == name]
            rows.append(_ours(table, plain, same, first))
    return Grid(HEADER, [*rows, *map(_theirs, _published())] if rows else [])


def _ours(table: Table, plain: Table, own: Sequence[Measured], shape: Shape | None) -> list[Entry]:
    """One form of one row, over tasks and seeds."""
    row, tasks = own[0].row, dict.fromkeys(one.task for one in own)
    full = {task: full_bytes(table, plain, task) for task in tasks}
    sizes = [100 * one.form.bytes / size for one in own if (size := full[one.task])]
    changes = [one.change for one in own if one.change is not None]
    exact = all(one.exact for one in own)
    timings = [timing for one in own for timing in one.timings(shape)]
    where = [f"here, scale {table.key.scale}: {', '.join(tasks)}"]
    where += [shape.words] if shape and timings else []
    return [
        label(row, [own[0].result]),
        target(row.density),
        own[0].form.label,
        ranged(sizes, lambda size: f"{size:.1f}"),
        "file" if sizes else NOTHING,
        speed_entry(timings),
        EXACT if exact else ranged(changes, lambda change: f"{change:+.1f}"),
        "; ".join(where),
    ]


@lru_cache
def _published() -> tuple[Mapping[str, str], ...]:
    with FILE.open(newline="", encoding="utf-8") as file:
        return tuple(csv.DictReader(file))


def _theirs(claim: Mapping[str, str]) -> list[Entry]:
    """A published claim, with as many digits as are printed."""
    density, change = float(claim["density"]), claim["change"]
    time = f"{claim['milliseconds']} ms" if claim["milliseconds"] else ""
    about = (f"{claim['task']}, {claim['model']}", time, claim["note"], claim["source"], ELSEWHERE)
    return [
        claim["method"],
        target(density),
        claim["form"],
        _printed(claim["size"]),
        claim["size_of"] or NOTHING,
        _printed(claim["speedup"]),
        quantity(float(change), "+.1f" if float(change) else "g") if change else NOTHING,
        "; ".join(filter(None, about)),
    ]


def _printed(number: str) -> Entry:
    return Quantity(float(number), number) if number else NOTHING
