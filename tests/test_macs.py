"""Multiply-accumulates from shapes agree with torch's counter of operations, and with sums by
hand."""

import pytest
import torch
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.helpers import CLASSES, save_checkpoint
from tests.test_forms_of_models import all_sparse  # noqa: F401
from zoo.engine.compact import PARTS, compact, compact_layers
from zoo.engine.macs import macs
from zoo.engine.sparse import SparseLayer, sparse
from zoo.inputs.kinds import ARCHITECTURES, architecture_of
from zoo.parts.depth import keep_layers
from zoo.tools.compared import example
from zoo.tools.measured import macs_of
from zoo.tools.synthetic import random_classifier
from zoo.tools.ways import ways_of

KINDS = [kind for kind in CLASSES if ARCHITECTURES[kind].compacts]
HEADS = ("SequenceClassification", "QuestionAnswering", "MaskedLM")
LAYERS, HIDDEN, INNER, ATTENTION = 4, 32, 64, 4


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A checkpoint of every kind, of 4 layers."""
    folder = tmp_path_factory.mktemp("macs")
    for kind in CLASSES:
        save_checkpoint(folder / kind, kind=kind, layers=LAYERS, embedding=16, weight=0.2)
    return folder


def model_of(folder, head: str = HEADS[0]):
    """A stock model with a head."""
    kind = getattr(transformers, f"AutoModelFor{head}")
    return kind.from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def pruned(model):
    """The model without whole attention heads and neurons: layer 0 loses head 1 and every third
    neuron, layer 1 its attention, half of the queries and keys of layer 2 go, and all of layer
    3."""
    architecture = architecture_of(model.base_model)
    at = [
        {role: layer.get_submodule(path).weight for role, path in architecture.roles.items()}
        for layer in architecture.layers_of(model.base_model)
    ]
    at[0]["V"][8:16] = 0
    at[0]["U"][::3] = 0
    at[1]["V"].zero_()
    at[2]["Q"].view(ATTENTION, 8, HIDDEN)[:, :4] = 0
    at[2]["K"].view(ATTENTION, 8, HIDDEN)[:, :4] = 0
    for matrix in at[3].values():
        matrix.zero_()
    return model


def counted(model, batch: int, tokens: int) -> float:
    """Half of the operations that torch counts; its fused attention would be left out."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        model(**example(model, batch, tokens))
    return counter.get_total_flops() / 2


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind", KINDS)
def test_counts_agree_with_torchs_counter(root, kind, head):
    """The dense model in eager attention, one of fewer layers, and the compact one."""
    dense = model_of(root / kind, head)
    dense.set_attn_implementation("eager")
    shallow = model_of(root / kind, head)
    keep_layers(shallow.base_model, [0, 2])
    small = compact(pruned(model_of(root / kind, head)))
    assert len(compact_layers(small)) == LAYERS
    found = []
    for model in (dense, shallow, small):
        for batch, tokens in ((1, 7), (2, 12)):
            found.append(macs(model, example(model, batch, tokens)))
            assert found[-1] == counted(model, batch, tokens), (kind, head, batch, tokens)
    assert found[0] > found[2] > 0 and found[0] > found[4] > 0


def test_counts_of_a_dense_and_a_compact_bert_by_hand(root):
    tokens = 7
    ends = HIDDEN * HIDDEN + 2 * HIDDEN  # the pooler and the classifier read the first token
    maps = 4 * HIDDEN * HIDDEN + 2 * HIDDEN * INNER
    dense, wanted = model_of(root / "bert"), tokens * maps + 2 * tokens**2 * HIDDEN
    assert macs(dense, example(dense, 1, tokens)) == LAYERS * wanted + ends
    assert macs(dense, example(dense, 3, tokens)) == 3 * (LAYERS * wanted + ends)
    small = compact(pruned(model_of(root / "bert")))
    neurons = INNER - -(-INNER // 3)
    first = tokens * (4 * 24 * HIDDEN + 2 * neurons * HIDDEN) + 2 * tokens**2 * 24
    second = tokens * 2 * HIDDEN * INNER
    wide = 2 * tokens**2 * HIDDEN  # queries and keys are padded to the width of values
    third = tokens * ((2 * 16 + 2 * HIDDEN) * HIDDEN + 2 * HIDDEN * INNER) + wide
    assert macs(small, example(small, 1, tokens)) == first + second + third + ends


@pytest.mark.parametrize("kind", KINDS)
def test_a_sparse_form_counts_nonzero_entries(root, all_sparse, kind):  # noqa: F811
    """What torch counts, which knows no product in CSR, and for each token the nonzero entries of
    the matrices in CSR; queries and keys are not padded there."""
    model = pruned(model_of(root / kind))
    with torch.no_grad():
        for _, linear in architecture_of(model.base_model).matrices(model.base_model):
            linear.weight.mul_(torch.rand_like(linear.weight) < 0.5)
    small, fast, tokens = compact(model), sparse(model), 9
    layers = [m for m in fast.modules() if isinstance(m, SparseLayer)]
    sources = compact_layers(small)
    assert fast.csr.sparse > 8
    entries = 0
    for layer, source in zip(layers, (s for s in sources if s.inner.weight.numel()), strict=True):
        run = [p for p in PARTS if p in layer.sparse and (layer.heads or p in ("inner", "outer"))]
        entries += sum(int(getattr(source, p).weight.count_nonzero()) for p in run)
    assert macs(fast, example(fast, 1, tokens)) == counted(fast, 1, tokens) + tokens * entries
    assert macs(fast, example(fast, 1, tokens)) < macs(small, example(small, 1, tokens))


@pytest.mark.parametrize("kind", sorted(set(CLASSES) - set(KINDS)))
def test_an_encoder_whose_attention_reads_more_is_not_counted(root, kind):
    model = model_of(root / kind)
    assert macs(model, example(model, 1, 5)) is None


def test_every_way_that_runs_is_counted_once_an_example():
    """int8 has the products of the model that it was made of; a model with zeros all of them."""
    dense = {way.label: macs_of(way, 16) for way in ways_of(random_classifier("tiny", 1.0))}
    assert dense["int8"] == dense["stock"] == counted(random_classifier("tiny", 1.0), 1, 16)
    found = {way.label: macs_of(way, 16) for way in ways_of(random_classifier("tiny", 0.03))}
    assert found["zeros"] == found["stock"] == dense["stock"] >= found["compact"]
    assert found["compact"] > found["compact, ≥ 10 a row"]
    assert not any(way.model._forward_hooks for way in ways_of(random_classifier("tiny", 0.03)))
