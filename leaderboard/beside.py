"""Other checkpoints beside a table: fine-tuned without pruning under the same conditions, on the
same data. They are references, and take part in no rank, test or verdict."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from leaderboard.collect import Board, RowKey, Table
from leaderboard.formats import NOTHING, Entry, Grid, Quantity, amount, percent, ranged
from leaderboard.forms import three_digits
from leaderboard.measured import Measured, Shape, measured, shapes
from leaderboard.tables import spread, summary
from zoo.records.forms import STOCK, ZEROS


@dataclass(frozen=True)
class Other:
    """Plain fine-tuning of another checkpoint: its table and row there, the model's name, and its
    prunable weights over those of the model that it is shown beside."""

    table: Table
    row: RowKey
    name: str
    share: float

    def forms(self, tasks: Sequence[str]) -> list[Measured]:
        """The forms that were measured on these tasks."""
        found = (one for one in measured(self.table, self.row) if one.task in tasks)
        return [replace(one, other=self.name, share=self.share) for one in found]


def short(name: str) -> str:
    """A model's name without its owner's, where there is little room.

    >>> from leaderboard.beside import short
    >>> short("google/bert_uncased_L-4_H-256_A-4")
    'bert_uncased_L-4_H-256_A-4'
    """
    return name.rpartition("/")[2]


def others(board: Board, table: Table) -> list[Other]:
    """The other checkpoints beside a table in which something is pruned, the largest first."""
    whole = prunable_weights(table)
    if not whole or all(row.density == 1 for row in table.rows):
        return []
    found = []
    for other in board.tables:
        key = replace(table.key, model_sha=other.key.model_sha, distill=False)
        row, own = other.teacher, prunable_weights(other)
        if row and own and other.key == key and other.key.model_sha != table.key.model_sha:
            name = other.key.variant or other.key.model
            found.append(Other(other, row, name, own / whole))
    return sorted(found, key=lambda one: (-one.share, one.name))


def shown(board: Board) -> list[Table]:
    """The tables that have a part of the page: all but those that only stand beside others."""
    rows = [one for table in board.tables for one in others(board, table)]
    beside = {one.table.key for one in rows if one.table.rows == [one.row]}
    return [table for table in board.tables if table.key not in beside]


def prunable_weights(table: Table) -> int:
    """The entries of the model's prunable matrices; 0 without results."""
    counts = (
        sum(matrix.total for matrix in result.remaining.matrices.values())
        for result in table.results
    )
    return max(counts, default=0)


def beside_grid(table: Table, plain: Table, found: Sequence[Other]) -> Grid:
    """A line per checkpoint, after that of the table's own; no rows without other checkpoints."""
    own = [Other(plain, plain.teacher, f"{_name(table)}, as above", 1.0)] if plain.teacher else []
    lines = [*own, *found] if found else []
    timed = next(iter(shapes(one for line in lines for one in line.forms(table.tasks))), None)
    rows = [
        [one.name, *_about(one), *_metrics(one, table), *_form(one, table, timed)] for one in lines
    ]
    columns = [f"{task} {metric}" for task in table.tasks for metric in table.metrics_of(task)]
    header = ["Model", "Prunable weights %", "Parameters", *columns, "Mean over tasks"]
    return Grid([*header, "MB", "ms per call"], rows)


def beside_notes(table: Table, found: Sequence[Other]) -> list[str]:
    """How rows of other checkpoints are to be read; nothing where there are none."""
    if not found:
        return []
    names = ", ".join(one.name for one in found)
    lines = [
        f"Other checkpoints, fine-tuned without pruning: {names}. Their remaining weights are the"
        f" entries of their own prunable matrices over those of {_name(table)}. Their embeddings"
        " differ too, as the parameters show, and so may their tokeniser and pre-training. They are"
        " references, in no rank, test or verdict."
    ]
    if any(one.forms(table.tasks) for one in found):
        lines[-1] += (
            " Their speed-ups are over the same checkpoint, dense; their milliseconds were not"
            " measured in turn with those of other models."
        )
    return lines


def _name(table: Table) -> str:
    return table.key.variant or table.key.model


def _about(one: Other) -> list[Entry]:
    """Its weights in percent, and all parameters that it trains, embeddings and head included."""
    share = Quantity(100 * one.share, percent(100 * one.share))
    return [share, ranged([r.parameters.trainable for r in one.table.of_row(one.row)], amount)]


def _metrics(one: Other, table: Table) -> list[Entry]:
    """Each metric of the table's tasks over seeds, and the mean of the first ones."""
    entries: list[Entry] = []
    firsts: list[float] = []
    for task in table.tasks:
        for metric in table.metrics_of(task):
            told = summary(one.table, one.row, task, metric)
            counts = [f"{len(told.values)}/{told.planned}"]
            counts += [f"{told.collapsed} collapsed"] if told.collapsed else []
            counts += [f"{told.diverged} diverged"] if told.diverged else []
            if not told.values:
                entries.append(NOTHING)
                continue
            number = spread(told.values)
            text = f"{number} ({'; '.join(counts)})"
            entries.append(Quantity(number.value, text, str(number), number.parts))
            firsts += [number.value] if metric == table.first_metric(task) else []
    mean = fmean(firsts) if firsts and len(firsts) == len(table.tasks) else None
    return [*entries, NOTHING if mean is None else Quantity(mean, f"{mean:.1f}")]


def _form(one: Other, table: Table, shape: Shape | None) -> list[Entry]:
    """Megabytes of the stock file and milliseconds of a call, where they were measured."""
    stock = [m for m in one.forms(table.tasks) if m.form.name in (STOCK, ZEROS)]
    most = [max(m.form.bytes for m in stock) / 1e6] if stock else []
    times = [1000 * t.seconds for m in stock if m.form.name == STOCK for t in m.timings(shape)]
    return [ranged(most, three_digits), ranged(times, three_digits)]
