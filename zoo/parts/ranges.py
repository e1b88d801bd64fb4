"""Ranges: where the candidates of `--tune N` come from. They stand beside a method's recipe.

A range is about one value of the recipe, a training value or a hyper-parameter. Factors are
relative to the recipe's value, so that a range fits every scale, model and task.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zoo.errors import ConfigError
from zoo.parts.recipes import Values


@dataclass(frozen=True)
class Times:
    """The recipe's number times a factor between `low` and `high`, log-uniform (Bergstra and Bengio
    2012); 0 < low <= 1 <= high, so that the recipe's own value is inside.

    >>> from zoo import Times
    >>> Times(0.25, 4).draw(0.02, 0.75)
    0.04
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low <= 1 <= self.high < math.inf or self.low == self.high:
            raise ConfigError(f"Times needs 0 < low <= 1 <= high, got {self.low}, {self.high}")

    def draw(self, value: float, place: float) -> float:
        """The number at `place` in [0, 1], with three digits; a whole number of at least 1 where
        the recipe's is whole."""
        drawn = value * self.low * (self.high / self.low) ** place
        return max(round(drawn), 1) if isinstance(value, int) else float(f"{drawn:.3g}")

    def place_of(self, value: float) -> float:
        """The place of the recipe's number."""
        return math.log(1 / self.low) / math.log(self.high / self.low)

    def __str__(self) -> str:
        return f"times {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Among:
    """One of several values, each as likely.

    >>> from zoo import Among
    >>> Among("linear", "cubic").draw("cubic", 0.2)
    'linear'
    """

    values: tuple[Any, ...]

    def __init__(self, *values: Any) -> None:
        if not all(isinstance(one, str | int | float) for one in values) or len(set(values)) < 2:
            raise ConfigError(
                f"Among needs two different texts or numbers at least, got {values!r:.80}"
            )
        object.__setattr__(self, "values", values)

    def draw(self, value: Any, place: float) -> Any:
        """The value at `place` in [0, 1]."""
        return self.values[min(int(place * len(self.values)), len(self.values) - 1)]

    def place_of(self, value: Any) -> float | None:
        """The place of a value, None if it is not one of them."""
        known = value in self.values
        return (self.values.index(value) + 0.5) / len(self.values) if known else None

    def __str__(self) -> str:
        return "one of " + ", ".join(map(str, self.values))


Range = Times | Among
Ranges = Mapping[str, Range]
"""Name of a value -> its range."""

SAME = ("steps", "epochs", "max_length", "evaluate_every", "accumulation")
"""Training values that all candidates share, so that none has a larger budget."""
RATE = Times(0.25, 4.0)
"""The default range of a learning rate."""
RATES: Ranges = {"lr_weights": RATE, "lr_head": RATE, "lr_scores": RATE}
"""The ranges of a method that was registered without ranges."""


def checked(ranges: Any, what: str) -> Ranges:
    """The ranges of a registration, or RATES for None; ConfigError for something else."""
    if ranges is None:
        return RATES
    if not isinstance(ranges, Mapping) or not all(isinstance(name, str) for name in ranges):
        raise ConfigError(f"{what}: ranges must be a dict, got {ranges!r:.80}")
    for name, one in ranges.items():
        if name in SAME:
            raise ConfigError(f"{what}: {name} is the same for all candidates and has no range")
        if not isinstance(one, Times | Among):
            raise ConfigError(
                f"{what}: the range of {name} must be zoo.Times or zoo.Among, got {one!r:.80}"
            )
    return dict(ranges)


def applicable(ranges: Ranges, values: Values) -> Ranges:
    """The ranges of values that there are; a rate of 0 trains nothing, and a factor of it is 0.
    Raises ConfigError for a factor of what is no number."""
    there = {name: values[name].value for name in ranges if name in values}
    for name, value in there.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if isinstance(ranges[name], Times) and not number:
            raise ConfigError(f"the range of {name} is a factor, but its value is {value!r:.40}")
    return {n: ranges[n] for n, value in there.items() if isinstance(ranges[n], Among) or value}
