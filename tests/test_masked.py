"""The masked model: gradients from G, exact counts, and what evaluation and export see."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from methods.cap_lite import cap_lite
from methods.controls import dense, random
from methods.magnitude import magnitude
from methods.movement import l0, movement
from methods.smp import smp_g, smp_l
from tasks.glue import sst2
from zoo.checkpoint import find_checkpoint
from zoo.errors import ConfigError, TrialError
from zoo.heads import trained
from zoo.masked import MaskedModel, export


@pytest.fixture
def bert(checkpoint):
    return lambda: trained.build(find_checkpoint(str(checkpoint)), sst2()).encoder


def masked(encoder, method):
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(method.trains(name))
    return MaskedModel(encoder, method, torch.Generator().manual_seed(0))


def loss_of(encoder):
    tokens = torch.tensor([[2, 9, 12, 8, 3]])
    return encoder(input_ids=tokens).last_hidden_state.pow(2).sum()


def test_names_of_pretrained_tensors_stay(bert):
    before = list(bert().state_dict())
    encoder = bert()
    masked(encoder, movement(0.5, start=0.0, stop=1.0))
    assert list(encoder.state_dict()) == before


def test_density_one_is_the_dense_model(bert):
    encoder, stock = bert().eval(), bert().eval()
    masked(encoder, smp_l(1.0, stop=0.5, penalty=400.0)).refresh(1.0)
    assert torch.equal(loss_of(encoder), loss_of(stock))


@pytest.mark.parametrize("density", [0.03, 0.1, 0.5, 0.8])
def test_remaining_weights_are_counted(bert, density):
    model = masked(bert(), movement(density, start=0.0, stop=1.0))
    model.refresh(density)
    remaining = model.remaining()
    for name, total in remaining.total.items():
        assert remaining.kept[name] == int(density * total)
    assert sum(remaining.total.values()) == 2 * (4 * 32 * 32 + 2 * 32 * 64)


def test_dense_keeps_everything(bert):
    model = masked(bert(), dense(1.0))
    model.refresh(None)
    assert model.remaining().density == 1.0
    assert not model.layers


def test_export_folds_the_gate_into_stock_names(bert):
    """The exported weights in a stock model give the same numbers, zeros exactly where M = 0."""
    encoder, stock = bert().eval(), bert().eval()
    model = masked(encoder, magnitude(0.2, start=0.0, stop=1.0))
    model.refresh(0.2)
    state = export(encoder, model)
    stock.load_state_dict(state)
    assert torch.equal(loss_of(stock), loss_of(encoder))
    for name, layer in model.layers.items():
        assert torch.equal(state[f"{name}.weight"] != 0, layer.mask & (layer.weight != 0))


def test_l0_is_evaluated_without_noise_and_goes_on_with_it(bert):
    encoder = bert().eval()
    model = masked(encoder, l0(0.5, penalty=1.0))
    model.refresh(1.0)
    training = loss_of(encoder).item()
    with model.evaluating():
        first = loss_of(encoder).item()
        assert first == loss_of(encoder).item()
        layer = next(iter(model.layers.values()))
        assert torch.allclose(layer.working, layer.weight * 0.97998, rtol=1e-4)
    assert loss_of(encoder).item() == training != first


def test_random_masks_are_fixed_and_nested(bert):
    model = masked(bert(), random(0.1, start=0.0, stop=1.0))
    assert model.trained_scores == []
    model.refresh(0.5)
    half = {name: layer.mask for name, layer in model.layers.items()}
    model.refresh(0.1)
    for name, layer in model.layers.items():
        assert not (layer.mask & ~half[name]).any()


def test_magnitude_follows_the_weights(bert):
    model = masked(bert(), magnitude(0.5, start=0.0, stop=1.0))
    model.refresh(0.5)
    layer = next(iter(model.layers.values()))
    with torch.no_grad():
        layer.weight[~layer.mask] += 100
    model.refresh(0.5)
    assert layer.weight[layer.mask].abs().min() >= layer.weight[~layer.mask].abs().max()


def test_heads_are_rows_of_qkv_and_columns_of_o(bert):
    model = masked(bert(), movement(0.5, start=0.0, stop=1.0))
    model.refresh(1.0)
    for name, layer in model.layers.items():
        mask = torch.zeros_like(layer.mask)
        if name.endswith("attention.output.dense"):
            mask[:, 8:16] = True
        elif "attention" in name:
            mask[8:16] = True
        layer.gate = mask
    for densities in model.remaining_by_head().values():
        assert densities == [0.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda s: None, "must return a mask per matrix"),
        (lambda s: {k: v for k, v in list(s.items())[1:]}, r"missing: \['encoder\.layer\.0"),
        (lambda s: {k: torch.ones(v.shape[0], 1) for k, v in s.items()}, r"shape \(32, 32\), got"),
        (lambda s: {k: v.T if v.shape[0] != v.shape[1] else v > 9 for k, v in s.items()}, "shape"),
        (lambda s: {k: torch.full_like(v, 0.3) for k, v in s.items()}, "only 0 and 1, got 0.3"),
        (lambda s: {k: torch.full(v.shape, 2, dtype=torch.int8) for k, v in s.items()}, "got 2"),
        (lambda s: dict.fromkeys(s, "mask"), "got str"),
    ],
)
def test_a_wrong_mask_is_named(bert, bad, message):
    method = replace(movement(0.5, start=0.0, stop=1.0), mask=lambda scores, level: bad(scores))
    with pytest.raises(TrialError, match=message):
        masked(bert(), method).refresh(0.5)


def test_masks_of_zeros_and_ones_of_any_type_are_taken(bert):
    method = replace(
        movement(0.5, start=0.0, stop=1.0),
        mask=lambda scores, level: {
            k: torch.ones(v.shape, dtype=torch.uint8) for k, v in scores.items()
        },
    )
    model = masked(bert(), method)
    model.refresh(0.5)
    assert model.remaining().density == 1.0
    with pytest.raises(TrialError, match=r"rejected: 100\.00 % kept, allowed 50\.00 %"):
        model.check_budget(0.5)


def test_a_mask_in_another_order_of_memory_is_taken(bert):
    def by_column(scores, level):
        return {name: (score.T > 0).contiguous().T for name, score in scores.items()}

    method = replace(movement(1.0, start=0.0, stop=1.0), mask=by_column, budget=None)
    model = masked(bert(), method)
    for score in model.trained_scores:
        score.data.normal_(generator=torch.Generator().manual_seed(0))
    model.refresh(1.0)
    for name, blocks in model.remaining_by_head().items():
        assert sum(blocks) / len(blocks) == pytest.approx(
            (model.scores[name] > 0).float().mean().item()
        )


def test_threshold_methods_have_no_budget(bert):
    for method in (smp_g(0.01, stop=0.5, penalty=1.0), l0(0.01, penalty=1.0)):
        model = masked(bert(), method)
        model.refresh(0.01)
        model.check_budget(0.01)


def test_a_model_without_prunable_matrices():
    class Empty(nn.Module):
        pass

    with pytest.raises(ConfigError, match="none of the matrices"):
        MaskedModel(Empty(), dense(1.0), torch.Generator())


def test_a_statistic_is_observed(bert):
    from zoo.gates import hard
    from zoo.scores import Score, stored, zeros

    def add(layer, upstream):
        layer.score += (layer.weight.detach() * upstream).abs()

    score = Score(read=stored, init=zeros, observe=add)
    method = replace(movement(0.5, start=0.0, stop=1.0), score=score, gate=hard)
    encoder = bert().eval()
    model = masked(encoder, method)
    model.refresh(1.0)
    loss_of(encoder).backward()
    expected = {n: (la.weight * la.working.grad).abs().detach() for n, la in model.layers.items()}
    model.backward(0.0)
    for name, layer in model.layers.items():
        assert torch.equal(layer.score, expected[name])


def test_cap_lite_without_its_losses_is_movement():
    bare = cap_lite(0.1, start=0.1, stop=0.9, unsupervised=0.0, supervised=0.0)
    assert bare == movement(0.1, start=0.1, stop=0.9)
    assert cap_lite(0.1, start=0.1, stop=0.9).needs == {"pretrained", "finetuned"}


def test_masks_of_scores_that_stay_are_chosen_once_per_level(bert):
    calls = []
    method = random(0.5, start=0.0, stop=1.0)
    counted = replace(
        method, mask=lambda scores, level: calls.append(level) or method.mask(scores, level)
    )
    model = masked(bert(), counted)
    for level in (0.5, 0.5, 0.2, 0.2, 0.5):
        model.refresh(level)
    assert calls == [0.5, 0.2, 0.5]
    for other in (magnitude, movement):  # their scores change with every step
        calls.clear()
        method = other(0.5, start=0.0, stop=1.0)
        model = masked(bert(), replace(method, mask=counted.mask))
        model.refresh(0.5), model.refresh(0.5)
        assert calls == [0.5, 0.5]
    calls.clear()
    still = random(0.5, start=0.0, stop=1.0).score
    read = replace(still, read=lambda layer: layer.score * layer.weight.detach().abs())
    model = masked(bert(), replace(counted, score=read))  # the score stays, what is read does not
    model.refresh(0.5), model.refresh(0.5)
    assert calls == [0.5, 0.5]
