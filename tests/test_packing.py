"""Packed batches: the same outputs and gradients as padded ones, and every token once.

The other architectures are compared in test_architecture.py.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

from zoo import Encoded
from zoo.inputs.batches import collate
from zoo.inputs.kinds import ARCHITECTURES
from zoo.inputs.packing import SAVES, Packing, pack
from zoo.parts.heads import FirstTokenClassifier, Network, PooledClassifier, TokenClassifier

SIZES = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
LENGTHS = [30, 3, 7, 1, 12, 5, 9, 30, 2, 4]


def network(kind: str, head: type) -> Network:
    """A small network in float64 without dropout."""
    torch.manual_seed(0)
    if kind == "bert":
        pooler = head is PooledClassifier
        encoder = BertModel(BertConfig(**SIZES, pad_token_id=0), add_pooling_layer=pooler)
    else:
        sizes = SIZES | {"pad_token_id": 1, "type_vocab_size": 1}
        encoder = RobertaModel(RobertaConfig(**sizes), add_pooling_layer=False)
    return Network(encoder, head(encoder.config, ARCHITECTURES[kind], 2), frozenset()).double()


def data(kind: str) -> Encoded:
    """Examples of random tokens of different lengths."""
    rng = np.random.default_rng(0)
    bounds = np.concatenate([[0], np.cumsum(LENGTHS)])
    tokens = rng.integers(2, 50, bounds[-1]).astype(np.int32)
    types = rng.integers(0, 2 if kind == "bert" else 1, bounds[-1]).astype(np.uint8)
    return Encoded(tokens, types, bounds, rng.integers(0, 2, len(LENGTHS)))


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("bert", PooledClassifier),
        ("bert", TokenClassifier),
        ("roberta", FirstTokenClassifier),
        ("roberta", TokenClassifier),
    ],
)
def test_outputs_and_gradients_equal_those_of_the_padded_batch(kind, head):
    model, pad = network(kind, head), 0 if kind == "bert" else 1
    packed = collate(data(kind), np.arange(len(LENGTHS)), pad, torch.device("cpu"))
    assert packed.packing is not None
    found = []
    for batch in (packed, replace(packed, packing=None)):
        model.zero_grad()
        logits, representation = model(batch)
        weights = torch.linspace(-1, 1, logits.numel(), dtype=torch.float64).view_as(logits)
        seen = torch.where(logits > -1e3, logits, 0.0)
        ((seen * weights).sum() + representation.square().sum()).backward()
        gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        found.append((logits, representation, gradients))
    (ours, mine, slopes), (theirs, other, expected) = found
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-12)
    assert set(slopes) == set(expected)
    for name in expected:
        torch.testing.assert_close(slopes[name], expected[name], rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("seed", range(50))
def test_every_token_has_a_place_of_its_own(seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 40, rng.integers(2, 40))
    found = pack(lengths)
    if found is None:
        return
    indices, owner, positions = found
    assert owner.shape[1] == lengths.max() and len(owner) <= (1 - SAVES) * len(lengths)
    inside = np.arange(lengths.max())[None, :] < lengths[:, None]
    taken = indices[inside]
    assert len(set(taken.tolist())) == lengths.sum() == (owner > 0).sum()
    for example, length in enumerate(lengths):
        mine = indices[example, :length]
        assert (owner.ravel()[mine] == example + 1).all()
        assert positions.ravel()[mine].tolist() == list(range(length))
        assert len(set(mine // lengths.max())) == 1  # all in one row


def test_a_batch_that_would_save_little_stays_padded():
    assert pack(np.array([10, 10, 9, 8])) is None
    assert pack(np.array([10])) is None
    assert pack(np.array([10, 5, 5, 5, 5])) is not None


def test_empty_places_attend_to_themselves():
    """A query without any key would have a softmax of nan."""
    packing = Packing(*map(torch.from_numpy, pack(np.array([10, 6, 3]))))
    bias = packing.attention(torch.float32)
    assert ((bias == 0).sum(-1) > 0).all()


def test_a_packed_batch_in_bfloat16_nearly_equals_the_padded_one():
    """Autocast computes attention in bfloat16; the mask's smallest number must not turn into nan."""
    model = network("bert", PooledClassifier).float().eval()
    packed = collate(data("bert"), np.arange(len(LENGTHS)), 0, torch.device("cpu"))
    exact = model(packed)[0]
    with torch.autocast("cpu", torch.bfloat16):
        rough = [model(batch)[0].float() for batch in (packed, replace(packed, packing=None))]
    for logits in rough:
        torch.testing.assert_close(logits, exact, rtol=0, atol=0.02)
