"""Whether kernels give on a device what plain torch gives: a small case of each, once a process."""

import math
from typing import Any

import torch
from torch import Tensor

from zoo.kernels import selection
from zoo.kernels.launch import BLOCK, launch, sent, shapes_of, table

SHAPES = ((96, 80), (33, 7))
"""Shapes of the matrices of the case: one of several blocks, one that is odd."""
RATE, BETAS, EPSILON, FACTOR, STRENGTH, SHIFT = 0.01, (0.9, 0.999), 1e-8, 0.5, 3.0, 0.25


def check(device: torch.device) -> None:
    """Raise RuntimeError with what differs on the device; errors of Triton pass through."""
    draw = torch.Generator().manual_seed(0)
    scores = [torch.randn(shape, generator=draw).round(decimals=1) for shape in SHAPES]
    for k in (1, 40, 231):
        there = selection.keep_each([score.to(device) for score in scores], [k] * len(scores))
        for score, mask in zip(scores, there, strict=True):
            order = score.flatten().argsort(descending=True, stable=True)[:k]
            wanted = torch.zeros(score.numel(), dtype=torch.bool).index_fill_(0, order, True)
            if not torch.equal(mask.cpu().flatten(), wanted):
                raise RuntimeError("another choice of the k largest")
    _check_update(device, draw)


def _check_update(device: torch.device, draw: torch.Generator) -> None:
    """Compare the norm and a step of AdamW of scores and weights with their formulas in float64."""
    kinds = ("upstream", "weights", "scores")
    values = {kind: [torch.randn(s, generator=draw) for s in SHAPES] for kind in kinds}
    values["masks"] = [torch.rand(s, generator=draw) < 0.5 for s in SHAPES]
    there = {kind: [x.to(device, copy=True) for x in own] for kind, own in values.items()}
    moments = [[torch.zeros(s, device=device) for s in SHAPES] for _ in range(4)]
    sizes = tuple(x.numel() for x in values["scores"])
    shapes = shapes_of(sizes, device)
    shares = sent([1 / size for size in sizes], torch.float32, device)
    given: list[Any] = [
        *(table(own) for own in there.values()),
        shapes.sizes,
        shapes.places,
        shares,
    ]
    given += [STRENGTH, SHIFT, 0]
    flags = {"SCORES": 1, "WEIGHTS": 1, "PENALTY": 1, "GATE": 0, "KIND": "float32", "EVEN": False}
    rows, many = shapes.grid
    sums = torch.empty(many, rows, device=device)
    launch("stepping", "sum_squares", shapes.grid, [*given, sums, rows], 0, **flags, BLOCK=BLOCK)
    numbers = [RATE / (1 - BETAS[0]), math.sqrt(1 - BETAS[1]), 1.0] * 2
    scale = torch.full((), FACTOR, device=device)
    tables = [table(own) for own in moments]
    rest = [1 - beta for beta in BETAS]
    step = [*given, scale, *tables, *numbers, *BETAS, *rest, EPSILON]
    launch("stepping", "update", shapes.grid, step, 0, **flags, BLOCK=BLOCK)
    squares = torch.zeros((), dtype=torch.float64)
    for n, size in enumerate(sizes):
        upstream, weight, score, mask = (values[kind][n].double() for kind in values)
        p = torch.sigmoid(score - SHIFT)
        of_score = upstream * weight + STRENGTH / size * p * (1 - p)
        of_weight = upstream * mask
        squares += of_score.square().sum() + of_weight.square().sum()
        _close(there["scores"][n], _stepped(score, of_score), "scores")
        _close(there["weights"][n], _stepped(weight, of_weight), "weights")
    _close(sums.sum(), squares, "a norm")


def _stepped(parameter: Tensor, gradient: Tensor) -> Tensor:
    """AdamW's first step."""
    own = FACTOR * gradient
    return parameter - RATE * own / (own.abs() + EPSILON)


def _close(there: Tensor, wanted: Tensor, what: str) -> None:
    if not torch.allclose(there.cpu().double(), wanted, rtol=1e-5, atol=1e-6):
        raise RuntimeError(f"other numbers of {what}")
