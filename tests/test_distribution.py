"""Histograms of weights and scores, against numpy's own."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from methods.controls import dense
from methods.magnitude import magnitude
from methods.movement import movement
from zoo import MaskedModel
from zoo.engine.measure import BINS, SCORE_BINS, distribution
from zoo.records.packed import unpack_heights


@pytest.fixture
def model(bert):
    """Movement at 30 %, with random weights and scores."""
    model = MaskedModel(bert(), movement(0.3, start=0.0, stop=1.0))
    draw = torch.Generator().manual_seed(3)
    for layer in model.layers.values():
        with torch.no_grad():
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=draw) * 0.03)
            layer.score.copy_(torch.randn(layer.score.shape, generator=draw) * 5)
    model.refresh(0.3)
    return model


def flat(tensors):
    """All entries as one array."""
    return np.concatenate([t.detach().numpy().ravel() for t in tensors])


def test_histograms_of_weights_and_scores_equal_numpy(model):
    found = distribution(model)
    weights = flat(layer.weight for layer in model.layers.values())
    scores = flat(layer.score for layer in model.layers.values())
    kept = flat(layer.mask for layer in model.layers.values())
    ends = np.array([weights.mean() + side * 4 * weights.std() for side in (-1, 1)])
    assert found.range == pytest.approx(ends, rel=1e-5)
    rise = np.array([scores.mean() + side * 4 * scores.std() for side in (-1, 1)])
    assert found.score_range == pytest.approx(rise, rel=1e-5)
    edges = np.linspace(*found.range, BINS + 1)
    steps = np.linspace(*found.score_range, SCORE_BINS + 1)
    across, up = (v.clip(e[0], e[-1]) for v, e in ((weights, edges), (scores, steps)))
    assert list(found.all) == np.histogram(across, edges)[0].tolist()
    assert list(found.kept) == np.histogram(across[kept], edges)[0].tolist()
    plane = np.histogram2d(across, up, [edges, steps])[0]
    heights = unpack_heights(found.scores).reshape(BINS, SCORE_BINS)
    assert np.array_equal(heights, np.round(8 * np.log2(1 + plane)))


def test_weights_outside_the_range_are_counted(model):
    layer = next(iter(model.layers.values()))
    with torch.no_grad():
        layer.weight[0, 0], layer.weight[0, 1] = 3.0, -3.0  # far outside
    found = distribution(model)
    assert sum(found.all) == sum(model.sizes.values())
    assert sum(found.kept) == sum(model.remaining().kept.values())


def test_only_learned_scores_are_counted(bert):
    model = MaskedModel(bert(), magnitude(0.3, start=0.0, stop=1.0))
    model.refresh(0.3)
    found = distribution(model)
    assert len(found.all) == len(found.kept) == BINS
    assert (found.score_range, found.scores) == ((), "")
    assert distribution(MaskedModel(bert(), dense(1.0))) is None


@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_a_run_that_diverged_has_no_distribution(model, odd):
    nn.init.constant_(next(iter(model.layers.values())).score, odd)
    assert distribution(model) is None


def test_equal_scores_have_a_range(bert):
    model = MaskedModel(bert(), movement(0.3, start=0.0, stop=1.0))
    model.refresh(0.3)
    assert distribution(model).score_range == (-1.0, 1.0)
