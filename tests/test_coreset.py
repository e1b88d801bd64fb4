"""Coresets: what is drawn, how it is scaled, and what the judge sees of it."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from methods.coreset import CHANCES, Draw, drawn_counts, factors, norms, products_of_norms
from tests.kinds import HEADS, fresh, states
from zoo import (
    Cell,
    ConfigError,
    Held,
    MaskedModel,
)
from zoo.engine.judge import judge
from zoo.engine.train import run_trial
from zoo.records.trial import Conditions
from zoo.registry import methods


def held(name: str, *weights: torch.Tensor, bias: torch.Tensor | None = None, seed=0) -> Held:
    """What a score of units reads; the first part has the bias."""
    return Held(name, weights, (bias, *[None] * (len(weights) - 1)), seed)


def test_pitfall_72_biases_count_in_norms():
    one = held("layer.0.value_output", torch.zeros(1, 2, 4), bias=torch.tensor([[[2.0], [0.0]]]))
    assert norms(one, 0).tolist() == [[2.0, 0.0]]


def drawn_at(encoders: dict[str, Any], density: float) -> MaskedModel:
    """BERT with what a coreset keeps."""
    method = methods["coreset"].make(density)
    masked = MaskedModel(fresh(encoders, "bert"), method)
    masks = {
        name: method.calibration.prune(masked.groups.held(name, seed), density)[0]
        for seed, name in enumerate(masked.groups.groups)
    }
    for name, mask in masked.groups.spread(masks).items():
        masked.put(name, mask, masked.layers[name].weight.detach())
    masked.calibrated = True
    masked.go_on(0)
    return masked


def test_pitfall_39_and_72_dimensions_share_their_indices_and_biases_stay(encoders):
    masked = drawn_at(encoders, 0.5)
    own = dict(masked.encoder.named_parameters())
    for name, parameter in encoders["bert"].named_parameters():
        assert not name.endswith("bias") or torch.equal(own[name], parameter)
    for layer in range(2):
        at = f"encoder.layer.{layer}."
        masks = {n: x.mask for n, x in masked.layers.items() if n.startswith(at)}
        q, k, v = (masks[f"{at}attention.self.{n}"].all(1) for n in ("query", "key", "value"))
        o = masks[f"{at}attention.output.dense"].all(0)
        assert torch.equal(q, k) and torch.equal(v, o)
        up, down = masks[f"{at}intermediate.dense"].all(1), masks[f"{at}output.dense"].all(0)
        assert torch.equal(up, down) and up.sum() == len(up) // 2
        for whole in (q, v):
            assert (whole.view(HEADS, -1).sum(1) == len(whole) // HEADS // 2).all()


def test_pitfall_70_a_coreset_at_density_1_changes_nothing(encoders):
    masked = drawn_at(encoders, 1.0)
    assert torch.equal(states(masked.encoder), states(encoders["bert"]))


def test_pitfall_38_units_are_drawn_in_proportion_to_their_chances():
    """Against all orders of two draws without replacement of three: 20,000 draws, four standard
    errors."""
    chance, many = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64), 20_000
    generator = torch.Generator().manual_seed(1)
    counts = sum(drawn_counts(chance, 2, generator, False) for _ in range(many))
    for unit, p in enumerate(chance[0].tolist()):
        others = [x for i, x in enumerate(chance[0].tolist()) if i != unit]
        share = p + sum(x * p / (1 - x) for x in others)
        error = math.sqrt(share * (1 - share) / many)
        assert counts[0, unit].item() / many == pytest.approx(share, abs=4 * error)


def test_pitfall_38_the_unbiased_estimator_is_right_on_average():
    """The mean of Q'K over 100,000 draws, for every entry, within four standard errors."""
    generator = torch.Generator().manual_seed(2)
    q, k = (torch.randn(6, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    p = q.norm(dim=1) * k.norm(dim=1)
    p = (p / p.sum()).expand(100_000, -1)
    drawn = drawn_counts(p, 3, generator, True)
    assert (drawn.sum(1) == 3).all()
    scale = factors(drawn, p, 3, "unbiased")
    products = torch.einsum("nd,di,dj->nij", scale, q, k)
    error = products.std(0) / math.sqrt(len(products))
    assert ((products.mean(0) - q.T @ k).abs() < 4 * error).all()


def test_pitfall_70_and_71_factors_by_enumeration():
    p = torch.tensor([0.5, 0.3, 0.2])
    found = factors(torch.ones(3), p, 3, "released")
    assert found.tolist() == pytest.approx([2 / 3, 1.1111, 1.6667], abs=1e-4)
    q, k, p = torch.tensor([1.0, 2, 3]), torch.tensor([2.0, -1, 1]), torch.tensor([2.0, 2, 3]) / 7
    unbiased = released = 0.0
    for i in range(3):
        for j in range(3):
            drawn = torch.zeros(3)
            drawn[i] += 1
            drawn[j] += 1
            value = (factors(drawn, p, 2, "unbiased") * q * k).sum()
            unbiased += float(p[i] * p[j] * value)
            if i != j:
                value = (factors(drawn, p, 2, "released") * q * k).sum()
                released += float(p[i] * p[j] / (1 - p[i]) * value)
    assert unbiased == pytest.approx(3.0, abs=1e-6) and released == pytest.approx(2.7, abs=1e-6)


def test_factors_multiply_the_second_of_a_pair_and_its_bias(encoders):
    """Q's rows with their biases, O's and D's columns; b_O and b_D stay."""
    encoder = fresh(encoders, "bert")
    masked = MaskedModel(encoder, methods["coreset"].make(0.5))
    before = {n: p.detach().clone() for n, p in encoder.named_parameters()}
    with torch.no_grad():
        for name, group in masked.groups.groups.items():
            two = torch.full(group.shape, 2.0)
            masked.groups.scale(name, (None, two))
    scaled = ("query.weight", "query.bias", "attention.output.dense.weight", ".output.dense.weight")
    for name, parameter in encoder.named_parameters():
        factor = 2 if name.endswith(scaled) and "layer." in name else 1
        assert torch.equal(parameter, factor * before[name]), name


def test_a_coreset_refuses_what_it_does_not_know():
    with pytest.raises(ConfigError, match="unknown chances 'l7'"):
        methods["coreset"].make(0.5, chances="l7")
    with pytest.raises(ConfigError, match="attention of a coreset is a fraction above 0, got 3"):
        methods["coreset"].make(0.5, attention=3.0)
    with pytest.raises(ConfigError, match="unknown estimator 'l7'"):
        methods["coreset"].make(0.5, estimator="l7")
    for chances in CHANCES.values():
        for estimator in ("practical", "unbiased", "released"):
            first, second = torch.rand(2, 4, 8), torch.rand(2, 4, 8)
            given = held("layer.0.query_key", first, second)
            mask, (none, factor) = Draw(chances, estimator)(given, 0.5)
            again, _ = Draw(chances, estimator)(given, 0.5)
            assert mask.shape == (2, 4) and torch.equal(mask, again) and none is None
            assert (mask.sum(1) <= 2).all() and (
                estimator == "unbiased" or (mask.sum(1) == 2).all()
            )
            assert (factor is None) == (estimator == "practical")
            assert factor is None or torch.equal(factor > 0, mask)


def test_units_without_a_chance_are_drawn_last_and_scaled_by_nothing():
    first, second = torch.rand(2, 4, 8), torch.rand(2, 4, 8)
    first[0, 1], first[1] = 0, 0
    given = held("layer.0.query_key", first, second)
    for estimator in ("practical", "unbiased", "released"):
        mask, (_, factor) = Draw(products_of_norms, estimator)(given, 0.75)
        assert not mask[0, 1] and mask[1].any() and (estimator == "unbiased" or mask.sum() == 6)
        assert factor is None or factor.isfinite().all()
    whole, (_, factor) = Draw(products_of_norms, "released")(given, 1.0)
    assert whole.all() and factor.isfinite().all() and factor[0, 1] == 0


def test_the_norm_of_a_dimension_is_a_product_of_two():
    first, second = torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[6.0, 8.0]]])
    assert products_of_norms(held("layer.0.value_output", first, second)).tolist() == [[50.0]]


@pytest.mark.parametrize("estimator", ["unbiased", "released"])
def test_a_judge_finds_a_coreset_whose_biases_were_scaled(planner, resources, tmp_path, estimator):
    planner = replace(planner, conditions=Conditions(max_steps=4))
    cell = Cell("coreset", "sst2", 0.5, False, 0, (("estimator", estimator), ("steps", 250)))
    dense, job = planner.jobs([cell])
    run_trial(dense.trial, replace(resources, keep_outputs=True))
    resources = replace(resources, handover=str(tmp_path / "files"))
    claim = run_trial(job.trial, resources)
    found = judge(claim, tmp_path / "files", resources)
    assert found.ok and found.judgement.claims == claim.metrics
    kept = [m.kept / m.total for m in found.remaining.matrices.values()]
    assert 0 < min(kept) <= max(kept) <= 0.5
