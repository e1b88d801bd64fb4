"""Mask functions: exact counts, ties, and the published corner cases."""

import numpy as np
import pytest
import torch

from zoo.masks import (
    above_threshold,
    count,
    keep,
    matrix_type,
    open_gates,
    topk_by_type,
    topk_global,
    topk_local,
)


def reference(score: torch.Tensor, k: int) -> torch.Tensor:
    """The k largest by a stable sort: another route to (score, then lowest flat index)."""
    flat = score.flatten().numpy()
    order = np.argsort(-flat.astype(np.float64), kind="stable")
    mask = np.zeros(len(flat), bool)
    mask[order[:k]] = True
    return torch.from_numpy(mask).view_as(score)


@pytest.mark.parametrize("seed", range(200))
def test_keep_equals_a_stable_sort(seed):
    """Random sizes and few distinct values, so most cases have ties at the threshold."""
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(1, 12, 2)
    pool = rng.choice(
        [0.0, 1.0, -1.0, 1e-40, -1e-40, np.inf, -np.inf, 0.5, 2.0], rng.integers(1, 6)
    )
    score = torch.from_numpy(rng.choice(pool, (rows, columns)).astype(np.float32))
    k = int(rng.integers(0, rows * columns + 2))
    assert torch.equal(keep(score, k), reference(score, k))


def test_scores_are_signed():
    assert keep(torch.tensor([[-5.0, 1.0]]), 1).tolist() == [[False, True]]


@pytest.mark.parametrize("density", [0.03, 0.1, 0.5, 0.8, 1.0, 1.3])
def test_local_counts_are_exact_when_all_is_tied(density):
    scores = {"a": torch.zeros(77, 13), "b": torch.zeros(5, 301)}
    for name, mask in topk_local(scores, density).items():
        assert mask.sum().item() == min(scores[name].numel(), int(density * scores[name].numel()))


def test_bert_base_counts():
    """int(0.03 * 589,824) and int(0.03 * 2,359,296)."""
    assert count(0.03, 589_824) == 17_694
    assert count(0.03, 2_359_296) == 70_778
    total = sum(48 * [count(0.1, 589_824)] + 24 * [count(0.1, 2_359_296)])
    assert total == 8_493_432


def test_the_first_adam_step_is_a_tie_and_stays_one():
    """Scores in {-lr, 0, +lr}: exact, and the same mask twice."""
    score = torch.randint(-1, 2, (64, 64), generator=torch.Generator().manual_seed(1)) * 0.01
    mask = keep(score, 2048)
    assert mask.sum().item() == 2048
    assert torch.equal(mask, keep(score.clone(), 2048))


def test_a_matrix_keeps_at_least_one():
    assert topk_local({"a": torch.zeros(3, 3)}, 0.01)["a"].sum().item() == 1


def test_types():
    assert matrix_type("encoder.layer.3.attention.self.query") == "attention.self.query"
    assert matrix_type("encoder.layer.11.output.dense") == "output.dense"


def layers(values: list[float], kind: str = "output.dense") -> dict[str, torch.Tensor]:
    return {f"encoder.layer.{i}.{kind}": torch.full((40, 25), v) for i, v in enumerate(values)}


@pytest.mark.parametrize(("temperature", "realised"), [(1.0, 0.6998), (4.0, 0.7917)])
def test_a_share_above_one_keeps_the_matrix_whole(temperature, realised):
    """one layer at S = 2, eleven at -1, density 0.8; nothing is redistributed."""
    scores = layers([2.0] + [-1.0] * 11)
    masks = topk_by_type(scores, 0.8, temperature=temperature)
    kept = sum(mask.sum().item() for mask in masks.values())
    assert masks["encoder.layer.0.output.dense"].all()
    assert kept / 12_000 == pytest.approx(realised, abs=1e-3)


def test_types_share_within_themselves_only():
    """Each type's densities add up to L times the level, however high another type's scores are."""
    torch.manual_seed(0)
    scores = {}
    for kind, centre in (("intermediate.dense", 1.0), ("output.dense", -2.0)):
        for i in range(4):
            scores[f"encoder.layer.{i}.{kind}"] = torch.randn(50, 40) + centre
    masks = topk_by_type(scores, 0.1)
    for kind in ("intermediate.dense", "output.dense"):
        kept = sum(masks[f"encoder.layer.{i}.{kind}"].sum().item() for i in range(4))
        assert 800 - 4 <= kept <= 800


def test_global_counts_and_floor():
    low, high = torch.full((40, 50), -9.0), torch.arange(2000.0).view(40, 50)
    masks = topk_global({"low": low, "high": high}, 0.1)
    assert masks["high"].sum().item() == int(0.1 * 4000) + 1
    assert masks["low"].sum().item() == 10  # 0.5 %
    assert torch.equal(masks["high"], high > 2000 - 402)


def test_global_ties_go_to_the_first_matrix():
    masks = topk_global({"a": torch.zeros(10, 10), "b": torch.zeros(10, 10)}, 0.25)
    assert masks["a"].sum().item() == 51
    assert masks["b"].sum().item() == 0


def test_threshold_of_soft_movement():
    """sigmoid once: at tau = 0.1 a score of -2.19 stays and -2.20 goes; at tau = 0 all stay."""
    scores = {"a": torch.tensor([[-2.19, -2.20] * 100])}
    assert above_threshold(scores, 0.1)["a"].sum().item() == 100
    assert above_threshold({"a": torch.zeros(9, 9)}, 0.0)["a"].all()


@pytest.mark.parametrize(("shape", "least"), [((768, 768), 2950), ((3072, 768), 11797)])
def test_threshold_leaves_half_a_percent(shape, least):
    noise = torch.linspace(0, 1e-3, shape[0] * shape[1]).view(shape)
    assert above_threshold({"a": noise - 50}, 0.1)["a"].sum().item() == least
    assert above_threshold({"a": torch.full(shape, -50.0)}, 0.1)["a"].sum().item() == least


def test_open_gates_are_those_above_a_twelfth():
    """L0: pruned if and only if sigmoid(S) <= 1/12, S <= -2.398."""
    scores = {"a": torch.tensor([[-2.40, -2.39, 0.0, 2.5]])}
    assert open_gates(scores, 1.0)["a"].tolist() == [[False, True, True, True]]
