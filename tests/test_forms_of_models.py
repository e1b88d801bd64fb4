"""Forms of a trained model: compact and sparse ones compute the same, files give them back."""

import copy
import hashlib
import json
import resource

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.helpers import CLASSES, save_checkpoint
from tests.test_compact import pruned, states
from zoo import ConfigError
from zoo.engine import sparse as module
from zoo.engine.compact import CompactLayer, compact, compact_layers, narrowed
from zoo.engine.compact_files import load_compact, save_compact
from zoo.engine.packed import matrices_of, pack, unpack
from zoo.engine.sparse import SparseLayer, SparseLinear, SparseProduct, break_even, sparse
from zoo.inputs.checkpoint import find_checkpoint
from zoo.inputs.kinds import architecture_of

CLASSIFIER = "AutoModelForSequenceClassification"
COMPACTS = ("bert", "roberta", "distilbert", "electra")
"""Kinds that differ in how a compact model is built and loaded."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A checkpoint of every kind."""
    folder = tmp_path_factory.mktemp("forms")
    for kind in CLASSES:
        save_checkpoint(folder / kind, kind=kind, mlm=True, weight=0.2)
    return folder


@torch.no_grad()
def classifier(folder, density: float = 0.2, trained: bool = True):
    """A stock classifier with pruned weights, some rows and columns dead, large biases."""
    torch.manual_seed(1)
    kind = transformers.AutoModelForSequenceClassification
    model = kind.from_pretrained(folder, num_labels=3, dtype=torch.float32).eval()
    inner = model.base_model
    for _, linear in architecture_of(inner).matrices(inner):
        mask = torch.rand_like(linear.weight) < density
        mask[::3] = False
        mask[:, 1::5] = False
        linear.weight.mul_(mask)
        if trained:
            linear.weight.mul_(1.5)
            if linear.bias is not None:
                linear.bias.normal_()
    return model


@torch.no_grad()
def logits_of(model) -> torch.Tensor:
    """Logits of two rows, one of them padded."""
    tokens = torch.tensor([[2, 9, 12, 8, 3, 0, 0], [2, 15, 13, 7, 5, 11, 3]])
    return model(input_ids=tokens, attention_mask=(tokens != 0).long()).logits


@pytest.fixture
def all_sparse(monkeypatch):
    """Every layer is thought to be faster in CSR."""
    taken = iter(range(1000))
    monkeypatch.setattr(module, "break_even", lambda out, inputs: 0.9)
    monkeypatch.setattr(module, "_seconds", lambda work: next(taken))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ("bert", "roberta", "distilbert", "electra"))
def test_a_sparse_model_computes_the_same(all_sparse, kind, seed):
    """The masked states of models with dead attention heads, rows and columns of every kind."""
    model, state = pruned(kind, seed, torch.float32)
    model.load_state_dict(state)
    fast = sparse(model)
    kept = [m for m in fast.modules() if isinstance(m, SparseLayer)]
    assert len(kept) == 3 and fast.csr.sparse == sum(len(layer.sparse) for layer in kept) > 12
    before = states(model)
    assert (states(fast) - before).abs().max() < 2e-5 * before.abs().max()
    assert not any(isinstance(m, SparseLayer) for m in model.modules())


@pytest.mark.parametrize("kind", CLASSES)
def test_every_kind_of_encoder_runs_sparse_with_its_head(root, all_sparse, kind):
    model = classifier(root / kind)
    fast = sparse(model)
    used = SparseLayer if architecture_of(model.base_model).compacts else SparseLinear
    assert any(isinstance(m, used) for m in fast.modules()) and fast.csr.sparse > 0
    torch.testing.assert_close(logits_of(fast), logits_of(model), rtol=0, atol=2e-5)


def test_many_tokens_go_in_blocks_and_wide_matrices_in_parts(monkeypatch):
    """150 tokens are three blocks of 50; 2,100 columns three parts."""
    torch.manual_seed(0)
    weight, bias = torch.randn(40, 2100) * (torch.rand(40, 2100) < 0.1), torch.randn(40)
    product = SparseProduct(weight, bias)
    assert product.parts == 3
    x = torch.randn(2100, 50)
    torch.testing.assert_close(product(x), weight @ x + bias[:, None], rtol=1e-4, atol=1e-3)
    seen = []
    real = module.F.embedding_bag

    def spied(columns, rows, starts, **options):
        seen.append(tuple(rows.shape))
        return real(columns, rows, starts, **options)

    monkeypatch.setattr(module.F, "embedding_bag", spied)
    linear = torch.nn.Linear(2100, 40)
    linear.weight.data, linear.bias.data = weight, bias
    found = SparseLinear(linear)(x := torch.randn(3, 50, 2100))
    torch.testing.assert_close(found, linear(x).detach(), rtol=1e-4, atol=1e-3)
    assert seen == [(700, 50)] * 9


def test_an_empty_matrix_and_an_empty_row():
    product = SparseProduct(torch.zeros(3, 5), torch.tensor([1.0, 2.0, 3.0]))
    assert product(torch.randn(5, 2)).tolist() == [[1.0] * 2, [2.0] * 2, [3.0] * 2]


def test_what_is_not_faster_stays_dense(monkeypatch):
    """By the break-even density, and by the time of the whole layer."""
    model, state = pruned("bert", 0, torch.float32)
    model.load_state_dict(state)
    monkeypatch.setattr(module, "break_even", lambda out, inputs: 0.0)
    fast = sparse(model)
    assert fast.csr.sparse == 0 and len(compact_layers(fast)) == 3
    monkeypatch.setattr(module, "break_even", lambda out, inputs: 0.9)
    slower = iter(range(1000, 0, -1))  # the sparse layer is timed first
    monkeypatch.setattr(module, "_seconds", lambda work: next(slower))
    assert sparse(model).csr.sparse == 0


def test_the_break_even_density_follows_from_two_times(monkeypatch):
    """Dense 10, sparse 2 at 2 % and 5 at 20 %: the line reaches 10 at 50 %."""
    times = iter((10.0, 2.0, 5.0))
    monkeypatch.setattr(module, "_seconds", lambda work: next(times))
    assert break_even(8, 8) == pytest.approx(0.5)
    assert break_even(0, 8) == 0.0


# Files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", COMPACTS)
@pytest.mark.parametrize("loader", (CLASSIFIER, "AutoModelForMaskedLM"))
def test_a_compact_model_comes_back_from_its_files(root, tmp_path, kind, loader):
    model = classifier(root / kind)
    if loader != CLASSIFIER:
        other = transformers.AutoModelForMaskedLM.from_pretrained(root / kind, dtype=torch.float32)
        state = {n: t for n, t in model.base_model.state_dict().items() if "pooler" not in n}
        other.base_model.load_state_dict(state)
        model = other.eval()
    small = compact(model)
    save_compact(small, loader, tmp_path, least=0)
    again = load_compact(tmp_path)
    assert torch.equal(logits_of(again), logits_of(small))
    torch.testing.assert_close(logits_of(again), logits_of(model), rtol=0, atol=1e-5)
    shapes = [tuple(layer.inner.weight.shape) for layer in compact_layers(small)]
    assert shapes == [tuple(layer.inner.weight.shape) for layer in compact_layers(again)]
    fast = load_compact(tmp_path, sparse=True)
    torch.testing.assert_close(logits_of(fast), logits_of(model), rtol=0, atol=2e-5)
    with pytest.raises((OSError, ValueError)):  # never a model with layers drawn at random
        transformers.AutoModel.from_pretrained(tmp_path)


def test_a_damaged_compact_model_is_one_line(root, tmp_path):
    small = compact(classifier(root / "bert"))
    save_compact(small, CLASSIFIER, tmp_path)
    about = (tmp_path / "compact.json").read_text()

    def says(content: str, words: str) -> None:
        (tmp_path / "compact.json").write_text(content)
        with pytest.raises(ConfigError, match=words) as caught:
            load_compact(tmp_path)
        assert "\n" not in str(caught.value)

    told = json.loads(about)
    says("{", "not a compact model")
    says("[]", "not a compact model")
    says(json.dumps(told | {"version": 2}), "its version is 2")
    says(json.dumps(told | {"loader": "Trainer"}), "class that this program does not know")
    says(json.dumps(told | {"layers": told["layers"][:-1]}), "is in one of the files alone")
    says(json.dumps(told | {"layers": told["layers"] * 2}), "not a compact model")
    wrong = [{**layer, "attention_heads": 7} for layer in told["layers"]]
    says(json.dumps(told | {"layers": wrong}), "do not fit each other")
    for scale in (10**400, float("nan"), "x"):
        wrong = [{**layer, "scale": scale} for layer in told["layers"]]
        says(json.dumps(told | {"layers": wrong}), "not a compact model")
    odd = {"pad_token_id": 10**6, "num_attention_heads": 0, "hidden_size": "x", "hidden_act": "y"}
    odd |= {"vocab_size": 50_000_000, "type_vocab_size": 10**9, "max_position_embeddings": 10**9}
    odd |= {"hidden_size": 9_600}
    odd |= {"num_labels": 2_000_000, "model_type": "gpt2"}
    for name, value in odd.items():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        says(json.dumps(told | {"config": told["config"] | {name: value}}), "not a compact model")
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, name  # KiB
    foreign = told["config"] | {
        "attn_implementation": "evil/kernel",
        "auto_map": {"AutoModel": "x.y"},
    }
    (tmp_path / "compact.json").write_text(json.dumps(told | {"config": foreign}))
    assert torch.equal(logits_of(load_compact(tmp_path)), logits_of(small))
    (tmp_path / "compact.json").write_text(about)
    tensors = load_file(tmp_path / "model.safetensors")
    for change in (lambda t: t[:, :5].contiguous(), lambda t: t[0].clone(), None):
        name = "bert.encoder.layer.0.query.weight" if change else "bert.embeddings.LayerNorm.weight"
        others = {n: t for n, t in tensors.items() if n != name}
        changed = others | ({name: change(tensors[name])} if change else {})
        save_file(changed, tmp_path / "model.safetensors")
        says(about, "not a compact model")
    save_file(tensors, tmp_path / "model.safetensors")
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[:-100])
    with pytest.raises(ConfigError, match="not a compact model"):
        load_compact(tmp_path)
    with pytest.raises(ConfigError, match=r"compact\.json is missing"):
        load_compact(tmp_path / "nowhere")


@pytest.mark.parametrize("kind", COMPACTS)
def test_a_narrowed_model_is_a_smaller_stock_model(root, tmp_path, kind):
    model = classifier(root / kind)
    small = narrowed(model)
    small.save_pretrained(tmp_path)
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    name = architecture_of(again.base_model).sizes.intermediate
    live = [len(layer.inner.weight) for layer in compact_layers(compact(model))]
    assert getattr(again.config, name) == max(live) < getattr(model.config, name)
    torch.testing.assert_close(logits_of(again), logits_of(model), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("half", (False, True))
def test_a_packed_model_comes_back_from_its_base_model(root, tmp_path, kind, half):
    """Trained weights: all tensors bit for bit; in float16 to its rounding."""
    checkpoint, model = find_checkpoint(str(root / kind)), classifier(root / kind)
    pack(model, CLASSIFIER, checkpoint, tmp_path, half=half)
    again = unpack(tmp_path, checkpoint)
    for name, tensor in model.state_dict().items():
        if half:
            torch.testing.assert_close(again.state_dict()[name], tensor, rtol=1e-3, atol=1e-6)
        else:
            assert torch.equal(again.state_dict()[name], tensor), name
    assert json.loads((tmp_path / "packed.json").read_text())["exact"] is not half
    kept = sum(int((model.state_dict()[n] != 0).sum()) for n in matrices_of(model))
    values = load_file(tmp_path / "values.safetensors")
    assert sum(values[n].numel() for n in matrices_of(model)) == kept
    assert not any("embeddings" in name for name in values)  # they did not train


def test_a_mask_on_frozen_weights_needs_no_values_but_the_head(root, tmp_path):
    checkpoint, model = (
        find_checkpoint(str(root / "bert")),
        classifier(root / "bert", trained=False),
    )
    pack(model, CLASSIFIER, checkpoint, tmp_path)
    values = load_file(tmp_path / "values.safetensors")
    fresh = {"classifier.weight", "classifier.bias"}
    assert set(values) - {"bert.pooler.dense.weight", "bert.pooler.dense.bias"} == fresh
    assert torch.equal(logits_of(unpack(tmp_path, checkpoint)), logits_of(model))


def test_tied_embeddings_that_trained_come_back(root, tmp_path):
    """The decoder of a masked language model is its table of embeddings."""
    checkpoint = find_checkpoint(str(root / "bert"))
    model = transformers.AutoModelForMaskedLM.from_pretrained(root / "bert", dtype=torch.float32)
    with torch.no_grad():
        model.base_model.embeddings.word_embeddings.weight.mul_(1.5)
        model.base_model.encoder.layer[0].output.dense.weight[::2] = 0
    pack(model.eval(), "AutoModelForMaskedLM", checkpoint, tmp_path)
    again = unpack(tmp_path, checkpoint)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    values = load_file(tmp_path / "values.safetensors")
    assert list(values) == ["bert.embeddings.word_embeddings.weight"]  # once; the matrix is frozen


def test_values_of_another_number_are_refused(root, tmp_path):
    checkpoint = find_checkpoint(str(root / "bert"))
    pack(classifier(root / "bert"), CLASSIFIER, checkpoint, tmp_path)
    values = load_file(tmp_path / "values.safetensors")
    name = next(name for name in values if ".layer." in name and name.endswith("weight"))
    save_file(values | {name: values[name][:1].clone()}, tmp_path / "values.safetensors")
    about = json.loads((tmp_path / "packed.json").read_text())
    about["values_sha256"] = hashlib.sha256(
        (tmp_path / "values.safetensors").read_bytes()
    ).hexdigest()
    (tmp_path / "packed.json").write_text(json.dumps(about))
    with pytest.raises(ConfigError, match=r"\(1,\) values for"):
        unpack(tmp_path, checkpoint)


@torch.no_grad()
def test_additive_masks_and_broadcast_ones_are_added(root, all_sparse):
    """A bias between tokens, a mask that is the same for all rows, and none."""
    model = classifier(root / "bert").base_model
    fast, small = sparse(model), compact(model)
    hidden = torch.randn(3, 7, model.config.hidden_size)
    for mask in (-3 * torch.rand(3, 1, 7, 7), torch.rand(1, 1, 1, 7) > 0.4, None):
        layers = (m.encoder.layer[0] for m in (model, small, fast))
        stock, one, other = (layer(hidden, mask) for layer in layers)
        torch.testing.assert_close(one, stock, rtol=0, atol=1e-5)
        torch.testing.assert_close(other, stock, rtol=0, atol=1e-5)


def test_what_cannot_be_sparse_says_so(root, all_sparse):
    model = classifier(root / "bert")
    with pytest.raises(ConfigError, match="float32"):
        sparse(model.double())
    with pytest.raises(ConfigError, match="already"):
        sparse(sparse(model.float()))


def test_a_packed_model_of_another_base_or_damaged_is_refused(root, tmp_path):
    checkpoint = find_checkpoint(str(root / "bert"))
    pack(classifier(root / "bert"), CLASSIFIER, checkpoint, tmp_path)
    with pytest.raises(ConfigError, match="it was packed for"):
        unpack(tmp_path, find_checkpoint(str(root / "roberta")))
    values = (tmp_path / "values.safetensors").read_bytes()
    draws = np.random.default_rng(0)
    for _ in range(30):
        at = int(draws.integers(len(values)))
        changed = bytearray(values)
        changed[at] ^= 1 << int(draws.integers(8))
        (tmp_path / "values.safetensors").write_bytes(bytes(changed))
        with pytest.raises(ConfigError, match="damaged"):
            unpack(tmp_path, checkpoint)
    (tmp_path / "values.safetensors").write_bytes(values)
    (tmp_path / "mask.zmsk").write_bytes((tmp_path / "mask.zmsk").read_bytes()[:-1])
    with pytest.raises(ConfigError, match="checksum"):
        unpack(tmp_path, checkpoint)


def test_a_packed_configuration_of_another_size_is_refused(root, tmp_path):
    checkpoint = find_checkpoint(str(root / "bert"))
    pack(classifier(root / "bert"), CLASSIFIER, checkpoint, tmp_path)
    about = json.loads((tmp_path / "packed.json").read_text())
    for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size"):
        changed = about | {"config": about["config"] | {name: 64_000}}
        (tmp_path / "packed.json").write_text(json.dumps(changed))
        with pytest.raises(ConfigError, match=f"its {name} is 64000"):
            unpack(tmp_path, checkpoint)


def test_a_compact_layer_keeps_nothing_of_the_stock_one(root):
    model = classifier(root / "bert")
    small = compact(model)
    before = logits_of(small)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(logits_of(small), before)
    assert all(isinstance(layer, CompactLayer) for layer in small.base_model.encoder.layer)
    assert copy.deepcopy(small) is not small
