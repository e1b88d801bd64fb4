"""Snapshots of a trial in training: one that was ended goes on from the last, bit for bit.

A snapshot holds what the next step depends on and `build` does not make again: parameters that
train, scores, masks, the optimiser's state, all streams of random numbers, the curve so far. It is
a folder of a safetensors file, a JSON file and the sha256 of both, written whole; two are kept, and
all are removed when the trial has a result.
"""

import json
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from zoo.engine.measure import Watch, environment
from zoo.engine.state import (
    OF_NETWORK,
    Content,
    chosen_layers,
    of_network,
    restore,
    taken_from,
)
from zoo.engine.trainer import Trainer
from zoo.errors import StorageError, Terminated, TrialError, cause_of, without_folders
from zoo.records.codec import from_json, to_json
from zoo.records.result import Point
from zoo.records.storage import UNREADABLE, seal, sealed, whole_folder
from zoo.status import tell

KEPT = 2
"""Snapshots that are kept: if the last one is damaged, the one before it is read."""
TENSORS, STATE = "tensors.safetensors", "state.json"
TRAINING = ".training"
"""The folder of snapshots in a suite's folder."""
_asked, _training = threading.Event(), threading.Event()


def ask_to_end() -> bool:
    """Ask the trial that trains in this process to write a snapshot after its step and to end, or
    to end after it if this was its last one. False if none trains: then end at once."""
    if _training.is_set():
        _asked.set()
    return _training.is_set()


def asked_to_end() -> bool:
    """Whether this process was asked to end."""
    return _asked.is_set()


class Snapshots:
    """The snapshots of one trial in `folder`, written every so many minutes.

    `curve` and `watch` are those of the run; both go on where a snapshot is resumed. `notes` gets a
    line for each snapshot that cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        minutes: float,
        curve: list[Point],
        watch: Watch,
        notes: list[str],
        git: str = "",
    ):
        self.folder, self.minutes, self.git = folder, minutes, git
        self.curve, self.watch, self.notes = curve, watch, notes
        self.last = time.monotonic()

    def resume(self, trainer: Trainer) -> None:
        """Bring a fresh trainer to the state of the newest snapshot, if there is any."""
        found = self._newest(trainer)
        if found is not None:
            restore(trainer, found)
            self.curve[:] = [from_json(Point, point) for point in found.state["curve"]]
            self.watch.go_on(**found.state["watch"])
            tell(f"going on from step {trainer.taken:,}")
        _training.set()

    def after_step(self, trainer: Trainer) -> None:
        """Write a snapshot if it is time. Raises Terminated, after writing one, if the trial was
        asked to end."""
        if _asked.is_set():
            self._write(trainer)
            raise Terminated
        if time.monotonic() - self.last >= 60 * self.minutes:
            self._write(trainer)
            self.last = time.monotonic()

    def end(self) -> None:
        """No step of this trial follows."""
        _training.clear()

    def _write(self, trainer: Trainer) -> None:
        """Write a snapshot; one that cannot be written is a note, and training goes on."""
        tell("writing a snapshot")
        try:
            self._store(trainer, taken_from(trainer))
        except (StorageError, TrialError, OSError, SafetensorError) as error:
            why = without_folders(cause_of(error))
            self.notes.append(f"no snapshot at step {trainer.taken:,}: {why}")
            return
        for old in sorted(self.folder.glob("[0-9]*"))[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    def _store(self, trainer: Trainer, content: Content) -> None:
        more = {"curve": [to_json(point) for point in self.curve], "watch": self.watch.so_far()}
        state = {**content.state, **more, "environment": _environment(trainer, self.git)}
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole_folder(self.folder / f"{trainer.taken:09d}") as half:
            _write_files(half, Content(content.tensors, state))

    def _newest(self, trainer: Trainer) -> Content | None:
        """The newest snapshot that is whole and fits; those that cannot be used are removed."""
        for path in sorted(self.folder.glob("[0-9]*"), reverse=True):
            try:
                content = _read_files(path)
                why = _misfit(trainer, content, _environment(trainer, self.git))
            except UNREADABLE as error:
                why = f"it is damaged: {without_folders(cause_of(error))}"
            if not why:
                return content
            self.notes.append(f"snapshot {path.name} is not used: {why}")
            shutil.rmtree(path, ignore_errors=True)
        return None


def _misfit(trainer: Trainer, content: Content, environment: Sequence[str]) -> str:
    """Why a trainer cannot go on from a snapshot; "" if it can."""
    if list(content.state["environment"]) != list(environment):
        return f"it was written with {', '.join(content.state['environment'])}"
    if content.state["trial"] != trainer.run.trial.id:
        return f"it is of another trial, {content.state['trial']}"
    if content.state["layers"] != chosen_layers(trainer):
        return f"in it layers {content.state['layers']} stay"
    here = {n: t.shape for n, t in of_network(trainer).items()}
    there = {n: t.shape for n, t in content.tensors.items() if n.startswith(OF_NETWORK)}
    return "" if here == there else "its tensors are of another network"


def remove(folder: Path) -> None:
    """Remove a trial's snapshots."""
    shutil.rmtree(folder, ignore_errors=True)


def _environment(trainer: Trainer, git: str) -> list[str]:
    """With what a snapshot may go on: with other things the numbers would be others."""
    about = environment(trainer.run.device, torch.get_num_threads())
    packages = [f"{n} {about.packages.get(n, '')}" for n in ("torch", "transformers", "numpy")]
    kernels = "kernels" if trainer.update else "no kernels"
    return [about.device, *packages, f"{about.threads} threads", kernels, f"commit {git}"]


def _write_files(folder: Path, content: Content) -> None:
    """Raises SafetensorError, and OSError."""
    save_file(dict(content.tensors), folder / TENSORS)
    (folder / STATE).write_text(json.dumps(content.state), "utf-8")
    seal(folder)


def _read_files(folder: Path) -> Content:
    """Raises one of UNREADABLE for a snapshot that is damaged."""
    sealed(folder)
    return Content(load_file(folder / TENSORS), json.loads((folder / STATE).read_text("utf-8")))
