"""Reweighted proximal pruning: its step, beside AdamW and not inside it."""

from types import SimpleNamespace

import pytest
import torch

from methods.rpp import Shrinking, ones
from zoo import Cell, ConfigError, Moment
from zoo.engine.build import build
from zoo.engine.frozen import Frozen
from zoo.engine.sweeps import knows
from zoo.engine.trainer import Trainer
from zoo.registry import methods


def layer_of(*weights: float) -> SimpleNamespace:
    """A layer of one row of weights, in float64, whose alpha is 1."""
    weight = torch.tensor([weights], dtype=torch.float64)
    return SimpleNamespace(weight=weight, score=ones(weight, torch.Generator()))


def test_pitfall_76_the_proximal_step_is_a_soft_threshold():
    layer = layer_of(0.5, -0.2, 0.05)
    shrinking = Shrinking(gamma=10.0, offset=0.1, rounds=2, stop=0.5)
    shrinking(layer, Moment(1, 8, 0.01))  # of four steps, two rounds of two
    assert layer.weight.tolist()[0] == pytest.approx([0.4, -0.1, 0.0])
    assert layer.weight[0, 2] == 0.0 and (layer.score == 1).all()
    again = layer_of(0.4, -0.1, 0.0)
    shrinking(again, Moment(2, 8, 0.0))
    assert again.score.tolist()[0] == pytest.approx([2.0, 5.0, 10.0])
    shrinking(again, Moment(3, 8, 0.01))
    assert again.weight.tolist()[0] == pytest.approx([0.2, 0.0, 0.0])
    shrinking(again, Moment(4, 8, 0.0))  # the last round ends, and nothing shrinks again
    assert again.score.tolist()[0] == pytest.approx([2.0, 5.0, 10.0])
    shrinking(again, Moment(5, 8, 1.0))
    assert again.weight.tolist()[0] == pytest.approx([0.2, 0.0, 0.0])


def minimised(gamma: float, *, inside: bool) -> tuple[list[float], int]:
    """The minimum of norm(w - (1, .02))^2 / 2 + gamma * sum of alpha abs(w), found by AdamW in 200
    steps from that of its first part, the l1 term in the gradient or beside it; and in how many
    steps the second weight was 0."""
    target = torch.tensor([[1.0, 0.02]], dtype=torch.float64)
    layer = SimpleNamespace(weight=torch.nn.Parameter(target.clone()), score=1 / (target + 0.01))
    optimizer = torch.optim.AdamW([layer.weight], lr=0.01, weight_decay=0.0)
    shrinking = Shrinking(gamma, offset=0.01, rounds=1, stop=1.0)
    zeros = 0
    for step in range(1, 201):
        with torch.no_grad():
            layer.weight.grad = layer.weight - target
            if inside:
                layer.weight.grad += gamma * layer.score * layer.weight.sign()
        optimizer.step()
        if not inside:
            with torch.no_grad():
                shrinking(layer, Moment(step, 200, 0.01))
        zeros += int(layer.weight[0, 1] == 0)
    return layer.weight.tolist()[0], zeros


def test_pitfall_77_l1_inside_adams_moments():
    beside, zeros = minimised(0.1, inside=False)
    assert beside == pytest.approx([0.9999, 0.0], abs=1e-4) and zeros == 200
    inside, zeros = minimised(0.1, inside=True)
    assert inside == pytest.approx([0.9010, 0.0028], abs=1e-4) and zeros == 0


def weights_after(planner, resources, name: str, **given) -> dict[str, torch.Tensor]:
    """The network's parameters after 12 steps of a method on SST-2, with weight decay."""
    values = {"batch": 16, "max_length": 16, "lr_weights": 1e-3, "weight_decay": 0.01}
    values |= {"lr_head": 1e-3, "steps": 12, **given}
    (job,) = planner.jobs([Cell(name, "sst2", 1.0, False, 0, tuple(values.items()))])
    run = build(job.trial, resources)
    for name, parameter in run.network.encoder.named_parameters():
        parameter.requires_grad_(run.network.architecture.parameter(name).part != "embeddings")
    trainer = Trainer(run, Frozen())
    for _ in range(12):
        trainer.step()
    return {name: p.detach().clone() for name, p in run.network.named_parameters()}


def test_pitfall_77_without_a_penalty_it_is_adamw_bit_for_bit(planner, resources):
    plain = weights_after(planner, resources, "dense", warmup=0.1)
    same = weights_after(planner, resources, "rpp", warmup=0.1, penalty=0.0)
    other = weights_after(planner, resources, "rpp", warmup=0.1, penalty=1.0)
    assert all(torch.equal(plain[name], same[name]) for name in plain)
    assert not all(torch.equal(plain[name], other[name]) for name in plain)


def test_zeros_may_grow_again_until_they_are_the_mask(planner, resources):
    values = {"batch": 16, "max_length": 16, "lr_weights": 1e-3, "steps": 12, "rounds": 1}
    values |= {"penalty": 500.0}  # half of what AdamW may move
    (job,) = planner.jobs([Cell("rpp", "sst2", 0.5, False, 0, tuple(values.items()))])
    run = build(job.trial, resources)
    trainer, returned, remaining = Trainer(run, Frozen()), 0, 1.0
    assert not knows(run.method)  # kernels know nothing of what follows a step
    before = {name: layer.weight == 0 for name, layer in run.masked.layers.items()}
    for step in range(1, 13):
        trainer.step()
        now = {name: layer.weight == 0 for name, layer in run.masked.layers.items()}
        back = sum(int((before[name] & ~now[name]).sum()) for name in now)
        if step <= 8:
            returned += back
            for name, layer in run.masked.layers.items():
                assert torch.equal(layer.mask, ~now[name] | (step < 8))
        else:
            assert not back and run.masked.remaining().density == remaining
        remaining, before = run.masked.remaining().density, now
    assert returned and 0 < remaining < 0.99


def test_values_out_of_range_are_rejected():
    with pytest.raises(ConfigError, match="rounds at least 1, got 1, 0.001 and 0"):
        methods["rpp"].make(0.1, penalty=1.0, rounds=0)
    with pytest.raises(ConfigError, match="moments must rise"):
        methods["rpp"].make(0.1, penalty=1.0, fixed=1.0)
