"""The sentences of a page as plain text; the formats escape them."""

from collections.abc import Sequence

from leaderboard.collect import Board, RowKey, Table
from leaderboard.tables import BELOW, INTERPOLATED, MIXED, NOT_ABOVE_CONSTANT
from zoo.records.result import AT_MOST, Result
from zoo.records.trial import Trial, command_of

SMALL_PRINT = (
    (
        "±",
        "is the sample standard deviation over seeds (ddof = 1); (n/planned at kept) are the seeds"
        ' behind the mean and their mean remaining weights. "-" was not run. Diverged and failed'
        " seeds are named and never averaged in; strict is the mean with each diverged seed counted"
        " as the best constant answer (0 without classes).",
    ),
    (
        "Remaining weights",
        "are counted: nonzero entries of what multiplies the weights in evaluation, as a fraction"
        " of the encoder's Q, K, V, O, U and D matrices. Biases, LayerNorm, embeddings, pooler and"
        " head are never pruned and not part of the fraction.",
    ),
    (
        "At its target:",
        "a run counts if what it kept over its target, to two decimals, is at most"
        f" {AT_MOST:g}. A method that drives a penalty is read at the target, seed by seed: at its"
        f" run there, else ({INTERPOLATED}) between its nearest runs on both sides, linearly in the"
        f" logarithm of the remaining weights, else ({BELOW}) at its nearest run below. What is"
        " over the target with no run below is listed in a table of its own.",
    ),
    (
        "Collapsed:",
        "a run has collapsed if its metric is not above that of the best constant answer beyond"
        " chance (one-sided binomial test, 5 %). It is counted in the mean like any other; median"
        " and range stand beside it. The others trained. Tasks without a constant answer, such as"
        " spans, cannot be judged and are not counted there.",
    ),
    (
        NOT_ABOVE_CONSTANT,
        "marks a mean whose 95 % interval reaches down to the best constant answer.",
    ),
    (
        MIXED,
        "marks a mean over runs on different devices, library versions or commits.",
    ),
    (
        "New per task",
        "is what a task adds to the shared pre-trained model: remaining weights that were trained,"
        " everything else that was trained, and one bit per prunable weight for the mask (counted"
        " as 1/32 parameter). Trainable is what the optimiser updates, scores included.",
    ),
    (
        "Metrics",
        "are those of the last step on the evaluation set; no checkpoint is selected on it. The"
        " best evaluation on that same set is shown beside them and never ranked. Δ dense is the"
        " difference of the means, in points of each task's first metric.",
    ),
    (
        "Verdicts:",
        "p is of the exact rank test within tasks (van Elteren 1960), over all tasks together,"
        " corrected by Holm over the methods of a target that prune; controls take no part. It"
        " compares ranks, the interval compares means: a collapsed run moves a mean by much and a"
        " rank by little, so that they may disagree. Differences are of unrounded means, and"
        " intervals end where the metric does."
        " Intervals are 95 %: of a mean over tasks and of its difference by the variances of the"
        " tasks' means (Welch, Satterthwaite). Detectable: the smallest difference that these"
        " runs would show with 80 % power. Runs: one a task and seed. Dominated by: the best row,"
        " of any target, that keeps no more weights and has a higher mean over the same tasks.",
    ),
    (
        "Bold",
        "is the top group of a target: the method with the best mean over tasks and those that the"
        " same test, corrected for all pairs of methods, does not show to be worse.",
    ),
    (
        "Task by task:",
        "the interval of a mean adds the errors of the seeds and of the finite evaluation set."
        " Other examples too: the crossed bootstrap over seeds and examples; the metric is"
        " computed anew on every draw. docs/statistics.md shows how often each is wrong.",
    ),
    (
        "Published numbers",
        "are other people's, with their source (leaderboard/published.csv); conflicts between"
        " sources are several rows. They are compared only on the same model, the whole data, the"
        " released recipe and its full length, and never averaged into ours. L0 and soft-movement"
        " numbers of the Movement paper are interpolations between two runs of one seed.",
    ),
)
"""(term, what it means)."""


def title(table: Table) -> str:
    """What all trials of a table have in common."""
    key = table.key
    scale, *words = key.words
    words = [scale, f"model {key.variant or key.model}", *words]
    return ", ".join(words + [f"data {key.data}"] * bool(key.data))


def head(board: Board) -> list[str]:
    """What the whole page is about, and warnings."""
    failed = len(list(board.failures()))
    missing = sum(len(group.missing) for table in board.tables for group in table.groups.values())
    lines = [f"{len(board.results)} results, {failed} failed, {missing} planned and not run yet."]
    shown = {table.key.scale for table in board.tables}
    lines += [caveat for scale, caveat in board.caveats.items() if scale in shown]
    lines += [f"Warning: {u.path.name} cannot be read" for u in board.unreadable]
    lines += [f"Warning: {u.path.name} is left out" for u in board.left_out]
    if board.conflicts:
        first, number = board.conflicts[0], len(board.conflicts)
        more = f", and {number - 1} more" if number > 1 else ""
        lines.append(f"Warning: {first}{more}; the folder that was named first counts")
    return lines


def notes(table: Table) -> list[str]:
    """What ran: the model's hash, heads, versions, data that is smaller than the official sets."""
    results = table.results
    if not results:
        return ["No trial has finished yet."]
    by_head: dict[str, dict[str, None]] = {}
    for result in results:
        by_head.setdefault(result.head.name, {})[result.trial.method] = None
    order = [row.method for row in table.rows]
    heads = "; ".join(
        f"{head}: {', '.join(sorted(methods, key=order.index))}"
        for head, methods in sorted(by_head.items())
    )
    lines = [f"Model sha256 {table.key.model_sha[:12]}. Heads: {heads}."]
    versions = sorted({_versions(result) for result in results})
    lines.append(f"Ran with {' / '.join(versions)}.")
    commits = sorted({r.environment.git for r in results if r.environment.git})
    if commits:
        lines[-1] += f" At commit {', '.join(commit[:12] for commit in commits)}."
    searched = sorted({source for result in results for source in _searched(result)})
    lines += [f"Sources of the values that were searched: {'; '.join(searched)}."] * bool(searched)
    lines += _not_judged(results)
    lines += _of_one_model(results)
    told = sorted({note for result in results for note in result.notes})
    return lines + ([f"Notes: {'; '.join(told)}."] if told else [])


def _not_judged(results: Sequence[Result]) -> list[str]:
    """Whose figures are those of the process that trained, and why."""
    by_reason: dict[str, set[str]] = {}
    for one in results:
        if one.judgement is not None and not one.judgement.apart:
            by_reason.setdefault(one.judgement.reason, set()).add(one.trial.method)
        elif one.judgement is None and one.ok and one.trial.plugin_sha:
            by_reason.setdefault("older than the judge", set()).add(one.trial.method)
    return [
        f"Not judged apart from training: {', '.join(sorted(methods))} ({reason})."
        for reason, methods in sorted(by_reason.items())
    ]


def _of_one_model(results: Sequence[Result]) -> list[str]:
    """Whose seeds all pruned the same trained model, so that they differ in less than seeds do."""
    by_cell: dict[tuple[str, str], list[Trial]] = {}
    for trial in (one.trial for one in results if one.trial.teacher and not one.trial.distill):
        by_cell.setdefault((trial.method, trial.task), []).append(trial)
    same = {
        method
        for (method, _), trials in by_cell.items()
        if len({t.seed for t in trials}) > 1 and len({t.teacher for t in trials}) == 1
    }
    return [
        f"All seeds pruned one dense model: {', '.join(sorted(same))}. Their spread, intervals and"
        " tests are about what is drawn afterwards, not about other dense models."
    ] * bool(same)


def _searched(result: Result) -> set[str]:
    """The sources of the values that differ among candidates: which examples chose them."""
    sources = result.environment.sources
    return {sources[n] for one in result.candidates for n in one.values if n in sources}


def _versions(result: Result) -> str:
    environment = result.environment
    packages = environment.packages
    shown = [f"{name} {packages[name]}" for name in ("torch", "transformers") if name in packages]
    device, threads = environment.device, environment.threads
    if device.startswith("cpu"):
        device += f", {threads} thread{'s' * (threads != 1)} a trial"
    return f"{', '.join(shown)} on {device}"


def troubles(board: Board) -> list[str]:
    """Diverged, failed and missing trials, by name."""
    lines = []
    for result in board.results:
        if result.diverged:
            at = f"step {result.diverged.step} (value {result.diverged.value})"
            lines.append(f"diverged: {result.trial.id} at {at}")
    lines += [f"failed: {f.trial.id}: {f.reason}" for f in board.failures()]
    lines += excluded(board)
    for table in board.tables:
        for row, task, group in table.entries():
            if group.missing:
                seeds = ", ".join(str(seed) for seed in group.missing)
                at = f"{row.words} on {task}"
                lines.append(f"not run yet: {at}, seed {seeds} ({title(table)})")
    return lines


def excluded(board: Board) -> list[str]:
    """Files that do not count, and why."""
    lines = [f"unreadable: {u.path.name}: {u.reason}" for u in board.unreadable]
    mend = "move it away to run its trial again"
    return lines + [f"left out: {u.path.name}: {u.reason}; {mend}" for u in board.left_out]


def commands(board: Board, table: Table, rows: Sequence[RowKey]) -> list[str]:
    """The commands that run the trials of some rows, one per suite and set of options: their
    methods at all of their densities."""
    groups: dict[tuple[str, tuple[str, ...]], list[Trial]] = {}
    for row in rows:
        for result in table.of_row(row):
            suite = board.suites.get(result.trial.id, board.suite)
            groups.setdefault((suite, result.environment.options), []).append(result.trial)
    return [command_of(suite, options, ran) for (suite, options), ran in groups.items()]
