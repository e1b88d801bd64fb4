"""The masked model: W' = W * gate in every prunable matrix, made once per optimiser step.

Each masked layer computes y = x W'^T + b with a working weight W', a leaf tensor. After
`backward()` each layer holds G = dL/dW', and all other gradients follow from G outside autograd:

| of | for | gradient |
|---|---|---|
| W, if it trains | all methods | G * gate |
| S | straight-through gates | G * W, at masked entries too; summed over a unit |
| S | hard-concrete gates | G * W * d gate / d S |
| S | penalties R with weight lambda | lambda * dR/dS in closed form, added to the above |
| statistics | methods that observe | whatever `Score.observe` makes of (layer, G) |

Evaluation multiplies the current W by evaluation gates of the current masks, and makes no mask.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from zoo.engine import sweeps
from zoo.engine.groups import Groups
from zoo.engine.layers import (
    UNCALIBRATED,
    Counts,
    Depth,
    MaskedLinear,
    check_names,
    checked,
    checked_weight,
    factor,
    folded,
    masked_layers,
    put_in,
)
from zoo.engine.streams import stream
from zoo.errors import ConfigError, TrialError
from zoo.inputs.kinds import architecture_of
from zoo.parts.gates import mask_itself
from zoo.parts.method import Method
from zoo.parts.patterns import check_shapes
from zoo.parts.threads import in_threads


class MaskedModel:
    """The masked layers of an encoder under one method.

    The encoder's linear modules are replaced in place after the checkpoint was loaded, so nothing
    pre-trained is renamed or re-initialised; pre-trained parameters are set to train or not as the
    method says. Move the encoder to its device first: `generator`, on the CPU, makes the first
    scores, and its seed with the step and the name of the matrix seeds the noise, which is drawn on
    the device. Raises ConfigError for an unsupported architecture, and a `method` that is none.

    `layers` and `sizes` (entries) of the prunable matrices by name; `level`: that of the current
    masks; `refreshed`: whether masks were made; `penalty_weight`: the current lambda; `step`: that
    of the last `advance`; `fused`: whether zoo/engine/sweeps.py takes the place of `backward`;
    `calibrated`: whether a calibration made the masks; `groups`: the units, None where each weight
    is one; `depth`: the layers, and what they hold.

    >>> import torch
    >>> from transformers import BertConfig, BertModel
    >>> from methods.movement import movement
    >>> from zoo import MaskedModel
    >>> encoder = BertModel(BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1,
    ...     num_attention_heads=2, intermediate_size=16))
    >>> masked = MaskedModel(encoder, movement(0.25, start=0.0, stop=1.0))
    >>> for step in range(10):
    ...     masked.advance(step, 10)
    ...     encoder(torch.tensor([[1, 2]])).last_hidden_state.square().sum().backward()
    ...     masked.backward()  # then an optimiser steps, masked.trained_scores among its parameters
    >>> masked.advance(10, 10)
    >>> masked.remaining().density
    0.25
    """

    def __init__(self, encoder: Any, method: Method, generator: torch.Generator | None = None):
        if not isinstance(method, Method):
            raise ConfigError(
                f"MaskedModel needs a Method, got {method!r:.60}; call the factory with a density"
            )
        self.encoder, self.method = encoder, method
        self.generator = generator or torch.Generator().manual_seed(0)
        self.architecture = architecture_of(encoder)
        self.depth = Depth(encoder, method)
        self.sizes = self.depth.inside.sizes
        self.layers: dict[str, MaskedLinear] = {}
        self._kept: Mapping[str, int] = {}
        self.level: float | None = None
        self.step, self.penalty_weight = 0, 0.0
        self.refreshed, self.fused, self.calibrated = False, False, False
        self._working: sweeps.Working | None = None
        self.groups: Groups | None = None
        for name, parameter in encoder.named_parameters():
            parameter.requires_grad_(method.trains(self.architecture.parameter(name)))
        if method.score is not None:
            self._mask(dict(self.architecture.matrices(encoder)))

    def _mask(self, matrices: Mapping[str, nn.Linear]) -> None:
        """Put masked layers in the place of linear ones, and make the stored scores."""
        method = self.method
        self.layers = masked_layers(self.encoder, matrices, method, self.generator)
        if method.units is not None:
            self.groups = Groups(method, self.encoder, self.architecture, self.layers)
            self.groups.start(self.generator)
        else:
            check_shapes(method.mask, {n: tuple(m.weight.shape) for n, m in matrices.items()})

    @property
    def scores(self) -> dict[str, Tensor]:
        """The current score of each matrix, or of each group of units."""
        if self.groups is not None:
            return self.groups.scores()
        return {name: self._score(name) for name in self.layers}

    @property
    def stored_scores(self) -> dict[str, Tensor]:
        """The score tensors that are held, by matrix or by group."""
        if self.groups is not None:
            return self.groups.stored
        return {n: layer.score for n, layer in self.layers.items() if hasattr(layer, "score")}

    @property
    def trained_scores(self) -> list[Tensor]:
        """Score tensors for the optimiser to update; empty if scores do not train."""
        return list(self.stored_scores.values()) if self.method.learns_scores else []

    def advance(self, step: int, total: int) -> None:
        """Make masks, W' and lambda for optimiser step `step` (from 0) of `total`; call it again
        with step = total when training ends. Where a schedule returns None, the last value stays.
        Raises TrialError if the gradients of the step before were not used, and as `refresh`.
        """
        if any(layer.working.grad is not None for layer in self.layers.values()):
            raise TrialError("call masked.backward() after the loss's backward() in each step")
        if self.method.penalty is not None:
            weight = self.method.penalty.weight(step, total)
            self.penalty_weight = self.penalty_weight if weight is None else weight
        self.step = step
        self.refresh(self.method.level(step, total))
        self.sizes = self.depth.end() if step == total else self.sizes

    @torch.no_grad()
    def go_on(self, step: int) -> None:
        """Make gates and W' for this step from the masks that are there."""
        self.step, self.refreshed = step, True
        if self.layers:
            self._make_working()

    @torch.no_grad()
    def refresh(self, level: float | None) -> None:
        """Make masks at `level` (None keeps the current ones), gates, and W' in place.

        Raises TrialError for masks that are not 0 and 1 in the shape of W, or without calibration.
        """
        self.refreshed = True
        same = self.method.constant_scores and level == self.level
        if level is not None:
            self.level = level
        if not self.layers:
            return
        if level is not None and self.method.calibration is not None and not self.calibrated:
            raise TrialError(UNCALIBRATED)
        if level is not None and not same and not self.calibrated:
            self._set_masks(self.method.mask(self.scores, level))
        if self.method.zeroes(level):
            for layer in self.layers.values():
                layer.zero_masked()
        self._make_working()

    @torch.no_grad()
    def put(self, name: str, mask: Tensor, weight: Tensor) -> None:
        """Set the mask and W of a matrix; W' follows at the next `refresh`. Raises TrialError for a
        mask or a W in another shape, or a W that is not finite."""
        layer = self.layers[name]
        layer.mask = layer.gate = checked(name, mask, layer.weight)
        layer.weight.copy_(checked_weight(name, weight, layer.weight))

    @torch.no_grad()
    def _make_working(self) -> None:
        """Make gates and W' from masks, scores and noise."""
        layers, gate, learns = [*self.layers.values()], self.method.gate, self.method.learns_scores
        for layer in layers:
            layer.gate_by_mask(learns)
        if self._working is None and sweeps.Working.possible(gate, layers, self.fused):
            self._working = sweeps.Working(gate, layers)
        if self._working is not None:
            self._working.make(self.seed())
            return
        if gate.draw is not None:
            scores, seeds = map(self._score, self.layers), map(self.seed, self.layers)
            each = in_threads if layers[0].weight.device.type == "cpu" else map
            noises = each(gate.draw, [*scores], [*seeds])
            for layer, noise in zip(layers, noises, strict=True):
                layer.noise = noise
        for name, layer in self.layers.items():
            if gate.value is not mask_itself:
                layer.gate = gate.value(self._score(name), layer.mask, layer.noise)
            torch.mul(layer.weight, factor(layer.gate), out=layer.working.detach())

    def seed(self, *names: object) -> int:
        """The seed of the noise of the current step."""
        return stream(self.generator.initial_seed(), "noise", self.step, *names)

    def _score(self, name: str) -> Tensor:
        assert self.method.score is not None
        return self.method.score.read(self.layers[name])

    def work_in(self, kind: torch.dtype) -> None:
        """Keep W' in this type from now on; evaluation computes in float32 in any case."""
        for layer in self.layers.values():
            layer.working = layer.working.detach().to(kind).requires_grad_()
        self._working = None

    def _set_masks(self, masks: Mapping[str, Tensor]) -> None:
        if self.groups is not None:
            masks = self.groups.spread(masks)
        check_names(masks, self.layers)
        for name, layer in self.layers.items():
            layer.mask = checked(name, masks[name], layer.weight)

    @torch.no_grad()
    def backward(self) -> None:
        """Write the gradients of W and S from G = dL/dW' after the loss's `backward()`, in G's
        memory. Raises TrialError where no masks were ever made, or there is no G."""
        if self.layers and not self.refreshed:
            raise TrialError("there are no masks yet: call advance(step, total) before each step")
        self.backward_units()
        score, gate = self.method.score, self.method.gate
        for layer in self.layers.values():
            assert score is not None
            trained, slope = layer.weight.requires_grad, gate.slope if self.groups is None else None
            upstream = layer.arrived
            if trained or slope or score.observe:
                upstream = upstream.to(layer.weight.dtype)
            if score.observe is not None:
                score.observe(layer, upstream)
            if slope is not None:
                product = upstream * layer.weight if trained else upstream.mul_(layer.weight)
                own = slope(layer.score, layer.mask, layer.noise, layer.gate)
                gradient = product if own is None else product.mul_(own)
                layer.score.grad = self._with_penalty(gradient, layer.score)
            if trained:
                layer.weight.grad = upstream.mul_(factor(layer.gate))
            layer.working.grad = None

    @torch.no_grad()
    def backward_units(self) -> None:
        """Write gradients of scores of units, if they learn, from G, which stays if W trains."""
        if self.groups is not None and self.method.learns_scores:
            self.groups.backward(self.method.penalty, self.penalty_weight)

    def _with_penalty(self, gradient: Tensor, score: Tensor) -> Tensor:
        """The gradient of a score, with that of the penalty added in place."""
        penalty = self.method.penalty
        if penalty is not None and self.penalty_weight:
            of_penalty = penalty.of(score, self.stored_scores.values())
            gradient.add_(of_penalty, alpha=self.penalty_weight)
        return gradient

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Inside, W' is the current W times the evaluation gate under the current masks."""
        held = {name: layer.working for name, layer in self.layers.items()}
        gates = self.test_gates()
        with torch.no_grad():
            for name, layer in self.layers.items():
                if layer.working.dtype != layer.weight.dtype:
                    layer.working = torch.empty_like(layer.weight)
                torch.mul(layer.weight, factor(gates[name]), out=layer.working.detach())
        try:
            yield
        finally:
            for name, layer in self.layers.items():
                layer.working = held[name]
            if self.layers and self.method.gate.test is not None:
                self._make_working()

    @torch.no_grad()
    def test_gates(self) -> dict[str, Tensor]:
        """The evaluation gate of each matrix, as it multiplies W."""
        test = self.method.gate.test
        if test is None:
            return {name: layer.gate for name, layer in self.layers.items()}
        scores = self.scores
        return {name: test(scores[name], layer.mask, None) for name, layer in self.layers.items()}

    def remaining(self) -> Counts:
        """The one count of remaining weights: nonzero entries of the evaluation gates, after `fold`
        those that it multiplied into W."""
        if not self.layers:
            return self.depth.count(self._kept)
        counts = {name: gate.count_nonzero() for name, gate in self.test_gates().items()}
        kept = {name: int(n) for name, n in counts.items()}
        return self.depth.count(kept)

    def check_budget(self, level: float | None) -> None:
        """Raise TrialError if more weights remain than the method's budget allows at a level. Units
        have none: matrices of no unit, and a unit of each group, stay whatever the level."""
        method, budget = self.method, self.method.budget
        if method.score is not None and method.units is None and level is not None and budget:
            self.remaining().check(budget(self.sizes, level))

    @torch.no_grad()
    def fold(self) -> None:
        """End masking: put stock linear modules back, whose pruned weights are 0."""
        self._kept = self.remaining().kept
        for name, gate in self.test_gates().items():
            put_in(self.encoder, name, folded(self.layers[name], gate))
        self.layers, self.groups = {}, None
