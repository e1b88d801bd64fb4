"""Calibrate a run: masks and weights from what some training examples give to each matrix.

Layers are taken in order. A layer reads what the pruned layers before it give; its matrices are
pruned with what they read while the layer itself is as it was (Sun et al. 2024 and Frantar and
Alistarh 2023, released codes).
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.engine.build import Run
from zoo.engine.examples import at_tokens
from zoo.engine.gate_gradients import by_gates, read_batches
from zoo.engine.layers import factor
from zoo.engine.streams import stream
from zoo.engine.through import Through
from zoo.inputs.batches import Batch, collate, random_batches
from zoo.parts.allocation import Allocated
from zoo.parts.calibration import (
    Calibration,
    Choice,
    GateCalibration,
    GradientCalibration,
    Moments,
    WeightCalibration,
    squares,
)
from zoo.status import tell


def prepare(run: Run, step: int) -> None:
    """Make masks and W' for a step, by calibration where one is due."""
    calibration, level = run.method.calibration, run.method.level(step, run.steps)
    if calibration is not None and level is not None:
        if run.device.type == "meta":
            pass  # there are no numbers
        elif isinstance(calibration, GradientCalibration):
            by_gradients(run, calibration, level, step)
        elif isinstance(calibration, GateCalibration):
            by_gates(run, calibration, level)
        elif isinstance(calibration, WeightCalibration):
            by_weights(run, calibration, level)
        else:
            calibrate(run, calibration, level)
        run.masked.calibrated = True
    run.masked.advance(step, run.steps)


@torch.no_grad()
def calibrate(run: Run, calibration: Calibration, level: float) -> None:
    """Prune all matrices to `level`, layer after layer."""
    masked, network = run.masked, run.network
    batches = read_batches(run, calibration)
    was_training = network.training
    network.eval()
    with masked.evaluating():
        choices = _choices(run, level, batches)
        through = Through(run)
        for layer, names in enumerate(_by_layer(run)):
            tell(f"calibrating, layer {layer + 1} of {len(through.layers)}")
            with _reading(run, names, calibration.moments) as found:
                for number, batch in enumerate(batches):
                    found.begin(batch)
                    through(layer, number, batch)
            for name, moments in found.means().items():
                weight = masked.layers[name].weight.detach()
                masked.put(name, *calibration.prune(weight, moments, choices[name]))
                own = masked.layers[name]
                torch.mul(own.weight, factor(own.mask), out=own.working.detach())
            through.finish(layer, batches)
    network.train(was_training)


def by_gradients(run: Run, calibration: GradientCalibration, level: float, step: int) -> None:
    """Prune all matrices together to `level`, in rounds, by gradients of mini-batches in turn."""
    masked, curvature = run.masked, calibration.curvature
    rows = mini_batches(run, calibration, step)
    before = 1.0 if masked.level is None else masked.level
    was_training = run.network.training
    run.network.eval()
    for number in range(1, calibration.rounds + 1):
        wanted = before + (level - before) * number / calibration.rounds
        with masked.evaluating():
            held = _curvatures(run, calibration, rows, f"round {number}")
        with torch.no_grad():
            kept = {}
            for name, own in masked.layers.items():
                scores = curvature.scores(own.weight.detach(), held[name])
                kept[name] = scores.masked_fill(~own.mask, -math.inf)
            masks = run.method.mask(kept, wanted)
            for name, own in masked.layers.items():
                mask, weight = masks[name], own.weight.detach()
                new = curvature.update(weight, held[name], own.mask & ~mask)
                masked.put(name, mask, new.masked_fill(~mask, 0.0))
    run.network.train(was_training)


@torch.no_grad()
def by_weights(run: Run, calibration: WeightCalibration, level: float) -> None:
    """Prune all units to `level` by what they hold."""
    masked, masks = run.masked, {}
    assert masked.groups is not None
    for name in masked.groups.groups:
        seed = stream(run.trial.task, _seed(run, calibration.seed), "units", name)
        masks[name], factors = calibration.prune(masked.groups.held(name, seed), level)
        masked.groups.scale(name, factors)
    for name, mask in masked.groups.spread(masks).items():
        weight = masked.layers[name].weight.detach()
        masked.put(name, mask, weight.masked_fill(~mask, 0.0))


def mini_batches(run: Run, calibration: GradientCalibration, step: int) -> Iterator[np.ndarray]:
    """The rows of mini-batches of a calibration before a step, without end."""
    seed = stream(run.trial.task, _seed(run, calibration.seed), "calibration", step)
    return random_batches(len(run.data.train), calibration.batch, seed)


def _curvatures(
    run: Run, calibration: GradientCalibration, rows: Iterator[np.ndarray], what: str
) -> dict[str, Tensor]:
    """What is made of the gradients of W' under the masks that stand, by matrix."""
    curvature, layers = calibration.curvature, run.masked.layers
    held = {n: curvature.start(layer.weight.detach()) for n, layer in layers.items()}
    working = [layer.working.requires_grad_() for layer in layers.values()]
    for number in range(calibration.gradients):
        tell(lambda: f"{what}, gradient {number + 1:,} of {calibration.gradients:,}")  # noqa: B023
        batch = collate(run.data.train, next(rows), run.network.pad, run.device)
        loss = run.task.output.loss(run.network(batch)[0], batch.labels)
        found = torch.autograd.grad(loss, working)
        with torch.no_grad():
            for (name, layer), gradient in zip(layers.items(), found, strict=True):
                curvature.add(held[name], gradient * factor(layer.mask))
    return held


def _seed(run: Run, given: int | None) -> int:
    return run.trial.seed if given is None else given


def _by_layer(run: Run) -> list[list[str]]:
    """The names of the matrices of each layer, in order."""
    found: dict[int, list[str]] = {}
    for name in run.masked.layers:
        layer = run.masked.architecture.parameter(f"{name}.weight").layer
        assert layer is not None
        found.setdefault(layer, []).append(name)
    return [found[layer] for layer in sorted(found)]


def _choices(run: Run, level: float, batches: Sequence[Batch]) -> dict[str, Choice]:
    """How the mask of each matrix is chosen; an allocation reads the dense model's scores."""
    mask, layers = run.method.mask, run.masked.layers
    if not isinstance(mask, Allocated):
        return {name: Choice(mask, name, level) for name in layers}
    with _reading(run, list(layers), squares) as found:
        for batch in batches:
            found.begin(batch)
            run.network(batch)
    means = found.means()
    scores = {n: x.weight.detach().abs() * means[n].sqrt() for n, x in layers.items()}
    densities = mask.allocation(scores, level)
    return {name: Choice(mask.within, name, densities[name]) for name in layers}


class _Reader:
    """Sums moments of the inputs of matrices over real tokens; matrices that read the same tensor
    share one sum. Of a matrix that computes several things in a pass, the first is of the tokens:
    DeBERTa's Q and K then take a table of distances."""

    def __init__(self, moments: Moments):
        self.moments, self.attention = moments, torch.ones(0)
        self.done: set[str] = set()
        self.sums: dict[str, Tensor] = {}
        self.owner: dict[str, str] = {}
        self.tokens: dict[str, int] = {}
        self._last: tuple[str, Any] = ("", None)

    def begin(self, batch: Batch) -> None:
        """Expect the inputs of this batch."""
        self.attention, self.done = batch.attention, set()

    def see(self, name: str, inputs: Tensor) -> None:
        """Add the inputs of a matrix in the batch."""
        if name in self.done:
            return
        self.done.add(name)
        owner, last = self._last
        if inputs is last:
            self.owner[name] = owner
            return
        self._last, self.owner[name] = (name, inputs), name
        real = at_tokens(inputs, self.attention, self.attention, f"inputs of {name}")
        found = self.moments(real if real.dtype == torch.float64 else real.float())
        self.sums[name] = self.sums[name] + found if name in self.sums else found
        self.tokens[name] = self.tokens.get(name, 0) + len(real)

    def means(self) -> dict[str, Tensor]:
        """The mean of each matrix's moments over tokens."""
        own = {name: total / self.tokens[name] for name, total in self.sums.items()}
        return {name: own[owner] for name, owner in self.owner.items()}


@contextmanager
def _reading(run: Run, names: Sequence[str], moments: Moments) -> Iterator[_Reader]:
    """Inside, what the matrices read is added up."""
    found = _Reader(moments)
    handles = [
        run.masked.layers[name].register_forward_pre_hook(
            lambda module, args, name=name: found.see(name, args[0])
        )
        for name in names
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
