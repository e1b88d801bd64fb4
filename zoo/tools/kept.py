"""Saved models for the tools: found by their folder, by their result, or all of a suite's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.engine.evaluation_set import EvaluationSet
from zoo.engine.stock import ABOUT, BARE, Reading, load_stock, read_about
from zoo.errors import ConfigError, one_line
from zoo.inputs.checkpoint import Checkpoint, find_checkpoint
from zoo.inputs.task import Task
from zoo.plugins import load_built_in
from zoo.records.codec import from_json
from zoo.records.result import Result
from zoo.records.storage import UNREADABLE, load_result
from zoo.records.trial import Trial, command_of
from zoo.registry import scales, tasks
from zoo.runs.keeping import MODELS

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Kept:
    """A saved model: its folder, the stock model, how it is read, its trial, and the result of that
    if it is beside."""

    folder: Path
    model: Any
    reading: Reading
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
        options = (*result.environment.options, "--save", "all")
        again = command_of(path.resolve().parent.name, options, [result.trial])
        raise ConfigError(f"{path}: its model was not kept; this makes it: {again}")
    return folder


def trial_of(folder: Path) -> Trial:
    """The trial of a saved model. Raises ConfigError."""
    return _trial(folder, read_about(folder))


def _trial(folder: Path, about: Mapping[str, Any]) -> Trial:
    try:
        return from_json(Trial, about["trial"])
    except UNREADABLE as error:
        raise ConfigError(f"{folder}: {ABOUT} names no trial: {one_line(error, 200)}") from None


def load_kept(folder: Path) -> Kept:
    """The saved model of a folder. Raises ConfigError."""
    model, reading, about = load_stock(folder)
    try:
        result = load_result(result_path_of(folder))
    except UNREADABLE:
        result = None
    return Kept(folder, model, reading, _trial(folder, about), result)


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


def examples_of(kept: Kept, base: Checkpoint, data_dir: str | None) -> EvaluationSet | None:
    """The evaluation set of a saved model's trial; None for a model whose head is its own code.
    Raises ConfigError if the data are not the trial's."""
    if kept.reading.loader == BARE:
        return None
    task: Task = tasks[kept.trial.task].make()
    source = task.locate(data_dir)
    if source.fingerprint != kept.trial.data_sha:
        raise ConfigError(f"{kept.folder.name} was trained on other data; give its --data-dir")
    return EvaluationSet(task, source, base, kept.trial.train.max_length)
