"""How a method looks in every figure: its colour, mark and dash, whatever draws it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999933")
"""Okabe and Ito's colours, which colour-blind readers can tell apart; html/style.css has them as
--c0, --c1, ..., lighter on dark ground."""
GREY = "#8a8a8a"
"""The colour of controls."""
MARKS = ("circle", "square", "diamond", "triangle", "wedge", "plus", "cross")
"""Their number shares no factor with that of the colours: 56 methods all differ."""
DASHES = ((), (6, 3), (2, 2), (8, 2, 2, 2))
"""Lengths of strokes and gaps, in pixels."""


@dataclass(frozen=True)
class Look:
    """The look of a method: index of its colour, None for grey, a name of MARKS, and a dash."""

    colour: int | None = None
    mark: str = MARKS[0]
    dash: tuple[int, ...] = ()


PLAIN = Look()
"""The look of what has none of its own."""
RIVAL = Look(None, "diamond")
"""The look of other checkpoints, which prune nothing."""


def looks_of(controls: Mapping[str, bool]) -> dict[str, Look]:
    """A look for each name; True for controls, which are grey."""

    def of(number: int, control: bool) -> Look:
        dash = DASHES[number // len(COLOURS) % len(DASHES)]
        return Look(None if control else number % len(COLOURS), MARKS[number % len(MARKS)], dash)

    ordinary = [name for name, control in controls.items() if not control]
    grey = [name for name, control in controls.items() if control]
    found = {name: of(i, False) for i, name in enumerate(ordinary)}
    return found | {name: of(i, True) for i, name in enumerate(grey)}


def level_dash(number: int) -> Sequence[int]:
    """The dash of a horizontal or vertical line for a method that keeps every weight."""
    return DASHES[number % len(DASHES)]
