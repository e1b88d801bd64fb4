"""Recipes: where the values of a trial come from. Each method registers one beside its factory.

A recipe has two versions: `released`, what the authors' public code and run logs do, and `paper`,
their text taken literally. Points in training are fractions of the run: a published step number
over the published number of steps, so a run of that length has exactly those steps. Values that no
source gives are marked "ours".
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

VERSIONS = ("released", "paper")
"""The values of --recipe; the first is the default."""
OURS = "ours"
"""How the source of a value begins that no publication gives."""


@dataclass(frozen=True)
class Value:
    """A value and its source; `note` is what the user must know wherever it is used, if anything.

    >>> from zoo import Value
    >>> Value(32, "ours").source
    'ours'
    """

    value: Any
    source: str
    note: str = ""


Values = dict[str, Value]


def share(steps: int, total: int, source: str) -> Value:
    """A moment as a fraction of the run, with the published steps in its source.

    >>> from zoo import share
    >>> share(12_000, 48_000, "run log").value
    0.25
    """
    whole = f"{total:,} in all (epochs * examples / batch)"
    return Value(steps / total, f"{source}: {steps:,} steps; {whole}")


@dataclass(frozen=True)
class Request:
    """What a recipe is asked for.

    `version` is "released" or "paper"; `task` is the task of the papers whose values are wanted;
    `density` is in (0, 1]; `distill` says whether a teacher takes part; `model_type` and
    `has_mlm_head` describe the checkpoint.

    >>> from zoo import Request
    >>> Request("released", "mnli", 0.1).distill
    False
    """

    version: str
    task: str
    density: float
    distill: bool = False
    model_type: str = "bert"
    has_mlm_head: bool = True


Recipe = Callable[[Request], tuple[Values, Values]]
"""Request -> (training values, hyper-parameters), each by name with its source."""
