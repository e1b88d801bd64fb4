"""All results as one flat table: a row per trial and metric."""

import csv
import io
from collections.abc import Iterator

from leaderboard.collect import Board
from leaderboard.formats import csv_text
from zoo.records.result import Result

HEADER = (
    *("suite", "scale", "model", "recipe", "conditions", "task", "method", "density", "kept"),
    *("distilled", "seed", "metric", "value", "trainable", "new", "seconds", "peak_bytes"),
    *("status", "commit", "device", "id"),
)
"""Densities and kept weights in [0, 1]; metrics in percent, empty where undefined."""


def results_csv(board: Board) -> str:
    """results.csv, as in RFC 4180 with line feeds, sorted by trial and metric."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(HEADER)
    models = {table.key.model_sha: table.key.variant for table in board.tables}
    for result in sorted(board.results, key=lambda r: r.trial.id):
        model = models[result.trial.model_sha] or result.trial.model
        for row in _rows(board.suites[result.trial.id], model, result):
            writer.writerow([csv_text(str(entry)) for entry in row])
    return stream.getvalue()


def _rows(suite: str, model: str, result: Result) -> Iterator[list[object]]:
    trial, about = result.trial, result.environment
    conditions = " ".join(trial.train.conditions.words)
    for metric, value in result.metrics.items():
        yield [
            *(suite, trial.scale, model, trial.recipe, conditions),
            *(trial.task, trial.method, trial.density, result.remaining.density),
            *("yes" if trial.distill else "no", trial.seed, metric),
            "" if value is None else value,
            *(result.parameters.trainable, result.parameters.new),
            *(round(result.cost.seconds, 1), result.cost.peak_bytes),
            *(result.status, about.git, about.device, trial.id),
        ]
