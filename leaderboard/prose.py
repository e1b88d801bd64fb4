"""The words of a page as plain text; how they are escaped is the formats' affair."""

import shlex
from collections.abc import Iterable

from leaderboard.collect import Board, RowKey, Table
from leaderboard.compare import RANKED
from leaderboard.tables import NOT_ABOVE_MAJORITY, OFF_TARGET, in_order
from zoo.trial import Result

SMALL_PRINT = (
    (
        "±",
        "is the sample standard deviation over seeds (ddof = 1); (n/planned) counts the seeds"
        ' behind a figure. "-" was not run; diverged and failed seeds are named and never averaged'
        " in; strict is the mean with each of them counted as the majority class's score (0 without"
        " classes).",
    ),
    (
        "Remaining weights",
        "are counted: nonzero entries of what multiplies the weights at evaluation, over the"
        " encoder's Q, K, V, O, U and D matrices. Biases, LayerNorm, embeddings, pooler and head"
        " are never pruned and not in this figure.",
    ),
    (
        "Off target:",
        f"a run that kept over {OFF_TARGET:g} points more or fewer weights than its target is in no"
        " row of that target; it stands in a table of its own at what it measured. This happens to"
        " methods that drive a threshold or a penalty, and to SMP-S where a matrix's share is above"
        " 1.",
    ),
    (
        NOT_ABOVE_MAJORITY,
        "marks a mean that is not above what the most frequent class scores.",
    ),
    (
        "New per task",
        "is what a task adds to the shared pre-trained model: kept weights that were trained, all"
        " else that was trained, and one bit per prunable weight for the mask (counted as 1/32"
        " parameter). Trainable is what the optimiser updates, scores included.",
    ),
    (
        "Metrics",
        "are those of the last step on the evaluation set; no checkpoint is selected on it. What"
        " selecting the best evaluation on that same set would give stands beside it, never ranked."
        " Δ dense is the difference of the means, in points of each task's first metric.",
    ),
    (
        "Bold",
        "is better than every other method at its target beyond the 95 % interval of the difference"
        f" (Welch), with at least {RANKED} seeds each and none of its own missing, failed or off"
        " target; nothing is ranked with fewer.",
    ),
    (
        "Comparisons:",
        "intervals are 95 %. Over seeds is how a method varies when it is run again: t interval of"
        " the mean, Welch's of a difference, p by exact permutation of the seeds, corrected by Holm"
        " over the table; seeds to see it have 80 % power for the difference found. ± of the"
        " evaluation set is how the score would vary on other examples. Over examples compares the"
        " same seeds on the same examples (McNemar's test for one seed): it sees smaller"
        " differences and says nothing of other seeds. Over all tasks: stratified bootstrap of the"
        " first metrics.",
    ),
    (
        "Published numbers",
        "are other people's, with their source (leaderboard/published.csv); conflicts between"
        " sources are several rows. They are compared only on the same model, the whole data, the"
        " released recipe and its full length, and never averaged into ours. L0 and soft-movement"
        " cells of the Movement paper are interpolations between two runs of one seed.",
    ),
)
"""(term, what it means)."""


def title(table: Table) -> str:
    """What all of a table's trials share."""
    key = table.key
    words = [f"scale {key.scale}", f"model {key.model}", f"recipe {key.recipe}"]
    words.append("with distillation" if key.distill else "without distillation")
    if key.max_steps:
        words.append(f"SHORTENED to at most {key.max_steps} steps")
    if key.precision:
        words.append(f"trained in {key.precision}")
    if key.compiled:
        words.append("compiled")
    if key.data:
        words.append(f"data {key.data}")
    return ", ".join(words)


def head(board: Board) -> list[str]:
    """What the whole page is about, and warnings."""
    results = board.results
    failed = len(list(board.failures()))
    missing = sum(len(cell.missing) for table in board.tables for cell in table.cells.values())
    lines = [f"{len(results)} results, {failed} failed, {missing} planned and not run yet."]
    if any(table.key.scale == "tiny" for table in board.tables):
        lines.append(
            "Scale tiny is the embedded laboratory: an artificial language and a very small"
            " BERT. Its scores compare methods with each other; they say nothing about published"
            " numbers. Its learning rates were chosen, among six candidates for every method, on"
            " these evaluation examples with other seeds (zoo/laboratory.csv); ablations and"
            " global variants have the values of the method that they vary."
        )
    lines += [f"Warning: {u.path.name} cannot be read" for u in board.unreadable]
    return lines


def notes(table: Table) -> list[str]:
    """What ran: model hash, heads, data that is smaller than the official sets, versions."""
    results = table.results
    if not results:
        return ["Nothing has finished yet."]
    by_head: dict[str, dict[str, None]] = {}
    for result in results:
        by_head.setdefault(result.head["name"], {})[result.trial.method] = None
    order = [row.method for row in in_order(table.rows)]
    heads = "; ".join(
        f"{head}: {', '.join(sorted(methods, key=order.index))}"
        for head, methods in sorted(by_head.items())
    )
    lines = [f"Model sha256 {table.key.model_sha[:12]}. Heads: {heads}."]
    versions = sorted({_versions(result) for result in results})
    lines.append(f"Ran with {' / '.join(versions)}.")
    data = sorted({note for result in results for note in result.notes})
    return lines + ([f"Data: {'; '.join(data)}."] if data else [])


def _versions(result: Result) -> str:
    packages = result.environment["packages"]
    shown = [f"{name} {packages[name]}" for name in ("torch", "transformers") if name in packages]
    device, threads = result.environment["device"], result.environment["threads"]
    if device.startswith("cpu"):
        device += f", {threads} thread{'s' * (threads != 1)} a trial"
    return f"{', '.join(shown)} on {device}"


def troubles(board: Board) -> list[str]:
    """Diverged, failed and missing trials, by name."""
    lines = []
    for result in board.results:
        if result.status == "diverged" and result.diverged:
            at = f"step {result.diverged['step']} (value {result.diverged['value']})"
            lines.append(f"diverged: {result.trial.id} at {at}")
    lines += [f"failed: {f.trial.id}: {f.reason}" for f in board.failures()]
    lines += [f"unreadable: {u.path.name}: {u.reason}" for u in board.unreadable]
    for table in board.tables:
        for (row, task), cell in sorted(table.cells.items()):
            if cell.missing:
                seeds = ", ".join(str(seed) for seed in cell.missing)
                at = f"{row.method} at {100 * row.density:g} % on {task}"
                lines.append(f"not run yet: {at}, seed {seeds} ({title(table)})")
    return lines


def commands(board: Board) -> dict[tuple[int, RowKey], str]:
    """By the table's number and row, the command that runs its trials."""
    return {
        (number, row): command(board.suite, table, row, table.of_row(row))
        for number, table in enumerate(board.tables)
        for row in in_order(table.rows)
        if table.of_row(row)
    }


def command(suite: str, table: Table, row: RowKey, results: Iterable[Result]) -> str:
    """The command that runs the trials of a row."""
    results = list(results)
    key = table.key
    words = ["python", "run_benchmark.py", "--suite", suite, "--scale", key.scale]
    words += results[0].environment.get("options", [])
    words += ["--recipe", key.recipe, "--distill", "on" if key.distill else "off"]
    words += ["--methods", row.method, "--densities", str(row.density)]
    words += ["--tasks", ",".join(sorted({r.trial.task for r in results}))]
    words += ["--seeds", ",".join(str(seed) for seed in sorted({r.trial.seed for r in results}))]
    if key.max_steps:
        words += ["--max-steps", str(key.max_steps)]
    if key.precision:
        words += ["--precision", key.precision]
    if key.compiled:
        words.append("--compile")
    return shlex.join(words)
