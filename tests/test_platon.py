"""PLATON's averages and masks, against the published equations' numbers."""

from types import SimpleNamespace

import pytest
import torch

from methods.platon import Sensitivity, importance_times_uncertainty, three_zeros
from zoo import ConfigError, Moment, Ramp, every_so_often, topk_in_all
from zoo.registry import methods


def layer_of(weight: float) -> SimpleNamespace:
    """A layer of one weight."""
    parameter = torch.nn.Parameter(torch.full((1, 1), weight))
    return SimpleNamespace(
        weight=parameter, score=three_zeros(parameter.detach(), torch.Generator())
    )


def test_pitfall_64_averages_move_at_every_step():
    """Sensitivities 4, 2, 6, 1, 3, 5 in windows of two."""
    layer, after = layer_of(1.0), Sensitivity(0.85, 0.95, 2)
    expected = {
        2: (0.3, 0.085, 0.0255),
        4: (0.855, 0.238, 0.20349),
        6: (1.02675, 0.2747625, 0.2821124),
    }
    for step, sensitivity in enumerate((4.0, 2.0, 6.0, 1.0, 3.0, 5.0), 1):
        layer.weight.grad = torch.full((1, 1), sensitivity)
        after(layer, Moment(step, 100, 0.0))
        if step in expected:
            importance, uncertainty, _ = layer.score.flatten().tolist()
            score = importance_times_uncertainty(layer).item()
            assert (importance, uncertainty, score) == pytest.approx(expected[step], abs=1e-6)


def test_pitfall_65_the_sensitivity_is_of_the_new_weight_and_ties_do_not_stay():
    layer = layer_of(0.95)  # it was 1
    layer.weight.grad = torch.full((1, 1), -0.5)
    Sensitivity(0.85, 0.95, 2)(layer, Moment(1, 100, 0.0))
    assert layer.score[2].item() == pytest.approx(0.475)
    assert int(topk_in_all({"a": torch.arange(8.0)[None]}, 0.25)["a"].sum()) == 2
    assert int(topk_in_all({"a": torch.zeros(1, 8)}, 0.25)["a"].sum()) == 2


def test_no_uncertainty_without_memory():
    layer, after = layer_of(1.0), Sensitivity(0.0, 0.95, 1)
    for step in range(1, 5):
        layer.weight.grad = torch.full((1, 1), float(step))
        after(layer, Moment(step, 100, 0.0))
    assert layer.score[1].item() == 0.0


def test_it_masks_now_and_then_and_at_the_end_always():
    schedule = every_so_often(Ramp(1.0, 0.1, 0.2, 0.6, 3), 10)
    at = [step for step in range(101) if schedule(step, 100) is not None]
    assert at == [30, 40, 50, *range(60, 101)]
    assert schedule(100, 100) == 0.1
    made = methods["platon"].make(0.1, start=0.2, stop=0.6)
    assert made.gate.value(None, torch.tensor([True, False]), None).all()
    with pytest.raises(ConfigError, match="unknown optimiser 'sgd'. Known: adamax, adamw"):
        methods["platon"].make(0.1, start=0.2, stop=0.6, optimiser="sgd")
    with pytest.raises(ConfigError, match=r"beta1 and beta2 must be in \[0, 1\)"):
        methods["platon"].make(0.1, start=0.2, stop=0.6, beta1=1.0)
