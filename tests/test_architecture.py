"""Every architecture against the stock models of transformers: bit for bit, packed, compact, and
through training."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional as F

from methods.movement import movement
from methods.smp import smp_l
from tasks.glue import sst2
from tasks.scales import base
from tasks.squad import squad
from tests.helpers import given_for, save_checkpoint, write_parquet, write_sst2
from zoo import (
    Cell,
    ConfigError,
    Encoded,
    MaskedModel,
    Parameter,
    Task,
    export,
    label_words,
    mlm_label_words,
    topk_by_row,
    trained,
)
from zoo.engine.build import Resources, build, make_method
from zoo.engine.calibrate import prepare
from zoo.engine.compact import compact, matrix_entries
from zoo.engine.frozen import load_frozen
from zoo.engine.train import fit, run_trial
from zoo.inputs.architecture import ROLES
from zoo.inputs.batches import Batch, collate
from zoo.inputs.checkpoint import Checkpoint, find_checkpoint, load_encoder
from zoo.inputs.kinds import ARCHITECTURES, architecture_of, prunable
from zoo.inputs.tokeniser import word_ids
from zoo.parts.heads import Network
from zoo.records.trial import Conditions
from zoo.registry import methods
from zoo.runs.plan import Planner

LAYERS, HIDDEN, INNER = 2, 32, 64
MATRICES = LAYERS * (4 * HIDDEN**2 + 2 * HIDDEN * INNER)
GATED = LAYERS * (4 * HIDDEN**2 + 3 * HIDDEN * INNER)
"""Prunable weights of all kinds but ModernBERT, whose U holds a gate as well."""
STEPS = 5
UNPACKED = ("mpnet", "deberta-v2", "modernbert")
"""Kinds whose attention reads distances, or a window of neighbours, beside the mask."""


CONTEXT = "the old cat runs fast a dog sleeps the dog barks"


@dataclass(frozen=True)
class Kind:
    """A kind of checkpoint: its architecture, whether it has an MLM head, and the width of its
    embeddings."""

    name: str
    mlm: bool = True
    embedding: int = HIDDEN


KINDS = {
    "bert": Kind("bert"),
    "roberta": Kind("roberta"),
    "distilbert": Kind("distilbert"),
    "electra generator": Kind("electra", embedding=12),
    "electra discriminator": Kind("electra", mlm=False),
    "xlm-roberta": Kind("xlm-roberta"),
    "camembert": Kind("camembert"),
    "mpnet": Kind("mpnet"),
    "deberta-v2": Kind("deberta-v2"),
    "modernbert": Kind("modernbert"),
}
NARROW = Kind("electra", mlm=False, embedding=12)
"""A discriminator with neither an MLM head nor embeddings as wide as hidden states."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a checkpoint of every kind, with large weights and biases, and SST-2."""
    root = tmp_path_factory.mktemp("architectures")
    for name, kind in {**KINDS, "narrow": NARROW}.items():
        options = {"kind": kind.name, "mlm": kind.mlm, "embedding": kind.embedding}
        save_checkpoint(root / name, **options, weight=0.3, bias=1.0)
    write_sst2(root / "data")
    answers = {"text": ["dog"], "answer_start": [24]}
    rows = {"context": [CONTEXT] * 24, "question": ["a fast dog"] * 24, "answers": [answers] * 24}
    for split in ("train", "validation"):
        write_parquet(root / f"data/squad/{split}.parquet", rows)
    return root


@pytest.fixture(params=KINDS)
def found(request, folder) -> Checkpoint:
    """The checkpoint of every kind in turn."""
    return find_checkpoint(str(folder / request.param))


def examples(task: Task) -> Encoded:
    """Ten examples of different lengths, of random words of the small vocabulary."""
    rng = np.random.default_rng(0)
    lengths = [30, 3, 7, 4, 12, 5, 9, 30, 2, 4]
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    tokens = rng.integers(5, 21, bounds[-1]).astype(np.int32)
    labels = np.zeros((10, 2) if task.output.per_token else 10, np.int64)
    return Encoded(tokens, np.zeros(bounds[-1], np.uint8), bounds, labels)


def batch_of(network: Network, task: Task, packed: bool = False) -> Batch:
    """The examples as one batch."""
    made = collate(examples(task), np.arange(10), network.pad, torch.device("cpu"))
    assert made.packing is not None
    return made if packed else replace(made, packing=None)


def open_masks(network: Network) -> MaskedModel:
    """Mask a network with masks that keep everything."""
    model = MaskedModel(network.encoder, smp_l(1.0, stop=0.5, penalty=1.0))
    model.refresh(1.0)
    assert model.remaining().density == 1.0
    assert len(model.layers) == LAYERS * (4 if network.architecture.gated else 6)
    return model


# Against the stock models -----------------------------------------------------------------------


def stock_classifier(network: Network, found: Checkpoint, **dropout: float) -> Any:
    """The stock classifier of a checkpoint with the weights of the network's head."""
    auto = transformers.AutoModelForSequenceClassification
    stock = auto.from_pretrained(found.folder, num_labels=2, dtype=torch.float32, **dropout)
    head = network.head
    if found.model_type == "bert":
        stock.bert.pooler.load_state_dict(network.encoder.pooler.state_dict())
        copied = {"classifier": head.classifier}
    elif found.model_type == "distilbert":
        copied = {"pre_classifier": head.inner, "classifier": head.classifier}
    elif found.model_type == "deberta-v2":
        copied = {"pooler.dense": head.inner, "classifier": head.classifier}
    elif found.model_type == "modernbert":
        copied = {"head.dense": head.inner, "head.norm": head.norm, "classifier": head.classifier}
    else:
        copied = {"classifier.dense": head.inner, "classifier.out_proj": head.classifier}
    for name, layer in copied.items():
        stock.get_submodule(name).load_state_dict(layer.state_dict())
    return stock


def stock_spans(network: Network, found: Checkpoint, **dropout: float) -> Any:
    """The stock span predictor of a checkpoint with the weights of the network's head."""
    auto = transformers.AutoModelForQuestionAnswering
    stock = auto.from_pretrained(found.folder, dtype=torch.float32, **dropout)
    head = network.head
    if found.model_type == "modernbert":
        stock.head.dense.load_state_dict(head.inner.state_dict())
        stock.head.norm.load_state_dict(head.norm.state_dict())
        stock.classifier.load_state_dict(head.classifier.state_dict())
    else:
        stock.qa_outputs.load_state_dict(head.classifier.state_dict())
    return stock


def stock_outputs(stock: Any, batch: Batch) -> Any:
    """The outputs of a stock model for a padded batch; segment ids are left to their default."""
    return stock(input_ids=batch.tokens, attention_mask=batch.attention.long())


def with_random_biases(network: Network) -> Network:
    """Fresh heads have biases of zero, which would hide mistakes."""
    for name, parameter in network.named_parameters():
        if name in network.fresh and name.endswith("bias"):
            nn.init.normal_(parameter)
    return network


@torch.no_grad()
def test_classification_equals_the_stock_model_bit_for_bit(found):
    network = with_random_biases(trained.build(found, sst2())).eval()
    stock = stock_classifier(network, found).eval()
    open_masks(network)
    batch = batch_of(network, sst2())
    assert torch.equal(network(batch)[0], stock_outputs(stock, batch).logits)


@torch.no_grad()
def test_spans_equal_the_stock_model_bit_for_bit(found):
    network = with_random_biases(trained.build(found, squad())).eval()
    stock = stock_spans(network, found).eval()
    open_masks(network)
    batch = batch_of(network, squad())
    out = stock_outputs(stock, batch)
    expected = torch.stack([out.start_logits, out.end_logits], -1)
    seen = batch.attention
    assert torch.equal(network(batch)[0][seen], expected[seen])


@torch.no_grad()
@pytest.mark.parametrize("task", [sst2(), squad()], ids=lambda task: task.name)
def test_mlm_label_words_equal_the_stock_language_model(found, task):
    """Bit for bit up to the last product, which may round otherwise for the rows of the label words
    alone than for the whole vocabulary."""
    if not found.has_mlm_head:
        with pytest.raises(ConfigError, match="has no MLM head"):
            mlm_label_words.build(found, task)
        return
    network = mlm_label_words.build(found, task).eval()
    auto = transformers.AutoModelForMaskedLM
    stock = auto.from_pretrained(found.folder, dtype=torch.float32).eval()
    open_masks(network)
    batch, ids = batch_of(network, task), word_ids(found, task.name, task.words)
    hidden = stock.base_model(**inputs_of(network, batch)).last_hidden_state
    hidden, seen = (
        (hidden, batch.attention) if task.output.per_token else (hidden[:, 0], slice(None))
    )
    head = found.architecture.mlm_head(stock)
    by_hand = F.linear(head.transform(hidden), head.decoder[ids], head.bias[ids])
    logits = network(batch)[0]
    assert torch.equal(logits[seen], by_hand[seen])
    whole = stock_outputs(stock, batch).logits[..., ids]
    whole = whole if task.output.per_token else whole[:, 0]
    torch.testing.assert_close(logits[seen], whole[seen], rtol=1e-5, atol=1e-5)


def inputs_of(network: Network, batch: Batch) -> dict[str, torch.Tensor]:
    """A padded batch as keyword arguments of the encoder."""
    inputs = network.architecture.inputs(batch.tokens, batch.types)
    return {**inputs, "attention_mask": batch.attention.long()}


@torch.no_grad()
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("task", [sst2(), squad()], ids=lambda task: task.name)
def test_dropout_is_where_the_stock_model_has_it(name, task, folder, tmp_path):
    """In training with equal seeds: the same logits, from rates that all differ."""
    found = find_checkpoint(str(with_dropout(folder / name, tmp_path / name)))
    network = trained.build(found, task).train()
    stock = (stock_spans if task.output.per_token else stock_classifier)(network, found).train()
    batch = batch_of(network, task)
    torch.manual_seed(1)
    logits = network(batch)[0]
    torch.manual_seed(1)
    out = stock_outputs(stock, batch)
    if task.output.per_token:
        expected, seen = torch.stack([out.start_logits, out.end_logits], -1), batch.attention
        assert torch.equal(logits[seen], expected[seen])
    else:
        assert torch.equal(logits, out.logits)
    assert not torch.equal(logits, network.eval()(batch)[0])


def with_dropout(checkpoint: Path, folder: Path) -> Path:
    """The checkpoint with another dropout rate for every purpose."""
    config = transformers.AutoConfig.from_pretrained(checkpoint)
    rates = {"hidden_dropout_prob": 0.1, "dropout": 0.1, "attention_probs_dropout_prob": 0.0}
    rates |= {"classifier_dropout": 0.3, "seq_classif_dropout": 0.4, "qa_dropout": 0.5}
    for rate, value in rates.items():
        if hasattr(config, rate):
            setattr(config, rate, value)
    folder.mkdir()
    for path in checkpoint.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config.save_pretrained(folder)
    return folder


@torch.no_grad()
@pytest.mark.parametrize("task", [sst2(), squad()], ids=lambda task: task.name)
def test_packed_outputs_equal_padded_ones(found, task):
    """To 1e-9 in float64; where attention reads more than the mask, nothing is packed."""
    network = with_random_biases(trained.build(found, task)).double().eval()
    assert network.architecture.packs == (found.model_type not in UNPACKED)
    batches = [batch_of(network, task, packed) for packed in (False, True)]
    (padded, padded_first), (packed, packed_first) = map(network, batches)
    torch.testing.assert_close(packed, padded, rtol=0, atol=1e-9)
    torch.testing.assert_close(packed_first, padded_first, rtol=0, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("task", [sst2(), squad()], ids=lambda task: task.name)
def test_padding_changes_no_output(found, task):
    """Each example alone and in a padded batch: to 1e-9 in float64."""
    network = with_random_biases(trained.build(found, task)).double().eval()
    together, data = network(batch_of(network, task))[0], examples(task)
    for row, length in enumerate(data.lengths):
        alone = collate(data, [row], network.pad, torch.device("cpu"))
        assert alone.tokens.shape[1] == length
        expected, got = network(alone)[0][0], together[row]
        got = got[:length] if task.output.per_token else got
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-9)


@torch.no_grad()
def test_label_words_are_products_with_word_embeddings(found):
    """Narrow embeddings pass through the encoder's own projection first."""
    network = label_words.build(found, sst2()).eval()
    batch = batch_of(network, sst2())
    hidden = network.encoder(**inputs_of(network, batch)).last_hidden_state[:, 0]
    ids = word_ids(found, "sst2", ("terrible", "great"))
    rows = network.encoder.get_input_embeddings().weight[ids]
    if rows.shape[1] != HIDDEN:
        narrow = network.encoder.embeddings_project
        rows = rows @ narrow.weight.T + narrow.bias
    assert rows.shape == (2, HIDDEN)
    assert torch.allclose(network(batch)[0], hidden @ rows.T, atol=1e-5)


# Names and counts -------------------------------------------------------------------------------

LIKE_BERT = (
    "encoder.layer",
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
DISTILBERT = (
    "transformer.layer",
    "attention.q_lin",
    "attention.k_lin",
    "attention.v_lin",
    "attention.out_lin",
    "ffn.lin1",
    "ffn.lin2",
)
MPNET = (
    "encoder.layer",
    "attention.attn.q",
    "attention.attn.k",
    "attention.attn.v",
    "attention.attn.o",
    "intermediate.dense",
    "output.dense",
)
DEBERTA = (
    "encoder.layer",
    "attention.self.query_proj",
    "attention.self.key_proj",
    "attention.self.value_proj",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
MODERNBERT = ("layers", "attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo")
"""Where the layers and their matrices Q, K, V, O, U and D are, written by hand; ModernBERT holds Q, K
and V in one."""
BY_HAND = {
    "distilbert": DISTILBERT,
    "mpnet": MPNET,
    "deberta-v2": DEBERTA,
    "modernbert": MODERNBERT,
}
TABLES = ("encoder.relative_attention_bias", "encoder.rel_embeddings", "encoder.LayerNorm")
"""Tables of distances, outside the embeddings and the layers."""


def roles_of(found: Checkpoint) -> tuple[str, ...]:
    """The roles of the matrices of a layer, in order."""
    return ("QKV", "O", "U", "D") if found.model_type == "modernbert" else ROLES


def test_every_parameter_has_its_part_layer_and_role(found):
    encoder, _ = load_encoder(found, pooler=found.architecture.pooler)
    layers, *paths = BY_HAND.get(found.model_type, LIKE_BERT)
    by_name = {
        f"{layers}.{i}.{path}.weight": (i, role)
        for i in range(LAYERS)
        for path, role in zip(paths, roles_of(found), strict=True)
    }
    seen = {"embeddings": 0, "layers": 0, "pooler": 0}
    for name, _ in encoder.named_parameters():
        part = "embeddings" if name.startswith(("embeddings", *TABLES)) else "pooler"
        part = "layers" if name.startswith((f"{layers}.", "final_norm")) else part
        within = name.removeprefix(f"{layers}.").split(".")[0]
        layer = int(within) if within.isdigit() else None
        role = by_name.get(name, (None, None))[1]
        assert found.architecture.parameter(name) == Parameter(name, part, layer, role)
        seen[part] += 1
    usual = LAYERS * (6 + 6 + 4)  # matrices, biases, two LayerNorms
    assert seen["layers"] == (LAYERS * (4 + 2) if found.model_type == "modernbert" else usual)
    assert seen["pooler"] == (2 if found.model_type == "bert" else 0)
    assert seen["embeddings"] > 3 or found.model_type == "modernbert"
    assert set(by_name) == {f"{name}.weight" for name in prunable(encoder)}


def test_matrices_have_the_shapes_of_their_roles(found):
    encoder, _ = load_encoder(found, pooler=False)
    architecture = architecture_of(encoder)
    wide = 2 * INNER if architecture.gated else INNER
    shapes = {"U": (wide, HIDDEN), "D": (HIDDEN, INNER), "QKV": (3 * HIDDEN, HIDDEN)}
    roles = []
    for name, linear in prunable(encoder).items():
        where = architecture.parameter(f"{name}.weight")
        assert linear.weight.shape == shapes.get(where.role, (HIDDEN, HIDDEN))
        roles.append((where.layer, where.role))
    assert roles == [(layer, role) for layer in range(LAYERS) for role in roles_of(found)]


def test_prunable_weights_equal_the_closed_formula(found):
    assert MATRICES == 2 * (4 * 1024 + 2 * 2048) and GATED == 2 * (4 * 1024 + 3 * 2048)
    expected = GATED if found.model_type == "modernbert" else MATRICES
    assert found.prunable_weights == expected
    encoder, _ = load_encoder(found, pooler=False)
    assert sum(linear.weight.numel() for linear in prunable(encoder).values()) == expected
    masked = MaskedModel(encoder, movement(0.5, start=0.0, stop=1.0))
    assert sum(masked.sizes.values()) == expected
    others = LAYERS * (4 * HIDDEN + INNER + HIDDEN + 4 * HIDDEN)
    without_biases = (2 * LAYERS - 1) * HIDDEN + HIDDEN  # one norm less at first, one at the end
    assert masked.depth.inside.others == (
        without_biases if found.model_type == "modernbert" else others
    )


def test_checkpoints_are_recognised(folder):
    heads = {name: find_checkpoint(str(folder / name)).has_mlm_head for name in KINDS}
    assert heads == {name: kind.mlm for name, kind in KINDS.items()}
    assert set(ARCHITECTURES) == {kind.name for kind in KINDS.values()}
    positions = {name: find_checkpoint(str(folder / name)).positions for name in KINDS}
    offset = ("roberta", "xlm-roberta", "camembert", "mpnet")
    assert positions == {name: 62 if name in offset else 64 for name in KINDS}


def test_roberta_reads_inputs_of_all_its_positions(folder):
    """62 tokens: positions begin behind the padding token's number, 1."""
    network = trained.build(find_checkpoint(str(folder / "roberta")), sst2()).eval()
    tokens = torch.randint(5, 21, (1, 62), generator=torch.Generator().manual_seed(0))
    batch = Batch(torch.arange(1), tokens, torch.zeros_like(tokens), tokens > 0, torch.tensor([0]))
    assert network(batch)[0].isfinite().all()


# Training ---------------------------------------------------------------------------------------


def planner_of(folder: Path, name: str) -> tuple[Planner, Resources]:
    """A planner for short trials on a checkpoint, and what they run with."""
    model, data = str(folder / name), str(folder / "data")
    short = Conditions(max_steps=STEPS)
    planner = Planner(base(), "released", model, data, conditions=short)
    return planner, Resources(model, data, str(folder / "cache"))


def cell_of(name: str) -> Cell:
    """A cell of a method on SST-2 at 30 %, in few examples per step."""
    facts = methods[name].facts
    given = {"batch": 16, "max_length": 32, **dict(given_for(name, 10.0))}
    return Cell(name, "sst2", 0.3 if facts.prunes else 1.0, False, 0, tuple(given.items()))


REFUSED = {
    ("coreset", "modernbert"): "holds Q, K and V",
    ("layerdrop", "modernbert"): "differ from each other",
    ("kwon", "modernbert"): "no LayerNorm stands behind",
}
"""What is said of methods that do not work on a kind."""


@pytest.mark.parametrize("name", KINDS)
def test_every_method_trains_and_keeps_its_count(name, folder):
    planner, resources = planner_of(folder, name)
    for entry in methods:
        if (entry.name, name) in REFUSED:
            with pytest.raises(ConfigError, match=REFUSED[entry.name, name]):
                planner.jobs([cell_of(entry.name)])
            continue
        *teachers, job = planner.jobs([cell_of(entry.name)])
        for teacher in teachers:
            assert run_trial(teacher.trial, replace(resources, keep_outputs=True)).ok
        run = build(job.trial, resources)
        before = {n: p.detach().clone() for n, p in run.network.named_parameters()}
        *_, (step, level, loss) = fit(run, load_frozen(run, Path(resources.cache)))
        assert step == STEPS and np.isfinite(loss), entry.name
        moved = {n for n, p in run.network.named_parameters() if not torch.equal(p, before[n])}
        expected = {n for n, p in run.network.named_parameters() if p.requires_grad}
        assert moved <= expected and bool(moved) == bool(expected), entry.name
        assert all(score.any() for score in run.masked.trained_scores), entry.name
        kept = run.masked.remaining()
        expected_sum = GATED if name == "modernbert" else MATRICES
        expected_sum //= 2 if entry.name == "first_half" else 1
        assert sum(kept.total.values()) == expected_sum
        whole = run.method.layers or run.method.layers_at_end
        assert kept.total == (run.masked.depth.whole.sizes if whole else run.masked.sizes)
        if entry.facts.prunes and run.method.budget is not None:
            wide = run.method.mask is topk_by_row  # int(0.3 * 32) of each row
            assert kept.density == pytest.approx(0.3, abs=0.02 if wide else 0.002), entry.name
            run.masked.check_budget(level)


@pytest.mark.parametrize("name", ["bert", "mpnet", "deberta-v2"])
def test_units_are_scaled(name, folder):
    """What the pruned model gives is nearer to what the dense one gives."""
    planner, resources = planner_of(folder, name)
    dense, job = planner.jobs([replace(cell_of("kwon"), density=0.8)])
    run_trial(dense.trial, replace(resources, keep_outputs=True))
    errors = []
    for scaled in (True, False):
        run = build(job.trial, resources)
        if not scaled:
            own = replace(run.method.calibration, rescaling=None)
            run.method = replace(run.method, calibration=own)
        load_frozen(run, Path(resources.cache))
        run.network.eval()
        batch = collate(run.data.train, range(32), run.network.pad, run.device, packs=False)
        with torch.no_grad():
            whole = run.network(batch)[1]
        prepare(run, 0)
        assert not any("stopped" in note for note in run.notes)
        with run.masked.evaluating(), torch.no_grad():
            errors.append(float((run.network(batch)[1] - whole).square().mean()))
    assert errors[0] < errors[1]


def test_a_student_learns_from_its_teacher(found, folder):
    planner, resources = planner_of(folder, found.name)
    teacher, student = planner.jobs([replace(cell_of("movement"), distill=True)])
    assert run_trial(teacher.trial, replace(resources, keep_outputs=True)).ok
    assert run_trial(student.trial, resources).ok


def test_spans_are_trained_and_judged_end_to_end(found, folder):
    """On rows of SQuAD, with the tokeniser of the kind: the answers are of the context."""
    planner, resources = planner_of(folder, found.name)
    given = (("batch", 8), ("max_length", 48))
    trial = planner.plan(Cell("movement", "squad", 0.5, False, 0, given)).trial
    result = run_trial(trial, resources)
    assert result.ok and set(result.metrics) == {"em", "f1"}
    again = run_trial(trial, resources)
    assert again.digests == result.digests and again.metrics == result.metrics


def test_a_discriminator_with_narrow_embeddings_trains_with_every_head(folder):
    """It has no MLM head; label words are widened by its own layer."""
    planner, resources = planner_of(folder, "narrow")
    for name in ("movement", "smp_l", "smp_l_new_head"):
        result = run_trial(planner.plan(cell_of(name)).trial, resources)
        assert result.ok and result.head.name == ("label_words" if name == "smp_l" else "trained")


# Compact and folded -----------------------------------------------------------------------------


def pruned_network(found: Checkpoint, task: Task) -> tuple[Network, MaskedModel]:
    """A network in float64 with random scores and 5 % of its weights, so that whole rows are 0."""
    network = with_random_biases(trained.build(found, task)).double().eval()
    model = MaskedModel(network.encoder, movement(0.05, start=0.0, stop=1.0))
    draw = torch.Generator().manual_seed(0)
    for score in model.trained_scores:
        score.data.normal_(generator=draw)
        score.data.add_(torch.randn(len(score), 1, generator=draw, dtype=score.dtype), alpha=2.0)
    model.refresh(0.05)
    return network, model


@torch.no_grad()
def test_the_compact_encoder_equals_the_masked_one(found):
    """To 1e-10 in float64, and it is smaller; encoders whose layers compute more are refused."""
    if found.model_type in UNPACKED:
        encoder, _ = load_encoder(found, pooler=False)
        with pytest.raises(ConfigError, match="cannot be compacted"):
            compact(encoder, encoder.state_dict())
        return
    network, model = pruned_network(found, squad())
    batch = batch_of(network, squad())
    expected = network.encoder(**inputs_of(network, batch)).last_hidden_state
    stock = load_encoder(found, pooler=False)[0].double().eval()
    state = {n: t for n, t in export(network.encoder, model).items() if n in stock.state_dict()}
    small = compact(stock, state)
    hidden = small(**inputs_of(network, batch)).last_hidden_state
    assert (hidden - expected)[batch.attention].abs().max() < 1e-10
    assert matrix_entries(small) < 0.7 * MATRICES


@torch.no_grad()
def test_a_folded_encoder_is_a_stock_model(found, tmp_path):
    """Its weights are the exported ones, and they survive save_pretrained and from_pretrained."""
    network, model = pruned_network(found, sst2())
    network.float()
    for layer in model.layers.values():
        layer.working = layer.weight.detach().clone()
    model.refresh(0.05)
    batch = batch_of(network, sst2())
    expected, state = network(batch)[0], export(network.encoder, model)
    model.fold()
    folded = network.encoder.state_dict()
    assert {type(m) for m in prunable(network.encoder).values()} == {nn.Linear}
    assert list(folded) == list(state)
    assert all(torch.equal(folded[name], state[name]) for name in state)
    assert torch.equal(network(batch)[0], expected)
    stock = stock_classifier(network, found).eval()
    stock.base_model.load_state_dict(folded, strict=found.model_type != "bert")
    stock.save_pretrained(tmp_path)
    auto = transformers.AutoModelForSequenceClassification
    again = auto.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert torch.equal(stock_outputs(again, batch).logits, expected)
    kept = sum(int(m.weight.count_nonzero()) for m in prunable(again.base_model).values())
    assert kept == sum(int(0.05 * size) for size in model.sizes.values())


def test_a_method_made_for_one_architecture_fits_all(folder):
    """A factory knows no architecture: the same method for every checkpoint."""
    made = []
    for name in KINDS:
        planner, _ = planner_of(folder, name)
        made.append(make_method(planner.plan(cell_of("movement")).trial))
    assert all(method == made[0] for method in made)
