"""Saved models for the tools: found by their folder, by their result, or all of a suite's."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from zoo.engine.frozen import predict
from zoo.engine.stock import ABOUT, BARE, Stock, StockNetwork, load_stock
from zoo.errors import ConfigError, one_line
from zoo.inputs.batches import Encoded
from zoo.inputs.checkpoint import Checkpoint, find_checkpoint
from zoo.inputs.task import Source, Task
from zoo.inputs.tokeniser import load_tokenizer
from zoo.plugins import BUILT_IN, find_plugin, load_plugin
from zoo.records.codec import from_json
from zoo.records.result import Result
from zoo.records.storage import UNREADABLE, load_result
from zoo.records.trial import Trial
from zoo.registry import scales, tasks
from zoo.runs.keeping import MODELS

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Kept:
    """A saved model: its folder, the stock model, how it is read, its trial, and the result of that
    if it is beside."""

    folder: Path
    model: Any
    form: Stock
    trial: Trial
    result: Result | None


def folders_of(given: Sequence[str]) -> list[Path]:
    """The folders of saved models that are meant: folders, results, and folders of suites. Raises
    ConfigError, with the command that makes a model that was not kept."""
    found: list[Path] = []
    for text in given:
        path = Path(text).expanduser()
        if path.suffix == ".json":
            found.append(_beside(path))
        elif (path / WEIGHTS).is_file():
            found.append(path)
        elif inside := sorted((path / MODELS).glob(f"[!.]*/{WEIGHTS}")):
            found += [file.parent for file in inside]
        elif (path / MODELS).is_dir() or any(path.glob("*.json")):
            raise ConfigError(f"{path}: no model was kept there; run the suite with --save best")
        else:
            raise ConfigError(f"{path}: neither a saved model, nor a result, nor a suite's results")
    return found


def _beside(path: Path) -> Path:
    """The folder of the model of a result."""
    try:
        result = load_result(path)
    except UNREADABLE as error:
        raise ConfigError(f"{path}: not a result: {one_line(error, 200)}") from None
    folder = path.parent / MODELS / result.trial.id
    if not (folder / WEIGHTS).is_file():
        raise ConfigError(
            f"{path}: its model was not kept; this makes it: {command_of(result, path)}"
        )
    return folder


def command_of(result: Result, path: Path) -> str:
    """The command that runs a trial again and keeps its model."""
    trial = result.trial
    words = ["python", "run_benchmark.py", "--suite", path.resolve().parent.name]
    words += ["--scale", trial.scale, *result.environment.options, "--recipe", trial.recipe]
    words += ["--distill", "on" if trial.distill else "off", "--methods", trial.method]
    words += ["--densities", f"{trial.density:g}", "--tasks", trial.task]
    words += ["--seeds", str(trial.seed), *trial.train.conditions.options, "--save", "all"]
    return shlex.join(words)


def trial_of(folder: Path) -> Trial:
    """The trial of a saved model. Raises ConfigError."""
    try:
        return from_json(Trial, json.loads((folder / ABOUT).read_text("utf-8"))["trial"])
    except UNREADABLE as error:
        reason = one_line(error, 200)
        raise ConfigError(f"{folder}: {ABOUT} names no trial: {reason}") from None


def load_kept(folder: Path) -> Kept:
    """The saved model of a folder. Raises ConfigError."""
    model, form, _ = load_stock(folder)
    try:
        result = load_result(result_path_of(folder))
    except UNREADABLE:
        result = None
    return Kept(folder, model, form, trial_of(folder), result)


def result_path_of(folder: Path) -> Path:
    """Where the result of a saved model is, if the folder is where it was made."""
    whole = folder.resolve()
    return whole.parent.parent / f"{whole.name}.json"


def base_of(kept: Kept, given: str | None) -> Checkpoint:
    """The base checkpoint of a saved model: `given` by the user, or that of its scale. Raises
    ConfigError for another."""
    load_built_in()
    if given is None and kept.trial.scale in scales:
        given = scales[kept.trial.scale].make().model
    if given is None:
        raise ConfigError(f"give the base model of {kept.folder} by --model")
    checkpoint = find_checkpoint(given)
    if checkpoint.sha != kept.trial.model_sha:
        raise ConfigError(
            f"{kept.folder.name} was made of {kept.trial.model}, sha256"
            f" {kept.trial.model_sha:.12}, and {given} has {checkpoint.sha:.12}; give --model"
        )
    return checkpoint


def layers_of(checkpoint: Checkpoint) -> int:
    """How many layers a checkpoint has."""
    config = json.loads((Path(checkpoint.folder) / "config.json").read_text("utf-8"))
    return checkpoint.architecture.read_sizes(config).layers


def load_built_in() -> None:
    """Load the methods, tasks and scales that ship with the project."""
    for name in BUILT_IN:
        load_plugin(find_plugin(name))


@dataclass(frozen=True)
class Judge:
    """Evaluates models on the evaluation set of a saved model's trial."""

    task: Task
    source: Source
    checkpoint: Checkpoint
    length: int

    @cached_property
    def splits(self) -> Mapping[str, Encoded]:
        """The evaluation splits, encoded."""
        tokenizer = load_tokenizer(self.checkpoint)
        there = [split for split in self.task.evaluation if split in self.source.rows]
        encode = self.task.encode
        return {s: encode(self.source.read(s), tokenizer, self.length, False) for s in there}

    def logits(self, model: Any, form: Stock) -> dict[str, np.ndarray]:
        """A model's logits by split."""
        network: Any = StockNetwork(
            model, form, self.task.output.per_token, self.checkpoint.pad
        )  # takes batches as a Network does
        return {s: np.array(predict(network, d)["logits"]) for s, d in self.splits.items()}

    def metrics(self, model: Any, form: Stock) -> dict[str, float | None]:
        """A model's metrics in percent."""
        found: dict[str, float | None] = {}
        logits = self.logits(model, form)
        for split, data in self.splits.items():
            found |= self.task.evaluate(split, logits[split], data).metrics
        return found


def judge_of(kept: Kept, model: str | None, data_dir: str | None) -> Judge | None:
    """What evaluates forms of a saved model; None for one whose head is its own code. Raises
    ConfigError if the data are not the trial's."""
    if kept.form.loader == BARE:
        return None
    checkpoint = base_of(kept, model)
    task: Task = tasks[kept.trial.task].make()
    source = task.locate(data_dir)
    if source.fingerprint != kept.trial.data_sha:
        raise ConfigError(f"{kept.folder.name} was trained on other data; give its --data-dir")
    return Judge(task, source, checkpoint, kept.trial.train.max_length)
