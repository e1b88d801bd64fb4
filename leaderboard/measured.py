"""The forms of trained models that the results of a table hold."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from leaderboard.collect import RowKey, Table
from leaderboard.formats import NOTHING, Entry, target
from leaderboard.tables import label
from zoo.records.forms import FORMS, INT8, Form, Timing
from zoo.records.result import Result

ANOTHER = "another checkpoint"
"""What a row is that is not of the table's model, wherever it is shown."""


@dataclass(frozen=True)
class Shape:
    """What timings must have in common to be compared: examples and tokens of a call, CPU threads,
    and the kind of processor."""

    batch: int
    tokens: int
    threads: int
    device: str

    @property
    def words(self) -> str:
        """'8 × 128 tokens, 2 threads, cpu x86_64'."""
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}"
        called = f"{self.batch} × {self.tokens} tokens"
        return ", ".join(filter(None, (called, threads, self.device)))


def shape_of(timing: Timing) -> Shape:
    """The shape of a timing."""
    return Shape(timing.batch, timing.tokens, timing.threads, timing.device)


@dataclass(frozen=True)
class Measured:
    """A form of the model of one trial, with its row, its task and the task's first metric. `other`
    is the name of another checkpoint than the table's, and `share` its prunable weights over those
    of the table's model."""

    row: RowKey
    task: str
    metric: str
    result: Result
    form: Form
    other: str = ""
    share: float = 1.0

    @property
    def label(self) -> str:
        """The row's name for people."""
        own = label(self.row, [self.result])
        return f"{own} of {self.other} ({ANOTHER})" if self.other else own

    @property
    def kept(self) -> float:
        """Remaining weights in percent of the prunable ones of the table's model."""
        return 100 * self.share * self.result.remaining.density

    @property
    def target(self) -> Entry:
        """The target in percent, which another checkpoint has none of."""
        return NOTHING if self.other else target(self.row.density)

    def timings(self, shape: Shape | None) -> list[Timing]:
        """The timings of a shape."""
        return [timing for timing in self.form.timings if shape_of(timing) == shape]

    def macs(self, tokens: int) -> int | None:
        """The multiply-accumulates for an example of so many tokens, where they were counted."""
        return next((t.macs for t in self.form.timings if t.tokens == tokens), None)

    @property
    def value(self) -> float | None:
        """The first metric of the form."""
        return self.form.metrics.get(self.metric)

    @property
    def change(self) -> float | None:
        """The form's first metric minus the trial's, in points."""
        own, before = self.value, self.result.metrics.get(self.metric)
        return None if own is None or before is None else own - before

    @property
    def exact(self) -> bool:
        """Whether the form computes what the trained model does, and its metric confirms it."""
        same = self.change is not None and abs(self.change) < 1e-6
        return same and not self.form.least and self.form.name != INT8


def measured(table: Table, row: RowKey | None = None) -> Iterator[Measured]:
    """All forms of a table or of one row, in the order of pages."""
    for own, task, group in table.entries():
        for result in group.ok if row in (None, own) else ():
            for form in result.forms:
                yield Measured(own, task, table.first_metric(task), result, form)


def shapes(found: Iterable[Measured]) -> list[Shape]:
    """The shapes of all timings, the one that most timings have first."""
    counted = Counter(shape_of(timing) for one in found for timing in one.form.timings)
    return [shape for shape, _ in counted.most_common()]


def form_names(found: Iterable[Measured]) -> list[str]:
    """The names of all forms, in the order of FORMS, exact ones first."""
    order = list(FORMS)

    def place(form: Form) -> tuple[int, str, int]:
        known = form.name in order
        return order.index(form.name) if known else len(order), form.name, form.least

    forms = sorted((one.form for one in found), key=place)
    return list(dict.fromkeys(form.label for form in forms))
