"""The units of a masked model: their scores, and the masks and gradients that follow."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.engine.layers import check_names, checked
from zoo.errors import TrialError
from zoo.inputs.architecture import Architecture
from zoo.parts.method import Method
from zoo.parts.scores import stored
from zoo.parts.units import Held, checked_groups, prunable


class Groups:
    """Groups of units by name, over the masked layers of an encoder; `stored` are the scores that
    are tensors of their own. Raises ConfigError for matrices that the units cannot cover."""

    def __init__(self, method: Method, encoder: Any, architecture: Architecture, layers: Any):
        assert method.units is not None and method.score is not None
        self.score, self.learns, self.layers = method.score, method.learns_scores, layers
        matrices, heads = prunable(architecture, layers), architecture.attention_heads(encoder)
        self.groups = checked_groups(method.units, matrices, heads)
        self.part_of = {part.name: n for n, g in self.groups.items() for part in g.parts}
        self.stored: dict[str, Tensor] = {}
        self._sums: dict[str, Tensor] = {}
        for group in self.groups.values():
            for part in group.parts:
                layers[part.name].closes = part.closes and layers[part.name].bias is not None

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
        for name, group in self.groups.items():
            like = self.layers[group.parts[0].name].mask.new_empty(group.shape)
            mask = checked(name, masks[name], like)
            found |= {part.name: part.spread(mask) for part in group.parts}
        return found

    @property
    def masks(self) -> dict[str, Tensor]:
        """The current mask of each group."""
        found = {}
        for name, group in self.groups.items():
            first = group.parts[0]
            own = first.gather(self.layers[first.name].mask)[:, 0]
            found[name] = own.reshape(group.shape)
        return found

    def over_weights(self) -> dict[str, Tensor]:
        """The stored score of each weight, by matrix."""
        return {
            part.name: part.spread(self.stored[name].detach())
            for name, group in self.groups.items()
            for part in group.parts
        }

    def add(self, matrix: str, product: Tensor) -> None:
        """Take in G * W of a matrix: the gradient of a unit's score is the sum over its weights and
        the biases that go with it."""
        name = self.part_of.get(matrix)
        if name is None:
            return
        group = self.groups[name]
        (part,) = (part for part in group.parts if part.name == matrix)
        own = part.sums(product).view(group.shape)
        gate = self.layers[matrix].bias_gate
        if gate is not None and gate.grad is not None:
            own = own + gate.grad.view(group.units, -1).sum(1).view(group.shape)
            gate.grad = None
        self._sums[name] = self._sums[name] + own if name in self._sums else own

    def gradients(self) -> list[tuple[Tensor, Tensor]]:
        """The gradient of each stored score, from what was added since the last call, and the
        score."""
        found, self._sums = self._sums, {}
        return [(gradient, self.stored[name]) for name, gradient in found.items()]
