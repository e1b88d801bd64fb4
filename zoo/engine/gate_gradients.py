"""Prune units by the gradients of gates of 1 on their outputs, over training examples."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.engine.build import Run
from zoo.engine.streams import stream
from zoo.errors import TrialError
from zoo.inputs.batches import Batch, collate
from zoo.parts.calibration import Calibration, GateCalibration
from zoo.parts.units import UnitGroup
from zoo.status import tell


def by_gates(run: Run, calibration: GateCalibration, level: float) -> None:
    """Prune all units together to `level` by what is read of the gradients of their gates."""
    masked = run.masked
    assert masked.groups is not None
    was_training = run.network.training
    run.network.eval()
    with masked.evaluating():
        found = gate_rows(run, calibration)
    run.network.train(was_training)
    with torch.no_grad():
        for name, mask in masked.groups.spread(run.method.mask(found, level)).items():
            masked.put(name, mask, masked.layers[name].weight.detach().masked_fill(~mask, 0.0))


def gate_rows(run: Run, calibration: GateCalibration) -> dict[str, Tensor]:
    """What a calibration reads of all batches, (rows, *units) of each group."""
    assert run.masked.groups is not None
    rows, groups = drawn(run, calibration), run.masked.groups.groups
    parts = np.split(rows, range(calibration.batch, len(rows), calibration.batch))
    found: dict[str, list[Tensor]] = {name: [] for name in groups}
    for number, part in enumerate(parts):
        tell(f"gradients of gates, batch {number + 1:,} of {len(parts):,}")
        batch = collate(run.data.train, part, run.network.pad, run.device, packs=False)
        with _outputs(run, groups) as outputs:
            loss = run.task.output.loss(run.network(batch)[0], batch.labels) * len(part)
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


def drawn(run: Run, calibration: Calibration | GateCalibration) -> np.ndarray:
    """The rows of the training set that a calibration reads, in their order. Drawn ones depend on
    its seed and the task alone, or on the trial's seed."""
    if calibration.examples is None:
        return np.arange(len(run.data.train))
    seed = run.trial.seed if calibration.seed is None else calibration.seed
    generator = np.random.default_rng(stream(run.trial.task, seed, "calibration"))
    return generator.permutation(len(run.data.train))[: calibration.examples]
