"""A trial made ready to train: its data, checkpoint, head, method and masks."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from zoo.engine.influence import with_chosen_layers
from zoo.engine.masked import MaskedModel
from zoo.engine.memory import keep_freed
from zoo.engine.settings import settle
from zoo.engine.streams import stream
from zoo.errors import BenchmarkError, ConfigError, TrialError, cause_of
from zoo.inputs.architecture import Parameter
from zoo.inputs.checkpoint import Checkpoint, find_checkpoint
from zoo.inputs.choosing import for_choosing
from zoo.inputs.task import Source, Task, label_notes
from zoo.inputs.tokenised import TaskData, tokenise
from zoo.inputs.tokeniser import tokeniser_notes
from zoo.kernels.launch import PLAIN, available, refusal
from zoo.parts.allocation import with_allocation
from zoo.parts.collapse import COLLAPSES, may_collapse
from zoo.parts.depth import TheseLayers
from zoo.parts.heads import Network
from zoo.parts.method import Method, with_distillation
from zoo.parts.patterns import with_pattern
from zoo.plugins import Plugin, load_plugin
from zoo.records.trial import Trial
from zoo.registry import methods, tasks
from zoo.status import tell

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""The values of the condition `precision`."""
AXES = {"pattern": with_pattern, "allocation": with_allocation}
"""Hyper-parameters of all methods: what changes a method that its factory has made, in this
order."""
MIXTURE = ("task_weight", "teacher_weight", "temperature")
"""Training values that describe distillation."""


@dataclass(frozen=True)
class Resources:
    """What a trial runs with. Of these, only `threads` can change results, in the last digits.

    `model` and `data_dir` as the user gave them; `cache` is a folder for tokenised data and frozen
    outputs; `threads` are the CPU threads of a trial; `keep_outputs` makes a trial store its
    outputs over the training set for students, of the first `reads` examples in the order of
    training, None for all, and its weights if `keep_weights`; `models` is a folder in which the
    trained model is kept, "" keeps none; `handover` is the folder of the files that a judge reads,
    "" writes none; `judges` is where processes on this machine get judges, "" where each starts its
    own; `gpu_share` is the part of a GPU's memory that this process may take;
    `snapshots` is a folder for snapshots in training every `snapshot_minutes`, "" takes none;
    records of other drivers that were written after `since`, by the clock of the results, are taken
    over; `trial_minutes` are those that a trial may take, 0 for any; `environment` is added to the
    result's.
    """

    model: str
    data_dir: str | None
    cache: str
    plugins: tuple[Plugin, ...] = ()
    threads: int = 1
    keep_outputs: bool = False
    keep_weights: bool = True
    reads: int | None = None
    models: str = ""
    handover: str = ""
    judges: str = ""
    gpu_share: float = 1.0
    snapshots: str = ""
    snapshot_minutes: float = 10.0
    since: float = math.inf
    trial_minutes: float = 0.0
    environment: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Run:
    """Everything that a trial holds in memory while it runs.

    `steps`: optimiser steps of this trial; `recipe_steps`: those of the uncut recipe.
    """

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
    checkpoint: Checkpoint

    @property
    def precision(self) -> torch.dtype:
        """The type of matrix products in training."""
        return PRECISIONS[self.trial.train.precision]


def make_method(trial: Trial) -> Method:
    """The method of a trial, with distillation if the trial asks for it.

    Raises ConfigError if the factory does not take the hyper-parameters or returns no Method, and
    TrialError if its own code raises.
    """
    entry = methods[trial.method]
    own = {n: v for n, v in trial.hyper.items() if n not in AXES or n in entry.parameters}
    try:
        method = entry.make(trial.density, **own)
    except TypeError as error:
        raise ConfigError(f"method {trial.method} ({entry.origin}): {error}") from error
    except BenchmarkError:
        raise
    except (Exception, SystemExit) as error:  # sys.exit in a factory must not end a run
        reason = cause_of(error)
        raise TrialError(f"method {trial.method} ({entry.origin}): {reason}") from error
    if not isinstance(method, Method):
        kind = type(method).__name__
        raise ConfigError(
            f"method {trial.method} ({entry.origin}) must return a Method, not {kind}"
        )
    for axis, change in AXES.items():
        if axis in trial.hyper and axis not in own:
            method = change(method, trial.hyper[axis])
    if not trial.distill:
        return method
    if method.untrained:
        raise ConfigError(
            f"method {trial.method} trains nothing, so that a teacher changes nothing: run it"
            " without distillation, or with retraining"
        )
    return with_distillation(method, **{name: getattr(trial.train, name) for name in MIXTURE})


def usual_device() -> torch.device:
    """The GPU that torch sees, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _bounded(device: torch.device, share: float) -> torch.device:
    """The device; this process may take only this share of a GPU's memory."""
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(share)
    return device


def build(trial: Trial, resources: Resources, device: torch.device | None = None) -> Run:
    """Load data and checkpoint and put method and head on them, on the usual device or another.

    The head's initial values depend on (task, seed) alone, so that methods are paired. Raises
    TrialError if the data or the model are not those of the trial.
    """
    for plugin in resources.plugins:
        load_plugin(plugin)
    settle(trial, resources.threads)
    keep_freed()
    tell("loading model and data")
    task, source, checkpoint = located(trial, resources)
    data = tokenise(task, source, checkpoint, trial.train.max_length, Path(resources.cache))
    method = make_method(trial)
    device = device or _bounded(usual_device(), resources.gpu_share)
    torch.manual_seed(stream(trial.task, trial.seed, "head"))
    network = method.head.build(checkpoint, task)
    method.start(network.encoder)
    method = with_chosen_layers(method, network.to(device), data.train, trial)
    generator = torch.Generator().manual_seed(stream(trial.task, trial.seed, "masks"))
    masked = MaskedModel(network.encoder, method, generator)
    _let_train(network, method)
    if trial.train.compile:
        torch.compiler.reset()  # what earlier trials in this process compiled changes nothing
        for layer in network.architecture.layers_of(network.encoder):  # few graphs serve all
            layer.compile(dynamic=True)
    steps = method.steps(trial.train.planned_steps(len(data.train)))
    return Run(
        trial=trial,
        task=task,
        method=method,
        source=source,
        data=data,
        network=network,
        masked=masked,
        device=device,
        steps=steps,
        recipe_steps=method.steps(trial.train.recipe_steps(len(data.train))),
        notes=[
            *(*task.notes(source), *label_notes(task, checkpoint), *tokeniser_notes(checkpoint)),
            *_warned(trial, method, steps),
            *_slower(device),
        ],
        checkpoint=checkpoint,
    )


def _let_train(network: Network, method: Method) -> None:
    """Fresh parameters train; pre-trained ones of a head that trains as the method trains a
    pooler."""
    for name, parameter in network.named_parameters():
        if name in network.fresh:
            parameter.requires_grad_(True)
        elif name.startswith("head.") and parameter.requires_grad:
            parameter.requires_grad_(method.trains(Parameter(name, "pooler")))


def located(trial: Trial, resources: Resources) -> tuple[Task, Source, Checkpoint]:
    """The trial's task, data and checkpoint; TrialError if they are not those of the plan."""
    task: Task = tasks[trial.task].make()
    source = task.locate(resources.data_dir)
    if trial.choosing:
        task, source = for_choosing(task, source)
    checkpoint = find_checkpoint(resources.model)
    if (source.fingerprint, checkpoint.sha) != (trial.data_sha, trial.model_sha):
        raise TrialError("the data or the model changed since the run was planned; run again")
    return task, source, checkpoint


def _warned(trial: Trial, method: Method, steps: int) -> list[str]:
    """What a reader should know about a method in so few steps, and about layers that data
    chose."""
    notes = [f"{trial.method}: {COLLAPSES}"] if may_collapse(method, steps) else []
    if isinstance(method.layers, TheseLayers):
        notes.append(f"layers that stay, from 0: {', '.join(map(str, method.layers.kept))}")
    return notes


def _slower(device: torch.device) -> list[str]:
    """What a reader should know where a GPU takes plain steps."""
    if device.type != "cuda" or available(device):
        return []
    return [f"slower steps, without kernels: {refusal(device.type) or PLAIN + '=1'}"]
