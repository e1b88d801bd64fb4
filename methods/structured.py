"""Scores over blocks of attention matrices and neurons, the hybrid of nn_pruning (Lagunas et al.
2021): its soft movement, and SMP, which neither paper has."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from methods.movement import soft_movement
from methods.published import DRIVEN, WEIGHTS, PublishedRun, common, distillation, rates
from methods.smp import FAMILY, PENALTY, smp_l
from zoo import (
    OURS,
    FromDense,
    Method,
    Penalty,
    Request,
    Value,
    Values,
    blocks_and_neurons,
    everything,
    mean_sigmoid,
    mean_sigmoid_gradient,
    register_method,
    share,
)

NNP = "nn_pruning's released configuration"
HYBRID = {
    "mnli": PublishedRun(32, 12, 147264, 12000, 1, 4),
    "squad": PublishedRun(16, 20, 110660, 5400, 1, 10),
}
"""The runs of nn_pruning's hybrid; steps are epochs times the training set over the batch."""


def movement_blocks_recipe(request: Request) -> tuple[Values, Values]:
    """nn_pruning's values; other tasks as MNLI."""
    run = HYBRID.get(request.task, HYBRID["mnli"])
    source = NNP if request.task in HYBRID else f"{OURS}: as MNLI"
    train = {
        "batch": Value(run.batch, source),
        "epochs": Value(run.epochs, source),
        "warmup": share(run.warmup, run.steps, source),
    }
    own = rates(source, run.lr_weights, 1e-2) | distillation(request, 0.1, 0.9, source)
    begin, end = run.initial * run.warmup, run.steps - run.final * run.warmup
    hyper = {"start": share(begin, run.steps, source), "stop": share(end, run.steps, source)}
    return common(request, code=source) | train | own, hyper | {"penalty": Value(30.0, source)}


def mean_by_kind(scores: Mapping[str, Tensor]) -> Tensor:
    """Half the mean of sigmoid(S) over tensors of blocks, and half that over those of neurons; each
    tensor counts by its own mean (nn_pruning's released code)."""
    kinds = {2: dict[str, Tensor](), 1: dict[str, Tensor]()}
    for name, score in scores.items():
        kinds[score.ndim][name] = score
    return torch.stack([mean_sigmoid(own) for own in kinds.values()]).mean()


def of_both_kinds(scores: Collection[Tensor], score: Tensor) -> int:
    """Twice the number of score tensors that are of blocks, or of neurons, as this one is."""
    return 2 * sum(other.ndim == score.ndim for other in scores)


@register_method(
    "movement_blocks",
    recipe=movement_blocks_recipe,
    ranges={**WEIGHTS, **DRIVEN},
    label="block movement",
    family="movement",
    order=44,
    drives="penalty",
)
def movement_blocks(
    density: float, *, block: int | None = None, dense_seed: int | None = None, **hyper: Any
) -> Method:
    """Soft movement with a score for each block of attention and each neuron (Lagunas 2021).

    Reproduces the pruning of nn_pruning's hybrid, whose blocks are 32 x 32 in BERT: `block`, by
    default half the dimensions of an attention head. Weights start from the dense trial of the same
    seed, or of `dense_seed`. The density follows from the penalty and is measured. Differs from the
    released code, which also sets the bias of an empty row to 0, drops empty heads in ways that are
    not exact, and fills the blocks that stay and trains them again.
    """
    base = soft_movement(density, **hyper)
    assert base.penalty is not None
    weight = base.penalty.weight
    penalty = Penalty(mean_by_kind, mean_sigmoid_gradient, weight, of_both_kinds)
    dense = FromDense(dense_seed)
    units = blocks_and_neurons(block)
    return replace(base, units=units, penalty=penalty, dense=dense, trains=everything)


@register_method(
    "smp_structured",
    recipe="smp_l",
    ranges=PENALTY,
    label="SMP-L, blocks and neurons",
    family=FAMILY,
    order=67,
)
def smp_structured(density: float, *, block: int | None = None, **hyper: Any) -> Method:
    """SMP-L with one score for each block of Q, K, V and O and each neuron; weights are frozen.

    Of every matrix of attention int(density * blocks) blocks of `block` x `block` weights stay, and
    int(density * neurons) neurons of every layer, at least one. Remaining weights are measured: a
    matrix with few blocks may keep more than the density. Blocks are those of `movement_blocks`.
    Differs from SMP, which has a score for each weight: the gradient of a unit's score is the sum
    of G * W over its weights, and SMP-L's penalty is only where a search starts.
    """
    return replace(smp_l(density, **hyper), units=blocks_and_neurons(block), budget=None)
