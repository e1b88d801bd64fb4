"""The masked step in few sweeps over all matrices, on devices that have kernels.

AdamW and the norm of the gradients need the gradients of scores and weights. These follow from G =
dL/dW' where they are needed, so that none is stored. The numbers are those of `backward` of
zoo/engine/masked.py, torch's clipping and torch.optim.AdamW to 1e-6; AdamW's state stays in the
optimiser.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.engine.layers import MaskedLinear
from zoo.errors import TrialError
from zoo.kernels.launch import (
    BLOCK,
    KINDS,
    Shapes,
    bytes_of,
    even,
    fit,
    launch,
    sent,
    shapes_of,
    table,
)
from zoo.parts.gates import SHIFT, Gate, hard_concrete, straight_through
from zoo.parts.method import Method
from zoo.parts.penalties import Penalty, expected_l0_gradient, mean_sigmoid_gradient

ROOM = "stepping"
MASK, HARD_CONCRETE = 0, 1
"""The gates that kernels know."""
SHIFTS = ((mean_sigmoid_gradient, 0.0), (expected_l0_gradient, SHIFT))
"""Penalties that kernels know: their gradient is sigmoid'(S - shift) / (matrices * entries)."""


def shift_of(penalty: Penalty) -> float | None:
    """The shift of a penalty that kernels know; None for another one."""
    return next((shift for known, shift in SHIFTS if penalty.gradient is known), None)


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
    if score is None or score.observe is not None or kind_of(method.gate) is None:
        return False
    return penalty is None or shift_of(penalty) is not None


def _shapes(layers: Sequence[MaskedLinear]) -> Shapes:
    return shapes_of(tuple(x.weight.numel() for x in layers), layers[0].weight.device)


def _flags(gate: Gate, working: Tensor, *lists: Sequence[Tensor]) -> dict[str, Any]:
    """What a kernel is compiled for."""
    kind = KINDS[working.dtype]
    return {"GATE": kind_of(gate), "KIND": kind, "EVEN": even(*lists), "BLOCK": BLOCK}


def makes_working(gate: Gate, layers: Sequence[MaskedLinear], fused: bool) -> bool:
    """Whether kernels make W'. Hard concrete gates that are not `fused` must be stored, since
    `backward` reads them."""
    kind = kind_of(gate)
    if kind is None or (kind == HARD_CONCRETE and not fused):
        return False
    if any(x.weight.dtype != torch.float32 or x.working.dtype not in KINDS for x in layers):
        return False
    return fit([x.weight for x in layers], [x.working for x in layers], [x.mask for x in layers])


def make_working(gate: Gate, layers: Sequence[MaskedLinear], seed: int) -> None:
    """W' = W * gate in all layers, with the noise of this seed where the gate draws any."""
    weights, working, masks = ([getattr(x, n) for x in layers] for n in FACTORS)
    scores = [x.score for x in layers] if kind_of(gate) == HARD_CONCRETE else weights
    read = scores if kind_of(gate) == HARD_CONCRETE else masks
    shapes = _shapes(layers)
    tables = [table([x.detach() for x in one]) for one in (weights, scores, masks, working)]
    launch(
        ROOM,
        "make_working",
        shapes.grid,
        [*tables, shapes.sizes, shapes.places, seed],
        bytes_of(weights, read, working),
        **_flags(gate, working[0], weights, scores, masks, working),
    )


FACTORS = ("weight", "working", "mask")
"""What the product is made of, by the names of a layer."""


class Update:
    """Gradients, clipping and AdamW of the scores and weights of all masked layers.

    `squares` gives the sum of the squares of their gradients, `step` takes AdamW's step with
    gradients times a factor. Only for methods, optimisers and devices where `possible` says so.
    """

    def __init__(self, method: Method, layers: Sequence[MaskedLinear], optimizer: Any):
        self.method, self.layers, self.optimizer = method, layers, optimizer
        self.scores = method.learns_scores
        self.weights = layers[0].weight.requires_grad
        self.groups = {id(p): g for g in optimizer.param_groups for p in g["params"]}
        own = [x.score for x in layers if self.scores]
        own += [x.weight for x in layers if self.weights]
        held = [optimizer.state[p]["step"] for p in own if p in optimizer.state]
        self.taken = int(held[0]) if held else 0  # of an optimiser that goes on
        counter = torch.full((), float(self.taken), device=own[0].device)
        for parameter in own:
            state = optimizer.state[parameter]
            state.setdefault("step", counter)
            for name in MOMENTS:
                if name not in state:
                    state[name] = torch.zeros_like(parameter.detach())
        counters = [optimizer.state[parameter]["step"] for parameter in own]
        self.counters = list({id(one): one for one in counters}.values())
        self.factor: Tensor | None = None

    @staticmethod
    def possible(method: Method, layers: Sequence[MaskedLinear], optimizer: Any) -> bool:
        """Whether an update of this kind gives what `backward`, clipping and the optimiser give."""
        if not layers or type(optimizer) is not torch.optim.AdamW or not knows(method):
            return False
        weights = [x.weight for x in layers]
        trained = {w.requires_grad for w in weights}
        every = weights + ([x.score for x in layers] if method.learns_scores else [])
        if len(trained) > 1 or not (method.learns_scores or trained == {True}):
            return False
        own = every if trained == {True} else every[len(weights) :]
        floats = all(p.dtype == torch.float32 for p in every)
        return floats and _plain(optimizer, own, weights) and fit(every)

    def _given(
        self, penalty_weight: float, seed: int
    ) -> tuple[list[Any], int, dict[str, Any], frozenset[str]]:
        """Arguments of a kernel that computes gradients, the bytes that it reads for them, what it
        is compiled for, and the names of what it reads."""
        layers, shapes, gate = self.layers, _shapes(self.layers), self.method.gate
        upstream = [x.working.grad for x in layers if x.working.grad is not None]
        if len(upstream) < len(layers):
            raise TrialError("no gradient arrived: call the loss's backward() first")
        lists: Mapping[str, list[Tensor]] = {
            "upstream": upstream,
            "weights": [x.weight.detach() for x in layers],
            "scores": [(x.score if self.scores else x.weight).detach() for x in layers],
            "masks": [x.mask for x in layers],
        }
        penalty = self.method.penalty
        penalised = penalty is not None and penalty_weight != 0
        sampling = kind_of(gate) == HARD_CONCRETE
        needed = {
            "upstream": True,
            "weights": self.scores,
            "scores": self.scores and (penalised or sampling),
            "masks": self.weights and not sampling,
        }
        used = frozenset(name for name in lists if needed[name])
        read = bytes_of(*(lists[name] for name in used))
        sizes = tuple(x.weight.numel() for x in layers)
        shares = _shares(sizes, shapes.sizes.device)
        shift = (shift_of(penalty) or 0.0) if penalty is not None else 0.0
        flags = {"SCORES": self.scores, "WEIGHTS": self.weights, "PENALTY": penalised}
        given = [*map(table, lists.values()), shapes.sizes, shapes.places, shares]
        flags |= _flags(gate, upstream[0], *lists.values())
        return [*given, float(penalty_weight), shift, seed], read, flags, used

    def squares(self, penalty_weight: float, seed: int) -> Tensor:
        """The sum of the squares of all gradients of scores and weights, on the device."""
        given, read, flags, _ = self._given(penalty_weight, seed)
        shapes = _shapes(self.layers)
        rows, many = shapes.grid
        sums = torch.empty(many, rows, device=shapes.sizes.device)
        launch(ROOM, "sum_squares", shapes.grid, [*given, sums, rows], read, **flags)
        return sums.sum()

    def clip(self, others: Sequence[Tensor], most: float, weight: float, seed: int) -> Tensor:
        """Scale the gradients of `others` down if the norm of all gradients is over `most`, and
        those of scores and weights in `step`; returns the norm before."""
        squares = self.squares(weight, seed)
        held = [p.grad for p in others if p.grad is not None]
        if held:
            squares = squares + torch.stack(torch._foreach_norm(held)).square().sum()
        norm = squares.sqrt()
        self.factor = (most / (norm + 1e-6)).clamp(max=1.0)
        if held:
            torch._foreach_mul_(held, self.factor)
        return norm

    @torch.no_grad()
    def step(self, weight: float, seed: int) -> None:
        """Take AdamW's step and drop G."""
        assert self.factor is not None
        given, read, flags, used = self._given(weight, seed)
        self.taken += 1
        torch._foreach_add_(self.counters, 1)
        tables, values, moved = [], [], read
        for name, trains in (("score", self.scores), ("weight", self.weights)):
            own = [getattr(x, name) for x in self.layers] if trains else []
            states = [[self.optimizer.state[p][m] for p in own] for m in MOMENTS]
            tables += [table(one) if one else given[0] for one in states]
            values += self._values(own)
            moved += 2 * bytes_of(own, *states) - bytes_of(own) * (f"{name}s" in used)
        group = self.groups[id(self.layers[0].score if self.scores else self.layers[0].weight)]
        betas = group["betas"]
        launch(
            ROOM,
            "update",
            _shapes(self.layers).grid,
            [*given, self.factor, *tables, *values, *betas, *(1 - b for b in betas), group["eps"]],
            moved,
            **flags,
        )
        for layer in self.layers:
            layer.working.grad = None

    def _values(self, parameters: Sequence[Tensor]) -> list[float]:
        """Learning rate over the first correction, root of the second, what decay leaves."""
        if not parameters:
            return [0.0, 1.0, 1.0]
        group = self.groups[id(parameters[0])]
        beta1, beta2 = group["betas"]
        rate = group["lr"]
        left = 1 - rate * group["weight_decay"]
        return [rate / (1 - beta1**self.taken), math.sqrt(1 - beta2**self.taken), left]


MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's state, by torch's names."""


def _plain(
    optimizer: torch.optim.Optimizer, own: Sequence[Tensor], weights: Sequence[Tensor]
) -> bool:
    """Whether an AdamW does nothing that kernels do not: one group for all weights of these, one
    for all scores, alike but for rate and decay, without variants and hooks."""
    group_of = {
        id(p): number for number, g in enumerate(optimizer.param_groups) for p in g["params"]
    }
    inside = {id(weight) for weight in weights}
    kinds = {(id(p) in inside, group_of.get(id(p))) for p in own}
    if len(kinds) != len({kind for kind, _ in kinds}) or None in {group for _, group in kinds}:
        return False
    groups = [optimizer.param_groups[number or 0] for _, number in kinds]
    hooked = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    return not hooked and all(
        not g["amsgrad"]
        and not g["maximize"]
        and isinstance(g["lr"], float | int)
        and (g["betas"], g["eps"]) == (groups[0]["betas"], groups[0]["eps"])
        for g in groups
    )


def _shares(sizes: tuple[int, ...], device: torch.device) -> Tensor:
    """1 / (matrices * entries) of each matrix."""
    return sent([1 / (len(sizes) * size) for size in sizes], torch.float32, device)
