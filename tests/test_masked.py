"""The masked model: gradients from G, exact counts, and what evaluation and export see."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from methods.cap_lite import cap_lite
from methods.controls import dense, random
from methods.l0 import l0
from methods.magnitude import magnitude
from methods.movement import movement
from methods.smp import smp_g, smp_l
from tests.helpers import now_and_then
from zoo import (
    ConfigError,
    Constant,
    MaskedModel,
    Method,
    Penalty,
    Ramp,
    Score,
    TrialError,
    all_but_embeddings,
    everything,
    export,
    hard,
    learned,
    mean_sigmoid,
    mean_sigmoid_gradient,
    nothing,
    stored,
    straight_through,
    zeros,
)
from zoo import magnitude as read_as_magnitude
from zoo.engine import measure

PENALTY = Penalty(mean_sigmoid, mean_sigmoid_gradient, Constant(1.0))


def loss_of(encoder):
    """The squared hidden states of one sentence."""
    tokens = torch.tensor([[2, 9, 12, 8, 3]])
    return encoder(input_ids=tokens).last_hidden_state.pow(2).sum()


# What trains ------------------------------------------------------------------------------------


@pytest.mark.parametrize("trains", [everything, all_but_embeddings, nothing])
def test_pretrained_parameters_train_as_the_method_says(bert, trains):
    encoder = bert()
    MaskedModel(encoder, replace(movement(0.5, start=0.0, stop=1.0), trains=trains))
    found = {name for name, p in encoder.named_parameters() if p.requires_grad}
    names = {name for name, _ in encoder.named_parameters()}
    inside = {name for name in names if not name.startswith("embeddings.")}
    assert found == {everything: names, all_but_embeddings: inside, nothing: set()}[trains]


def test_a_method_decides_by_part_layer_and_role(bert):
    """Only the value matrices of the second layer, and whatever is outside the layers."""
    encoder = bert()
    own = lambda p: (p.layer == 1 and p.role == "V") or p.part == "pooler"  # noqa: E731
    MaskedModel(encoder, replace(magnitude(0.5, start=0.0, stop=1.0), trains=own))
    assert {name for name, p in encoder.named_parameters() if p.requires_grad} == {
        "encoder.layer.1.attention.self.value.weight",
        "pooler.dense.weight",
        "pooler.dense.bias",
    }


# Masks and counts -------------------------------------------------------------------------------


def test_pretrained_tensors_keep_their_names(bert):
    before = list(bert().state_dict())
    encoder = bert()
    MaskedModel(encoder, movement(0.5, start=0.0, stop=1.0))
    assert list(encoder.state_dict()) == before


def test_a_model_of_density_one_is_the_dense_model(bert):
    encoder, stock = bert().eval(), bert().eval()
    MaskedModel(encoder, smp_l(1.0, stop=0.5, penalty=400.0)).refresh(1.0)
    assert torch.equal(loss_of(encoder), loss_of(stock))


@pytest.mark.parametrize("density", [0.03, 0.1, 0.5, 0.8])
def test_remaining_weights_are_those_of_the_level(bert, density):
    model = MaskedModel(bert(), movement(density, start=0.0, stop=1.0))
    model.refresh(density)
    remaining = model.remaining()
    for name, total in remaining.total.items():
        assert remaining.kept[name] == int(density * total)
    assert sum(remaining.total.values()) == 2 * (4 * 32 * 32 + 2 * 32 * 64)


def test_a_model_without_masks_keeps_everything(bert):
    model = MaskedModel(bert(), dense(1.0))
    model.refresh(None)
    assert model.remaining().density == 1.0
    assert not model.layers


def test_export_multiplies_the_gate_into_tensors_of_stock_names(bert):
    """The exported weights in a stock model give the same numbers, zeros exactly where M = 0."""
    encoder, stock = bert().eval(), bert().eval()
    model = MaskedModel(encoder, magnitude(0.2, start=0.0, stop=1.0))
    model.refresh(0.2)
    state = export(encoder, model)
    stock.load_state_dict(state)
    assert torch.equal(loss_of(stock), loss_of(encoder))
    for name, layer in model.layers.items():
        assert torch.equal(state[f"{name}.weight"] != 0, layer.mask & (layer.weight != 0))


def test_l0_is_evaluated_without_noise_and_trains_with_it_afterwards(bert):
    encoder = bert().eval()
    model = MaskedModel(encoder, l0(0.5, penalty=1.0))
    model.refresh(1.0)
    training = loss_of(encoder).item()
    with model.evaluating():
        first = loss_of(encoder).item()
        assert first == loss_of(encoder).item()
        layer = next(iter(model.layers.values()))
        assert torch.allclose(layer.working, layer.weight * 0.97998, rtol=1e-4)
    assert loss_of(encoder).item() == training != first
    with pytest.raises(KeyboardInterrupt), model.evaluating():
        raise KeyboardInterrupt
    assert loss_of(encoder).item() == training


def test_random_masks_are_fixed_and_nested(bert):
    model = MaskedModel(bert(), random(0.1, start=0.0, stop=1.0))
    assert model.trained_scores == []
    model.refresh(0.5)
    half = {name: layer.mask for name, layer in model.layers.items()}
    model.refresh(0.1)
    for name, layer in model.layers.items():
        assert not (layer.mask & ~half[name]).any()


def test_masks_of_magnitude_follow_the_weights(bert):
    model = MaskedModel(bert(), magnitude(0.5, start=0.0, stop=1.0))
    model.refresh(0.5)
    layer = next(iter(model.layers.values()))
    with torch.no_grad():
        layer.weight[~layer.mask] += 100
    model.refresh(0.5)
    assert layer.weight[layer.mask].abs().min() >= layer.weight[~layer.mask].abs().max()


def test_attention_heads_are_rows_of_q_k_and_v_and_columns_of_o(bert):
    model = MaskedModel(bert(), movement(0.5, start=0.0, stop=1.0))
    model.refresh(1.0)
    for name, layer in model.layers.items():
        mask = torch.zeros_like(layer.mask)
        if name.endswith("attention.output.dense"):
            mask[:, 8:16] = True
        elif "attention" in name:
            mask[8:16] = True
        layer.gate = mask
    for matrix in measure.remaining(model).matrices.values():
        expected = () if matrix.role in ("U", "D") else (0.0, 1.0, 0.0, 0.0)
        assert matrix.attention_heads == expected


def test_densities_of_attention_heads_by_hand():
    gate = torch.tensor([[1.0, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    assert measure.attention_head_densities(gate, "Q", 2) == (0.5, 0.25)
    assert measure.attention_head_densities(gate, "O", 2) == (0.75, 0.0)
    assert (
        measure.attention_head_densities(gate, "U", 2)
        == measure.attention_head_densities(gate, "D", 2)
        == ()
    )


def test_every_matrix_is_reported_with_its_layer_and_role(bert):
    model = MaskedModel(bert(), movement(0.25, start=0.0, stop=1.0))
    model.refresh(0.25)
    found = measure.remaining(model)
    places = [(m.layer, m.role, m.total, m.kept) for m in found.matrices.values()]
    sizes = {"Q": 1024, "K": 1024, "V": 1024, "O": 1024, "U": 2048, "D": 2048}
    assert places == [(i, r, size, size // 4) for i in (0, 1) for r, size in sizes.items()]
    assert found.density == 0.25
    others = 2 * (4 * 32 + 64 + 32 + 4 * 32)  # biases and LayerNorm of two layers
    assert found.encoder_density == (4096 + others) / (16384 + others)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda s: None, "must return a mask per matrix"),
        (lambda s: {k: v for k, v in list(s.items())[1:]}, "there is none for encoder"),
        (lambda s: {k: torch.ones(v.shape[0], 1) for k, v in s.items()}, r"shape \(32, 32\), got"),
        (lambda s: {k: v.T if v.shape[0] != v.shape[1] else v > 9 for k, v in s.items()}, "shape"),
        (lambda s: {k: torch.full_like(v, 0.3) for k, v in s.items()}, "only 0 and 1, got 0.3"),
        (lambda s: {k: torch.full(v.shape, 2, dtype=torch.int8) for k, v in s.items()}, "got 2"),
        (lambda s: dict.fromkeys(s, "mask"), "got str"),
    ],
)
def test_a_malformed_mask_is_rejected(bert, bad, message):
    method = replace(movement(0.5, start=0.0, stop=1.0), mask=lambda scores, level: bad(scores))
    with pytest.raises(TrialError, match=message):
        MaskedModel(bert(), method).refresh(0.5)


def test_masks_of_zeros_and_ones_are_accepted_in_any_type(bert):
    method = replace(
        movement(0.5, start=0.0, stop=1.0),
        mask=lambda scores, level: {
            k: torch.ones(v.shape, dtype=torch.uint8) for k, v in scores.items()
        },
    )
    model = MaskedModel(bert(), method)
    model.refresh(0.5)
    assert model.remaining().density == 1.0
    with pytest.raises(TrialError, match=r"rejected: 100\.00 % kept, allowed 50\.00 %"):
        model.check_budget(0.5)


def test_a_mask_in_another_memory_layout_is_accepted(bert):
    def by_column(scores, level):
        return {name: (score.T > 0).contiguous().T for name, score in scores.items()}

    method = replace(movement(1.0, start=0.0, stop=1.0), mask=by_column, budget=None)
    model = MaskedModel(bert(), method)
    for score in model.trained_scores:
        score.data.normal_(generator=torch.Generator().manual_seed(0))
    model.refresh(1.0)
    for name, matrix in measure.remaining(model).matrices.items():
        positive = (model.scores[name] > 0).float().mean().item()
        assert matrix.kept / matrix.total == pytest.approx(positive)
        if blocks := matrix.attention_heads:
            assert sum(blocks) / len(blocks) == pytest.approx(positive)


def test_methods_that_drive_a_threshold_have_no_budget(bert):
    for method in (smp_g(0.01, stop=0.5, penalty=1.0), l0(0.01, penalty=1.0)):
        model = MaskedModel(bert(), method)
        model.refresh(0.01)
        model.check_budget(0.01)


def test_a_model_of_another_architecture_is_rejected():
    class Empty(nn.Module):
        pass

    with pytest.raises(
        ConfigError, match="cannot be masked that is of the kind 'Empty'; supported: bert"
    ):
        MaskedModel(Empty(), dense(1.0))


def test_an_encoder_cannot_be_masked_twice(bert):
    encoder = bert()
    MaskedModel(encoder, movement(0.5, start=0.0, stop=1.0))
    with pytest.raises(
        ConfigError, match=r"layer\.0\..*query is a MaskedLinear; only plain linear"
    ):
        MaskedModel(encoder, movement(0.5, start=0.0, stop=1.0))


# Gradients --------------------------------------------------------------------------------------


@pytest.mark.parametrize("trains", [everything, nothing])
def test_gradients_equal_those_of_autograd(bert, trains):
    """The mask stays in autograd's graph as M + S - S.detach(), the penalty as a function of S."""
    weight = 50.0
    penalty = Penalty(mean_sigmoid, mean_sigmoid_gradient, Constant(weight))
    method = replace(movement(0.5, start=0.0, stop=1.0), trains=trains, penalty=penalty)
    encoder, stock = bert().double().eval(), bert().double().eval()
    model = MaskedModel(encoder, method)
    for score in model.trained_scores:
        score.data.normal_(generator=torch.Generator().manual_seed(len(score)))
    model.advance(9, 10)
    loss_of(encoder).backward()
    model.backward()

    weights = {n: p.detach().clone().requires_grad_() for n, p in stock.named_parameters()}
    scores = {n: x.score.detach().clone().requires_grad_() for n, x in model.layers.items()}
    used = dict(weights)
    for name, layer in model.layers.items():
        gate = layer.mask + scores[name] - scores[name].detach()
        used[f"{name}.weight"] = weights[f"{name}.weight"] * gate
    tokens = torch.tensor([[2, 9, 12, 8, 3]])
    found = torch.func.functional_call(stock, used, kwargs={"input_ids": tokens})
    means = [torch.sigmoid(s).mean() for s in scores.values()]
    (found.last_hidden_state.pow(2).sum() + weight * sum(means) / len(means)).backward()
    for name, layer in model.layers.items():
        torch.testing.assert_close(layer.score.grad, scores[name].grad)
        if trains is everything:
            torch.testing.assert_close(layer.weight.grad, weights[f"{name}.weight"].grad)
        else:
            assert layer.weight.grad is None


def test_a_statistic_is_observed(bert):
    def add(layer, upstream):
        layer.score += (layer.weight.detach() * upstream).abs()

    score = Score(read=stored, init=zeros, observe=add)
    method = replace(movement(0.5, start=0.0, stop=1.0), score=score, gate=hard)
    encoder = bert().eval()
    model = MaskedModel(encoder, method)
    model.refresh(1.0)
    loss_of(encoder).backward()
    expected = {n: (x.weight * x.working.grad).abs().detach() for n, x in model.layers.items()}
    model.backward()
    for name, layer in model.layers.items():
        assert torch.equal(layer.score, expected[name])


def test_cap_lite_without_its_losses_equals_movement():
    bare = cap_lite(0.1, start=0.1, stop=0.9, unsupervised=0.0, supervised=0.0)
    assert bare == movement(0.1, start=0.1, stop=0.9)
    assert cap_lite(0.1, start=0.1, stop=0.9).needs == {"pretrained", "finetuned"}


def test_masks_of_constant_scores_are_chosen_once_per_level(bert):
    calls = []
    method = random(0.5, start=0.0, stop=1.0)
    counted = replace(
        method, mask=lambda scores, level: calls.append(level) or method.mask(scores, level)
    )
    model = MaskedModel(bert(), counted)
    for level in (0.5, 0.5, 0.2, 0.2, 0.5):
        model.refresh(level)
    assert calls == [0.5, 0.2, 0.5]
    for other in (magnitude, movement):  # their scores change with every step
        calls.clear()
        method = other(0.5, start=0.0, stop=1.0)
        model = MaskedModel(bert(), replace(method, mask=counted.mask))
        model.refresh(0.5), model.refresh(0.5)
        assert calls == [0.5, 0.5]
    fixed = random(0.5, start=0.0, stop=1.0).score
    read = replace(fixed, read=lambda layer: layer.score * layer.weight.detach().abs())
    moves = replace(fixed, after=lambda layer, moment: layer.score.add_(moment.gradient))
    for changing in (read, moves):  # what is read changes with W, or after a step
        calls.clear()
        model = MaskedModel(bert(), replace(counted, score=changing))
        model.refresh(0.5), model.refresh(0.5)
        assert calls == [0.5, 0.5]


# In somebody's own training loop ----------------------------------------------------------------


def test_advance_makes_masks_and_lambda_of_a_step(bert):
    weight = now_and_then(Ramp(0.0, 100.0, 0.0, 1.0, 1), 5)
    penalty = Penalty(mean_sigmoid, mean_sigmoid_gradient, weight)
    method = replace(movement(0.5, start=0.0, stop=0.5, power=1), penalty=penalty)
    model = MaskedModel(bert(), method)
    found = []
    for step in (0, 5, 7, 10, 20):
        model.advance(step, 20)
        found.append((model.level, model.penalty_weight))
        assert model.remaining().density == pytest.approx(model.level, abs=1e-3)
    assert found == [(1.0, 0.0), (0.75, 25.0), (0.65, 25.0), (0.5, 50.0), (0.5, 100.0)]


def test_fold_leaves_a_stock_model_with_zeros(bert):
    encoder = bert().eval()
    model = MaskedModel(encoder, movement(0.2, start=0.0, stop=1.0))
    model.refresh(0.2)
    expected, state, masks = loss_of(encoder), export(encoder, model), model.test_gates()
    model.fold()
    assert model.layers == {}
    assert {type(m) for n, m in encoder.named_modules() if n in masks} == {nn.Linear}
    assert torch.equal(loss_of(encoder), expected)
    folded = encoder.state_dict()
    assert list(folded) == list(state)
    assert all(torch.equal(folded[name], state[name]) for name in state)
    assert all(not folded[f"{name}.weight"][~mask].any() for name, mask in masks.items())


def test_a_loop_written_by_hand_prunes_and_learns(bert):
    """With one of torch's optimisers."""
    encoder = bert().eval()
    model = MaskedModel(encoder, movement(0.25, start=0.0, stop=0.8))
    trained_weights = [p for p in encoder.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD([*trained_weights, *model.trained_scores], lr=1e-3)
    losses = []
    for step in range(10):
        model.advance(step, 10)
        loss = loss_of(encoder)
        loss.backward()
        model.backward()
        losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    model.advance(10, 10)
    assert model.remaining().density == 0.25
    assert all(score.any() for score in model.trained_scores)
    assert losses[1] < losses[0]


def test_evaluation_between_two_steps_sees_the_weights_of_the_last(bert):
    """W' belongs to the step before until `advance`; `evaluating` makes it anew."""
    encoder = bert().eval()
    model = MaskedModel(encoder, movement(0.5, start=0.0, stop=1.0))
    model.refresh(0.5)
    masks = {name: layer.mask.clone() for name, layer in model.layers.items()}
    with torch.no_grad():
        for layer in model.layers.values():
            layer.weight.mul_(3)
    with model.evaluating():
        for name, layer in model.layers.items():
            assert torch.equal(layer.working, layer.weight * masks[name])


def test_counts_stay_after_folding(bert):
    model = MaskedModel(bert(), movement(0.25, start=0.0, stop=1.0))
    model.refresh(0.25)
    before = model.remaining()
    model.fold()
    assert model.remaining() == before and before.density == pytest.approx(0.25, abs=1e-3)
    with pytest.raises(TrialError, match="rejected: 25.00 % kept, allowed 10.00 %"):
        model.check_budget(0.1)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"score": read_as_magnitude, "gate": straight_through}, "give its Score an `init`"),
        ({"score": Score(torch.abs, zeros), "gate": straight_through}, "read as they are stored"),
        ({"score": learned, "gate": hard, "penalty": PENALTY}, "a penalty needs scores that train"),
        ({"penalty": PENALTY}, "a penalty needs scores that train"),
    ],
)
def test_parts_that_do_not_fit_are_rejected(parts, message):
    with pytest.raises(ConfigError, match=message):
        Method(**parts)
