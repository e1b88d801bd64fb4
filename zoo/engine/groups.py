"""The units of a masked model: their scores, and the masks and gradients that follow."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from zoo.engine.layers import MaskedLinear, check_names, checked
from zoo.errors import TrialError
from zoo.inputs.architecture import Architecture
from zoo.parts.method import Method
from zoo.parts.penalties import Penalty
from zoo.parts.scores import stored
from zoo.parts.units import Held, Part, checked_groups, prunable


class Groups:
    """Groups of units by name, over the masked layers of an encoder; `stored` are the scores that
    are tensors of their own, `alike` the names of groups that hold the same units; `at_once`:
    whether their matrices are taken at once, for few launches of a GPU, and not one by one, since a
    CPU's caches hold a few. Raises ConfigError for matrices that the units cannot cover."""

    def __init__(self, method: Method, encoder: Any, architecture: Architecture, layers: Any):
        assert method.units is not None and method.score is not None
        self.score, self.learns, self.layers = method.score, method.learns_scores, layers
        matrices, heads = prunable(architecture, layers), architecture.attention_heads(encoder)
        self.groups = checked_groups(method.units, matrices, heads)
        self.part_of = {part.name: n for n, g in self.groups.items() for part in g.parts}
        self.stored: dict[str, Tensor] = {}
        for group in self.groups.values():
            for part in group.parts:
                layers[part.name].closes = part.closes and layers[part.name].bias is not None
        devices = {layers[name].weight.device.type for name in self.part_of}
        self.at_once = "cpu" not in devices
        self.alike = self._alike()

    def _alike(self) -> list[list[str]]:
        found: dict[Any, list[str]] = {}
        for name, group in self.groups.items():
            parts = [(replace(p, name=""), self.layers[p.name].closes) for p in group.parts]
            found.setdefault((group.shape, *parts), []).append(name)
        return [*found.values()]

    def start(self, generator: torch.Generator) -> None:
        """Make the stored scores, if there are any."""
        if self.score.init is None:
            return
        for name, group in self.groups.items():
            weight = self.layers[group.parts[0].name].weight.detach()
            made = self.score.init(weight.new_zeros(group.shape), generator)
            self.stored[name] = made.requires_grad_(self.learns)

    def scores(self) -> dict[str, Tensor]:
        """The current score of each group."""
        if self.score.read is stored:
            return dict(self.stored)
        read = {name: self.score.read(self.layers[name]) for name in self.part_of}
        return {n: self.score.together(g.gather(read)) for n, g in self.groups.items()}

    def held(self, name: str, seed: int) -> Held:
        """What the units of a group hold."""
        group, weights, biases = self.groups[name], [], []
        for part in group.parts:
            layer = self.layers[part.name]
            weights.append(part.gather(layer.weight.detach()).view(*group.shape, -1))
            bias = layer.bias if part.biased else None
            if bias is not None:
                split = bias.detach().view(part.copies, group.units, part.rows)
                bias = split.transpose(0, 1).reshape(*group.shape, -1)
            biases.append(bias)
        return Held(name, tuple(weights), tuple(biases), seed)

    def scale(self, name: str, factors: Sequence[Tensor | None]) -> None:
        """Multiply the weights of a group's units, part by part, and the biases that they own.
        Raises TrialError unless there is a factor per unit, or None, for each part."""
        group = self.groups[name]
        right = isinstance(factors, Sequence) and len(factors) == len(group.parts)
        if not right or any(f is not None and f.shape != group.shape for f in factors):
            raise TrialError(
                f"a calibration by weights must return, for each of the {len(group.parts)} parts of"
                f" {name}, None or factors of shape {group.shape}"
            )
        for part, factor in zip(group.parts, factors, strict=True):
            if factor is None:
                continue
            layer, own = self.layers[part.name], factor.to(self.layers[part.name].weight)
            layer.weight.mul_(part.spread(own))
            if part.biased and layer.bias is not None:
                layer.bias.mul_(own.flatten().repeat_interleave(part.rows).repeat(part.copies))

    def spread(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The mask of each matrix, from those of groups; matrices of no group are kept whole.
        Raises TrialError for masks that are not 0 and 1 in the shape of their group."""
        check_names(masks, self.groups)
        rest = [name for name in self.layers if name not in self.part_of]
        found = {name: torch.ones_like(self.layers[name].mask) for name in rest}
        for names in self.alike:
            first = self.groups[names[0]]
            like = self.layers[first.parts[0].name].mask.new_empty(first.shape)
            own = [checked(name, masks[name], like) for name in names]
            for parts in self._parts(names):
                spread = self._spread(parts[0], own)
                found |= {part.name: mask for part, mask in zip(parts, spread, strict=True)}
        return found

    def _spread(self, part: Part, masks: Sequence[Tensor]) -> Iterable[Tensor]:
        """The masks of matrices of which a part of this geometry is held."""
        if self.at_once:
            return part.spread(torch.stack([*masks]), len(masks)).contiguous()
        return map(part.spread, masks)

    def _parts(self, names: Sequence[str]) -> list[tuple[Part, ...]]:
        """The first parts of these groups, which are alike, then the second ones, and so on."""
        return [*zip(*(self.groups[name].parts for name in names), strict=True)]

    def over_weights(self) -> dict[str, Tensor]:
        """The stored score of each weight, by matrix."""
        return {
            part.name: part.spread(self.stored[name].detach())
            for name, group in self.groups.items()
            for part in group.parts
        }

    def backward(self, penalty: Penalty | None, weight: float) -> None:
        """Write the gradients of stored scores from G = dL/dW': that of a unit is the sum of G * W
        over its weights and of what arrived at the biases that go with it; and that of the penalty,
        times its weight. Raises TrialError where there is no G."""
        for names in self.alike:
            scores = [self.stored[name] for name in names]
            whole = reduce(torch.add, map(self._sums, self._parts(names)))
            gradients = whole.view(len(names), *scores[0].shape)
            if penalty is not None and weight:
                gradients.add_(penalty.gradients(scores, self.stored.values()), alpha=weight)
            for score, gradient in zip(scores, gradients, strict=True):
                score.grad = gradient

    def _sums(self, parts: Sequence[Part]) -> Tensor:
        """What parts of the same geometry add to the gradients of their units, (parts, units)."""
        layers = [self.layers[part.name] for part in parts]
        if self.at_once:
            sums = parts[0].sums(_products(layers))
        else:
            sums = torch.stack([parts[0].sums(_product(layer)) for layer in layers])
        gates = [x.bias_gate for x in layers if x.bias_gate is not None]
        arrived = [gate.grad for gate in gates if gate.grad is not None]
        if arrived:
            sums = sums + torch.stack(arrived).view(*sums.shape, -1).sum(-1)
        for gate in gates:
            gate.grad = None
        return sums


def _products(layers: Sequence[MaskedLinear]) -> Tensor:
    """G * W of matrices of one shape, stacked."""
    weights = [layer.weight.detach() for layer in layers]
    every = weights[0].new_empty(len(layers), *weights[0].shape)
    each = every.unbind()
    torch._foreach_copy_(each, [layer.arrived for layer in layers])
    torch._foreach_mul_(each, weights)
    return every


def _product(layer: MaskedLinear) -> Tensor:
    """G * W of a matrix, in G's memory if W is frozen."""
    upstream, weight = layer.arrived.to(layer.weight.dtype), layer.weight.detach()
    return upstream * weight if layer.weight.requires_grad else upstream.mul_(weight)
