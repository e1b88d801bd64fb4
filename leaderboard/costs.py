"""What trials cost: seconds, memory and parameters. They differ from run to run, and stand in a
file and a table of their own."""

from collections.abc import Sequence
from statistics import fmean

from leaderboard.collect import RowKey, Table
from leaderboard.formats import NOTHING, Entry, Grid, amount, quantity, ranged, target
from leaderboard.tables import label, spread
from zoo.records.result import Result


def cost_grid(table: Table) -> Grid:
    """Seconds and memory per trial, by task, over seeds."""
    rows: list[list[Entry]] = []
    for row, task, group in table.entries():
        if group.ok:
            devices = sorted({r.environment.device for r in group.ok})
            start: list[Entry] = [label(row, group.ok), target(row.density), task]
            rows.append([*start, *_costs(group.ok), ", ".join(devices)])
    header = ["Method", "Target %", "Task", "Seconds", "ms per step", "Peak MiB", "Device"]
    return Grid(header, rows)


def cost_summary(table: Table, plain: Table) -> Grid:
    """What a trial of each method costs at its lowest target, over tasks and seeds, beside the
    dense trials of `plain`."""
    lowest: dict[tuple[str, str], RowKey] = {}
    for row in table.rows:  # the most remaining weights first
        if any(r.ok for r in table.of_row(row)):
            lowest[row.method, row.variant] = row
    dense = [r for r in plain.of_row(plain.teacher) if r.ok] if plain.teacher else []
    base = fmean(r.cost.seconds for r in dense) if dense else None
    rows: list[list[Entry]] = []
    for row in lowest.values():
        ran = [r for r in table.of_row(row) if r.ok]
        times = fmean(r.cost.seconds for r in ran) / base if base else None
        rows.append(
            [
                label(row, ran),
                target(row.density),
                *_costs(ran),
                quantity(times, ".2f"),
                ranged([r.parameters.trainable for r in ran], amount),
                ranged([r.parameters.new for r in ran], amount),
            ]
        )
    header = ["Method", "Target %", "Seconds", "ms per step", "Peak MiB", "× dense"]
    return Grid([*header, "Trainable", "New per task"], rows)


def _costs(results: Sequence[Result]) -> list[Entry]:
    """Seconds of a trial and milliseconds of a step with their spread, and the highest peak."""
    steps = [1000 * r.cost.step_seconds for r in results if r.cost.step_seconds]
    peak = max(r.cost.peak_bytes for r in results) / 2**20
    seconds = spread([r.cost.seconds for r in results])
    return [seconds, spread(steps) if steps else NOTHING, quantity(peak, ".0f")]
