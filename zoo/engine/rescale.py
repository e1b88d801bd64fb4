"""Scale the outputs of the units that stay, so that each sub-layer gives what a larger model gives
(Kwon et al. 2022, section 4.3)."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.engine.build import Run
from zoo.engine.layers import factor
from zoo.engine.through import Through
from zoo.inputs.batches import Batch
from zoo.parts.calibration import Rescaling
from zoo.parts.units import UnitGroup
from zoo.status import tell

Masks = Mapping[str, Tensor]


@torch.no_grad()
def rescale(
    run: Run, rescaling: Rescaling, masks: Masks, teacher: Masks, batches: Sequence[Batch]
) -> list[str]:
    """Multiply the last parts of groups under `masks`, layer after layer, so that what enters each
    LayerNorm is nearest to what enters it under the masks of `teacher`; both by matrix.

    Returns what to note: where a factor is over the limit, and nothing further was scaled.
    """
    assert run.masked.groups is not None
    architecture = run.network.architecture
    before = {n: layer.weight.detach().clone() for n, layer in run.masked.layers.items()}
    larger, smaller = _Side(run, before, teacher), _Side(run, None, masks)
    by_layer: dict[str, list[str]] = {}
    for name in run.masked.groups.groups:
        by_layer.setdefault(name.rpartition(".")[0], []).append(name)
    for layer, (where, names) in enumerate(by_layer.items()):
        tell(f"rescaling, layer {layer + 1} of {len(by_layer)}")
        for name in names:
            group = run.masked.groups.groups[name]
            last = group.parts[-1].name
            attends = architecture.parameter(f"{last}.weight").role == "O"
            if layer == 0 and attends:  # attention of the first layer stays as it is
                continue
            ends = layer + 1 == len(by_layer) and not attends
            sums, norm = _Sums(), f"{where}.{architecture.norms[0 if attends else 1]}"
            for number, batch in enumerate(batches):
                wanted, _ = larger.see(layer, number, batch, norm, group)
                given, inputs = smaller.see(layer, number, batch, norm, group)
                real = batch.attention.clone()
                if ends and not run.task.output.per_token:
                    real[:, 1:] = False
                sums.add(inputs[real], (wanted - given)[real])
            own = run.masked.layers[last]
            scales = _solved(sums, own.weight * factor(masks[last]), group, constant=attends)
            if not bool((scales.abs() <= rescaling.limit).all()):
                return [f"scales stopped at {name}, where one is over {rescaling.limit:g}"]
            own.weight.mul_(group.parts[-1].spread(scales.to(own.weight)))
        for side in (larger, smaller):
            side.finish(layer, batches)
    return []


@dataclass
class _Sums:
    """Sums over tokens: x x^T and x r^T of what a matrix reads and of what its output should have
    more, x and r."""

    found: dict[str, Tensor] = field(default_factory=dict)

    def add(self, x: Tensor, r: Tensor) -> None:
        """Add tokens (tokens, in) and (tokens, out); their products are summed in float64."""
        tokens = torch.tensor(float(len(x)), device=x.device)
        sums = {"xx": x.T @ x, "xr": x.T @ r, "x": x.sum(0), "r": r.sum(0), "tokens": tokens}
        for name, one in sums.items():
            added = one.double()
            self.found[name] = self.found[name] + added if name in self.found else added


def _solved(sums: _Sums, weight: Tensor, group: UnitGroup, *, constant: bool) -> Tensor:
    """The factor of each unit, 1 for those without weights: 1 + argmin_d of norm(N d - c)^2 +
    norm(d)^2, where N d = c are the normal equations of A d = r and the columns of A are what units
    give at each token; with a `constant` there is a column of ones too, whose share is left out.
    """
    found, w = sums.found, weight.double()
    alive = group.parts[-1].gather(w).any(1)
    scales = torch.ones(group.units, dtype=torch.float64, device=w.device)
    if not bool(alive.any()):
        return scales
    each = len(w.T) // group.units
    normal = (found["xx"] * (w.T @ w)).view(group.units, each, group.units, each).sum((1, 3))
    right = (found["xr"] * w.T).sum(1).view(group.units, each).sum(1)
    normal, right = normal[alive][:, alive], right[alive]
    if constant:
        normal, right = F.pad(normal, (0, 1, 0, 1)), F.pad(right, (0, 1))
        ones = (found["x"] * w.sum(0)).view(group.units, each).sum(1)[alive]
        normal[-1, :-1] = normal[:-1, -1] = ones
        normal[-1, -1], right[-1] = found["tokens"] * len(w), found["r"].sum()
    damped = normal @ normal + torch.eye(len(normal), dtype=normal.dtype, device=normal.device)
    shares = torch.linalg.solve(damped, normal @ right)
    scales[alive] += shares[: int(alive.sum())]
    return scales


class _Side:
    """The model under some masks, passed through layer after layer."""

    def __init__(self, run: Run, weights: Masks | None, masks: Masks):
        self.run, self.weights, self.masks = run, weights, masks
        self.through = Through(run)

    def see(
        self, layer: int, number: int, batch: Batch, norm: str, group: UnitGroup
    ) -> tuple[Tensor, Tensor]:
        """What enters a LayerNorm (examples, positions, out), and what the last part of a group
        reads (examples, positions, in), in a pass through a layer."""
        self._work(layer)
        reads = self.run.masked.layers[group.parts[-1].name]
        with _inputs(self.run.masked.encoder.get_submodule(norm), reads) as found:
            self.through(layer, number, batch)
        return found[0], found[1]

    def finish(self, layer: int, batches: Sequence[Batch]) -> None:
        """Hold what a layer puts out."""
        self._work(layer)
        self.through.finish(layer, batches)

    def _work(self, layer: int) -> None:
        """Give the masked layers of a layer their working weights."""
        masked = self.run.masked
        for name, own in masked.layers.items():
            if masked.architecture.parameter(f"{name}.weight").layer == layer:
                weight = own.weight if self.weights is None else self.weights[name]
                torch.mul(weight, factor(self.masks[name]), out=own.working.detach())


@contextmanager
def _inputs(*modules: torch.nn.Module) -> Iterator[dict[int, Tensor]]:
    """Inside, what modules read last is kept, by their place."""
    found: dict[int, Tensor] = {}
    handles = [
        module.register_forward_pre_hook(lambda _, args, at=at: found.update({at: args[0]}))
        for at, module in enumerate(modules)
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
