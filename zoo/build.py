"""A trial made ready: its data, checkpoint, head, method and masks, and where it runs."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from zoo.checkpoint import find_checkpoint
from zoo.errors import BenchmarkError, ConfigError, TrialError
from zoo.heads import Network
from zoo.masked import MaskedModel
from zoo.memory import keep_freed
from zoo.method import Method, with_distillation
from zoo.registry import Plugin, load_plugin, methods, one_line, tasks
from zoo.task import Source, Task, TaskData, label_notes, prepare
from zoo.trial import Trial

FULL = "float32"
PRECISIONS = {FULL: torch.float32, "bfloat16": torch.bfloat16}
"""Of the products in training; a trial names none that is full."""


@dataclass(frozen=True)
class Place:
    """Where a trial runs: paths and resources; of these, threads alone may change last digits.

    `model` and `data_dir` as the user gave them; `cache` is a folder for tokenised data and frozen
    outputs; `threads` the CPU threads of a trial; `keep_outputs` makes a trial leave its outputs
    over the training set for students; `facts` go into the result's environment.
    """

    model: str
    data_dir: str | None
    cache: str
    plugins: tuple[Plugin, ...]
    threads: int = 1
    keep_outputs: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Run:
    """Everything that one trial holds while it runs."""

    trial: Trial
    task: Task
    method: Method
    source: Source
    data: TaskData
    network: Network
    masked: MaskedModel
    device: torch.device
    steps: int
    recipe_steps: int
    notes: list[str]

    @property
    def precision(self) -> torch.dtype:
        """Of the products in training."""
        return PRECISIONS[self.trial.train.get("precision", FULL)]

    @property
    def pad(self) -> int:
        return self.network.encoder.config.pad_token_id or 0


def stream(*names: object) -> int:
    """A seed of 63 bits for one named stream of random numbers."""
    text = "\0".join(str(name) for name in names)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def make_method(trial: Trial) -> Method:
    """The method of a trial, with distillation if the trial asks for it."""
    entry = methods[trial.method]
    try:
        method = entry.make(trial.density, **trial.hyper)
    except TypeError as error:
        raise ConfigError(f"method {trial.method} ({entry.origin}): {error}") from error
    except BenchmarkError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise TrialError(f"method {trial.method} ({entry.origin}): {reason}") from error
    if not isinstance(method, Method):
        kind = type(method).__name__
        raise ConfigError(
            f"method {trial.method} ({entry.origin}) must return a Method, not {kind}"
        )
    if not trial.distill:
        return method
    mix = {key: trial.train[key] for key in ("task_weight", "teacher_weight", "temperature")}
    return with_distillation(method, **mix)


def recipe_steps(train: Mapping[str, Any], examples: int) -> int:
    """Optimiser steps that the recipe asks for: `steps`, or `epochs` over the training examples."""
    if train.get("steps"):
        return int(train["steps"])
    return int(train["epochs"]) * math.ceil(examples / train["batch"])


def planned_steps(train: Mapping[str, Any], examples: int) -> int:
    """The recipe's steps, or `max_steps` if that is fewer."""
    steps = recipe_steps(train, examples)
    return min(steps, train.get("max_steps") or steps)


def build(trial: Trial, place: Place) -> Run:
    """Load data and checkpoint and put method and head on them.

    The head's start depends on (task, seed) alone, so that methods are paired.
    """
    for plugin in place.plugins:
        load_plugin(plugin)
    torch.set_num_threads(place.threads)
    keep_freed()
    task: Task = tasks[trial.task].make()
    source = task.locate(place.data_dir)
    checkpoint = find_checkpoint(place.model)
    if (source.fingerprint, checkpoint.sha) != (trial.data_sha, trial.model_sha):
        raise TrialError("the data or the model changed since the run was planned; run again")
    data = prepare(task, source, checkpoint, trial.train["max_length"], Path(place.cache))
    method = make_method(trial)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(stream(trial.task, trial.seed, "head"))
    network = method.head.build(checkpoint, task)
    method.start(network.encoder)
    network.to(device)
    for name, parameter in network.named_parameters():
        part, _, inner = name.partition(".")
        trains = part == "encoder" and method.trains(inner)
        parameter.requires_grad_(trains or name in network.fresh)
    generator = torch.Generator().manual_seed(stream(trial.task, trial.seed, "masks"))
    masked = MaskedModel(network.encoder, method, generator)
    if trial.train.get("compile"):
        for layer in network.encoder.encoder.layer:  # alike: a few graphs serve them all
            layer.compile(dynamic=True)
    full = recipe_steps(trial.train, len(data.train))
    steps = planned_steps(trial.train, len(data.train))
    notes = task.notes(source) + label_notes(task, checkpoint)
    return Run(trial, task, method, source, data, network, masked, device, steps, full, notes)
