"""Pruning at once beside the authors' own code: masks entry by entry, and weights.

`python -m tests.certify --wanda DIR --sparsegpt DIR --admm DIR --obert DIR` runs it; the folders are
checkouts of locuslab/wanda, IST-DASLab/sparsegpt, fmfi-compbio/admm-pruning and neuralmagic/sparseml.
Their classes and functions read the same weights and inputs, or gradients, as ours. Where their
counts differ by intent, a case gives them the sparsity at which as many weights go.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from methods.admm import Alternating
from tests.authors import as_precise_as, pieces, torch_of
from zoo import Calibration, Choice, Method, pattern_of
from zoo.registry import methods

SHAPES = ((40, 80), (60, 160), (20, 320))
"""Outputs and inputs of matrices. Every count at DENSITIES is a whole number."""
DENSITIES = (0.5, 0.3, 0.1)
SEQUENCES, TOKENS, SEED = 8, 64, 0
Pruned = tuple[Tensor, Tensor]
"""A mask (out, in), True where a weight stays, and the new W."""
Theirs = Callable[[Tensor, Tensor, float], Pruned]
"""(W (out, in), inputs (sequences, tokens, in), density) -> their mask and W."""


@dataclass(frozen=True)
class OneShot:
    """A method of ours, in a pattern, beside code of theirs. `equal` says that float64 masks must
    be; `solve` is another solver than the method's; `change` is made to what both read."""

    name: str
    method: str
    theirs: Theirs
    pattern: str = ""
    densities: Sequence[float] = DENSITIES
    shapes: Sequence[tuple[int, int]] = SHAPES
    equal: bool = True
    solve: Callable[[Alternating, int], Alternating] | None = None
    change: Callable[[Tensor, Tensor], Pruned] | None = None


@dataclass(frozen=True)
class Match:
    """The fraction of equal mask entries over all matrices of a case, and the largest difference of
    weights."""

    name: str
    precision: str
    masks: float
    weights: float
    equal: bool


def compare(case: OneShot, dtype: torch.dtype) -> Match:
    """Prune the matrices of a case by ours and by theirs."""
    equal, entries, weights = 0, 0, 0.0
    generator = torch.Generator().manual_seed(SEED)
    for shape in case.shapes:
        for density in case.densities:
            weight, inputs = drawn(shape, generator, dtype)
            if case.change is not None:
                weight, inputs = case.change(weight, inputs)
            mask, new = ours(case, weight, inputs, density)
            with as_precise_as(dtype):
                their_mask, their_new = case.theirs(weight.clone(), inputs, density)
            equal, entries = equal + int((mask == their_mask).sum()), entries + mask.numel()
            weights = max(weights, float((new - their_new).abs().max()))
    precision = str(dtype).removeprefix("torch.")
    return Match(case.name, precision, equal / entries, weights, case.equal)


def drawn(shape: tuple[int, int], generator: torch.Generator, dtype: torch.dtype) -> Pruned:
    """A matrix, and inputs of correlated columns of unlike sizes."""
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    own = torch.randn(SEQUENCES, TOKENS, shape[1], generator=generator, dtype=torch.float64)
    mixing = torch.randn(shape[1], shape[1], generator=generator, dtype=torch.float64)
    sizes = torch.rand(shape[1], generator=generator, dtype=torch.float64) + 0.2
    inputs = (own + own @ mixing / math.sqrt(shape[1])) * sizes
    return weight.to(dtype), inputs.to(dtype)


def ours(case: OneShot, weight: Tensor, inputs: Tensor, density: float) -> Pruned:
    """The mask and W of the registered method, as a calibration calls it."""
    method: Method = methods[case.method].make(density)
    mask = pattern_of(case.pattern, sum) if case.pattern else method.mask
    choice = Choice(mask, "a", density)
    if method.calibration is None:
        kept, new = choice(weight.abs()), weight
    else:
        assert isinstance(method.calibration, Calibration)
        moments = method.calibration.moments(inputs.flatten(0, 1)) / inputs[..., 0].numel()
        prune = method.calibration.prune
        if case.solve is not None:
            assert isinstance(prune, Alternating)
            prune = case.solve(prune, weight.shape[1] if case.pattern == "row" else weight.numel())
        kept, new = prune(weight, moments, choice)
    return kept, new.masked_fill(~kept, 0.0)


def dead(weight: Tensor, inputs: Tensor) -> Pruned:
    """The first three inputs are always 0."""
    inputs[..., :3] = 0.0
    return weight, inputs


def tied(weight: Tensor, inputs: Tensor) -> Pruned:
    """Weights of one decimal, and inputs of one size."""
    return weight.mul(10).round().div(10), torch.ones_like(inputs)


class Through(nn.Module):
    """A model of one layer of one matrix, as far as a function of the authors looks at it; what
    enters the layer leaves it."""

    def __init__(self, weight: Tensor, tokens: int):
        super().__init__()
        self.linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        self.linear.weight = nn.Parameter(weight)
        layer = nn.Module()
        layer.only = self.linear
        layer.forward = self.layer  # type: ignore[method-assign]
        self.model = SimpleNamespace(layers=nn.ModuleList([layer]))
        self.config = SimpleNamespace(use_cache=False, hidden_size=weight.shape[1])
        self.seqlen, self.hf_device_map = tokens, dict[str, Any]()

    def layer(self, x: Tensor, **about: Any) -> tuple[Tensor]:
        """Let the matrix read the inputs."""
        self.linear(x)
        return (x,)

    def forward(self, x: Tensor) -> Any:
        """Call the first layer as a decoder does."""
        return self.model.layers[0](x, attention_mask=None, position_ids=None)


def by_wanda(
    folder: Path,
    script: str,
    weight: Tensor,
    inputs: Tensor,
    density: float,
    n_of_m: tuple[int, int] = (0, 0),
) -> Pruned:
    """The authors' prune_wanda, or prune_magnitude, on a model of one matrix."""
    given = {"torch": torch_of(weight.dtype), "nn": nn}
    wrapper = pieces(folder / "lib" / "layerwrapper.py", ["WrappedGPT"], given)
    loader = [(sequence[None],) for sequence in inputs]
    given |= wrapper | {"get_loaders": lambda *args, **options: (loader, None)}
    names = ["find_layers", "prepare_calibration_input", script]
    found = pieces(folder / "lib" / "prune.py", names, given)
    found[script].__globals__.update(found)
    model = Through(weight, inputs.shape[1])
    args = SimpleNamespace(
        nsamples=len(inputs), seed=0, sparsity_ratio=1 - density, use_variant=False
    )
    n, m = n_of_m
    found[script](args, model, None, torch.device("cpu"), prune_n=n, prune_m=m)
    pruned = model.linear.weight.detach()
    return pruned != 0, pruned


def one_size(weight: Tensor, inputs: Tensor) -> Pruned:
    """Inputs of one size: Wanda is magnitude by row."""
    return weight, torch.ones_like(inputs)


def by_sparsegpt(
    folder: Path,
    weight: Tensor,
    inputs: Tensor,
    density: float,
    n_of_m: tuple[int, int] = (0, 0),
    fewer: float = 0.0,
) -> Pruned:
    """The authors' SparseGPT. They prune int(n s) + 1 of the n weights of a block; `fewer` weights
    less are asked for."""
    given = {
        **{"torch": torch_of(weight.dtype), "nn": nn, "math": math, "time": time},
        **{"transformers": transformers, "DEBUG": False},
    }
    code = pieces(folder / "sparsegpt.py", ["SparseGPT"], given)["SparseGPT"]
    sparsity = 1 - density - fewer / (len(weight) * min(128, weight.shape[1]))
    return pruned_by(code, weight, inputs, sparsity, *n_of_m)


def by_admm(
    folder: Path,
    weight: Tensor,
    inputs: Tensor,
    density: float,
    n_of_m: tuple[int, int] = (0, 0),
    per_out: bool = False,
) -> Pruned:
    """The authors' AdmmPruner, over the matrix or by rows."""
    given = {"torch": torch_of(weight.dtype), "nn": nn}
    code = pieces(folder / "lib" / "admm.py", ["AdmmPruner"], given)["AdmmPruner"]
    return pruned_by(code, weight, inputs, 1 - density, *n_of_m, per_out=per_out)


def pruned_by(
    code: Any, weight: Tensor, inputs: Tensor, sparsity: float, *counts: int, **options: Any
) -> Pruned:
    """Feed a solver that holds a layer, and prune."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    solver = code(layer)
    for sequence in inputs:
        solver.add_batch(sequence[None], None)
    solver.fasterprune(sparsity, *counts, **options)
    return layer.weight != 0, layer.weight.detach()


class WithoutRamp(Alternating):
    """The density of the end in every iteration, as their unstructured runs."""

    def density(self, choice: Choice, step: int) -> float:
        return choice.density


@dataclass(frozen=True)
class TheirCounts(Alternating):
    """The ramp with n - int(n s_t) of `entries` kept, as theirs, where ours keeps int(n d_t)."""

    entries: int = 0

    def density(self, choice: Choice, step: int) -> float:
        sparsity = 1 - choice.density
        gone = int(self.entries * (sparsity - sparsity * (1 - (step + 1) / self.ramp) ** 3))
        return (self.entries - gone + 0.5 * (gone > 0)) / self.entries


def without_ramp(ours: Alternating, entries: int) -> Alternating:
    """Ours with the ramp off."""
    return WithoutRamp(ours.damping, ours.iterations, ours.ramp)


def their_counts(ours: Alternating, entries: int) -> Alternating:
    """Ours with their counts on the ramp."""
    return TheirCounts(ours.damping, ours.iterations, ours.ramp, entries)


WIDE = ((8, 768),)
"""BERT's width, where counts at 3 % are no whole numbers."""


def of_wanda(folder: Path) -> Iterator[OneShot]:
    """Wanda and magnitude by row."""
    wanda, magnitude = (partial(by_wanda, folder, f"prune_{n}") for n in ("wanda", "magnitude"))
    yield OneShot("Wanda", "wanda", wanda)
    for n, m in ((2, 4), (1, 2), (4, 8)):
        theirs = partial(wanda, n_of_m=(n, m))
        yield OneShot(f"Wanda, {n}:{m}", "wanda", theirs, f"{n}:{m}", (0.5,))
    yield OneShot("Wanda, 3 % of 768", "wanda", wanda, "", (0.03,), WIDE, equal=False)
    yield OneShot("Wanda, three inputs always 0", "wanda", wanda, change=dead)
    rows = OneShot("magnitude by row", "magnitude_row", wanda, change=one_size)
    yield from (rows, replace(rows, name="magnitude by row, tied", equal=False, change=tied))
    half = partial(magnitude, n_of_m=(2, 4))
    yield OneShot("magnitude, 2:4", "magnitude_row", half, "2:4", (0.5,))


def of_sparsegpt(folder: Path) -> Iterator[OneShot]:
    """SparseGPT, at our counts and as asked."""
    theirs = partial(by_sparsegpt, folder)
    same = OneShot("SparseGPT, as many pruned", "sparsegpt", partial(theirs, fewer=0.5))
    yield same
    yield replace(same, name=f"{same.name}, three inputs always 0", change=dead, equal=False)
    yield replace(same, name="SparseGPT", theirs=theirs, equal=False)
    for n, m in ((2, 4), (4, 8)):
        pattern = f"{n}:{m}"
        yield OneShot(
            f"SparseGPT, {pattern}", "sparsegpt", partial(theirs, n_of_m=(n, m)), pattern, (0.5,)
        )


def of_admm(folder: Path) -> Iterator[OneShot]:
    """ADMM by matrix, by rows and 2:4."""
    matrix = partial(by_admm, folder)
    rows, half = partial(matrix, per_out=True), partial(matrix, n_of_m=(2, 4))
    without = OneShot("ADMM, without ramp", "admm", matrix, solve=without_ramp)
    yield replace(without, name="ADMM, without ramp, three inputs always 0", change=dead)
    yield from (without, replace(without, name="ADMM", solve=None, equal=False))
    for name, pattern, theirs, densities in (
        ("ADMM by row", "row", rows, DENSITIES),
        ("ADMM, 2:4", "2:4", half, (0.5,)),
    ):
        case = OneShot(name, "admm", theirs, pattern, densities)
        yield replace(case, name=f"{name}, as many pruned", solve=their_counts)
        yield replace(case, equal=False)
