"""Verdicts as tables and as sentences."""

from collections.abc import Sequence

from leaderboard.cells import Cell
from leaderboard.compare import CONTROL, Family, Verdict
from leaderboard.formats import NOTHING, Entry, Grid, Quantity, quantity, target
from leaderboard.ranks import ALPHA
from leaderboard.statistics import Estimate
from leaderboard.tables import label

MEAN, DELTA = "Mean over tasks", "Δ "
"""Headers: of means, and how those of differences to the reference begin."""


def verdict_grid(found: Sequence[Family]) -> Grid:
    """One row per method and target, best first, over all tasks; the top group is stressed."""
    reference = next((f.reference.method for f in found if f.reference), "reference")
    header = ["Method", "Target %", "Kept %", MEAN, DELTA + reference]
    header += [f"P(beats {reference})", "p (Holm)", "Detectable", "Runs", "Tasks"]
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
    runs = str(v.runs) if v.runs == v.planned else f"{v.runs} of {v.planned}"
    runs += f", {v.collapsed} of {v.judged} collapsed" if v.collapsed else ""
    counts = [("planned", v.planned), ("collapsed", v.collapsed)]
    return [
        label(v.row, v.results),
        target(family.density),
        quantity(v.kept, ".2f"),
        estimate(v.mean),
        v.why_not if v.row == family.reference else estimate(v.difference, signed=True),
        quantity(v.wins, ".2f"),
        p_entry(v.p) if v.p is not None or v.row == family.reference else v.why_not,
        quantity(v.smallest, ".1f"),
        Quantity(v.runs, runs, parts=counts),
        Quantity(len(v.tasks), f"{len(v.tasks)} of {len(family.tasks)}"),
        v.dominated_by.words if v.dominated_by else "",
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
    """What a target's verdicts come to, on one line."""
    return f"{'; '.join(clauses(family))}."


def clauses(family: Family) -> list[str]:
    """What a target's verdicts come to: who leads, by how much and whether it is real, then the
    other methods."""
    at = f"At {100 * family.density:g} %"
    own = [v for v in family.verdicts if v.why_not != CONTROL]
    shown = [v for v in own if v.mean]
    if not shown:
        return [f"{at}: no method has enough seeds to be judged"]
    parts = _leaders(family, [v for v in shown if v.top]) + _below(family, shown)
    if family.reference:
        parts += _groups(family, shown, family.reference.method)
        if family.smallest_p > ALPHA:
            parts.append(
                "these seeds and tasks can show no difference (the smallest possible p is"
                f" {family.smallest_p:.2g})"
            )
    if not parts:
        parts = [f"nothing to compare: {', '.join(_told(family, v) for v in shown)}"]
    partial = [v.row.name for v in shown if len(v.tasks) < len(family.tasks)]
    parts += [f"judged on some tasks only: {', '.join(partial)}"] if partial else []
    rest = [v.row.name for v in own if not v.mean]
    parts += [f"too few runs at the target to be judged: {', '.join(rest)}"] if rest else []
    return [f"{at}: {parts[0]}", *parts[1:]]


def _leaders(family: Family, top: Sequence[Verdict]) -> list[str]:
    """The top group, best mean first."""
    if not top:
        return []
    best, *others = (_told(family, v) for v in top)
    whole = all(len(v.tasks) == len(family.tasks) for v in family.verdicts if v.why_not != CONTROL)
    where = "" if whole else " of those on all tasks"
    if not others:
        return [f"{best} leads{where}"]
    rest = f"{_listed(others)} {_are(others)} not shown to be worse in ranks"
    return [f"{best} has the best mean{where}, and {rest}"]


def _below(family: Family, shown: Sequence[Verdict]) -> list[str]:
    """Methods below the best control that keeps every weight."""
    if not family.control:
        return []
    name, mean = family.control
    below = [v.row.name for v in shown if v.mean and v.mean.value < mean]
    about = f"below the control {name} ({mean:.1f}, nothing pruned)"
    return [f"{about}: {', '.join(below)}"] if below else []


def _groups(family: Family, shown: Sequence[Verdict], reference: str) -> list[str]:
    """The reference, and the other methods by what the test says of them."""
    parts, groups = [], dict[str, list[str]]()
    for v in shown:
        name = v.row.name if v.top else _told(family, v)
        if v.row == family.reference:
            parts.append(f"{name} is the reference")
        elif kind := _kind(v, reference):
            groups.setdefault(kind, []).append(name)
    return parts + [f"{kind}: {', '.join(names)}" for kind, names in groups.items()]


def _kind(v: Verdict, reference: str) -> str:
    """What the test of ranks says of a method, and whether its mean agrees; "" without a test."""
    if v.p is None or v.wins is None or v.difference is None:
        return ""
    higher = v.difference.value > 0
    apart = v.difference.low > 0 or v.difference.high < 0
    if v.p <= ALPHA and (v.shift > 0) == higher:
        only = "" if apart else " in ranks, not shown in the mean"
        return f"{'better' if higher else 'worse'} than {reference}{only}"
    if v.p <= ALPHA:
        how = ("above", "below") if v.shift > 0 else ("below", "above")
        return f"{how[0]} {reference} in ranks and {how[1]} it in the mean"
    if apart:
        return f"{'higher' if higher else 'lower'} than {reference} in the mean, not in ranks"
    return f"not shown to differ from {reference}"


def _told(family: Family, v: Verdict) -> str:
    """'smp_l 96.1 (-2.1; 1 of 10 runs collapsed)': mean, difference, and what befell its runs."""
    more = [f"{v.difference.value:+.1f}"] if v.difference and v.row != family.reference else []
    more += [f"{v.runs} of {v.planned} runs at the target"] if v.runs < v.planned else []
    more += [f"{v.collapsed} of {v.judged} runs collapsed"] if v.collapsed else []
    mean = f" {v.mean.value:.1f}" if v.mean else ""
    return f"{v.row.name}{mean}" + (f" ({', '.join(more)})" if more else "")


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


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
