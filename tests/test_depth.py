"""Layers that are taken out: which ones stay, what is left, and how it is counted."""

from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel, ModernBertConfig, ModernBertModel

from zoo import ConfigError, FromDense, KeepLayers, MaskedModel, Method, keep_layers, magnitude
from zoo.parts.depth import RULES, even

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
        KeepLayers("odd", 0.5)


@pytest.mark.parametrize("rule", RULES)
def test_what_is_left_is_the_stock_model_with_fewer_layers(rule):
    """Bit for bit: weights of the layers that stay, under their new numbers."""
    whole, encoder = bert(), bert()
    kept = KeepLayers(rule, 0.5)(6)
    masked = MaskedModel(encoder, Method(layers=KeepLayers(rule, 0.5)))
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
    method = Method(score=magnitude, level=lambda step, total: 0.5, layers=KeepLayers("top", 0.5))
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
        Method(layers=KeepLayers("top", 0.5), dense=FromDense())
