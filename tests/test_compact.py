"""The compact encoder equals the masked one; every shortcut that looks right does not."""

from dataclasses import replace

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    RobertaConfig,
    RobertaModel,
)

from zoo import ConfigError
from zoo.engine import compact as module
from zoo.engine.compact import (
    AttentionHeads,
    Linear,
    compact,
    compact_heads,
    compact_layers,
    dead,
    matrix_entries,
    units_of,
    without_thin_rows,
)
from zoo.inputs.kinds import architecture_of

TOKENS = torch.tensor([[2, 9, 12, 8, 3, 0, 0], [2, 15, 13, 7, 5, 11, 3]])
SEEN = TOKENS != 0
NO_TYPES = torch.zeros_like(TOKENS)
KINDS = ("bert", "roberta", "distilbert", "electra", "electra with a projection")


def model_of(kind: str):
    """An encoder of 3 layers x 32 with 4 attention heads, without a pooler."""
    names = {"vocab_size": 20, "max_position_embeddings": 16}
    if kind == "distilbert":
        sizes = {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48}
        return DistilBertModel(DistilBertConfig(**names, **sizes))
    names |= {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
    names |= {"intermediate_size": 48}
    if kind == "bert":
        return BertModel(BertConfig(**names), add_pooling_layer=False)
    if kind == "roberta":
        return RobertaModel(RobertaConfig(**names, pad_token_id=0), add_pooling_layer=False)
    width = 32 if kind == "electra" else 12
    return ElectraModel(ElectraConfig(**names, embedding_size=width))


def pruned(kind: str = "bert", seed: int = 0, dtype: torch.dtype = torch.float64):
    """A random model with large biases, and weights with dead rows and columns of every kind:
    attention heads that lost all of Q, K, V or O, single dimensions, neurons."""
    torch.manual_seed(seed)
    model = model_of(kind).to(dtype).eval()
    for name, parameter in model.named_parameters():
        scale = 0.6 if parameter.ndim == 2 else 1.0
        torch.nn.init.normal_(parameter, std=scale) if "LayerNorm" not in name else None
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    places = {(p.layer, p.role): p.name for p in map(architecture_of(model).parameter, state)}
    matrices = {place: state[name] for place, name in places.items() if place[1]}
    assert len(matrices) == 18
    for tensor in matrices.values():
        tensor *= torch.rand_like(tensor) < 0.5
        tensor[torch.rand(len(tensor)) < 0.4] = 0
        tensor[:, torch.rand(tensor.shape[1]) < 0.2] = 0
    for layer, role, head in ((0, "Q", 0), (0, "K", 1), (1, "V", 2), (2, "Q", 3)):
        matrices[layer, role][head * 8 : head * 8 + 8] = 0
    for head in (1, 3):
        matrices[1, "O"][:, head * 8 : head * 8 + 8] = 0
    return model, state


def masked_states(model, state) -> torch.Tensor:
    """Hidden states of the stock model with the pruned weights, at real tokens."""
    model.load_state_dict(state)
    return states(model)


def compact_states(model, state) -> torch.Tensor:
    """Hidden states of the compact encoder, at real tokens."""
    return states(compact(model, state))


@torch.no_grad()
def states(model, seen: torch.Tensor = SEEN) -> torch.Tensor:
    """Hidden states at real tokens."""
    inputs = architecture_of(model).inputs(TOKENS, NO_TYPES)
    return model(**inputs, attention_mask=seen.long()).last_hidden_state[SEEN]


def difference(model, state) -> float:
    """The largest difference between the two."""
    expected = masked_states(model, state)
    return (compact_states(model, state) - expected).abs().max().item()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_compact_states_equal_the_masked_ones(kind, seed):
    model, state = pruned(kind, seed)
    entries = sum(t.numel() for n, t in state.items() if ".layer." in n and t.ndim == 2)
    assert entries == 3 * (4 * 32 * 32 + 2 * 32 * 48)
    assert difference(model, state) < 1e-10
    assert matrix_entries(compact(model, state)) < 0.6 * entries


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_units_that_are_left_follow_from_the_masked_weights(kind, seed):
    """Counted dimension by dimension: a value is left if V has its row and O its column, and with
    it its attention head; queries and keys where both have their rows, and one for dead queries
    with a bias; a neuron with a row of U and a column of D."""
    model, state = pruned(kind, seed)
    places = {(p.layer, p.role): p.name for p in map(architecture_of(model).parameter, state)}
    found = {units.kind: units for units in units_of(compact(model, state))}
    assert [(kind, units.total) for kind, units in found.items()] == [
        *(("attention heads", 4), ("queries and keys", 32), ("values", 32), ("neurons", 48)),
    ]
    for layer in range(3):
        q, k, v, o, u, d = (state[places[layer, role]].numpy() for role in "QKVOUD")
        heads = keys = values = 0
        for head in range(4):
            rows = range(head * 8, head * 8 + 8)
            live = sum(bool(v[row].any() and o[:, row].any()) for row in rows)
            both = sum(bool(q[row].any() and k[row].any()) for row in rows)
            shifted = any(k[row].any() and not q[row].any() for row in rows)
            heads += live > 0
            values += live
            keys += (both + shifted) if live else 0
        neurons = sum(bool(u[row].any() and d[:, row].any()) for row in range(48))
        left = [found[name].left[layer] for name in found]
        assert left == [heads, keys, values, neurons]
    assert found["attention heads"].left[1] < 4 and min(found["neurons"].left) > 0


def test_a_row_of_padding_is_finite_and_a_decoder_is_rejected():
    model, state = pruned()
    assert states(compact(model, state), torch.zeros_like(SEEN)).isfinite().all()
    model.config.is_decoder = True
    with pytest.raises(ConfigError, match="only encoders"):
        compact(model, state)


def test_two_compact_encoders_of_one_model_share_nothing():
    model, state = pruned()
    first, before = compact(model, state), compact_states(model, state)
    compact(model, {name: torch.zeros_like(tensor) for name, tensor in state.items()})
    model.train()
    assert torch.equal(states(first), before)


def test_a_layer_without_attention_heads_outputs_its_bias():
    model, state = pruned()
    state["encoder.layer.1.attention.output.dense.weight"][:] = 0
    assert difference(model, state) < 1e-10
    assert compact_layers(compact(model, state))[1].heads == 0


def test_dropping_thin_rows_makes_it_smaller_and_no_longer_exact():
    model, state = pruned()
    exact = compact(model, state)
    lossy = without_thin_rows(state, architecture_of(model), 12)
    before = masked_states(model, state)
    thin = compact(model, lossy)
    assert matrix_entries(thin) < matrix_entries(exact)
    assert (compact_states(model, lossy) - before).abs().max() > 1e-2
    assert difference(model, lossy) < 1e-10


# The shortcuts ----------------------------------------------------------------------------------
# Each replaces one function by a wrong one; the tests are in test_pitfalls.py.


def worst(monkeypatch, name: str, wrong) -> float:
    """The largest difference with one function of the module replaced."""
    model, state = pruned()
    expected = masked_states(model, state)
    with monkeypatch.context() as patch:
        patch.setattr(module, name, wrong)
        return (compact_states(model, state) - expected).abs().max().item()


def without_query_bias(q, k, v, o, heads):
    """Biases of dead rows of Q are forgotten."""
    gone = replace(q, bias=q.bias * ~dead(q.weight))
    return compact_heads(gone, k, v, o, heads)


def without_value_bias(q, k, v, o, heads):
    """Biases of dead rows of V are forgotten."""
    gone = replace(v, bias=v.bias * ~dead(v.weight))
    return compact_heads(q, k, gone, o, heads)


def without_inner_bias(u, d, activation):
    """What dead neurons output is forgotten."""
    live = ~dead(u.weight)
    return Linear(u.weight[live], u.bias[live]), Linear(d.weight[:, live], d.bias)


def scaled_by_what_is_left(q, k, v, o, heads):
    """Logits are divided by the square root of the remaining width."""
    kept = compact_heads(q, k, v, o, heads)
    return replace(kept, size=max(len(head.weight) for head in kept.query))


def without_heads_that_lost_a_part(q, k, v, o, heads):
    """A head is dropped if all of its Q, K or V is dead."""
    size = len(q.weight) // heads
    for head in range(heads):
        at = slice(head * size, (head + 1) * size)
        if any(dead(part.weight[at]).all() for part in (q, k, v)):
            o = replace(o, weight=o.weight.clone())
            o.weight[:, at] = 0
    return compact_heads(q, k, v, o, heads)


def test_attention_heads_of_hand_made_matrices():
    """One of 2 dimensions: row 0 of Q is dead with bias 3, row 1 of V is dead with bias 5."""
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    q = Linear(torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([3.0, 7.0]))
    k = Linear(weight, torch.tensor([1.0, 2.0]))
    v = Linear(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([4.0, 5.0]))
    o = Linear(weight, torch.tensor([0.5, 0.5]))
    got: AttentionHeads = compact_heads(q, k, v, o, 1)
    assert got.query[0].weight.tolist() == [[1.0, 1.0], [0.0, 0.0]]
    assert got.query[0].bias.tolist() == [7.0, 1.0]
    assert got.key[0].weight.tolist() == [[3.0, 4.0], [3.0, 6.0]]
    assert got.key[0].bias.tolist() == [2.0, 0.0]
    assert got.value[0].weight.tolist() == [[1.0, 0.0]] and got.value[0].bias.tolist() == [4.0]
    assert got.output[0].tolist() == [[1.0], [3.0]]
    assert got.bias.tolist() == [0.5 + 2 * 5, 0.5 + 4 * 5]
