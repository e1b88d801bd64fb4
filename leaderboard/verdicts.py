"""Verdicts as tables and as sentences."""

from collections.abc import Sequence

from leaderboard.compare import Cell, Family, Verdict
from leaderboard.formats import NOTHING, Entry, Grid, Quantity, quantity, target
from leaderboard.ranks import ALPHA
from leaderboard.statistics import Estimate
from leaderboard.tables import label

MEAN = "Mean over tasks"


def verdict_grid(found: Sequence[Family]) -> Grid:
    """One row per method and target, best first, over all tasks; the top group is stressed."""
    reference = next((f.reference.method for f in found if f.reference), "reference")
    header = ["Method", "Target %", "Kept %", MEAN, f"Δ {reference}"]
    header += [f"P(beats {reference})", "p (Holm)", "Could be seen", "Seeds", "Tasks"]
    header += ["Dominated by"]
    rows: list[list[Entry]] = []
    bold: set[tuple[int, int]] = set()
    for family in found:
        for v in family.verdicts:
            if v.top:
                bold.add((len(rows), 0))
            rows.append(_row(family, v))
    return Grid(header, rows, frozenset(bold))


def _row(family: Family, v: Verdict) -> list[Entry]:
    trained = v.seeds - v.collapsed
    seeds = f"{trained} of {v.seeds} trained" if v.collapsed else str(v.seeds)
    return [
        label(v.row, v.results),
        target(family.density),
        quantity(v.kept, ".2f"),
        estimate(v.mean),
        v.why_not if v.row == family.reference else estimate(v.difference, signed=True),
        quantity(v.wins, ".2f"),
        p_entry(v.p) if v.p is not None or v.row == family.reference else v.why_not,
        quantity(v.smallest, ".1f"),
        Quantity(v.seeds, seeds, parts=[("trained", trained)]),
        Quantity(len(v.tasks), f"{len(v.tasks)} of {len(family.tasks)}"),
        f"{v.dominated_by.method} at {100 * v.dominated_by.density:g} %" if v.dominated_by else "",
    ]


def cell_grid(found: Sequence[Cell], reference: str) -> Grid:
    """Every row on every task: intervals are 95 %, differences in points."""
    reference = reference or "reference"
    header = ["Method", "Target %", "Task", "Mean", "Δ dense", f"Δ {reference}"]
    header += [f"Δ {reference}, other examples too", "One seed: McNemar's p"]
    rows: list[list[Entry]] = [
        [
            label(c.row, c.results),
            target(c.row.density),
            f"{c.task} {c.metric}",
            estimate(c.mean),
            estimate(c.dense, signed=True),
            estimate(c.difference, signed=True),
            estimate(c.crossed, signed=True),
            p_entry(c.one_seed),
        ]
        for c in found
    ]
    return Grid(header, rows)


def sentence(family: Family) -> str:
    """What a target's verdicts come to: who leads, by how much, and whether it is real."""
    at = f"At {100 * family.density:g} %"
    shown = [v for v in family.verdicts if v.mean and v.why_not != "a control"]
    if not shown:
        return f"{at}: no method has enough seeds to be judged."
    parts = _leaders([v for v in shown if v.top])
    if family.reference:
        parts += _groups(shown, family.reference.method)
        if family.smallest_p > ALPHA:
            parts.append(
                "these seeds and tasks can show no difference (the smallest possible p is"
                f" {family.smallest_p:.2g})"
            )
    if not parts:
        parts = [f"nothing to compare: {', '.join(map(_with_mean, shown))}"]
    return f"{at}: {'; '.join(parts + _warnings(family, shown))}."


def _leaders(top: Sequence[Verdict]) -> list[str]:
    """The top group with its means."""
    if not top:
        return []
    names = _listed([_with_mean(v) for v in top])
    return [f"{names} leads" if len(top) == 1 else f"{names} lead and are not told apart"]


def _groups(shown: Sequence[Verdict], reference: str) -> list[str]:
    """The reference, and the other methods by what the test says of them."""
    parts, groups = [], dict[str, list[str]]()
    for v in shown:
        if v.row.method == reference:
            parts.append(f"{_name(v) if v.top else _with_mean(v)} is the reference")
        elif v.p is not None and v.wins is not None and v.difference is not None:
            kind = f"not shown to differ from {reference}"
            if v.p <= ALPHA and (v.wins > 0.5) != (v.difference.value > 0):
                kind = f"above {reference} in most seeds and below it in the mean"
                kind = kind if v.wins > 0.5 else f"below {reference} in most seeds only"
            elif v.p <= ALPHA:
                kind = f"{'better' if v.wins > 0.5 else 'worse'} than {reference}"
            groups.setdefault(kind, []).append(_name(v) if v.top else _with_mean(v))
    return parts + [f"{kind}: {', '.join(names)}" for kind, names in groups.items()]


def _warnings(family: Family, shown: Sequence[Verdict]) -> list[str]:
    """Methods below the best control, and those that were judged on some of the tasks."""
    found = []
    if family.control:
        name, mean = family.control
        below = [_name(v) for v in shown if v.mean and v.mean.value < mean]
        if below:
            found.append(f"below {name} ({mean:.1f} with all weights): {', '.join(below)}")
    partial = [_name(v) for v in shown if len(v.tasks) < len(family.tasks)]
    return found + ([f"judged on some tasks only: {', '.join(partial)}"] if partial else [])


def _with_mean(v: Verdict) -> str:
    """'smp_l 96.1 (1 of 15 seeds collapsed)'."""
    lost = f" ({v.collapsed} of {v.seeds} seeds collapsed)" if v.collapsed else ""
    return f"{_name(v)} {v.mean.value:.1f}{lost}" if v.mean else _name(v)


def _name(v: Verdict) -> str:
    return v.row.method + (f" ({v.row.variant})" if v.row.variant else "")


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def estimate(found: Estimate | None, *, signed: bool = False) -> Entry:
    """'83.2 (82.9 to 83.5)', or '-'."""
    if found is None:
        return NOTHING
    form = "+.1f" if signed else ".1f"
    text = f"{found.value:{form}} ({found.low:{form}} to {found.high:{form}})"
    return Quantity(found.value, text, parts=[("low", found.low), ("high", found.high)])


def p_entry(p: float | None) -> Entry:
    """A p value with four digits."""
    if p is None:
        return NOTHING
    return Quantity(p, f"{p:.4f}" if p >= 0.0001 else "< 0.0001")
