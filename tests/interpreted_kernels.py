"""Kernels, interpreted on the CPU, against plain torch: run by tests/test_kernels.py in a process of
its own, since Triton must know when it is imported.

    TRITON_INTERPRET=1 python -m pytest tests/interpreted_kernels.py

FIFTY=1 adds fifty steps of every method, a minute each.
"""

import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.test_selection import by_sorting, some_scores
from zoo import above_threshold, hard_concrete, nothing, topk_by_type, topk_global, topk_local
from zoo.engine import sweeps
from zoo.engine.trainer import Trainer
from zoo.kernels import launch, proof, selection
from zoo.parts.gates import BETA, CLOSED
from zoo.registry import methods
from zoo.tools.arms import Bench, frozen_of
from zoo.tools.synthetic import SIZES, Geometry

triton = pytest.importorskip("triton")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Blocks are small, so that small matrices have several."""
    small_blocks(monkeypatch, 64)
    yield
    launch.shapes_of.cache_clear()


def small_blocks(monkeypatch: Any, block: int) -> None:
    for module in (launch, selection, proof, sweeps):
        monkeypatch.setattr(module, "BLOCK", block)
    launch.shapes_of.cache_clear()


def test_selections_equal_a_stable_sort():
    """Ties, denormal numbers, infinities, NaN, all equal, k = 0, 1, n: of each matrix, and of all
    together, with and without a guess of the first digit that holds."""
    rng = np.random.default_rng(0)
    for _ in range(2):
        scores = [some_scores(rng).float().contiguous() for _ in range(30)]
        counts = [int(rng.choice([0, 1, s.numel(), rng.integers(s.numel() + 1)])) for s in scores]
        for score, k, mask in zip(scores, counts, selection.keep_each(scores, counts), strict=True):
            assert torch.equal(mask, by_sorting([score], k)[0])
        for first in range(0, 30, 10):
            some = scores[first : first + 4]
            k = int(rng.integers(sum(score.numel() for score in some) + 1))
            together = selection.keep_among(some, k)
            assert all(map(torch.equal, together, by_sorting(some, k)))


def matrices(draw: torch.Generator) -> dict[str, torch.Tensor]:
    """Scores of two layers, some so low that they keep less than every matrix must."""
    named = {}
    for layer in range(2):
        for kind, shape in {"query": (20, 20), "output": (20, 40)}.items():
            low = 30.0 if (layer, kind) == (1, "query") else 0.0
            named[f"layer.{layer}.{kind}"] = torch.randn(shape, generator=draw) - low
    return named


@pytest.mark.parametrize("level", [1.0, 0.3713, 0.0317])
def test_mask_functions_give_the_masks_of_the_cpu(monkeypatch, level):
    small_blocks(monkeypatch, 256)
    scores = matrices(torch.Generator().manual_seed(1))
    for function in (topk_local, topk_by_type, topk_global, above_threshold):
        ours = function(scores, level)
        monkeypatch.setenv(launch.PLAIN, "1")
        plain = function(scores, level)
        monkeypatch.delenv(launch.PLAIN)
        for name, mask in plain.items():
            assert torch.equal(ours[name], mask), (function, name)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setitem(SIZES, "tiny", (2, 32, 2, 64))
    return Bench(Geometry("tiny", 4, 8, 0.3), tmp_path, 1)


def noise_of_kernels(masked: Any) -> Any:
    """A gate's `draw` that gives, matrix after matrix, the noise that kernels draw."""
    import triton.language as tl

    @triton.jit
    def drawn(out, seed, start, SIZE: tl.constexpr):
        offsets = tl.arange(0, SIZE)
        tl.store(out + offsets, tl.rand(seed, start + offsets))

    layers = list(masked.layers.values())
    scores = [id(layer.score) for layer in layers]
    places = np.cumsum([0, *(layer.score.numel() for layer in layers)])

    def draw(score: torch.Tensor, seed: int) -> torch.Tensor:
        noise = torch.empty(score.numel())
        start = int(places[scores.index(id(score))])
        drawn[(1,)](noise, masked.seed(), start, SIZE=score.numel())
        return noise.clamp(1e-4, 1 - 1e-4).view_as(score).logit().div(BETA)

    return draw


def side_by_side(monkeypatch: Any, bench: Bench, name: str, steps: int) -> list[Trainer]:
    """Two trainers after these steps, the first with plain torch, with equal masks at every step.

    L0 has the same noise in both. Its mask compares trained scores, which differ in their last
    digits, with a number: it may differ where a score is within 1e-5 of it.
    """
    small_blocks(monkeypatch, 4096)
    runs = [bench.run(name, steps=max(8, steps)) for _ in range(2)]
    draw = None
    if methods[name].facts.family == "regularisation":
        draw = noise_of_kernels(runs[0].masked)
        runs[0].masked.method = replace(runs[0].method, gate=replace(hard_concrete, draw=draw))
    trainers = []
    for plain, run in zip("10", runs, strict=True):
        monkeypatch.setenv(launch.PLAIN, plain)
        trainers.append(Trainer(run, frozen_of(run)))
    method = runs[0].method
    alone = method.units is not None and method.trains is nothing
    swept = bool(runs[0].masked.layers) and not alone and sweeps.knows(method)
    assert trainers[0].update is None and bool(trainers[1].update) == swept
    for _ in range(steps):
        for plain, trainer in zip("10", trainers, strict=True):
            monkeypatch.setenv(launch.PLAIN, plain)
            trainer.step()
        for one, other in zip(*(run.masked.layers.values() for run in runs), strict=True):
            different = one.mask != other.mask
            if draw:
                different &= (one.score - CLOSED).abs() > 1e-5
            assert not different.any()
    return trainers


PRUNING = [entry.name for entry in methods if entry.facts.prunes]


@pytest.mark.skipif("FIFTY" not in os.environ, reason="takes a minute a method")
@pytest.mark.parametrize("name", PRUNING)
def test_masks_of_fifty_steps_are_those_of_plain_torch(monkeypatch, bench, name):
    side_by_side(monkeypatch, bench, name, 50)


STEPPED = ("smp_s", "smp_g", "movement", "soft_movement", "l0", "magnitude", "movement_blocks")


@pytest.mark.parametrize("name", STEPPED)
def test_steps_by_kernels_are_the_steps_of_plain_torch(monkeypatch, bench, name):
    """Scores, weights and the optimiser's state to 1e-6, masks bit for bit."""
    trainers = side_by_side(monkeypatch, bench, name, 3)
    runs = [trainer.run for trainer in trainers]
    for one, other in zip(*(run.masked.layers.values() for run in runs), strict=True):
        for kind in ("weight", "working"):
            assert torch.allclose(getattr(one, kind), getattr(other, kind), rtol=1e-6, atol=1e-6)
    for one, other in zip(*(run.masked.trained_scores for run in runs), strict=True):
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-6)
    states = [list(trainer.optimizer.state.values()) for trainer in trainers]
    assert len(states[0]) == len(states[1])
    for run, trainer in zip(runs, trainers, strict=True):
        tensor = next(iter(run.masked.trained_scores), None)
        if tensor is not None:
            assert int(trainer.optimizer.state[tensor]["step"]) == 3


def test_the_proof_sees_a_kernel_that_is_wrong(monkeypatch):
    small_blocks(monkeypatch, 4096)
    proof.check(torch.device("cpu"))
    plain = proof.selection.keep_each
    monkeypatch.setattr(
        proof.selection, "keep_each", lambda scores, counts: plain(scores, [k + 1 for k in counts])
    )
    with pytest.raises(RuntimeError, match="another choice"):
        proof.check(torch.device("cpu"))
    monkeypatch.setattr(proof.selection, "keep_each", plain)
    monkeypatch.setattr(proof, "_stepped", lambda parameter, gradient: parameter - gradient)
    with pytest.raises(RuntimeError, match="other numbers of scores"):
        proof.check(torch.device("cpu"))
