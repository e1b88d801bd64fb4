"""Prune units by the gradients of gates of 1 on their outputs, over training examples."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.engine.build import Run
from zoo.engine.examples import in_batches, some_rows
from zoo.engine.rescale import rescale
from zoo.errors import TrialError
from zoo.inputs.batches import Batch
from zoo.parts.calibration import Calibration, GateCalibration
from zoo.parts.units import UnitGroup
from zoo.status import tell


def by_gates(run: Run, calibration: GateCalibration, level: float) -> None:
    """Prune all units together to `level` by what is read of the gradients of their gates."""
    masked, batches = run.masked, read_batches(run, calibration)
    assert masked.groups is not None
    was_training = run.network.training
    run.network.eval()
    with masked.evaluating():
        found = gate_rows(run, calibration, batches)
        choose, rescaling = calibration.choose, calibration.rescaling
        costs = unit_costs(run, batches)
        own = choose(found, costs, level) if choose else run.method.mask(found, level)
        masks = masked.groups.spread(own)
        if rescaling is not None:
            teacher = masked.groups.spread(rescaling.teacher(found, costs, level))
            run.notes.extend(rescale(run, rescaling, masks, teacher, batches))
    run.network.train(was_training)
    with torch.no_grad():
        for name, mask in masks.items():
            masked.put(name, mask, masked.layers[name].weight.detach().masked_fill(~mask, 0.0))


def unit_costs(run: Run, batches: Sequence[Batch]) -> dict[str, float]:
    """Multiply-accumulates of one unit of each group for an example of mean length n: n for each of
    its weights, and in attention 2 n^2 for each of its dimensions."""
    assert run.masked.groups is not None
    many = sum(len(batch.attention) for batch in batches)
    mean = sum(float(batch.attention.sum()) for batch in batches) / many
    found = {}
    for name, group in run.masked.groups.groups.items():
        weights = sum(part.rows * part.columns * part.copies for part in group.parts)
        last = group.parts[-1]
        in_attention = run.masked.architecture.parameter(f"{last.name}.weight").role == "O"
        found[name] = mean * weights + 2 * mean**2 * last.columns * in_attention
    return found


def gate_rows(
    run: Run, calibration: GateCalibration, batches: Sequence[Batch]
) -> dict[str, Tensor]:
    """What a calibration reads of all batches, (rows, *units) of each group."""
    assert run.masked.groups is not None
    groups = run.masked.groups.groups
    found: dict[str, list[Tensor]] = {name: [] for name in groups}
    for number, batch in enumerate(batches):
        tell(f"gradients of gates, batch {number + 1:,} of {len(batches):,}")
        with _outputs(run, groups) as outputs:
            loss = run.task.output.loss(run.network(batch)[0], batch.labels)
            loss = loss * len(batch.rows)
        gradients = torch.autograd.grad(loss, list(outputs.values()))
        with torch.no_grad():
            for (name, output), gradient in zip(outputs.items(), gradients, strict=True):
                products = _by_unit(name, groups[name], output * gradient, batch)
                found[name].append(calibration.read(products, batch.attention))
    return {name: torch.cat(own) for name, own in found.items()}


def _by_unit(name: str, group: UnitGroup, products: Tensor, batch: Batch) -> Tensor:
    """The sums over each unit's output (examples, positions, *units), 0 at padding."""
    if products.shape[:-1] != batch.attention.shape:
        raise TrialError(
            f"the units of {name} are seen in shape {tuple(products.shape)}, not at the positions"
            f" of {tuple(batch.attention.shape)} tokens: this encoder has no gates"
        )
    summed = products.unflatten(-1, (group.units, -1)).sum(-1) * batch.attention[..., None]
    return summed.unflatten(-1, group.shape)


@contextmanager
def _outputs(run: Run, groups: Mapping[str, UnitGroup]) -> Iterator[dict[str, Tensor]]:
    """Inside, the outputs of units are kept as the network computes them, by group."""
    found: dict[str, Tensor] = {}

    def keep(name: str, output: Tensor) -> Tensor:
        found[name] = output if output.requires_grad else output.detach().requires_grad_()
        return found[name]

    handles: list[Any] = []
    for name, group in groups.items():
        module: Any = run.masked.layers[group.parts[-1].name]
        if group.gated == "input":
            hook = module.register_forward_pre_hook(lambda _, args, n=name: (keep(n, args[0]),))
        else:
            hook = module.register_forward_hook(lambda _, __, output, n=name: keep(n, output))
        handles.append(hook)
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def read_batches(run: Run, calibration: Calibration | GateCalibration) -> list[Batch]:
    """The examples of a calibration, in batches."""
    rows, size = drawn(run, calibration), calibration.batch
    return in_batches(run.data.train, rows, size, run.network.pad, run.device)


def drawn(run: Run, calibration: Calibration | GateCalibration) -> np.ndarray:
    """The rows of the training set that a calibration reads, in their order. Drawn ones depend on
    its seed and the task alone, or on the trial's seed."""
    seed = run.trial.seed if calibration.seed is None else calibration.seed
    many = len(run.data.train)
    return some_rows(many, calibration.examples, run.trial.task, seed, "calibration")
