"""Mask functions: exact counts, ties, and the published corner cases."""

import torch

from zoo import count, matrix_type, open_gates, topk_global, topk_local


def test_counts_of_bert_base():
    """int(0.03 * 589,824) and int(0.03 * 2,359,296)."""
    assert count(0.03, 589_824) == 17_694
    assert count(0.03, 2_359_296) == 70_778
    total = sum(48 * [count(0.1, 589_824)] + 24 * [count(0.1, 2_359_296)])
    assert total == 8_493_432


def test_a_matrix_keeps_at_least_one_weight():
    assert topk_local({"a": torch.zeros(3, 3)}, 0.01)["a"].sum().item() == 1


def test_the_type_of_a_matrix_is_its_name_without_the_layer():
    assert matrix_type("encoder.layer.3.attention.self.query") == matrix_type(
        "encoder.layer.11.attention.self.query"
    )
    assert matrix_type("layer.3.output.dense") != matrix_type("layer.3.attention.output.dense")
    assert matrix_type("h.0.fc1") == matrix_type("h.1.fc1") == "h.*.fc1"
    assert matrix_type("blocks.0.2.fc1") == "blocks.*.2.fc1"  # the layer's number alone
    assert matrix_type("fc1") == "fc1"


def test_a_global_ranking_keeps_its_count_and_half_a_percent_of_each_matrix():
    low, high = torch.full((40, 50), -9.0), torch.arange(2000.0).view(40, 50)
    masks = topk_global({"low": low, "high": high}, 0.1)
    assert masks["high"].sum().item() == int(0.1 * 4000) + 1
    assert masks["low"].sum().item() == 10  # 0.5 %
    assert torch.equal(masks["high"], high > 2000 - 402)


def test_ties_of_a_global_ranking_go_to_the_first_matrix():
    masks = topk_global({"a": torch.zeros(10, 10), "b": torch.zeros(10, 10)}, 0.25)
    assert masks["a"].sum().item() == 51
    assert masks["b"].sum().item() == 0


def test_gates_are_open_above_a_twelfth():
    """L0: pruned if and only if sigmoid(S) <= 1/12, S <= -2.398."""
    scores = {"a": torch.tensor([[-2.40, -2.39, 0.0, 2.5]])}
    assert open_gates(scores, 1.0)["a"].tolist() == [[False, True, True, True]]
