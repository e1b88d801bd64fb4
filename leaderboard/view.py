"""Views: everything that the pages show of a table, computed once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from leaderboard import prose
from leaderboard.beside import Other, beside_grid, beside_notes
from leaderboard.cells import cells
from leaderboard.claims import claims_grid
from leaderboard.collect import Board, RowKey, Table
from leaderboard.compare import Family, families, reference_of
from leaderboard.formats import Entry, Grid
from leaderboard.forms import form_columns, form_grid, form_notes, form_summary
from leaderboard.measured import Measured, measured
from leaderboard.papers import LAYOUTS, paper_grids
from leaderboard.published import Published, of_test_sets, published_grid
from leaderboard.series import Series
from leaderboard.tables import MainTable, main_table, over_grid, selection_grid
from leaderboard.tuning import candidate_grid
from leaderboard.verdicts import cell_grid, clauses, verdict_grid
from zoo.records.result import AT_MOST

HEADINGS = {
    "methods": "Methods by remaining weights",
    "verdicts": "Who is better, over all tasks",
    "over-target": f"Runs that kept more than {AT_MOST:g} times their target",
    "beside": "Other checkpoints, fine-tuned without pruning",
    "by-task": "Task by task: means and differences with intervals",
    "selection": "Last step and best evaluation side by side",
    "published": "Published numbers beside ours",
    "published-test": "Published numbers of test sets, which are not compared",
    "candidates": "Candidates among which values were chosen",
    "forms": "Size and speed of the trained models",
    "forms-published": "Size and speed beside published claims",
    **{layout.name: layout.heading for layout in LAYOUTS},
}
"""Headings of the tables by name."""
FORM_SUMMARY = "Trained models: sizes over tasks, and the fastest exact form"
"""The heading of their summary."""


@dataclass(frozen=True)
class Wanted:
    """What a user can choose: the method that others are compared with, None for the first that
    prunes; the columns and methods of LaTeX tables, none for all; printed numbers of the user's
    own."""

    against: str | None = None
    columns: Sequence[str] = ()
    methods: Sequence[str] = ()
    printed: Sequence[Published] = ()


ALL = Wanted()
"""Nothing is chosen."""


@dataclass(frozen=True)
class View:
    """One table of a board, as a user wants it."""

    board: Board
    table: Table
    wanted: Wanted = ALL

    @cached_property
    def title(self) -> str:
        """What all trials of the table have in common."""
        return prose.title(self.table)

    @cached_property
    def notes(self) -> Sequence[str]:
        """What ran, how other checkpoints are to be read, and how the forms of trained models were
        measured."""
        beside = beside_notes(self.table, self.others)
        return [*prose.notes(self.table), *beside, *form_notes(self._measured)]

    @property
    def others(self) -> Sequence[Other]:
        """The other checkpoints beside the table."""
        return self.series.others

    @property
    def commands(self) -> list[str]:
        """The commands that run the whole table again, and the other checkpoints beside it."""
        rows = [(self.table, self.table.rows), *((one.table, [one.row]) for one in self.others)]
        return [line for table, own in rows for line in prose.commands(self.board, table, own)]

    @cached_property
    def reference(self) -> str:
        """The method that others are compared with."""
        return reference_of(self.table, self.wanted.against)

    @cached_property
    def families(self) -> Sequence[Family]:
        """The verdicts of every target."""
        return families(self.table, self.plain, self.reference)

    @cached_property
    def verdicts(self) -> Grid:
        """The verdicts as a table, and `verdict_rows` its rows."""
        return verdict_grid(self.families)

    @property
    def verdict_rows(self) -> list[RowKey]:
        """The rows of `verdicts`."""
        return [v.row for family in self.families for v in family.verdicts]

    @property
    def plain(self) -> Table:
        """The table with the dense trials: the one without distillation."""
        return self.board.without_distillation(self.table) or self.table

    @property
    def said(self) -> Sequence[Sequence[str]]:
        """What the verdicts come to, clauses per target."""
        return [clauses(family) for family in self.families]

    def labels_of(self, methods: Sequence[str]) -> list[str]:
        """The names for people of methods that the table has, and the names themselves."""
        rows = [row for row in self.table.rows if row.method in methods]
        return [*methods, *(self.table.facts_of(row).label or row.method for row in rows)]

    @cached_property
    def main(self) -> MainTable:
        """The table of methods."""
        top = {v.row for family in self.families for v in family.verdicts if v.top}
        return main_table(self.board, self.table, top)

    @cached_property
    def series(self) -> Series:
        """What the figures show."""
        return Series(self.board, self.table)

    @cached_property
    def form_columns(self) -> tuple[Sequence[str], Sequence[Mapping[str, Entry]]]:
        """Columns on the forms of trained models: headers, and by line of `main` the entries."""
        return form_columns(self._by_line)

    @cached_property
    def forms(self) -> Grid:
        """The sizes of trained models and their fastest exact form, by row."""
        return form_summary([*self._measured, *self._forms_beside])

    @property
    def _forms_beside(self) -> list[Measured]:
        return [m for one in self.others for m in one.forms(self.table.tasks)]

    @property
    def _measured(self) -> list[Measured]:
        """The forms of every row of `main`."""
        return [one for found in self._by_line for one in found]

    @cached_property
    def _by_line(self) -> Sequence[Sequence[Measured]]:
        return [list(measured(*source)) if source else [] for source in self.main.sources]

    @cached_property
    def grids(self) -> Mapping[str, Grid]:
        """The tables beside the main one by name; those without rows are left out."""
        table, board = self.table, self.board
        found = {
            "verdicts": self.verdicts,
            "over-target": over_grid(table),
            "beside": beside_grid(table, self.plain, self.others),
            "by-task": cell_grid(cells(table, self.plain, self.reference), self.reference),
            "selection": selection_grid(table),
            "published": published_grid(table, self.wanted.printed),
            "published-test": of_test_sets(table, self.wanted.printed),
            "candidates": candidate_grid(table),
            "forms": form_grid(table, self.plain, self._forms_beside),
            "forms-published": claims_grid(table, self.plain),
            **paper_grids(board, table),
        }
        return {name: grid for name, grid in found.items() if grid.rows}

    @property
    def beside(self) -> dict[str, Grid]:
        """The tables beside the main one by heading."""
        return {HEADINGS[name]: grid for name, grid in self.grids.items()}

    @property
    def all_grids(self) -> dict[str, Grid]:
        """All tables by name, the main one first."""
        main = {"methods": self.main.grid} if self.main.grid.rows else {}
        return {**main, **self.grids}
