"""Views: everything that the pages show of a table, computed once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from leaderboard import prose
from leaderboard.collect import Board, Table
from leaderboard.compare import (
    best_entries,
    compare,
    comparison_grid,
    overall,
    overall_grid,
    reference_of,
)
from leaderboard.formats import Grid
from leaderboard.papers import LAYOUTS, paper_grids
from leaderboard.published import published_grid
from leaderboard.series import Series
from leaderboard.tables import OFF_TARGET, MainTable, main_table, off_target_grid, selection_grid

HEADINGS = {
    "off-target": f"Off target by more than {OFF_TARGET:g} points of remaining weights",
    "comparisons": "Is it more than noise: differences with intervals, over seeds and examples",
    "over-tasks": "Over all tasks",
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
    def main(self) -> MainTable:
        """The table of methods."""
        return main_table(self.board, self.table, best_entries(self.table))

    @cached_property
    def series(self) -> Series:
        """What the figures show."""
        return Series(self.board, self.table)

    @cached_property
    def grids(self) -> Mapping[str, Grid]:
        """The tables beside the main one by name; those without rows are left out."""
        table, board = self.table, self.board
        plain = board.without_distillation(table) or table
        against = reference_of(table, self.against)
        found = {
            "off-target": off_target_grid(table),
            "comparisons": comparison_grid(compare(table, plain, against), against),
            "over-tasks": overall_grid(overall(table, against), against),
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
