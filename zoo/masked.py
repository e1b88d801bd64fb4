"""The masked model: W' = W * gate in every prunable matrix, refreshed once per optimiser step.

Each masked layer computes y = x W'^T + b with W' a leaf tensor. After `backward()` each layer holds
G = dL/dW', and the gradients of W and S follow from G outside autograd. Evaluation uses the W' that
stands; it never recomputes a mask.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import ConfigError, TrialError
from zoo.method import Method
from zoo.scores import stored

PRUNABLE = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
"""Q, K, V, O, U, D of every layer; never embeddings, LayerNorm, biases, pooler, heads."""


class MaskedLinear(nn.Module):
    """A linear layer with a working weight; `weight` and `bias` keep the names they had.

    `weight`, `working`, `mask`, `gate` and `score` are (out, in). The state dict holds weight and
    bias alone.
    """

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.weight = linear.weight
        self.bias = linear.bias
        self.score: Tensor
        self.noise: Tensor | None = None
        self.mask = torch.ones_like(linear.weight, dtype=torch.bool)
        self.gate: Tensor = self.mask
        self.working = linear.weight.detach().clone().requires_grad_()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.working, self.bias)


def factor(gate: Tensor) -> Tensor:
    """The gate as a factor: a mask's bytes as numbers, which CPUs multiply twice as fast as bits of
    truth."""
    return gate.view(torch.uint8) if gate.dtype == torch.bool else gate


def prunable(encoder: nn.Module) -> dict[str, nn.Linear]:
    """The encoder's matrices that methods may prune, by name, in the model's order."""
    found = {
        name: module
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Linear) and name.endswith(PRUNABLE) and ".layer." in name
    }
    if not found:
        raise ConfigError("this model has none of the matrices that are pruned (BERT, RoBERTa)")
    return found


@dataclass(frozen=True)
class Remaining:
    """Remaining weights: nonzero gate entries and all entries of each prunable matrix, by name.

    `others` counts the biases and LayerNorm parameters of the encoder's layers.
    """

    kept: Mapping[str, int]
    total: Mapping[str, int]
    others: int = 0

    @property
    def density(self) -> float:
        """Kept over all entries, in [0, 1]: the figure of every table (SMP's way of counting)."""
        return sum(self.kept.values()) / sum(self.total.values())

    @property
    def encoder_density(self) -> float:
        """The same with biases and LayerNorm as kept weights: how Sanh 2020 counts."""
        kept = sum(self.kept.values()) + self.others
        return kept / (sum(self.total.values()) + self.others)


class MaskedModel:
    """The masked layers of an encoder under one method.

    `layers` by name; `sizes` of all prunable matrices; `level`: the one that the masks stand at.
    Built by replacing the encoder's linear modules in place after the checkpoint was loaded, so
    nothing pre-trained is renamed or started anew.
    """

    def __init__(self, encoder: Any, method: Method, generator: torch.Generator):
        self.method = method
        self.generator = generator
        linears = prunable(encoder)
        self.sizes = {name: linear.weight.numel() for name, linear in linears.items()}
        inside = sum(p.numel() for n, p in encoder.named_parameters() if ".layer." in n)
        self.others = inside - sum(self.sizes.values())
        self.heads = encoder.config.num_attention_heads
        self.layers: dict[str, MaskedLinear] = {}
        self.level: float | None = None
        if method.score is None:
            return
        for name, linear in linears.items():
            layer = MaskedLinear(linear)
            if method.score.init is not None:
                layer.score = method.score.init(layer.weight.detach(), generator)
                layer.score.requires_grad_(method.gate.slope is not None)
            parent, _, child = name.rpartition(".")
            setattr(encoder.get_submodule(parent), child, layer)
            self.layers[name] = layer

    @property
    def scores(self) -> dict[str, Tensor]:
        """The current score of each matrix."""
        assert self.method.score is not None
        return {name: self.method.score.read(layer) for name, layer in self.layers.items()}

    @property
    def trained_scores(self) -> list[Tensor]:
        """Score tensors that the optimiser updates."""
        if self.method.score is None or self.method.score.init is None:
            return []
        return [layer.score for layer in self.layers.values() if layer.score.requires_grad]

    @property
    def still(self) -> bool:
        """Whether scores never change: masks are then a matter of the level alone."""
        score = self.method.score
        kept = score is not None and score.read is stored and score.observe is None
        return kept and not self.trained_scores

    @torch.no_grad()
    def refresh(self, level: float | None) -> None:
        """Make masks at `level` (None: those that stand stay), gates, W' in place."""
        same = self.still and level == self.level
        if level is not None:
            self.level = level
        if not self.layers:
            return
        scores = self.scores
        if level is not None and not same:
            self._set_masks(self.method.mask(scores, level))
        gate = self.method.gate
        for name, layer in self.layers.items():
            if gate.draw is not None:
                layer.noise = gate.draw(scores[name], self.generator)
            layer.gate = gate.value(scores[name], layer.mask, layer.noise)
            torch.mul(layer.weight, factor(layer.gate), out=layer.working.detach())

    def _set_masks(self, masks: Mapping[str, Tensor]) -> None:
        if not isinstance(masks, Mapping) or set(masks) != set(self.layers):
            missing = (
                sorted(set(self.layers) - set(masks)) if isinstance(masks, Mapping) else ["all"]
            )
            raise TrialError(
                f"the mask function must return a mask per matrix; missing: {missing[:1]}"
            )
        for name, layer in self.layers.items():
            layer.mask = _checked(name, masks[name], layer.weight)

    @torch.no_grad()
    def backward(self, penalty_weight: float) -> None:
        """Write the gradients of W and S from G = dL/dW', the penalty's in closed form."""
        score, gate, penalty = self.method.score, self.method.gate, self.method.penalty
        for layer in self.layers.values():
            assert score is not None
            upstream = layer.working.grad
            assert upstream is not None
            if score.observe is not None:
                score.observe(layer, upstream)
            trained = layer.weight.requires_grad
            if gate.slope is not None:
                gradient = upstream * layer.weight if trained else upstream.mul_(layer.weight)
                slope = gate.slope(layer.score, layer.mask, layer.noise, layer.gate)
                if slope is not None:
                    gradient.mul_(slope)
                if penalty is not None and penalty_weight:
                    gradient.add_(
                        penalty.gradient(layer.score, len(self.layers)), alpha=penalty_weight
                    )
                layer.score.grad = gradient
            if trained:
                layer.weight.grad = upstream.mul_(factor(layer.gate))
            layer.working.grad = None

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Inside, W' is made with the evaluation gate, if that is another one."""
        test = self.method.gate.test
        if test is None or not self.layers:
            yield
            return
        self._work_with(self.test_gates())
        yield
        self._work_with({name: layer.gate for name, layer in self.layers.items()})

    @torch.no_grad()
    def _work_with(self, gates: Mapping[str, Tensor]) -> None:
        for name, layer in self.layers.items():
            torch.mul(layer.weight, factor(gates[name]), out=layer.working.detach())

    @torch.no_grad()
    def test_gates(self) -> dict[str, Tensor]:
        """The evaluation gate of each matrix, as it multiplies W."""
        test = self.method.gate.test
        if test is None:
            return {name: layer.gate for name, layer in self.layers.items()}
        scores = self.scores
        return {name: test(scores[name], layer.mask, None) for name, layer in self.layers.items()}

    def remaining(self) -> Remaining:
        """The one count of remaining weights: nonzero entries of the evaluation gates."""
        if not self.layers:
            return Remaining(self.sizes, self.sizes, self.others)
        counts = {name: gate.count_nonzero() for name, gate in self.test_gates().items()}
        kept = {name: int(n) for name, n in counts.items()}
        return Remaining(kept, self.sizes, self.others)

    def remaining_by_head(self) -> dict[str, list[float]]:
        """Density of Q, K, V (rows) and O (columns) of each attention head, by matrix."""
        result = {}
        for name, gate in self.test_gates().items():
            kept = (gate != 0).float()
            if name.endswith(PRUNABLE[:3]):
                blocks = kept.view(self.heads, -1)
            elif name.endswith(PRUNABLE[3]):
                blocks = kept.T.reshape(self.heads, -1)
            else:
                continue
            result[name] = blocks.mean(1).tolist()
        return result

    def check_budget(self, level: float | None) -> None:
        """Raise TrialError if the masks keep more weights than the method's budget allows."""
        if level is None or not self.layers or self.method.budget is None:
            return
        count, total = self.remaining(), sum(self.sizes.values())
        kept, allowed = sum(count.kept.values()), self.method.budget(self.sizes, level)
        if kept > allowed:
            raise TrialError(
                f"rejected: {100 * kept / total:.2f} % kept, allowed {100 * level:.2f} %"
                f" ({kept:,} of {total:,} weights)"
            )


def export(encoder: nn.Module, masked: MaskedModel) -> dict[str, Tensor]:
    """The encoder's state dict with the evaluation gate folded in: stock names, stock shapes."""
    state = {name: tensor.detach().clone() for name, tensor in encoder.state_dict().items()}
    for name, gate in masked.test_gates().items():
        state[f"{name}.weight"] *= gate
    return state


def _checked(name: str, mask: Any, weight: Tensor) -> Tensor:
    """The mask as booleans, or TrialError: exact shape, same device, nothing but 0 and 1."""
    if not isinstance(mask, Tensor) or mask.shape != weight.shape or mask.is_sparse:
        got = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise TrialError(
            f"mask of {name} must be a tensor of shape {tuple(weight.shape)}, got {got}"
        )
    if mask.device != weight.device:
        raise TrialError(f"mask of {name} is on {mask.device}, its weight on {weight.device}")
    if mask.dtype != torch.bool:
        other = mask[(mask != 0) & (mask != 1)]
        if other.numel():
            raise TrialError(f"mask of {name} must hold only 0 and 1, got {other[0].item():g}")
        mask = mask.bool()
    return mask.detach().contiguous()
