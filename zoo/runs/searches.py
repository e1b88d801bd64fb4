"""How `--tune N` finds candidates: at random, by successive halving, or by Optuna. A search asks
for candidates until it has nothing more to ask, and is told how they did."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from zoo.errors import ConfigError
from zoo.parts.ranges import Ranges

Chosen = Mapping[str, Any]
"""Values by name."""


@dataclass(frozen=True)
class Wish:
    """Values to be tried; `steps` cuts the training short, None for all steps of the recipe."""

    values: Chosen
    steps: int | None = None


@dataclass(frozen=True)
class Tried:
    """A candidate that ran: its metric (None if it diverged or failed), the fraction of weights
    that it kept, and whether that is no more than its target."""

    values: Chosen
    metric: float | None
    kept: float | None
    eligible: bool
    steps: int | None = None

    @property
    def rank(self) -> float:
        """The metric, or less than every metric."""
        return self.metric if self.eligible and self.metric is not None else -math.inf


@dataclass(frozen=True)
class Space:
    """What is searched: the recipe's `values` and their `ranges`, `number` candidates of trainings
    of `steps` steps. `shared` seeds the draws; methods share it."""

    values: Chosen
    ranges: Ranges
    number: int
    shared: str
    steps: int

    def random(self) -> list[Chosen]:
        """The recipe's values, then independent draws. More candidates begin with the same ones."""
        number = self.number if self.ranges else 1
        return [self.values, *(self.at(self.places(i)) for i in range(1, number))]

    def places(self, candidate: int) -> dict[str, float]:
        """Where a candidate lies in each range, in [0, 1)."""
        drawn = {n: np.random.default_rng(self.seed(n)).random(self.number) for n in self.ranges}
        return {name: float(places[candidate]) for name, places in drawn.items()}

    def at(self, places: Mapping[str, float]) -> Chosen:
        """The values at places in the ranges."""
        return {n: one.draw(self.values[n], places[n]) for n, one in self.ranges.items()}

    def seed(self, name: str = "") -> int:
        """A seed from what methods share, and the name of a value."""
        digest = hashlib.sha256(f"{self.shared} {name}".encode()).digest()
        return int.from_bytes(digest[:4], "big")


class Search:
    """Asks for candidates until it has nothing more to ask, and is told how they did; `tried` are
    all that ran, in order. `shortens` says that it compares trainings which are cut short."""

    shortens = False

    def __init__(self, space: Space):
        self.space, self.tried = space, list[Tried]()

    @classmethod
    def check(cls) -> None:
        """Raise ConfigError if the search lacks what it needs."""

    def ask(self) -> Sequence[Wish]:
        """The candidates that are to run now; none at the end."""
        raise NotImplementedError

    def tell(self, found: Sequence[Tried]) -> None:
        """Take in how the candidates did that were asked for."""
        self.tried += found


class Random(Search):
    """All candidates at once (Bergstra and Bengio 2012)."""

    def ask(self) -> Sequence[Wish]:
        """All candidates, then none."""
        return [] if self.tried else [Wish(values) for values in self.space.random()]


LEAST = 4
"""Steps that a schedule needs."""


class Halving(Search):
    """Successive halving (Jamieson and Talwalkar 2016): all candidates train for a quarter of the
    steps, the better half of them for half of the steps, the better half of these to the end. Each
    training is a short one of its own, with its whole schedule."""

    shortens = True

    def __init__(self, space: Space):
        super().__init__(space)
        self._candidates = space.random()
        self._rungs: Iterator[int | None] = iter(
            [max(space.steps // 4, LEAST), max(space.steps // 2, LEAST), None]
        )

    def ask(self) -> Sequence[Wish]:
        """The candidates that are left, for longer than before; none after the last time."""
        steps = next(self._rungs, 0)
        return [] if steps == 0 else [Wish(values, steps) for values in self._candidates]

    def tell(self, found: Sequence[Tried]) -> None:
        """Keep the better half as candidates."""
        super().tell(found)
        better = sorted(found, key=lambda tried: -tried.rank)[: math.ceil(len(found) / 2)]
        self._candidates = [tried.values for tried in better]


class Optuna(Search):
    """Tree-structured Parzen estimators (Bergstra et al. 2011) by Optuna, over places in ranges.
    The first half of the candidates is that of the random search, the others come one at a time."""

    def __init__(self, space: Space):
        super().__init__(space)
        import optuna  # an extra of this project

        self._optuna: Any = optuna
        self._optuna.logging.set_verbosity(self._optuna.logging.ERROR)
        self._first = space.random()[: max(math.ceil(space.number / 2), 2)]
        sampler = self._optuna.samplers.TPESampler(seed=space.seed(), n_startup_trials=1)
        self._study = self._optuna.create_study(direction="maximize", sampler=sampler)
        unit = self._optuna.distributions.FloatDistribution(0.0, 1.0)
        self._distributions = dict.fromkeys(space.ranges, unit)
        self._asked: Any = None

    @classmethod
    def check(cls) -> None:
        """Raise ConfigError without the package."""
        if find_spec("optuna") is None:
            raise ConfigError(
                "--search optuna needs the package optuna: pip install optuna, or leave --search"
                " out for a random search"
            )

    def ask(self) -> Sequence[Wish]:
        """The first half of the candidates, then one after another."""
        if len(self.tried) >= (self.space.number if self.space.ranges else 1):
            return []
        if not self.tried:
            return [Wish(values) for values in self._first]
        self._asked = self._study.ask(self._distributions)
        return [Wish(self.space.at(self._asked.params))]

    def tell(self, found: Sequence[Tried]) -> None:
        """Learn from how they did; what does not count is as bad as a metric of -100."""
        for candidate, one in enumerate(found, len(self.tried)):
            if self._asked is not None:
                self._study.tell(self._asked, max(one.rank, -100.0))
            elif places := self._known_places(candidate):
                trial = self._optuna.trial.create_trial(
                    params=places, distributions=self._distributions, value=max(one.rank, -100.0)
                )
                self._study.add_trial(trial)
        super().tell(found)

    def _known_places(self, candidate: int) -> dict[str, float]:
        """The places of a candidate of the random search; {} where the recipe's values have
        none."""
        if candidate:
            return self.space.places(candidate)
        own = {n: one.place_of(self.space.values[n]) for n, one in self.space.ranges.items()}
        known = {name: place for name, place in own.items() if place is not None}
        return known if len(known) == len(own) else {}


SEARCHES: dict[str | None, type[Search]] = {
    None: Random,
    "optuna": Optuna,
    "halving": Halving,
}
"""The values of --search, None without it."""
