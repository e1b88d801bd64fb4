"""The compact encoder equals the masked one; every shortcut that looks right does not."""

from dataclasses import replace

import pytest
import torch
from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

from zoo import compact as module
from zoo.compact import Heads, Linear, compact, compact_heads, dead, without_thin_rows
from zoo.errors import ConfigError

TOKENS = torch.tensor([[2, 9, 12, 8, 3, 0, 0], [2, 15, 13, 7, 5, 11, 3]])
SEEN = TOKENS != 0


def pruned(
    kind: str = "bert", seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[BertModel, dict[str, torch.Tensor]]:
    """A random model with large biases, and weights with dead rows and columns of every
    kind: heads that lost all of Q, K, V or O, single dimensions, neurons."""
    torch.manual_seed(seed)
    names = {"vocab_size": 20, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
    names |= {"intermediate_size": 48, "max_position_embeddings": 16}
    if kind == "bert":
        model = BertModel(BertConfig(**names), add_pooling_layer=False)
    else:
        model = RobertaModel(RobertaConfig(**names, pad_token_id=0), add_pooling_layer=False)
    model = model.to(dtype).eval()
    for name, parameter in model.named_parameters():
        scale = 0.6 if parameter.ndim == 2 else 1.0
        torch.nn.init.normal_(parameter, std=scale) if "LayerNorm" not in name else None
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name, tensor in state.items():
        if ".layer." not in name or tensor.ndim != 2:
            continue
        tensor *= torch.rand_like(tensor) < 0.5
        tensor[torch.rand(len(tensor)) < 0.4] = 0
        tensor[:, torch.rand(tensor.shape[1]) < 0.2] = 0
    for layer, part, head in ((0, "query", 0), (0, "key", 1), (1, "value", 2), (2, "query", 3)):
        state[f"encoder.layer.{layer}.attention.self.{part}.weight"][head * 8 : head * 8 + 8] = 0
    for head in (1, 3):
        state["encoder.layer.1.attention.output.dense.weight"][:, head * 8 : head * 8 + 8] = 0
    return model, state


def masked_states(model, state) -> torch.Tensor:
    """What the stock model says with the pruned weights, at real tokens."""
    model.load_state_dict(state)
    with torch.no_grad():
        out = model(TOKENS, attention_mask=SEEN.long(), token_type_ids=torch.zeros_like(TOKENS))
    return out.last_hidden_state[SEEN]


def compact_states(model, state) -> torch.Tensor:
    with torch.no_grad():
        return compact(model, state)(TOKENS, SEEN, torch.zeros_like(TOKENS))[SEEN]


def difference(model, state) -> float:
    expected = masked_states(model, state)
    return (compact_states(model, state) - expected).abs().max().item()


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("seed", range(4))
def test_compact_states_are_the_masked_ones(kind, seed):
    model, state = pruned(kind, seed)
    entries = sum(t.numel() for n, t in state.items() if ".layer." in n and t.ndim == 2)
    assert difference(model, state) < 1e-10
    assert compact(model, state).matrix_entries < 0.6 * entries


def test_a_row_of_padding_alone_is_finite_and_a_decoder_is_refused():
    model, state = pruned()
    with torch.no_grad():
        got = compact(model, state)(TOKENS, torch.zeros_like(SEEN), torch.zeros_like(TOKENS))
    assert got.isfinite().all()
    model.config.is_decoder = True
    with pytest.raises(ConfigError, match="only encoders"):
        compact(model, state)


def test_two_compact_encoders_share_nothing():
    model, state = pruned()
    first, before = compact(model, state), compact_states(model, state)
    compact(model, {name: torch.zeros_like(tensor) for name, tensor in state.items()})
    model.train()
    with torch.no_grad():
        assert torch.equal(first(TOKENS, SEEN, torch.zeros_like(TOKENS))[SEEN], before)


def test_a_layer_that_lost_all_its_heads_gives_the_bias():
    model, state = pruned()
    state["encoder.layer.1.attention.output.dense.weight"][:] = 0
    assert difference(model, state) < 1e-10
    assert compact(model, state).layers[1].heads == 0


def test_thin_rows_make_it_smaller_and_no_longer_exact():
    model, state = pruned()
    exact, lossy = compact(model, state), without_thin_rows(state, 12)
    before = masked_states(model, state)
    thin = compact(model, lossy)
    assert thin.matrix_entries < exact.matrix_entries
    assert (compact_states(model, lossy) - before).abs().max() > 1e-2
    assert difference(model, lossy) < 1e-10


# The shortcuts ----------------------------------------------------------------------------------


def worst(monkeypatch, name: str, wrong) -> float:
    """The largest difference with one function of the module replaced."""
    model, state = pruned()
    expected = masked_states(model, state)
    with monkeypatch.context() as patch:
        patch.setattr(module, name, wrong)
        return (compact_states(model, state) - expected).abs().max().item()


def without_query_bias(q, k, v, o, heads):
    gone = replace(q, bias=q.bias * ~dead(q.weight))
    return compact_heads(gone, k, v, o, heads)


def without_value_bias(q, k, v, o, heads):
    gone = replace(v, bias=v.bias * ~dead(v.weight))
    return compact_heads(q, k, gone, o, heads)


def without_inner_bias(u, d, activation):
    live = ~dead(u.weight)
    return Linear(u.weight[live], u.bias[live]), Linear(d.weight[:, live], d.bias)


def scaled_by_what_is_left(q, k, v, o, heads):
    kept = compact_heads(q, k, v, o, heads)
    return replace(kept, size=max(len(head.weight) for head in kept.query))


def without_heads_that_lost_a_part(q, k, v, o, heads):
    size = len(q.weight) // heads
    for head in range(heads):
        at = slice(head * size, (head + 1) * size)
        if any(dead(part.weight[at]).all() for part in (q, k, v)):
            o = replace(o, weight=o.weight.clone())
            o.weight[:, at] = 0
    return compact_heads(q, k, v, o, heads)


def test_heads_of_hand_made_matrices():
    """One head of 2 dimensions: Q row 0 dead with bias 3, V row 1 dead with bias 5."""
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    q = Linear(torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([3.0, 7.0]))
    k = Linear(weight, torch.tensor([1.0, 2.0]))
    v = Linear(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([4.0, 5.0]))
    o = Linear(weight, torch.tensor([0.5, 0.5]))
    got: Heads = compact_heads(q, k, v, o, 1)
    assert got.query[0].weight.tolist() == [[1.0, 1.0], [0.0, 0.0]]
    assert got.query[0].bias.tolist() == [7.0, 1.0]
    assert got.key[0].weight.tolist() == [[3.0, 4.0], [3.0, 6.0]]
    assert got.key[0].bias.tolist() == [2.0, 0.0]
    assert got.value[0].weight.tolist() == [[1.0, 0.0]] and got.value[0].bias.tolist() == [4.0]
    assert got.output[0].tolist() == [[1.0], [3.0]]
    assert got.bias.tolist() == [0.5 + 2 * 5, 0.5 + 4 * 5]
