"""Trials: what is run, as values that fit JSON, and the id that names the outcome."""

import hashlib
import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, fields, replace
from functools import cached_property
from typing import Any

from zoo.errors import ConfigError
from zoo.records.codec import Record, fields_of, omitted, to_json

SLUG = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
"""Names that users give, which files are named by."""
SLUG_WORDS = "1 to 64 of a-z, 0-9, '_', '.', '-' and start with a letter or digit"
OUTCOMES = 2
"""Version of what trials give; part of every id. Raise it with a change that alters outcomes."""


def condition(default: Any, words: str, help: str, **limits: Any) -> Any:
    """A field of Conditions: `words` describe a table of such trials ({} is the value), `help` is
    for the command line, `limits` are `choices` or `least`."""
    return omitted(default, words=words, help=help, **limits)


@dataclass(frozen=True)
class Conditions(Record):
    """How trials deviate from their recipe. Trials under different conditions never share a table,
    and only trials under the default conditions are compared with published numbers.

    Each field is an option of run_benchmark.py and is not written while it has its default.
    """

    max_steps: int | None = condition(
        None,
        "SHORTENED to at most {} steps",
        "stop trainings early; results are marked as shortened",
        least=1,
    )
    """Optimiser steps at which training is cut; None for all steps of the recipe."""
    precision: str = condition(
        "float32",
        "trained in {}",
        "of matrix products in training: float32 (default) or bfloat16",
        choices=("float32", "bfloat16"),
    )
    """Precision of matrix products in training; scores, weights and evaluation are always
    float32."""
    compile: bool = condition(False, "compiled", "train with torch.compile, for GPUs")
    """Whether the layers of the encoder are compiled by torch.compile for training."""
    tune: int | None = condition(
        None,
        "TUNED, {} candidates each",
        "choose values among so many candidates per method, task and target, then run",
        least=2,
    )
    """Candidates among which the values were chosen; None for the recipe's values."""
    search: str | None = condition(
        None,
        "candidates by {}",
        "how --tune finds candidates, if not at random: optuna, or halving",
        choices=("optuna", "halving"),
    )
    """How the candidates were found, None for a random search; of no meaning without `tune`."""

    def __post_init__(self) -> None:
        for f in fields(Conditions):
            value, choices = getattr(self, f.name), f.metadata.get("choices")
            if choices and value not in (*choices, f.default):
                raise ConfigError(f"{f.name} must be {' or '.join(choices)}, got {value!r}")
            least = f.metadata.get("least")
            if least is not None and value is not None and value < least:
                raise ConfigError(f"{f.name} must be at least {least}, got {value!r}")
        if self.tune is None and self.search is not None:
            raise ConfigError("--search says how --tune N finds candidates: give --tune too")

    @property
    def conditions(self) -> "Conditions":
        """These conditions alone, with unknown ones, which a later version wrote."""
        own = {f.name: getattr(self, f.name) for f in condition_fields()}
        return Conditions(**own, extra=self.extra)

    @property
    def untuned(self) -> "Conditions":
        """The same conditions for trials whose values were not chosen among candidates."""
        return replace(self, tune=None, search=None)

    @property
    def words(self) -> list[str]:
        """A phrase per condition that is not the default, for titles and verdicts."""
        own = [(f, getattr(self, f.name)) for f in condition_fields()]
        words = [f.metadata["words"].format(value) for f, value in own if value != f.default]
        return words + [f"{name} {value}" for name, value in sorted(self.extra.items())]

    @property
    def options(self) -> list[str]:
        """The words of a command line that asks for these conditions."""
        words: list[str] = []
        for f in condition_fields():
            value = getattr(self, f.name)
            if value != f.default:
                words += [option_of(f)] if value is True else [option_of(f), str(value)]
        return words


def condition_fields() -> list[Field[Any]]:
    """The fields of Conditions, in order."""
    return list(fields_of(Conditions))


def option_of(f: Field[Any]) -> str:
    """The command-line option of a condition: '--max-steps'."""
    return "--" + f.name.replace("_", "-")


@dataclass(frozen=True, kw_only=True)
class Training(Conditions):
    """The values that a trial trains with. Raises ConfigError for a value outside its range.

    Steps are optimiser steps. Learning rates are peaks: they rise linearly from 0 during the
    warm-up and fall linearly to 0 at the end.
    """

    batch: int
    """Examples per step, at least 1, also where they take several passes."""
    warmup: float
    """Fraction of the run during which learning rates rise, in [0, 1)."""
    lr_weights: float
    """Peak learning rate of pre-trained parameters, at least 0."""
    lr_head: float
    """Peak learning rate of parameters that no checkpoint gave, at least 0."""
    lr_scores: float
    """Peak learning rate of scores, at least 0."""
    max_length: int
    """Tokens of the longest input, at least 1; longer inputs are cut or read in windows."""
    clip: float
    """Largest L2 norm of all gradients together, greater than 0."""
    betas: tuple[float, ...]
    """Decay rates of AdamW's two moments, each in [0, 1)."""
    epsilon: float
    """AdamW's epsilon, greater than 0."""
    weight_decay: float
    """AdamW's decoupled weight decay per step at learning rate 1, at least 0; never for scores."""
    evaluate_every: int
    """Steps between evaluations; 0 evaluates at the end only."""
    epochs: int | None = omitted(None)
    """Passes over the training set, at least 1; not used where `steps` is given."""
    steps: int | None = omitted(None)
    """Steps of the whole run, at least 1; takes precedence over `epochs`."""
    accumulation: int = omitted(1)
    """Passes of batch / accumulation examples in which a step's gradients are computed, one after
    another, at least 1: more of them need less memory. A divisor of `batch`."""
    task_weight: float | None = omitted(None)
    """Weight of the task's own loss beside distillation, at least 0; None without distillation."""
    teacher_weight: float | None = omitted(None)
    """Weight of the distillation loss, at least 0; None without distillation."""
    temperature: float | None = omitted(None)
    """Temperature of distillation, greater than 0; None without distillation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, (least, open_end) in LEAST.items():
            value = getattr(self, name)
            if value is not None and not (value > least or (value == least and not open_end)):
                bound = "greater than" if open_end else "at least"
                raise ConfigError(f"{name} must be {bound} {least}, got {value!r}")
        for name, values in (("warmup", [self.warmup]), ("betas", self.betas)):
            if not all(0 <= value < 1 for value in values):
                raise ConfigError(f"{name} must be in [0, 1), got {getattr(self, name)!r}")
        if len(self.betas) != 2:
            raise ConfigError(f"betas must be two numbers, got {self.betas!r}")
        if self.steps is None and self.epochs is None:
            raise ConfigError("training needs epochs or steps, and has neither")
        if self.batch % self.accumulation:
            raise ConfigError(
                f"accumulation must divide batch, {self.batch}; got {self.accumulation}"
            )

    def recipe_steps(self, examples: int) -> int:
        """Optimiser steps of the whole recipe on a training set of `examples`."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return self.epochs * math.ceil(examples / self.batch)

    def planned_steps(self, examples: int) -> int:
        """Optimiser steps that are taken: the recipe's, or `max_steps` if that is fewer."""
        steps = self.recipe_steps(examples)
        return min(steps, self.max_steps or steps)


LEAST = {
    **dict.fromkeys(("batch", "max_length", "epochs", "steps", "accumulation"), (1, False)),
    **dict.fromkeys(("lr_weights", "lr_head", "lr_scores", "weight_decay"), (0, False)),
    **dict.fromkeys(("evaluate_every", "task_weight", "teacher_weight"), (0, False)),
    **dict.fromkeys(("clip", "epsilon", "temperature"), (0, True)),
}
"""Least value of each field, and whether the value must be greater."""


def training_names() -> frozenset[str]:
    """The names of all training values, conditions excluded."""
    own = {f.name for f in fields(Training)} - {f.name for f in fields(Conditions)}
    return frozenset(own)


IN_WORDS = ("pattern", "allocation")
"""Hyper-parameters of every method that `Trial.in_words` names."""


@dataclass(frozen=True)
class Trial(Record):
    """One run. Every field that changes the outcome is in the id.

    `model` and `data` are names for people, `model_sha` and `data_sha` identify the content;
    `density` is the fraction of weights to keep, in (0, 1]; `train` and `hyper` are the resolved
    values for training and for the method; `teacher` is the id of the dense trial whose outputs
    this one learns from, if any; `plugin_sha` is the hash of the user's file that defines the
    method or the task, if there is one; `choosing` says that values are being chosen: a part of
    the training set takes the place of the evaluation set (zoo/inputs/choosing.py).
    """

    scale: str
    model: str
    model_sha: str
    task: str
    data: str
    data_sha: str
    method: str
    density: float
    distill: bool
    seed: int
    recipe: str
    train: Training
    hyper: Mapping[str, Any]
    teacher: str = ""
    plugin_sha: str = ""
    choosing: bool = omitted(False)

    def __post_init__(self) -> None:
        for name in ("scale", "task", "method", "recipe"):
            if not SLUG.fullmatch(getattr(self, name)):
                raise ConfigError(f"{name} must be {SLUG_WORDS}, got {getattr(self, name)!r:.80}")
        if not 0 < self.density <= 1:
            raise ConfigError(f"density must be in (0, 1], got {self.density!r:.40}")

    @property
    def settings(self) -> dict[str, Any]:
        """Training values and hyper-parameters by name, as they are written."""
        return {**to_json(self.train), **self.hyper}

    @property
    def in_words(self) -> str:
        """How a suite changed the method, by which rows of one method are told apart: its pattern,
        how density is shared, whether it was retrained."""
        given = [self.hyper.get(name) for name in IN_WORDS]
        given += ["retrained"] if self.hyper.get("retrain") is True else []
        return " ".join(str(value) for value in given if value)

    @cached_property
    def id(self) -> str:
        """A readable prefix and 12 hex digits of the sha256 of all fields but the names: trials of
        equal outcome have equal ids, in every suite and folder."""
        content = to_json(self)
        del content["model"], content["data"]
        text = canonical({**content, "outcomes": OUTCOMES})
        distilled = "-distill" if self.distill else ""
        readable = f"{self.task}-{self.method}-{self.density:g}{distilled}-seed{self.seed}"
        return f"{readable}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def canonical(value: Any) -> str:
    """JSON with sorted keys and without spaces; raises ValueError for NaN and infinities."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def command_of(suite: str, options: Sequence[str], trials: Sequence[Trial]) -> str:
    """The command that runs trials of a suite again that differ in method, density, task and seed
    alone; `options` are the rest of the command that they were run with."""
    one = trials[0]
    words = ["python", "run_benchmark.py", "--suite", suite, "--scale", one.scale, *options]
    words += ["--recipe", one.recipe, "--distill", "on" if one.distill else "off"]
    words += ["--methods", ",".join(dict.fromkeys(trial.method for trial in trials))]
    densities = [trial.density for trial in trials if trial.density < 1] or [1.0]
    words += ["--densities", ",".join(map(str, dict.fromkeys(densities)))]
    words += ["--tasks", ",".join(sorted({trial.task for trial in trials}))]
    words += ["--seeds", ",".join(map(str, sorted({trial.seed for trial in trials})))]
    return shlex.join(words + one.train.conditions.options)
