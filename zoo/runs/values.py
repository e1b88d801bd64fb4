"""The values of a cell and their sources: the method's recipe, then the scale, then the suite."""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from zoo.errors import ConfigError, unknown
from zoo.inputs.checkpoint import Checkpoint
from zoo.parts.recipes import OURS, VERSIONS, Recipe, Request, Value, Values
from zoo.records.facts import MethodFacts
from zoo.records.result import GIVEN
from zoo.records.trial import training_names
from zoo.registry import Entry, blaming, methods, tasks
from zoo.runs.suites import Cell, Scale

CALIBRATED = f"{OURS}: python -m zoo.tools.calibrate, with the released recipe"
"""The source of values that were chosen for a scale."""
PUBLISHED = ("bert", "roberta")
"""Kinds of models that the papers train; the rates of others are BERT's."""
RATES = ("lr_weights", "lr_head", "lr_scores")
NO_RUN = "no run is known that gives its penalty; leave it out"


class NoPenalty(ConfigError):
    """No known run says which penalty leaves the density that was asked for."""


@dataclass(frozen=True)
class Resolved:
    """The values of a cell with their sources: for training, and the method's hyper-parameters."""

    train: Values
    hyper: Values

    @property
    def sources(self) -> dict[str, str]:
        """The source of each value by its name."""
        return {name: value.source for name, value in (self.train | self.hyper).items()}

    @property
    def notes(self) -> list[str]:
        """What the user must know about these values."""
        return [value.note for value in (self.train | self.hyper).values() if value.note]


def recipe_of(entry: Entry[MethodFacts]) -> tuple[str, Recipe]:
    """The method whose recipe a method uses (often itself), and the recipe.

    Raises ConfigError if there is none: the message lists the methods that have one.
    """
    owner, seen = entry, [entry.name]
    while isinstance(owner.recipe, str):
        if owner.recipe not in methods or owner.recipe in seen:
            raise ConfigError(f"method {entry.name} ({entry.origin}): {_no_recipe(owner.recipe)}")
        owner = methods[owner.recipe]
        seen.append(owner.name)
    if owner.recipe is None:
        raise ConfigError(
            f"method {entry.name} ({entry.origin}) has no recipe: register it with"
            f" register_method(..., recipe=NAME), NAME one of {', '.join(_with_recipe())}, or"
            " recipe=FUNCTION, a function of a zoo.Request"
        )
    return owner.name, owner.recipe


def _with_recipe() -> list[str]:
    return [entry.name for entry in methods if callable(entry.recipe)]


def _no_recipe(name: str) -> str:
    return f"recipe={name!r:.80} names no method with a recipe. " + unknown(
        "recipe", name, _with_recipe()
    )


def resolve(cell: Cell, scale: Scale, version: str, checkpoint: Checkpoint) -> Resolved:
    """The values of a cell. Raises ConfigError where a value is not known: no recipe for the method
    or the task, or no run that says which penalty leaves the density."""
    entry = methods[cell.method]
    owner, recipe = recipe_of(entry)
    given = {n: v if isinstance(v, Value) else Value(v, GIVEN) for n, v in cell.given}
    request = Request(
        version=version,
        task=str(tasks[cell.task].recipe or cell.task),
        density=cell.density,
        distill=cell.distill,
        model_type=checkpoint.model_type,
        has_mlm_head=checkpoint.has_mlm_head,
    )
    train, hyper = _called(entry, recipe, request)
    if checkpoint.model_type not in PUBLISHED:
        train |= {name: _as_bert(train[name]) for name in RATES if name in train}
    drives = "penalty" in (entry.facts.drives, methods[owner].facts.drives)
    if drives and "penalty" not in given:
        own = (penalty_for(name, cell, request.task, scale) for name in (entry.name, owner))
        known = next(filter(None, own), None) or hyper.get("penalty")
        if known is None:
            raise NoPenalty(f"{_what(entry.name, cell)}: {NO_RUN}")
        hyper["penalty"] = known
    _at_scale(scale, methods.teacher if entry.may_retrain else owner, drives, train, hyper)
    if "epochs" in given and "steps" not in given:
        train.pop("steps", None)
    train |= {name: value for name, value in given.items() if name in training_names()}
    if "max_length" in train and train["max_length"].value > checkpoint.positions:
        reason = "the model has no more positions"
        train["max_length"] = Value(checkpoint.positions, reason)
    hyper |= {name: value for name, value in given.items() if name not in training_names()}
    if owner == entry.name:
        _check_taken(entry, hyper, given)
    taken = {n: v for n, v in hyper.items() if n in given or entry.takes(n)}
    return Resolved(train, taken)


def _as_bert(value: Value) -> Value:
    """A learning rate for a kind of model that the papers do not train."""
    return replace(value, source=f"{OURS}: as BERT ({value.source})") if value.value else value


def _called(entry: Entry[MethodFacts], recipe: Recipe, request: Request) -> tuple[Values, Values]:
    """What a recipe returns; a ConfigError if its own code raises or returns something else."""
    what = f"the recipe of method {entry.name}"
    with blaming(what, entry):
        train, hyper = (dict(values) for values in recipe(request))
    for name, value in (train | hyper).items():
        if not isinstance(value, Value):
            raise ConfigError(
                f"{what} ({entry.origin}) must return zoo.Value(value, source) for {name}"
            )
    return train, hyper


def _check_taken(entry: Entry[MethodFacts], hyper: Values, given: Values) -> None:
    """Raise ConfigError for a hyper-parameter that a method's own recipe gives and its factory does
    not take; a recipe that several methods share may give more."""
    same = (entry.recipe, entry.name)
    shared = any(other.recipe in same for other in methods if other.name != entry.name)
    for name in () if shared else hyper:
        if name not in given and not entry.takes(name):
            raise ConfigError(
                f"method {entry.name} ({entry.origin}): its recipe gives {name}, which its factory"
                f" does not take; it takes {', '.join(entry.parameters) or 'the density alone'}"
            )


def _at_scale(scale: Scale, owner: str, drives: bool, train: Values, hyper: Values) -> None:
    """Replace what the scale replaces: training values, and what was chosen for the method. The
    scale's learning rates are for chosen ones: a recipe that nothing was chosen for keeps its
    own."""
    chosen = choices(scale.choices).get(owner, {}) if scale.choices else {}
    for name, value in scale.values.items():
        if chosen or not (name.startswith("lr_") and name in train):
            train[name] = value
    if "steps" in scale.values:
        train.pop("epochs", None)
    for name in ("lr_weights", "lr_scores"):
        if name in chosen:
            train[name] = Value(chosen[name], CALIBRATED)
    if "lr_weights" in chosen:
        train["lr_head"] = train["lr_weights"]
    if "penalty" in chosen and not drives:
        hyper["penalty"] = Value(chosen["penalty"], CALIBRATED)


@lru_cache
def choices(path: Path) -> Mapping[str, Mapping[str, float]]:
    """method -> the learning rates (and penalty) that were chosen among its candidates."""
    found = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["chosen"] == "yes":
                names = ("lr_weights", "lr_scores", "penalty")
                found[row["method"]] = {n: float(row[n]) for n in names if row[n]}
    return found


Points = list[tuple[float, float]]
"""(remaining weights in [0, 1], penalty), most remaining first."""


@dataclass(frozen=True)
class PenaltyRuns:
    """Runs with known penalties: by (method, task, distill), and where they come from."""

    points: Mapping[tuple[str, str, bool], Points]
    source: str

    def of(self, method: str) -> bool:
        """Whether the file has a run of the method."""
        return any(name == method for name, _, _ in self.points)


@lru_cache
def penalty_runs(path: Path) -> PenaltyRuns:
    """The runs of a file. Its first line is the source, then columns method, task, distill, penalty
    and remaining (percent of the prunable weights)."""
    points: dict[tuple[str, str, bool], Points] = {}
    with path.open(newline="", encoding="utf-8") as file:
        source = file.readline().strip()
        for row in csv.DictReader(file):
            key = row["method"], row["task"], row["distill"] == "yes"
            points.setdefault(key, []).append(
                (float(row["remaining"]) / 100, float(row["penalty"]))
            )
    return PenaltyRuns({key: sorted(found, reverse=True) for key, found in points.items()}, source)


def penalty_for(method: str, cell: Cell, task: str, scale: Scale) -> Value | None:
    """The penalty for a cell's density times the scale's aim, log-linear between the two nearest
    known runs on its task or on the task of the papers; None if the scale knows no run of the
    method at all.

    Raises NoPenalty outside the range of the runs, or if there are none for the task.
    """
    runs = penalty_runs(scale.penalties) if scale.penalties else PenaltyRuns({}, "")
    if not runs.of(method):
        return None
    own = (runs.points.get((method, name, cell.distill)) for name in (cell.task, task))
    points = next(filter(None, own), None)
    what = _what(method, cell)
    if points is None:
        raise NoPenalty(f"{what}: {NO_RUN}")
    high, low, wanted = points[0][0], points[-1][0], scale.aim * cell.density
    if not low <= wanted <= high:
        raise NoPenalty(
            f"{what}: known runs reach from {low:.2%} to {high:.2%} remaining weights, not"
            f" {wanted:.2%}; leave it out there"
        )
    aim = f", at {scale.aim:g} of the target" if scale.aim != 1 else ""
    return Value(_between(points, wanted), f"{runs.source}, log-linear between runs{aim}")


def _what(method: str, cell: Cell) -> str:
    return f"method {method} on {cell.task}" + " with distillation" * cell.distill


def _between(points: Points, density: float) -> float:
    for (d1, p1), (d2, p2) in pairwise(points):
        if d2 <= density <= d1:
            part = 0.0 if d1 == d2 else (d1 - density) / (d1 - d2)
            if p1 <= 0 or p2 <= 0:
                return p1 + part * (p2 - p1)
            return math.exp(math.log(p1) + part * (math.log(p2) - math.log(p1)))
    return points[0][1]


def check_version(version: str) -> None:
    """Raise ConfigError unless recipes have this version."""
    if version not in VERSIONS:
        raise ConfigError(unknown("recipe", version, VERSIONS))
