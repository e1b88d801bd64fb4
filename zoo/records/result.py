"""Results: what a trial gave, in typed parts, and why a trial has none."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zoo.records.arrays import Answers, Distribution, check_sketch, planes_of
from zoo.records.codec import LONG, Record, omitted
from zoo.records.facts import MethodFacts
from zoo.records.forms import MOST_LAYERS, Form
from zoo.records.trial import Trial

SCHEMA = 4
"""Version of the result files. Raise it with an incompatible change, and add a converter to
zoo/records/earlier.py; a new field with a default needs neither."""

MOST_METRICS = 50
"""Metrics of a task for which tables have room."""
OK, DIVERGED = "ok", "diverged"
"""What a trial's status may be."""

Metrics = Mapping[str, float | None]
"""Percent by name of metric; None where the metric is undefined."""


def check_metrics(metrics: Metrics) -> None:
    """Raise ValueError for a metric that is no percentage, from -100 to 100, and for more metrics
    than a table has room for."""
    if len(metrics) > MOST_METRICS:
        raise ValueError(f"there are {len(metrics):,} metrics, more than {MOST_METRICS}")
    for name, value in metrics.items():
        if value is not None and abs(value) > 100.001:
            raise ValueError(f"{name} must be a percentage, from -100 to 100, got {value!r:.40}")


@dataclass(frozen=True)
class Best(Record):
    """The best evaluation at the final density, by the task's first metric.

    `candidates` counts the evaluations that it was chosen from, `step` is when it was made.
    """

    candidates: int
    step: int | None = None
    metrics: Metrics = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_metrics(self.metrics)


@dataclass(frozen=True)
class Point(Record):
    """One evaluation during training, after `step` optimiser steps.

    `level` is what the schedule asked for, `loss` the last training loss without the penalty (None
    where nothing trained),
    `remaining` the fraction of weights that remain, in [0, 1].
    """

    step: int
    level: float | None
    loss: float | None
    remaining: float
    metrics: Metrics

    def __post_init__(self) -> None:
        check_metrics(self.metrics)
        if not 0 <= self.remaining <= 1:
            raise ValueError(f"remaining must be in [0, 1], got {self.remaining!r:.40}")


@dataclass(frozen=True)
class Matrix(Record):
    """Remaining weights of one prunable matrix.

    `kept` and `total` count entries; `layer` counts from 0; `role` is Q, K, V, O, U, D or QKV;
    `attention_heads` holds the density of each attention head, empty for U and D and without masks.
    """

    kept: int
    total: int
    layer: int
    role: str
    attention_heads: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.kept <= self.total or self.total < 1:
            raise ValueError(f"kept must be in [0, total], got {self.kept} of {self.total}")
        if not 1 <= len(self.role) <= 8:
            raise ValueError(f"role must have 1 to 8 letters, got {self.role!r:.40}")
        if not 0 <= self.layer < MOST_LAYERS:
            raise ValueError(f"layer must be in [0, {MOST_LAYERS}), got {self.layer}")
        if len(self.attention_heads) > MOST_LAYERS:
            raise ValueError(f"there are more than {MOST_LAYERS} attention_heads")
        if not all(0 <= density <= 1 for density in self.attention_heads):
            raise ValueError("attention_heads must be in [0, 1]")


@dataclass(frozen=True)
class Remaining(Record):
    """Remaining weights, measured from what multiplies W in evaluation.

    `density` is kept over all entries of the prunable matrices; `encoder_density` counts biases
    and LayerNorm of the layers as kept weights too (Sanh 2020); `matrices` by name in the encoder.
    """

    density: float
    encoder_density: float
    matrices: Mapping[str, Matrix]

    def __post_init__(self) -> None:
        if not 0 <= self.density <= 1:
            raise ValueError(f"density must be in [0, 1], got {self.density}")


@dataclass(frozen=True)
class Parameters(Record):
    """Counts of parameters.

    `trainable`: all that the optimiser updates, scores included. `values`: remaining weights of
    matrices that were trained. `other`: everything else that was trained (biases, LayerNorm,
    embeddings, head). `mask_bits`: one per prunable weight, or unit, where there is a mask. `new`:
    what the task adds to the shared pre-trained model, values + other + mask_bits / 32.
    `artifact_bytes`: the same in bytes, float32 values and packed bits.
    """

    trainable: int
    values: int
    other: int
    mask_bits: int
    new: int
    artifact_bytes: int


@dataclass(frozen=True)
class Steps(Record):
    """Optimiser steps: `taken`, `planned` for this trial, and those of the whole `recipe`."""

    taken: int
    planned: int
    recipe: int


@dataclass(frozen=True)
class HeadFacts(Record):
    """The output head: its name, its label words and the task's class names, in output order."""

    name: str
    words: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Divergence(Record):
    """Where a loss or gradient was not finite: the step, counted from 0, and the value's text."""

    step: int
    value: str


@dataclass(frozen=True)
class Cost(Record):
    """Time and memory; two runs of the same trial may differ.

    `seconds` in all, `evaluation_seconds` of them in evaluation; `peak_bytes` allocated on the GPU,
    or resident in this process on a CPU. `step_seconds`: one optimiser step, the mean over the run
    without evaluation and loading; None if it was not measured. `judging_seconds`: judging by a
    process apart, not part of `seconds`.
    """

    seconds: float
    evaluation_seconds: float
    peak_bytes: int
    step_seconds: float | None = None
    judging_seconds: float | None = omitted(None)


@dataclass(frozen=True)
class Judgement(Record):
    """Who measured a result. `apart`: a process that ran no plugin, from the model's files; else
    `reason` says why that could not be. `claims`: the metrics that the training process gave."""

    apart: bool
    claims: Metrics
    reason: str = ""


@dataclass(frozen=True)
class Candidate(Record):
    """Values that were tried, and the task's first metric on the examples for choosing, None where
    training diverged or failed. `remaining` in [0, 1]; `eligible`: it kept no more than its target;
    `steps` if it was cut short."""

    values: Mapping[str, Any]
    metric: float | None
    remaining: float | None
    eligible: bool
    chosen: bool
    steps: int | None = omitted(None)


GIVEN = "given by the suite"
"""The source of a value that the suite sets instead of the recipe."""


@dataclass(frozen=True)
class Environment(Record):
    """Versions, hardware kind and command; no names of machines or users, no absolute paths.

    `options` are what a reader adds to the command to run the trial again; `sources` say where each
    value of the trial comes from; `git` is the commit, with "+" if files differed from it; `caveat`
    is what a reader must know about results at this scale.
    """

    packages: Mapping[str, str]
    device: str
    threads: int = 1
    python: str = ""
    git: str = ""
    options: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    node: str = ""
    visible_gpus: str = ""
    caveat: str = ""


@dataclass(frozen=True)
class Result(Record):
    """What one trial gave. Everything but `cost` and `environment` is reproduced bit for bit on
    one kind of device with the same number of threads.

    `status` is "ok" or "diverged". `metrics` are those of the last step; `majority` has each metric
    of the constant answer that is best by it. `correct` holds one bit per example and split, as
    "<number>:<base64>"; `shares` names by split the metric that is the percentage of right answers,
    where one is. `digests` are sha256 of masks, trained scores and exported weights. `answers` by
    split, and `shares`, are empty in older results. `whole_data` says whether every split had its
    official number of rows. `sketch` lets masks of one model be compared without keeping them, ""
    without a mask. `candidates` are those among which the trial's values were chosen; `forms` are
    added when the trained model is measured; `judgement` is None in older results.
    """

    trial: Trial
    status: str
    metrics: Metrics
    best: Best
    majority: Metrics
    curve: tuple[Point, ...] = field(metadata=LONG)
    remaining: Remaining
    parameters: Parameters
    steps: Steps
    head: HeadFacts
    notes: tuple[str, ...]
    digests: Mapping[str, str]
    correct: Mapping[str, str] = field(metadata=LONG)
    cost: Cost
    environment: Environment
    facts: MethodFacts = field(default_factory=MethodFacts)
    whole_data: bool = True
    answers: Mapping[str, Answers] = field(default_factory=dict)
    shares: Mapping[str, str] = field(default_factory=dict)
    sketch: str = field(default="", metadata=LONG)
    distribution: Distribution | None = None
    diverged: Divergence | None = None
    candidates: tuple[Candidate, ...] = omitted(())
    forms: tuple[Form, ...] = omitted(())
    judgement: Judgement | None = omitted(None)
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        check_metrics(self.metrics)
        check_metrics(self.majority)
        if self.status not in (OK, DIVERGED):
            raise ValueError(f"status must be {OK} or {DIVERGED}, got {self.status!r:.40}")
        for split, text in self.correct.items():
            planes_of(text, f"correct.{split}")
        check_sketch(self.sketch)

    @property
    def ok(self) -> bool:
        """Whether the trial trained to its end."""
        return self.status == OK


@dataclass(frozen=True)
class Failure(Record):
    """Why a trial has no result yet."""

    trial: Trial
    reason: str
    facts: MethodFacts = field(default_factory=MethodFacts)
    schema: int = SCHEMA


@dataclass(frozen=True)
class Plan(Record):
    """The trials that a command asks for, the facts of their methods by name, and by name of scale
    what a reader must know about results there."""

    trials: tuple[Trial, ...] = field(metadata=LONG)
    facts: Mapping[str, MethodFacts] = field(default_factory=dict)
    caveats: Mapping[str, str] = field(default_factory=dict)
    schema: int = SCHEMA


Outcome = Result | Failure

AT_MOST = 1.02
"""A run counts at a target if it kept at most so many times it, to two decimals."""
