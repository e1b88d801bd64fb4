"""Snapshots of a trial in training: one that was ended goes on from the last, bit for bit.

A snapshot holds what the next step depends on and `build` does not make again: parameters that
train, scores, masks, the optimiser's state, all streams of random numbers, the curve so far. It is
a folder of a safetensors file and a JSON file with its sha256, written whole; two are kept, and all
are removed when the trial's record is written.
"""

import hashlib
import json
import random
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.engine.measure import Watch, environment
from zoo.errors import StorageError, Terminated, TrialError, cause_of
from zoo.records.codec import from_json, to_json
from zoo.records.result import Point
from zoo.records.storage import UNREADABLE, whole_folder
from zoo.status import tell

KEPT = 2
"""Snapshots that are kept: if the last one is damaged, the one before it is read."""
TENSORS, STATE = "tensors.safetensors", "state.json"
TRAINING = ".training"
"""The folder of snapshots in a suite's folder."""
NUMBERS = (bool, int, float, type(None))
"""What of an optimiser's state is no tensor."""

_asked, _training = threading.Event(), threading.Event()


def ask_to_end() -> bool:
    """Ask the trial that trains in this process to write a snapshot after its step and to end.
    False if none trains or it was asked before: then end at once."""
    if not _training.is_set() or _asked.is_set():
        return False
    _asked.set()
    return True


@dataclass(frozen=True)
class Content:
    """A snapshot in memory."""

    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any]


class Snapshots:
    """The snapshots of one trial in `folder`, written every so many minutes.

    `curve` and `watch` are those of the run; both go on where a snapshot is resumed. `notes` gets a
    line for each snapshot that cannot be used.
    """

    def __init__(
        self, folder: Path, minutes: float, curve: list[Point], watch: Watch, notes: list[str]
    ):
        self.folder, self.minutes = folder, minutes
        self.curve, self.watch, self.notes = curve, watch, notes
        self.last = time.monotonic()

    def resume(self, trainer: Any) -> None:
        """Bring a fresh trainer to the state of the newest snapshot, if there is any."""
        found = self._newest(trainer)
        if found is not None:
            restore(trainer, found)
            self.curve[:] = [from_json(Point, point) for point in found.state["curve"]]
            self.watch.go_on(**found.state["watch"])
            tell(f"going on from step {trainer.taken:,}")
        _training.set()

    def after_step(self, trainer: Any) -> None:
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
        _asked.clear()

    def _write(self, trainer: Any) -> None:
        """Write a snapshot; one that cannot be written is a note, and training goes on."""
        tell("writing a snapshot")
        try:
            self._store(trainer, taken_from(trainer))
        except (StorageError, TrialError, OSError) as error:
            self.notes.append(f"no snapshot at step {trainer.taken:,}: {cause_of(error)}")
            return
        for old in sorted(self.folder.glob("[0-9]*"))[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    def _store(self, trainer: Any, content: Content) -> None:
        more = {"curve": [to_json(point) for point in self.curve], "watch": self.watch.so_far()}
        state = {**content.state, **more, "environment": _environment(trainer)}
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole_folder(self.folder / f"{trainer.taken:09d}") as half:
            _write_files(half, Content(content.tensors, state))

    def _newest(self, trainer: Any) -> Content | None:
        """The newest snapshot that is whole and of this kind of device."""
        for path in sorted(self.folder.glob("[0-9]*"), reverse=True):
            try:
                content = _read_files(path)
            except UNREADABLE as error:
                self.notes.append(
                    f"snapshot {path.name} is damaged: {str(error) or cause_of(error)}"
                )
                continue
            if content.state["environment"] == _environment(trainer):
                return content
            was = " ".join(content.state["environment"])
            self.notes.append(f"snapshot {path.name} is not used: it was written on {was}")
        return None


def remove(folder: Path) -> None:
    """Remove a trial's snapshots."""
    shutil.rmtree(folder, ignore_errors=True)


def _environment(trainer: Any) -> list[str]:
    """On what a snapshot may go on: elsewhere the numbers would be others."""
    about = environment(trainer.run.device, torch.get_num_threads())
    return [about.device, f"torch {about.packages['torch']}", f"{about.threads} threads"]


def taken_from(trainer: Any) -> Content:
    """The state between two steps. Raises Diverged if a loss that was not read is not finite, and
    TrialError for an optimiser whose state is neither tensors nor numbers."""
    trainer.look()
    run, masked = trainer.run, trainer.run.masked
    tensors = {f"network.{n}": t for n, t in _changing(run.network).items()}
    for name, layer in masked.layers.items():
        if not masked.constant_scores and hasattr(layer, "score"):
            tensors[f"score.{name}"] = layer.score
        packed = np.packbits(layer.mask.cpu().numpy())
        tensors[f"mask.{name}"] = torch.from_numpy(packed)
    numbers: dict[str, Any] = {}
    for number, parameter in enumerate(_parameters(trainer.optimizer)):
        for key, value in trainer.optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"optimiser.{number}.{key}"] = value
            elif isinstance(value, NUMBERS):
                numbers[f"optimiser.{number}.{key}"] = value
            else:
                kind = type(value).__name__
                raise TrialError(
                    f"its optimiser's state {key} is a {kind}: no snapshot is possible"
                )
    streams, positions = _streams(trainer)
    return Content(
        {n: t.detach().cpu().contiguous() for n, t in {**tensors, **streams}.items()},
        {
            "trial": run.trial.id,
            "taken": trainer.taken,
            "loss": float(trainer.loss).hex(),
            "level": masked.level,
            "penalty_weight": masked.penalty_weight,
            "optimiser": numbers,
            "streams": positions,
        },
    )


def restore(trainer: Any, content: Content) -> None:
    """Bring a fresh trainer of the same trial to a state. Raises TrialError if it is of another."""
    run, masked, tensors = trainer.run, trainer.run.masked, dict(content.tensors)
    state = content.state
    if state["trial"] != run.trial.id:
        raise TrialError(f"the snapshot is of another trial, {state['trial']}")
    with torch.no_grad():
        for name, tensor in _changing(run.network).items():
            tensor.copy_(tensors[f"network.{name}"])
        for name, layer in masked.layers.items():
            if f"score.{name}" in tensors:
                layer.score.copy_(tensors[f"score.{name}"])
            bits = np.unpackbits(tensors[f"mask.{name}"].numpy(), count=layer.mask.numel())
            mask = torch.from_numpy(bits.view(bool)).view(layer.mask.shape)
            layer.mask = mask.to(layer.weight.device)
    _restore_optimiser(trainer.optimizer, tensors, state["optimiser"])
    masked.level, masked.penalty_weight = state["level"], state["penalty_weight"]
    trainer.go_on(state["taken"], float.fromhex(state["loss"]))
    _restore_streams(trainer, tensors, state["streams"])


def _restore_optimiser(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]
) -> None:
    parameters = _parameters(optimizer)
    for name, value in {**tensors, **numbers}.items():
        kind, _, rest = name.partition(".")
        if kind == "optimiser":
            number, _, key = rest.partition(".")
            parameter = parameters[int(number)]
            if isinstance(value, Tensor):
                before = optimizer.state[parameter].get(key)
                where = parameter.device if before is None else before.device
                value = value.clone().to(where)
            optimizer.state[parameter][key] = value


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _changing(network: torch.nn.Module) -> dict[str, Tensor]:
    """Parameters that train, and buffers, by name."""
    trained = {n: p for n, p in network.named_parameters() if p.requires_grad}
    buffers = {n: b for n, b in network.named_buffers() if b.is_floating_point()}
    return {**trained, **buffers}


def _streams(trainer: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All streams of random numbers that are not made anew at each step."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    tensors = {
        "stream.losses": trainer.draws.get_state(),
        "stream.torch": torch.get_rng_state(),
        "stream.python": torch.tensor(words, dtype=torch.int64),
        "stream.numpy": torch.from_numpy(np.asarray(keys).astype(np.int64)),
    }
    python = [version, None if gauss is None else float(gauss).hex()]
    numpy = [str(kind), int(position), int(has_gauss), float(cached).hex()]
    return tensors, {"python": python, "numpy": numpy}


def _restore_streams(
    trainer: Any, tensors: Mapping[str, Tensor], positions: Mapping[str, Any]
) -> None:
    trainer.draws.set_state(tensors["stream.losses"])
    torch.set_rng_state(tensors["stream.torch"])
    version, gauss = positions["python"]
    words = tuple(tensors["stream.python"].tolist())
    random.setstate((version, words, None if gauss is None else float.fromhex(gauss)))
    kind, position, has_gauss, cached = positions["numpy"]
    keys = tensors["stream.numpy"].numpy().astype(np.uint32)
    np.random.set_state((kind, keys, position, has_gauss, float.fromhex(cached)))


def _write_files(folder: Path, content: Content) -> None:
    from safetensors.torch import save_file

    try:
        save_file(dict(content.tensors), folder / TENSORS)
    except Exception as error:  # safetensors has errors of its own, for a full disk too
        raise StorageError(
            f"cannot write a snapshot in {folder.parent}: {cause_of(error)}"
        ) from error
    state = {**content.state, "sha256": _sha256(folder / TENSORS)}
    (folder / STATE).write_text(json.dumps(state), "utf-8")


def _read_files(folder: Path) -> Content:
    from safetensors.torch import load_file

    state = json.loads((folder / STATE).read_text("utf-8"))
    if _sha256(folder / TENSORS) != state["sha256"]:
        raise ValueError("its tensors are not those that were written")
    return Content(load_file(folder / TENSORS), state)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
