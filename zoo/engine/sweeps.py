"""The masked step in few sweeps over all matrices, on devices that have kernels.

AdamW and the norm of the gradients need the gradients of scores and weights. These follow from G =
dL/dW' where they are needed, so that none is stored. The numbers are those of `backward` of
zoo/engine/masked.py, torch's clipping and torch.optim.AdamW to 1e-6; AdamW's state stays in the
optimiser.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.engine.layers import MaskedLinear
from zoo.inputs.batches import sent
from zoo.kernels.launch import (
    BLOCK,
    KINDS,
    Matrices,
    Shapes,
    available,
    fit,
    launch,
    matrices_of,
    shapes_of,
)
from zoo.parts.gates import Gate, hard_concrete, straight_through
from zoo.parts.method import Method
from zoo.parts.penalties import Penalty, SigmoidGradient, every

STEPPING = "stepping"
MASK, HARD_CONCRETE = 0, 1
"""The gates that kernels know."""


def shift_of(penalty: Penalty) -> float | None:
    """The shift of a penalty that kernels know, the mean over all matrices; None for another."""
    gradient = penalty.gradient
    if isinstance(gradient, SigmoidGradient) and penalty.among is every:
        return gradient.shift
    return None


def kind_of(gate: Gate) -> int | None:
    """Which of the gates that kernels know this is in training; None if it is another."""
    parts = (gate.value, gate.draw)
    if parts == (straight_through.value, None) and gate.slope in (None, straight_through.slope):
        return MASK
    same = (*parts, gate.slope) == (hard_concrete.value, hard_concrete.draw, hard_concrete.slope)
    return HARD_CONCRETE if same else None


def knows(method: Method) -> bool:
    """Whether kernels know all that a method does with G."""
    score, penalty = method.score, method.penalty
    if score is None or score.observe or score.after or kind_of(method.gate) is None:
        return False
    return penalty is None or method.units is not None or shift_of(penalty) is not None


def _scores(method: Method, layers: Sequence[MaskedLinear]) -> list[Tensor]:
    """Scores that kernels train; those of units are not theirs."""
    learns = method.learns_scores and method.units is None
    return [x.score for x in layers] if learns else []


def _shapes(layers: Sequence[MaskedLinear]) -> Shapes:
    return shapes_of(tuple(x.weight.numel() for x in layers), layers[0].weight.device)


def _fixed(gate: Gate, kind: torch.dtype, *lists: Matrices) -> dict[str, Any]:
    """What a kernel is compiled for."""
    wide = all(one.even for one in lists)
    return {"GATE": kind_of(gate), "KIND": KINDS[kind], "EVEN": wide, "BLOCK": BLOCK}


class Working:
    """The product W' = W * gate of all layers. Layers, their weights, scores and working weights
    must stay where they are."""

    def __init__(self, gate: Gate, layers: Sequence[MaskedLinear]):
        self.gate, self.layers, self.shapes = gate, layers, _shapes(layers)
        self.weights = matrices_of([x.weight for x in layers], self.shapes)
        self.working = matrices_of([x.working for x in layers], self.shapes)
        self.samples = kind_of(gate) == HARD_CONCRETE
        if self.samples:
            self.scores = matrices_of([x.score for x in layers], self.shapes)

    @staticmethod
    def possible(gate: Gate, layers: Sequence[MaskedLinear], fused: bool) -> bool:
        """Whether kernels make the product. Hard concrete gates that are not `fused` must be
        stored, since `backward` reads them."""
        kind = kind_of(gate)
        if not available(layers[0].weight.device) or kind is None:
            return False
        if kind == HARD_CONCRETE and not fused:
            return False
        if any(x.weight.dtype != torch.float32 or x.working.dtype not in KINDS for x in layers):
            return False
        return fit([x.weight for x in layers], [x.working for x in layers])

    def make(self, seed: int) -> None:
        """Make W' from the current masks or, with the noise of this seed, from scores."""
        if self.samples:
            scores = masks = read = self.scores
        else:
            scores = masks = read = matrices_of([x.mask for x in self.layers], self.shapes)
        launch(
            STEPPING,
            "make_working",
            self.shapes.grid,
            [
                *(self.weights.table, scores.table, masks.table, self.working.table),
                *(self.shapes.sizes, self.shapes.places, seed),
            ],
            self.weights.bytes + read.bytes + self.working.bytes,
            **_fixed(self.gate, self.layers[0].working.dtype, self.weights, read, self.working),
        )


@dataclass(frozen=True)
class Gradients:
    """What kernels need to compute the gradients of a step: arguments, what they are compiled for,
    and the bytes of what they read, those of scores and weights apart."""

    arguments: list[Any]
    fixed: dict[str, Any]
    read: int
    scores: int
    weights: int


class Update:
    """Gradients, clipping and AdamW of the scores and weights of all masked layers, which must stay
    where they are; not of scores of units. Only for methods, optimisers and devices where
    `possible` says so.

    `clip` comes first in a step, while G is there, then `step`, which drops G.
    """

    def __init__(self, method: Method, layers: Sequence[MaskedLinear], optimizer: Any):
        self.method, self.layers, self.shapes = method, layers, _shapes(layers)
        weights = [x.weight for x in layers]
        scores = _scores(method, layers)
        held = [optimizer.state[p]["step"] for p in (*scores, *weights) if p in optimizer.state]
        self.taken = int(held[0]) if held else 0  # of an optimiser that goes on
        self.weights = _trained(weights, optimizer, self.shapes)
        self.scores = _trained(scores, optimizer, self.shapes)
        steps = [*self.scores.steps, *self.weights.steps]
        self.steps = list({id(step): step for step in steps}.values())
        sizes = [x.weight.numel() for x in layers]
        shares = np.array([1 / (len(sizes) * size) for size in sizes], np.float32)
        self.shares = sent(shares, layers[0].weight.device)
        self.gradients: Gradients | None = None
        self.factor: Tensor | None = None

    @staticmethod
    def possible(method: Method, layers: Sequence[MaskedLinear], optimizer: Any) -> bool:
        """Whether an update of this kind gives what `backward`, clipping and the optimiser give."""
        if not layers or type(optimizer) is not torch.optim.AdamW or not knows(method):
            return False
        weights = [x.weight for x in layers]
        scores = _scores(method, layers)
        trained = [weight for weight in weights if weight.requires_grad]
        if len(trained) not in (0, len(weights)) or not (trained or scores):
            return False
        if any(p.dtype != torch.float32 for p in (*weights, *scores)):
            return False
        return fit(weights, scores) and _plain(optimizer, trained, scores)

    def clip(self, others: Sequence[Tensor], most: float, weight: float, seed: int) -> Tensor:
        """Scale the gradients of `others` down if the norm of all gradients is over `most`, and
        those of scores and weights in `step`; returns the norm before. `weight` is that of the
        penalty."""
        self.gradients = given = self._gradients(weight, seed)
        rows, many = self.shapes.grid
        sums = torch.empty(many, rows, device=self.shares.device)
        read = given.read + given.scores + given.weights
        arguments = [*given.arguments, sums, rows]
        launch(STEPPING, "sum_squares", self.shapes.grid, arguments, read, **given.fixed)
        squares = sums.sum()
        held = [p.grad for p in others if p.grad is not None]
        if held:
            squares = squares + torch.stack(torch._foreach_norm(held)).square().sum()
        norm = squares.sqrt()
        self.factor = (most / (norm + 1e-6)).clamp(max=1.0)
        if held:
            torch._foreach_mul_(held, self.factor)
        return norm

    def _gradients(self, weight: float, seed: int) -> Gradients:
        layers, gate, penalty = self.layers, self.method.gate, self.method.penalty
        arrived, samples = [x.arrived for x in layers], kind_of(gate) == HARD_CONCRETE
        upstream, masks = matrices_of(arrived, self.shapes), self.weights.parameters
        read, scores = upstream.bytes, self.scores.parameters
        penalised = scores is not None and penalty is not None and weight != 0
        if self.weights.train and not samples:
            masks = matrices_of([x.mask for x in layers], self.shapes)
            read += masks.bytes
        lists = upstream, self.weights.parameters, scores or masks, masks
        shift = (shift_of(penalty) or 0.0) if penalty is not None else 0.0
        fixed = {"SCORES": scores is not None, "WEIGHTS": self.weights.train, "PENALTY": penalised}
        return Gradients(
            arguments=[
                *(one.table for one in lists),
                *(self.shapes.sizes, self.shapes.places, self.shares, float(weight), shift, seed),
            ],
            fixed={**fixed, **_fixed(gate, arrived[0].dtype, *lists, *self._moments())},
            read=read,
            scores=scores.bytes if scores and (penalised or samples) else 0,
            weights=self.weights.parameters.bytes if scores else 0,
        )

    def _moments(self) -> list[Matrices]:
        return [*self.scores.moments, *self.weights.moments]

    @torch.no_grad()
    def step(self) -> None:
        """Take AdamW's step with the gradients of `clip`, and drop G."""
        given = self.gradients
        assert given is not None and self.factor is not None
        self.taken += 1
        torch._foreach_add_(self.steps, 1)
        tables, values, moved = [], [], given.read
        for own, read in ((self.scores, given.scores), (self.weights, given.weights)):
            moments = own.moments or [self.weights.parameters] * 2  # not read where nothing trains
            tables += [one.table for one in moments]
            values += own.values(self.taken)
            moved += own.moved or read  # what trains is read once, whatever for
        group = self.scores.group or self.weights.group
        rest = [*group["betas"], *(1 - beta for beta in group["betas"]), group["eps"]]
        launch(
            STEPPING,
            "update",
            self.shapes.grid,
            [*given.arguments, self.factor, *tables, *values, *rest],
            moved,
            **given.fixed,
        )
        for layer in self.layers:
            layer.working.grad = None


@dataclass(frozen=True)
class Trained:
    """The scores or the weights of all layers, with AdamW's state where they `train`: its group,
    its moments, its counts of steps."""

    parameters: Any
    train: bool
    group: Mapping[str, Any]
    moments: list[Matrices]
    steps: list[Tensor]

    @property
    def moved(self) -> int:
        """Bytes that AdamW reads and writes."""
        return 6 * self.parameters.bytes if self.train else 0

    def values(self, taken: int) -> list[float]:
        """Learning rate over the first correction, root of the second, what decay leaves."""
        if not self.train:
            return [0.0, 1.0, 1.0]
        beta1, beta2 = self.group["betas"]
        rate = self.group["lr"]
        left = 1 - rate * self.group["weight_decay"]
        return [rate / (1 - beta1**taken), math.sqrt(1 - beta2**taken), left]


def _trained(parameters: Sequence[Tensor], optimizer: Any, shapes: Shapes) -> Trained:
    """Parameters and their state in the optimiser, which is made where it is missing."""
    if not parameters:
        return Trained(None, False, {}, [], [])
    given = matrices_of(parameters, shapes)
    if not parameters[0].requires_grad:
        return Trained(given, False, {}, [], [])
    first = torch.zeros((), device=parameters[0].device)
    states = [optimizer.state[parameter] for parameter in parameters]
    for parameter, state in zip(parameters, states, strict=True):
        state.setdefault("step", first)
        for name in MOMENTS:
            if name not in state:
                state[name] = torch.zeros_like(parameter.detach())
    moments = [matrices_of([state[name] for state in states], shapes) for name in MOMENTS]
    steps = [state["step"] for state in states]
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    return Trained(given, True, groups[id(parameters[0])], moments, steps)


MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's state, by torch's names."""


def _plain(
    optimizer: torch.optim.Optimizer, weights: Sequence[Tensor], scores: Sequence[Tensor]
) -> bool:
    """Whether an AdamW does nothing that kernels do not: one group for all weights of these, one
    for all scores, alike but for rate and decay, without variants and hooks."""
    numbered = enumerate(optimizer.param_groups)
    number_of = {id(p): number for number, g in numbered for p in g["params"]}
    kinds = [{number_of.get(id(p)) for p in one} for one in (weights, scores) if one]
    numbers = [number for kind in kinds for number in kind]
    if len(numbers) > len(kinds) or None in numbers:
        return False
    groups = [optimizer.param_groups[number] for number in numbers if number is not None]
    hooked = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    return not hooked and all(
        not g["amsgrad"]
        and not g["maximize"]
        and isinstance(g["lr"], float | int)
        and (g["betas"], g["eps"]) == (groups[0]["betas"], groups[0]["eps"])
        for g in groups
    )
