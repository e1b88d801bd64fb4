"""Views: everything that the pages show of a table, computed once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from leaderboard import prose
from leaderboard.collect import Board, Table
from leaderboard.compare import Family, cells, families, reference_of
from leaderboard.formats import Grid
from leaderboard.papers import LAYOUTS, paper_grids
from leaderboard.published import published_grid
from leaderboard.series import Series
from leaderboard.tables import MainTable, main_table, over_grid, selection_grid
from leaderboard.targets import AT_MOST
from leaderboard.verdicts import cell_grid, sentence, verdict_grid

HEADINGS = {
    "verdicts": "Who is better, over all tasks",
    "over-target": f"Runs that kept more than {AT_MOST:g} times their target",
    "by-task": "Task by task: means and differences with intervals",
    "selection": "Last step and best evaluation side by side",
    "published": "Published numbers beside ours",
    **{layout.name: layout.heading for layout in LAYOUTS},
}
"""Headings of the tables beside the main one, by name."""


@dataclass(frozen=True)
class View:
    """One table of a board; methods are compared with the method `against`, None for the first that
    prunes."""

    board: Board
    table: Table
    against: str | None = None

    @cached_property
    def title(self) -> str:
        """What all trials of the table have in common."""
        return prose.title(self.table)

    @cached_property
    def notes(self) -> Sequence[str]:
        """What ran."""
        return prose.notes(self.table)

    @cached_property
    def reference(self) -> str:
        """The method that others are compared with."""
        return reference_of(self.table, self.against)

    @cached_property
    def families(self) -> Sequence[Family]:
        """The verdicts of every target."""
        return families(self.table, self.reference)

    @property
    def sentences(self) -> Sequence[str]:
        """What the verdicts come to, a sentence per target."""
        return [sentence(family) for family in self.families]

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
    def grids(self) -> Mapping[str, Grid]:
        """The tables beside the main one by name; those without rows are left out."""
        table, board = self.table, self.board
        plain = board.without_distillation(table) or table
        found = {
            "verdicts": verdict_grid(self.families),
            "over-target": over_grid(table),
            "by-task": cell_grid(cells(table, plain, self.reference), self.reference),
            "selection": selection_grid(table),
            "published": published_grid(table),
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
