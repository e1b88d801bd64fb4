"""The markdown page of a suite: tables, figures, what is missing, how to run a row again."""

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from leaderboard.collect import Board, RowKey, Table, collect, reference
from leaderboard.compare import (
    RANKED,
    best_cells,
    compare,
    comparison_grid,
    overall,
    overall_grid,
    reference_of,
)
from leaderboard.figures import draw
from leaderboard.formats import Grid, comma_separated, latex, markdown, plain_text
from leaderboard.published import published_grid
from leaderboard.tables import (
    NOT_ABOVE_MAJORITY,
    OFF_TARGET,
    cost_grid,
    in_order,
    main_grid,
    off_target_grid,
    selection_grid,
)
from zoo.trial import Result, write_whole

PAGE, COSTS, FIGURES, TABLES = "LEADERBOARD.md", "COSTS.md", "figures", "tables"
REFERENCE = "magnitude"
"""The method that others are compared with unless another is named."""

SMALL_PRINT = f"""\
- **±** is the sample standard deviation over seeds (ddof = 1); *(n/planned)* counts the seeds
  behind a figure. "-" was not run; diverged and failed seeds are named and never averaged in.
- **Remaining weights** are counted: nonzero entries of what multiplies the weights at evaluation,
  over the encoder's Q, K, V, O, U and D matrices. Biases, LayerNorm, embeddings, pooler and head
  are never pruned and not in this figure.
- **Off target**: a run that kept over {OFF_TARGET:g} points more or fewer weights than its target
  is in no row of that target; it stands in a table of its own at what it measured. This happens to
  methods that drive a threshold or a penalty, and to SMP-S where a matrix's share is above 1.
- **{NOT_ABOVE_MAJORITY}** marks a mean that is not above what the most frequent class scores.
- **New per task** is what a task adds to the shared pre-trained model: kept weights that were
  trained, all else that was trained, and one bit per prunable weight for the mask (counted as
  1/32 parameter). **Trainable** is what the optimiser updates, scores included.
- Metrics are those of the **last step** on the evaluation set; no checkpoint is selected on it.
  What selecting the best evaluation on that same set would give stands beside it, never ranked.
  Δ dense is the difference of the means, in points of each task's first metric.
- **Bold** is better than every other method at its target beyond the 95 % interval of the
  difference (Welch), with at least {RANKED} seeds each; nothing is ranked with fewer.
- **Comparisons**: intervals are 95 %. *Over seeds* is how a method varies when it is run again: t
  interval of the mean, Welch's of a difference, p by exact permutation of the seeds, corrected by
  Holm over the table; *seeds to see it* have 80 % power for the difference found. *± of the
  evaluation set* is how the score would vary on other examples. *Over examples* compares the same
  seeds on the same examples (McNemar's test for one seed): it sees smaller differences and says
  nothing of other seeds. *Over all tasks*: stratified bootstrap of the first metrics.
- **Published numbers** are other people's, with their source (leaderboard/published.csv); conflicts
  between sources are several rows. They are compared only on the same model, the whole data, the
  released recipe and its full length, and never averaged into ours. L0 and soft-movement cells of
  the Movement paper are interpolations between two runs of one seed.
"""


def write(
    folder: Path, out: Path | None = None, *, figures: bool = True, against: str = REFERENCE
) -> Path:
    """Write the page, the tables, the costs and (unless told not to) the figures of a suite's
    folder into `out` (default: the same folder). Methods are compared with the method `against`.
    Returns the page's path. Raises StorageError."""
    out = out or folder
    board = collect(folder)
    drawn, trouble = [], ""
    try:
        drawn = draw(board, out / FIGURES) if figures else []
    except Exception as error:  # the tables stand without them
        trouble = f"{type(error).__name__}: {error}"
    for name, text in files(board, against).items():
        write_whole(out / name, text.encode())
    write_whole(out / PAGE, render(board, drawn, trouble, against=against).encode())
    return out / PAGE


def files(board: Board, against: str) -> dict[str, str]:
    """Everything beside the page and its figures: costs, and each table as LaTeX and CSV."""
    found = {COSTS: costs(board)}
    for number, table in enumerate(board.tables, 1):
        for name, grid in grids(board, table, against).items():
            stem = f"{TABLES}/{number}-{name}"
            found[f"{stem}.tex"], found[f"{stem}.csv"] = latex(grid), comma_separated(grid)
    return found


def grids(board: Board, table: Table, against: str) -> dict[str, Grid]:
    """The tables of one key by name; those without rows are left out."""
    plain, against = reference(board, table) or table, reference_of(table, against)
    found = {
        "methods": main_grid(board, table, best_cells(table)),
        "off-target": off_target_grid(table),
        "comparisons": comparison_grid(compare(table, plain, against), against),
        "over-tasks": overall_grid(overall(table, against), against),
        "selection": selection_grid(table),
        "published": published_grid(table),
    }
    return {name: grid for name, grid in found.items() if grid.rows}


def render(
    board: Board,
    drawn: Iterable[tuple[str, Path]],
    trouble: str = "",
    *,
    against: str = REFERENCE,
) -> str:
    """The page as markdown: a pure function of the board, the figures' names, and why there are
    none."""
    parts = [f"# {plain_text(board.suite)}", *_head(board)]
    for table in board.tables:
        shown = {name: markdown(grid) for name, grid in grids(board, table, against).items()}
        parts += [f"## {title(table)}", *_notes(table), *_shown(shown)]
    parts += [f"The figures could not be drawn: {plain_text(trouble)}"] if trouble else []
    for caption, path in drawn:
        parts += [f"### {caption}", f"![{caption}]({FIGURES}/{path.name})"]
    parts += [*_troubles(board), *_commands(board), "## Small print", SMALL_PRINT.rstrip()]
    parts += [f"Seconds and memory stand in [{COSTS}]({COSTS}), every table as LaTeX and CSV in"]
    parts[-1] += f" `{TABLES}/`."
    return "\n\n".join(parts) + "\n"


FOLDED = {
    "comparisons": "Is it more than noise: differences with intervals, seed by seed and over"
    " examples",
    "over-tasks": "Over all tasks",
    "selection": "Last step and best evaluation side by side",
    "published": "Published numbers beside ours",
}


def _shown(tables: Mapping[str, str]) -> list[str]:
    """The main table, runs off their target, and the rest folded."""
    parts = [tables["methods"]] if "methods" in tables else []
    if "off-target" in tables:
        parts.append(f"**Off target** by more than {OFF_TARGET:g} points of remaining weights:")
        parts.append(tables["off-target"])
    for name, words in FOLDED.items():
        if name in tables:
            head = f"<details><summary>{words}</summary>"
            parts.append(f"{head}\n\n{tables[name]}\n\n</details>")
    return parts


def costs(board: Board) -> str:
    """What trials cost; apart from the page, because it is another each time."""
    parts = [
        f"# {plain_text(board.suite)}: costs",
        "Means over seeds, evaluation included in seconds.",
    ]
    for table in board.tables:
        parts += [f"## {title(table)}", markdown(cost_grid(table))]
    return "\n\n".join(parts) + "\n"


def title(table: Table) -> str:
    """What all of a table's trials share."""
    key = table.key
    words = [f"scale {key.scale}", f"model {key.model}", f"recipe {key.recipe}"]
    words.append("with distillation" if key.distill else "without distillation")
    if key.max_steps:
        words.append(f"SHORTENED to at most {key.max_steps} steps")
    if key.data:
        words.append(f"data {key.data}")
    return plain_text(", ".join(words))


def _head(board: Board) -> list[str]:
    results = board.results
    failed = len(list(board.failures()))
    missing = sum(len(cell.missing) for table in board.tables for cell in table.cells.values())
    lines = [f"{len(results)} results, {failed} failed, {missing} planned and not run yet."]
    if any(table.key.scale == "tiny" for table in board.tables):
        lines.append(
            "**Scale tiny is the embedded laboratory**: an artificial language and a very small"
            " BERT. Its scores compare methods with each other; they say nothing about published"
            " numbers. Its learning rates were chosen, among six candidates for every method, on"
            " these evaluation examples with other seeds (zoo/laboratory.csv); ablations and"
            " global variants have the values of the method that they vary."
        )
    lines += [f"**Warning:** {plain_text(u.path.name)} cannot be read" for u in board.unreadable]
    return lines


def _notes(table: Table) -> list[str]:
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
    notes = sorted({note for result in results for note in result.notes})
    lines += [f"Data: {'; '.join(notes)}."] if notes else []
    return [plain_text(line) for line in lines]


def _versions(result: Result) -> str:
    packages = result.environment["packages"]
    shown = [f"{name} {packages[name]}" for name in ("torch", "transformers") if name in packages]
    return f"{', '.join(shown)} on {result.environment['device']}"


def _troubles(board: Board) -> list[str]:
    """Diverged, failed and missing trials, by name."""
    lines = []
    for result in board.results:
        if result.status == "diverged" and result.diverged:
            at = f"step {result.diverged['step']} (value {result.diverged['value']})"
            lines.append(f"- diverged: {result.trial.id} at {at}")
    lines += [f"- failed: {f.trial.id}: {f.reason}" for f in board.failures()]
    lines += [f"- unreadable: {u.path.name}: {u.reason}" for u in board.unreadable]
    for table in board.tables:
        for (row, task), cell in sorted(table.cells.items()):
            if cell.missing:
                seeds = ", ".join(str(seed) for seed in cell.missing)
                at = f"{row.method} at {100 * row.density:g} % on {task}"
                lines.append(f"- not run yet: {at}, seed {seeds} ({title(table)})")
    return (
        ["## Failed, diverged and missing", "\n".join(plain_text(x) for x in lines)]
        if lines
        else []
    )


def _commands(board: Board) -> list[str]:
    lines = []
    for table in board.tables:
        for row in in_order(table.rows):
            results = table.of_row(row)
            if results:
                lines.append(f"# {row.method}, {100 * row.density:g} %")
                lines.append(command(board.suite, table, row, results))
    if not lines:
        return []
    block = "\n".join(map(in_a_fence, lines))
    return [
        "## Run a row again",
        f"<details><summary>Commands</summary>\n\n```\n{block}\n```\n\n</details>",
    ]


def in_a_fence(line: str) -> str:
    """A line that cannot end the block of code that it stands in."""
    return "".join(c if c.isprintable() else "?" for c in line).replace("```", "'''")


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
    return shlex.join(words)
