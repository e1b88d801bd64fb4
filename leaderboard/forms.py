"""The forms of trained models as tables: bytes, speed beside the dense model, what they lose."""

from collections.abc import Iterable, Sequence
from math import prod
from statistics import fmean

from leaderboard.collect import Table
from leaderboard.formats import NOTHING, Entry, Grid, Quantity, percent, quantity, ranged
from leaderboard.measured import Measured, Shape, form_names, measured, shapes
from zoo.records.forms import FORMS, STOCK, ZEROS, Timing, label_of

NO_DIFFERENCE, EXACT = "no difference", "exact"
"""Shown instead of a ratio whose interval holds 1, and of a difference that cannot exist."""
MMACS, FEWEST = "MMACs", "Fewest MMACs, exact form"
"""Headers of columns that only tables with counts have."""


def full_bytes(table: Table, plain: Table, task: str) -> int | None:
    """The bytes of the stock model's file: the largest on a task, since a model with fewer layers
    is a stock model too; None if it was not measured."""
    found = [*measured(plain), *measured(table)]
    stock = [m.form.bytes for m in found if m.task == task and m.form.name in (STOCK, ZEROS)]
    return max(stock, default=None)


def three_digits(number: float) -> str:
    """A positive number with three digits that say something: '0.412', '52.3', '1340'."""
    return f"{number:.0f}" if number >= 99.95 else f"{number:#.3g}".rstrip(".")


def speed_entry(timings: Sequence[Timing]) -> Entry:
    """'1.37 (1.31 to 1.42)'; of several timings the geometric mean, from the lowest to the highest
    end of their intervals. Words instead if any interval holds 1: never a ratio."""
    faster = sum(timing.low > 1 for timing in timings)
    slower = sum(timing.high < 1 for timing in timings)
    number = len(timings)
    if not timings or not faster + slower:
        return NO_DIFFERENCE if timings else NOTHING
    if number not in (faster, slower):
        told = [f"{word} {n}" for word, n in (("faster in", faster), ("slower in", slower)) if n]
        return f"{', '.join(told)} of {number}"
    value = prod(timing.speedup for timing in timings) ** (1 / number)
    low, high = min(t.low for t in timings), max(t.high for t in timings)
    digits = 3 if "1.00" in (f"{low:.2f}", f"{high:.2f}") else 2
    text = f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
    return Quantity(value, text, parts=(("low", low), ("high", high)))


FORM_HEADER = (
    *("Method", "Target %", "Kept %", "Task", "Seed", "Form", "MB", "% of stock", "Metric"),
    *("Change", "Batch × tokens", "Threads", MMACS, "ms", "Speed-up", "Device"),
)


def form_grid(table: Table, plain: Table, others: Iterable[Measured] = ()) -> Grid:
    """Every form of every trial that was measured, one line per shape of its timings; the stock
    file may be that of a dense trial of `plain`. `others` are forms of other checkpoints."""
    rows: list[list[Entry]] = []
    full = {task: full_bytes(table, plain, task) for task in table.tasks}
    for one in (*measured(table), *others):
        start = _about(one, full[one.task])
        rows += [[*start, *_timed(timing)] for timing in one.form.timings or (None,)]
    return _told(Grid(FORM_HEADER, rows), MMACS)


def _told(grid: Grid, header: str) -> Grid:
    """The grid without a column in which no row has an entry."""
    place = grid.header.index(header)
    if any(row[place] != NOTHING for row in grid.rows):
        return grid
    return grid.only([name for name in grid.header[1:] if name != header], ())


def _about(one: Measured, full: int | None) -> list[Entry]:
    """A form without its timings."""
    trial, form, value = one.result.trial, one.form, one.value
    return [
        one.label,
        one.target,
        quantity(one.kept, ".2f"),
        one.task,
        Quantity(trial.seed, str(trial.seed)),
        form.label,
        Quantity(form.bytes / 1e6, three_digits(form.bytes / 1e6)),
        Quantity(100 * form.bytes / full, f"{100 * form.bytes / full:.1f}") if full else NOTHING,
        NOTHING if value is None else Quantity(value, f"{one.metric} {value:.1f}"),
        EXACT if one.exact else quantity(one.change, "+.1f"),
    ]


def _timed(timing: Timing | None) -> list[Entry]:
    if timing is None:
        return [NOTHING] * 6
    called = [("batch", timing.batch), ("tokens", timing.tokens)]
    return [
        Quantity(prod(n for _, n in called), f"{timing.batch} × {timing.tokens}", parts=called),
        Quantity(timing.threads, str(timing.threads)),
        _millions([] if timing.macs is None else [timing.macs]),
        Quantity(1000 * timing.seconds, three_digits(1000 * timing.seconds)),
        speed_entry([timing]),
        timing.device or NOTHING,
    ]


def form_columns(
    by_row: Sequence[Sequence[Measured]],
) -> tuple[list[str], list[dict[str, Entry]]]:
    """Columns with megabytes, multiply-accumulates and speed-up of each form, over tasks and seeds
    and for the first shape: their headers, and by row the entries by header."""
    every = [one for found in by_row for one in found]
    names, shape = form_names(every), next(iter(shapes(every)), None)
    entries = [_columns_of(found, shape) for found in by_row]
    known = {header for one in entries for header in one}
    headers = [f"{name} {what}" for name in names for what in ("MB", MMACS, "speed-up")]
    return [header for header in headers if header in known], entries


def _columns_of(own: Sequence[Measured], shape: Shape | None) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for name in form_names(own):
        found = [one for one in own if one.form.label == name]
        entries[f"{name} MB"] = _megabytes(found)
        if counts := _counts(found, shape):
            entries[f"{name} {MMACS}"] = _millions(counts)
        timings = [timing for one in found for timing in one.timings(shape)]
        if timings:
            speed = speed_entry(timings)
            text = f"{speed}; {ranged([1000 * t.seconds for t in timings], three_digits)} ms"
            number = speed.value if isinstance(speed, Quantity) else None
            entries[f"{name} speed-up"] = text if number is None else Quantity(number, text)
    return entries


def _megabytes(found: Iterable[Measured]) -> Entry:
    return ranged([one.form.bytes / 1e6 for one in found], three_digits)


def _counts(found: Iterable[Measured], shape: Shape | None) -> list[int]:
    """The multiply-accumulates that were counted, for an example of a shape's tokens."""
    known = (one.macs(shape.tokens) for one in found if shape is not None)
    return [count for count in known if count is not None]


def _millions(counts: Sequence[int]) -> Entry:
    return ranged([count / 1e6 for count in counts], three_digits)


def form_summary(every: Sequence[Measured]) -> Grid:
    """Per row: kept weights, the exact form that gains most at the first shape, the one with the
    fewest multiply-accumulates, and the megabytes of each form over tasks. No rows where no model
    was measured."""
    names, first = form_names(every), next(iter(shapes(every)), None)
    rows: list[list[Entry]] = []
    for row in dict.fromkeys((one.row, one.other) for one in every):
        own = [one for one in every if (one.row, one.other) == row]
        kept = ranged([one.kept for one in own], percent)
        sizes = [_megabytes(m for m in own if m.form.label == name) for name in names]
        start: list[Entry] = [own[0].label, own[0].target, kept]
        rows.append([*start, _fastest(own, first), _fewest(own, first), *sizes])
    header = ["Method", "Target %", "Kept %", "Fastest exact form", FEWEST]
    return _told(Grid([*header, *(f"{name} MB" for name in names)], rows), FEWEST)


def _fastest(own: Sequence[Measured], shape: Shape | None) -> Entry:
    """'sparse 1.37 (1.31 to 1.42)': the exact form with the highest speed-up; '-' if none was
    timed, and words if none is faster in every trial."""
    exact = [one for one in own if one.exact]
    entries: dict[str, Entry] = {}
    for name in form_names(exact):
        found = [t for one in exact if one.form.label == name for t in one.timings(shape)]
        if found:
            entries[name] = speed_entry(found)
    faster = [(e, n) for n, e in entries.items() if isinstance(e, Quantity) and e.value > 1]
    if not faster:
        return "none is faster" if entries else NOTHING
    best, name = max(faster, key=lambda pair: pair[0].value)
    return Quantity(best.value, f"{name} {best}", parts=best.parts)


def _fewest(own: Sequence[Measured], shape: Shape | None) -> Entry:
    """'compact 3.42 (48.1 % of stock)': the exact form with the fewest multiply-accumulates, in
    millions, and their share of the dense model's; '-' if none were counted."""
    exact = [one for one in own if one.exact]
    counted = {
        n: _counts((m for m in exact if m.form.label == n), shape) for n in form_names(exact)
    }
    known = {name: counts for name, counts in counted.items() if counts}
    if not known:
        return NOTHING
    name, counts = min(known.items(), key=lambda pair: fmean(pair[1]))
    full = _counts((one for one in own if one.form.name == STOCK), shape)
    share = f" ({100 * fmean(counts) / fmean(full):.1f} % of stock)" if sum(full) else ""
    return Quantity(fmean(counts) / 1e6, f"{name} {_millions(counts)}{share}")


def form_notes(found: Sequence[Measured]) -> list[str]:
    """How the forms were measured, and what their names mean; nothing where none was measured."""
    if not found:
        return []
    kinds = dict.fromkeys(one.form.name for one in found)
    meant = "; ".join(f"{label_of(n)}: {FORMS[n]}" for n in FORMS if n in kinds)
    lines = [
        f"Forms of trained models. {meant}. MB are 1e6 bytes of the files, without the tokeniser."
    ]
    if any(one.form.least for one in found):
        lines[-1] += " ≥ N a row: rows with fewer than N weights are dropped too, which is inexact."
    if timed := shapes(found):
        lines.append(
            "Speed-ups are over the dense model, which ran in turn with each form, with 99 %"
            f' intervals; over several trials, from the lowest to the highest. "{NO_DIFFERENCE}":'
            f" the interval holds 1. Columns of speed-ups are for {timed[0].words}"
            f"{_packages(found, timed[0])}. The same timings choose the fastest form of a row."
        )
    if timed and _counts(found, timed[0]):
        lines.append(
            "MMACs are millions of multiply-accumulates for an example, in columns of forms for"
            f" {timed[0].tokens} tokens: products of linear maps, in CSR of nonzero weights, and of"
            " attention. Element-wise work, softmax, LayerNorm and embeddings are not counted."
        )
    return lines


def _packages(found: Iterable[Measured], shape: Shape) -> str:
    """' (torch 2.13.0)': the versions that the timings of a shape depend on."""
    timings = [timing for one in found for timing in one.timings(shape)]
    used = sorted({f"{name} {version}" for t in timings for name, version in t.packages.items()})
    return f" ({', '.join(used)})" if used else ""
