"""Layers that are taken out: which ones stay, what is left, and how it is counted."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import BertConfig, BertModel, ModernBertConfig, ModernBertModel

from methods.layers import BY_DATA, RULES, layers_by
from zoo import (
    Cell,
    ConfigError,
    Encoded,
    FromDense,
    KeepLayers,
    LayersByData,
    MaskedModel,
    Method,
    Network,
    TrialError,
    keep_layers,
    magnitude,
)
from zoo.engine.build import build
from zoo.engine.handover import LAYERS
from zoo.engine.influence import mean_cosines
from zoo.engine.judge import judge
from zoo.engine.train import run_trial
from zoo.parts.depth import cosines, even, first_token, real_tokens, top
from zoo.records.result import Judgement

TOKENS = torch.tensor([[2, 9, 12, 8, 3, 5], [2, 15, 13, 7, 5, 3]])
SIZES = {"vocab_size": 20, "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}


def bert(layers: int = 6) -> Any:
    """A random BERT."""
    torch.manual_seed(0)
    return BertModel(BertConfig(**SIZES, num_hidden_layers=layers)).double().eval()


def test_pitfall_73_even_spacing():
    assert even(12, 2) == [0, 11] and even(12, 3) == [0, 6, 11]
    assert even(12, 4) == [0, 4, 7, 11] and even(12, 6) == [0, 2, 4, 7, 9, 11]
    assert even(12, 9) == [0, 1, 3, 4, 6, 7, 8, 10, 11] and even(10, 3) == [0, 5, 9]
    assert even(12, 8) == [0, 2, 3, 5, 6, 8, 9, 11] and even(12, 1) == [0]


@pytest.mark.parametrize("rule", RULES)
def test_pitfall_74_rules_keep_exactly_as_many_as_asked_for(rule):
    for kept in range(6 if rule == "alternate" else 1, 13):
        found = RULES[rule](12, kept)
        assert len(set(found)) == kept and found == sorted(found) and set(found) <= set(range(12))


def test_rules_keep_what_their_papers_say():
    found = {rule: RULES[rule](12, 8) for rule in RULES}
    assert found["bottom"] == list(range(8)) and found["top"] == list(range(4, 12))
    assert found["symmetric"] == [0, 1, 2, 3, 8, 9, 10, 11]
    assert found["alternate"] == [0, 1, 2, 3, 4, 6, 8, 10]
    with pytest.raises(ConfigError, match="8 of 12 cannot go, at most every other one"):
        RULES["alternate"](12, 4)
    with pytest.raises(ConfigError, match="unknown rule for layers 'odd'"):
        layers_by("odd", 0.5, 128)


@pytest.mark.parametrize("rule", RULES)
def test_what_is_left_is_the_stock_model_with_fewer_layers(rule):
    """Bit for bit: weights of the layers that stay, under their new numbers."""
    whole, encoder = bert(), bert()
    kept = KeepLayers(RULES[rule], 0.5)(6)
    masked = MaskedModel(encoder, Method(layers=KeepLayers(RULES[rule], 0.5)))
    stock = bert(3)
    state = {n: p for n, p in whole.state_dict().items() if "encoder.layer." not in n}
    for new, old in enumerate(kept):
        for name, tensor in whole.encoder.layer[old].state_dict().items():
            state[f"encoder.layer.{new}.{name}"] = tensor
    stock.load_state_dict(state)
    with torch.no_grad():
        pairs = zip(encoder(TOKENS).to_tuple(), stock(TOKENS).to_tuple(), strict=True)
        assert all(torch.equal(mine, theirs) for mine, theirs in pairs)
    assert encoder.config.num_hidden_layers == 3 and len(kept) == 3
    count = masked.remaining()
    assert count.density == 0.5 and sum(count.total.values()) == 6 * 16 * (4 * 16 + 2 * 24)
    assert count.encoder_density == pytest.approx(0.5)
    assert list(count.kept.values()) == [*list(count.total.values())[:18], *[0] * 18]


def test_layers_may_go_and_weights_of_the_others_too():
    method = Method(score=magnitude, level=lambda step, total: 0.5, layers=KeepLayers(top, 0.5))
    masked = MaskedModel(bert(), method)
    masked.advance(0, 1)
    assert masked.remaining().density == 0.25 and len(masked.layers) == 18
    masked.fold()
    assert masked.remaining().density == 0.25


def test_encoders_whose_layers_differ_lose_their_last_ones_alone():
    encoder = ModernBertModel(ModernBertConfig(**SIZES, num_hidden_layers=4, pad_token_id=0))
    with pytest.raises(ConfigError, match="choose the rule bottom"):
        keep_layers(encoder, [0, 3])
    keep_layers(encoder, [0, 1])
    assert len(encoder.config.layer_types) == encoder.config.num_hidden_layers == 2
    with pytest.raises(ConfigError, match="not of a dense trial's"):
        Method(layers=KeepLayers(top, 0.5), dense=FromDense())


# Rules that read data ----------------------------------------------------------------------------


def test_pitfall_75_block_influence_with_padding():
    before = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 1.0]])
    after = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, -1.0]])
    attention = torch.tensor([[True, True, False]])
    found = cosines(before, after)
    assert 1 - found[real_tokens(attention)[0]].mean().item() == pytest.approx(0.146447, abs=1e-6)
    assert 1 - found.mean().item() == pytest.approx(0.764298, abs=1e-6)
    assert first_token(attention).tolist() == [[True, False, False]]
    assert not first_token(torch.zeros(1, 3, dtype=torch.bool)).any()


class NoHead(nn.Module):
    """Hands on what it is given."""

    def forward(self, hidden: Any, pooled: Any) -> tuple[Any, Any]:
        return hidden[:, 0], pooled


def sentences(many: int = 40) -> Encoded:
    """Random sentences of 2 to 9 tokens."""
    draw = np.random.default_rng(0)
    bounds = np.concatenate([[0], np.cumsum(draw.integers(2, 10, many))])
    tokens = draw.integers(4, 20, bounds[-1])
    return Encoded(tokens, np.zeros_like(tokens), bounds, np.zeros(many))


@pytest.mark.parametrize("rule", ["contribution", "block_influence"])
def test_data_rules_read_real_tokens_of_the_dense_encoder(rule):
    """Against the hidden states that the stock model returns, sentence by sentence without
    padding."""
    encoder, data, rows = bert(), sentences(), np.arange(3, 40)
    with torch.no_grad():
        for number, layer in enumerate(encoder.encoder.layer):  # an order that is no order of depth
            layer.output.dense.weight.mul_((3, 40, 1, 90, 10, 20)[number])
    network = Network(encoder, NoHead(), frozenset()).train()
    found = mean_cosines(LayersByData(BY_DATA[rule], 0.5), network, data, rows)
    assert network.training
    encoder.eval()
    sums: Any = [[] for _ in range(6)]
    for row in rows:
        tokens = torch.tensor(data.tokens[data.bounds[row] : data.bounds[row + 1]])[None]
        with torch.no_grad():
            states = encoder(tokens, output_hidden_states=True).hidden_states
        for layer in range(6):
            a, b = states[layer][0], states[layer + 1][0]
            each = (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))
            sums[layer] += each[:1].tolist() if rule == "contribution" else each.tolist()
    assert found == pytest.approx([sum(one) / len(one) for one in sums], abs=1e-9)
    kept = LayersByData(BY_DATA[rule], 0.5).choose(found)
    assert kept == sorted(np.argsort(found)[:3]) and kept not in ([0, 1, 2], [3, 4, 5])


def test_of_equal_layers_the_later_ones_go():
    assert LayersByData(first_token, 0.5).choose([0.5, 0.5, 0.5, 0.2]) == [0, 3]
    assert LayersByData(first_token, 0.1).choose([0.5, 0.5, 0.5]) == [0]
    with pytest.raises(ConfigError, match="unknown rule for layers 'influence'"):
        layers_by("influence", 0.5, 128)
    with pytest.raises(ConfigError, match="at least one example, not 0"):
        layers_by("contribution", 0.5, 0)
    with pytest.raises(TrialError, match="chosen by data, which a loop of one's own cannot do"):
        MaskedModel(bert(), Method(layers=layers_by("contribution", 0.5, 128)))


@pytest.mark.parametrize("rule", ["contribution", "block_influence"])
def test_a_judge_takes_the_layers_that_data_chose(rule, planner, resources, tmp_path):
    values = (("batch", 16), ("max_length", 16), ("steps", 6), ("rule", rule), ("examples", 20))
    (job,) = planner.jobs([Cell("drop_layers", "sst2", 0.5, False, 0, values)])
    files = tmp_path / "files"
    resources = replace(resources, handover=str(files))
    run = build(job.trial, resources)
    claim = run_trial(job.trial, resources)
    assert claim.remaining.density == 0.5 and (files / LAYERS).exists()
    assert run.method.layers(2) in ([0], [1])
    assert f"layers that stay, from 0: {run.method.layers(2)[0]}" in claim.notes
    found = judge(claim, Path(files), resources)
    assert found.judgement == Judgement(apart=True, claims=claim.metrics)
    assert replace(found, judgement=None, cost=claim.cost) == claim
    (files / LAYERS).unlink()
    with pytest.raises(TrialError, match="layers None stay, which are not 1 of 2"):
        judge(claim, Path(files), resources)
    for wrong in (torch.tensor([[0]]), torch.tensor([0.0]), torch.tensor(0)):
        save_file({"kept": wrong}, Path(files) / LAYERS)
        with pytest.raises(TrialError, match="handed over no model: layers that stay are"):
            judge(claim, Path(files), resources)
