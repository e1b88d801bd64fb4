"""Histograms of weights and scores, against numpy's own."""

import base64
import math

import numpy as np
import pytest
import torch
from torch import nn

from methods.controls import dense
from methods.magnitude import magnitude
from methods.movement import movement
from tests.test_masked import bert, masked  # noqa: F401
from zoo.measure import BINS, SCORE_BINS, distribution


@pytest.fixture
def model(bert):  # noqa: F811
    model = masked(bert(), movement(0.3, start=0.0, stop=1.0))
    draw = torch.Generator().manual_seed(3)
    for layer in model.layers.values():
        with torch.no_grad():
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=draw) * 0.03)
            layer.score.copy_(torch.randn(layer.score.shape, generator=draw) * 5)
    model.refresh(0.3)
    return model


def flat(tensors):
    return np.concatenate([t.detach().numpy().ravel() for t in tensors])


def test_weights_and_scores_against_numpy(model):
    found = distribution(model)
    weights = flat(layer.weight for layer in model.layers.values())
    scores = flat(layer.score for layer in model.layers.values())
    kept = flat(layer.mask for layer in model.layers.values())
    ends = np.array([weights.mean() + side * 4 * weights.std() for side in (-1, 1)])
    assert found["range"] == pytest.approx(ends, rel=1e-5)
    rise = np.array([scores.mean() + side * 4 * scores.std() for side in (-1, 1)])
    assert found["score_range"] == pytest.approx(rise, rel=1e-5)
    edges, steps = (
        np.linspace(*found[name], bins + 1)
        for name, bins in (("range", BINS), ("score_range", SCORE_BINS))
    )
    across, up = (v.clip(e[0], e[-1]) for v, e in ((weights, edges), (scores, steps)))
    assert found["all"] == np.histogram(across, edges)[0].tolist()
    assert found["kept"] == np.histogram(across[kept], edges)[0].tolist()
    plane = np.histogram2d(across, up, [edges, steps])[0]
    heights = np.frombuffer(base64.b64decode(found["scores"]), np.uint8).reshape(BINS, SCORE_BINS)
    assert np.array_equal(heights, np.round(8 * np.log2(1 + plane)))


def test_every_weight_is_counted_wherever_it_lies(model):
    layer = next(iter(model.layers.values()))
    with torch.no_grad():
        layer.weight[0, 0], layer.weight[0, 1] = 3.0, -3.0  # far outside
    found = distribution(model)
    assert sum(found["all"]) == sum(model.sizes.values())
    assert sum(found["kept"]) == sum(model.remaining().kept.values())


def test_only_learned_scores_are_shown(bert):  # noqa: F811
    model = masked(bert(), magnitude(0.3, start=0.0, stop=1.0))
    model.refresh(0.3)
    assert set(distribution(model)) == {"range", "all", "kept"}
    assert distribution(masked(bert(), dense(1.0))) == {}


@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_a_run_that_diverged_has_none(model, odd):
    nn.init.constant_(next(iter(model.layers.values())).score, odd)
    assert distribution(model) == {}


def test_scores_that_never_moved_have_a_range(bert):  # noqa: F811
    model = masked(bert(), movement(0.3, start=0.0, stop=1.0))
    model.refresh(0.3)
    assert distribution(model)["score_range"] == [-1.0, 1.0]
