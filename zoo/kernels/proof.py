"""Whether kernels give on a device what plain torch gives: a small case of each, once a process."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.inputs.batches import sent
from zoo.kernels import selection
from zoo.kernels.launch import BLOCK, KINDS, launch, matrices_of, shapes_of

Sizes = tuple[tuple[int, int], ...]
ODD, EVEN = ((96, 80), (33, 7)), ((96, 80), (32, 16))
"""Shapes of the matrices of the cases: the first has several blocks; even ones are read wide."""
RATE, BETAS, EPSILON, FACTOR, STRENGTH, SHIFT = 0.01, (0.9, 0.999), 1e-8, 0.5, 3.0, 0.25


def check(device: torch.device) -> None:
    """Raise RuntimeError with what differs on the device; errors of Triton pass through."""
    draw = torch.Generator().manual_seed(0)
    for sizes in (ODD, EVEN):
        _check_selection(device, draw, sizes)
        _check_update(device, draw, sizes, torch.float32)
    _check_update(device, draw, EVEN, torch.bfloat16)
    _check_working(device, draw)


def _check_selection(device: torch.device, draw: torch.Generator, sizes: Sizes) -> None:
    """Compare what is kept of each matrix, of all together and above a threshold with a sort."""
    scores = [torch.randn(shape, generator=draw).round(decimals=1) for shape in sizes]
    there = [score.to(device) for score in scores]
    whole = torch.cat([score.flatten() for score in scores])
    for k in (1, 40, 231):
        wanted = torch.cat([_kept(score.flatten(), k) for score in scores])
        _same(selection.keep_each(there, [k] * len(scores)), wanted, "each matrix")
        _same(selection.keep_among(there, k), _kept(whole, k), "all matrices")
    _same(
        selection.keep_above(there, 0.61, [1] * len(scores)), whole.sigmoid() > 0.61, "a threshold"
    )
    counts = selection.counts_by_type(there, ["a", "b"], 0.25, 1.0).tolist()
    if any(abs(n - 0.25 * score.numel()) > 1 for n, score in zip(counts, scores, strict=True)):
        raise RuntimeError("other shares of a density")


def _kept(scores: Tensor, k: int) -> Tensor:
    order = scores.argsort(descending=True, stable=True)[:k]
    return torch.zeros(len(scores), dtype=torch.bool).index_fill_(0, order, True)


def _same(masks: Sequence[Tensor], wanted: Tensor, what: str) -> None:
    if not torch.equal(torch.cat([mask.cpu().flatten() for mask in masks]), wanted):
        raise RuntimeError(f"another choice of the largest in {what}")


def _check_working(device: torch.device, draw: torch.Generator) -> None:
    """Compare W' under masks with products, and under hard concrete gates with their mean."""
    weights = [torch.randn(shape, generator=draw) for shape in EVEN]
    masks = [torch.rand(shape, generator=draw) < 0.5 for shape in EVEN]
    there = [[x.to(device) for x in own] for own in (weights, [w * 0 for w in weights], masks)]
    shapes = shapes_of(tuple(w.numel() for w in weights), device)
    for gate in (0, 1):
        working = [torch.empty(shape, dtype=torch.bfloat16, device=device) for shape in EVEN]
        lists = [matrices_of(own, shapes) for own in (*there, working)]
        given = [*(one.table for one in lists), shapes.sizes, shapes.places, 7]
        wide = all(one.even for one in lists)
        flags = {"GATE": gate, "KIND": "bfloat16", "EVEN": wide, "BLOCK": BLOCK}
        launch("stepping", "make_working", shapes.grid, given, 0, **flags)
        for made, weight, mask in zip(working, weights, masks, strict=True):
            product = made.cpu().float()
            if gate == 0 and not torch.allclose(product, weight * mask, rtol=2**-7, atol=0):
                raise RuntimeError("other working weights")
            ratio = (product / weight)[weight.abs() > 0.1]
            if gate == 1 and not (ratio.min() > -0.01 and abs(ratio.mean() - 0.5) < 0.1):
                raise RuntimeError("other gates")


def _check_update(
    device: torch.device, draw: torch.Generator, sizes: Sizes, kind: torch.dtype
) -> None:
    """Compare the norm and a step of AdamW of scores and weights with their formulas in float64."""
    names = ("upstream", "weights", "scores")
    values = {n: [torch.randn(s, generator=draw) for s in sizes] for n in names}
    values["masks"] = [torch.rand(s, generator=draw) < 0.5 for s in sizes]
    values["upstream"] = [x.to(kind) for x in values["upstream"]]
    there = {name: [x.to(device, copy=True) for x in own] for name, own in values.items()}
    moments = [[torch.zeros(s, device=device) for s in sizes] for _ in range(4)]
    entries = tuple(x.numel() for x in values["scores"])
    shapes = shapes_of(entries, device)
    shares = sent(np.array([1 / size for size in entries], np.float32), device)
    lists = [matrices_of(own, shapes) for own in there.values()]
    given: list[Any] = [one.table for one in lists]
    given += [shapes.sizes, shapes.places, shares, STRENGTH, SHIFT, 0]
    held = [matrices_of(own, shapes) for own in moments]
    flags: dict[str, Any] = {"SCORES": True, "WEIGHTS": True, "PENALTY": True, "GATE": 0}
    flags |= {"KIND": KINDS[kind], "EVEN": all(one.even for one in (*lists, *held))}
    rows, many = shapes.grid
    sums = torch.empty(many, rows, device=device)
    launch("stepping", "sum_squares", shapes.grid, [*given, sums, rows], 0, **flags, BLOCK=BLOCK)
    numbers = [RATE / (1 - BETAS[0]), math.sqrt(1 - BETAS[1]), 1.0] * 2
    scale = torch.full((), FACTOR, device=device)
    tables = [one.table for one in held]
    rest = [1 - beta for beta in BETAS]
    step = [*given, scale, *tables, *numbers, *BETAS, *rest, EPSILON]
    launch("stepping", "update", shapes.grid, step, 0, **flags, BLOCK=BLOCK)
    squares = torch.zeros((), dtype=torch.float64)
    for n, size in enumerate(entries):
        upstream, weight, score, mask = (values[name][n].double() for name in values)
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
