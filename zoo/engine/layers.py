"""A masked linear layer, the check of its mask, and counts of what remains."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import TrialError
from zoo.inputs.kinds import architecture_of
from zoo.parts.depth import Stay, keep_layers, runs
from zoo.parts.method import Method

UNCALIBRATED = (
    "the masks of this method come from a calibration, which a loop of one's own cannot run: run it"
    " as a trial, by run_benchmark.py"
)


class MaskedLinear(nn.Module):
    """A linear layer with a working weight; `weight` and `bias` keep their names.

    `weight`, `working`, `mask`, `gate` and `score` are (out, in). A layer `closes` whose biases go
    with their rows: `bias_gate` (out,) multiplies them. The state dict holds weight and bias alone.
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
        self.closes = False
        self.bias_gate: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.working, self.gated_bias)

    @property
    def arrived(self) -> Tensor:
        """G = dL/dW'. Raises TrialError before the loss's `backward()`."""
        if self.working.grad is None:
            raise TrialError("no gradient arrived: call the loss's backward() first")
        return self.working.grad

    def gate_by_mask(self, learns: bool) -> None:
        """Make the gates from the mask, that of the bias with a gradient if scores learn by it."""
        self.gate = self.mask
        if self.closes:
            gate = self.mask.any(1).to(self.bias.dtype)
            self.bias_gate = gate.requires_grad_(learns)

    @torch.no_grad()
    def zero_masked(self) -> None:
        """Set masked weights to 0, and biases that go with their rows."""
        self.weight.mul_(factor(self.mask))
        if self.closes:
            self.bias.mul_(self.mask.any(1))

    @property
    def gated_bias(self) -> Tensor:
        """The bias, 0 where it goes with its row."""
        return self.bias if self.bias_gate is None else self.bias * self.bias_gate


def factor(gate: Tensor) -> Tensor:
    """The gate as a factor of a product: masks as uint8, which CPUs multiply twice as fast as
    bool."""
    return gate.view(torch.uint8) if gate.dtype == torch.bool else gate


@dataclass(frozen=True)
class Counts:
    """Remaining weights: nonzero gate entries (`kept`) and all entries (`total`) of each prunable
    matrix, by name. `others` counts the biases and LayerNorm parameters of the layers, `gone` those
    of layers that were taken out."""

    kept: Mapping[str, int]
    total: Mapping[str, int]
    others: int = 0
    gone: int = 0

    @property
    def density(self) -> float:
        """Kept over all entries, in [0, 1]: the figure of every table (SMP's way of counting)."""
        return sum(self.kept.values()) / sum(self.total.values())

    @property
    def encoder_density(self) -> float:
        """The same with biases and LayerNorm as kept weights (Sanh et al. 2020's way)."""
        kept = sum(self.kept.values()) + self.others
        return kept / (sum(self.total.values()) + self.others + self.gone)

    def check(self, allowed: float) -> None:
        """Raise TrialError if more weights remain than are allowed."""
        kept, total = sum(self.kept.values()), sum(self.total.values())
        if kept > allowed:
            raise TrialError(
                f"rejected: {100 * kept / total:.2f} % kept, allowed {100 * allowed / total:.2f} %"
                f" ({kept:,} of {total:,} weights)"
            )


@dataclass(frozen=True)
class Inside:
    """What the layers of an encoder hold: entries of each prunable matrix, and parameters of no
    matrix."""

    sizes: Mapping[str, int]
    others: int

    @classmethod
    def of(cls, encoder: Any) -> "Inside":
        """What there is now."""
        architecture = architecture_of(encoder)
        sizes = {n: linear.weight.numel() for n, linear in architecture.matrices(encoder)}
        named = encoder.named_parameters()
        inside = [p.numel() for n, p in named if architecture.parameter(n).part == "layers"]
        return cls(sizes, sum(inside) - sum(sizes.values()))

    def count(self, kept: Mapping[str, int], whole: "Inside") -> Counts:
        """The counts with `kept` entries of matrices, where `whole` is what there was before layers
        were taken out; the last numbers are theirs."""
        gone = {name: 0 for name in whole.sizes if name not in self.sizes}
        total = {**self.sizes, **{name: whole.sizes[name] for name in gone}}
        return Counts({**kept, **gone}, total, self.others, whole.others - self.others)


def take_layers(encoder: Any, stay: Stay | None) -> Inside:
    """Take out the layers that do not stay, None for all; returns what there was before."""
    before = Inside.of(encoder)
    if stay is not None:
        keep_layers(encoder, stay(len(architecture_of(encoder).layers_of(encoder))))
    return before


class Depth:
    """The layers of an encoder under a method: what they hold now (`inside`), and held before some
    were taken out (`whole`)."""

    def __init__(self, encoder: Any, method: Method):
        self.encoder, self._last = encoder, method.layers_at_end
        self.whole, self.inside = take_layers(encoder, method.layers), Inside.of(encoder)

    def end(self) -> Mapping[str, int]:
        """Take out the layers that leave after the last step, once; returns the entries of each
        matrix that is left."""
        if self._last is not None:
            take_layers(self.encoder, self._last)
            self._last, self.inside = None, Inside.of(self.encoder)
        return self.inside.sizes

    def count(self, kept: Mapping[str, int]) -> Counts:
        """The counts with `kept` entries of matrices, all where it has none."""
        return self.inside.count({**self.inside.sizes, **kept}, self.whole)


class Identity(nn.Module):
    """Hands on the states that a layer is given, in the form of what the layer returns."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    @torch.no_grad()
    def _form(self, *args: Any, **kwargs: Any) -> Any:
        """What the layer returns, without a draw of dropout."""
        was_training = self.layer.training
        self.layer.eval()
        out = self.layer(*args, **kwargs)
        self.layer.train(was_training)
        return out

    def forward(self, states: Tensor, *args: Any, **kwargs: Any) -> Any:
        form = self._form(states, *args, **kwargs)
        return (states, *form[1:]) if isinstance(form, tuple) else states


@contextmanager
def skipping(encoder: Any, rate: float, draws: torch.Generator) -> Iterator[None]:
    """Inside, each layer is left out with the chance `rate`, drawn now: the encoder is the stock
    one without it. Where none is left, one is an identity, as stock code asks for a layer."""
    layers = architecture_of(encoder).layers_of(encoder)
    every = list(layers)
    run = [every[number] for number in runs(len(every), rate, draws)]
    del layers[:]
    layers.extend(run or [Identity(every[0])])
    try:
        yield
    finally:
        del layers[:]
        layers.extend(every)


def check_names(masks: Any, wanted: Collection[str]) -> None:
    """Raise TrialError unless there is a mask by each of these names, and no other."""
    found = set(masks) if isinstance(masks, Mapping) else set()
    lacking, more = sorted(set(wanted) - found), sorted(found - set(wanted))
    if lacking or more:
        what = f"none for {lacking[0]}" if lacking else f"one for {more[0]}, which is none"
        raise TrialError(
            f"the mask function must return a mask per matrix, or group of units; there is {what}"
        )


def checked(name: str, mask: Any, weight: Tensor) -> Tensor:
    """The mask as bool, or TrialError unless it has W's shape and device and only 0 and 1."""
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


def checked_weight(name: str, weight: Tensor, before: Tensor) -> Tensor:
    """The new weight of a matrix, or TrialError unless it is finite and has the shape of before."""
    if weight.shape != before.shape or not weight.isfinite().all():
        raise TrialError(f"the new weight of {name} must be finite, {tuple(before.shape)}")
    return weight


def put_in(encoder: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of the one of this name."""
    parent, _, child = name.rpartition(".")
    setattr(encoder.get_submodule(parent), child, module)


def masked_layers(
    encoder: nn.Module,
    matrices: Mapping[str, nn.Linear],
    method: Method,
    generator: torch.Generator,
) -> dict[str, MaskedLinear]:
    """Masked layers by name, put in the place of linear ones, with the scores that they store."""
    layers: dict[str, MaskedLinear] = {}
    for name, linear in matrices.items():
        layers[name] = layer = MaskedLinear(linear)
        if method.score is not None and method.score.init is not None and method.units is None:
            layer.score = method.score.init(layer.weight.detach(), generator)
            layer.score.requires_grad_(method.learns_scores)
        put_in(encoder, name, layer)
    return layers


def folded(layer: MaskedLinear, gate: Tensor) -> nn.Linear:
    """A stock linear module with the gate multiplied into W."""
    outputs, inputs = layer.weight.shape
    linear = nn.Linear(inputs, outputs, bias=layer.bias is not None, device="meta")
    linear.weight, linear.bias = nn.Parameter(layer.weight * gate), layer.bias
    if layer.bias_gate is not None:
        linear.bias = nn.Parameter(layer.gated_bias.detach())
    return linear
