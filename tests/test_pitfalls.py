"""The known mistakes in re-implementing these methods, one test each, with the published figures.

`pytest -k pitfall` runs them. Where this project's design makes a mistake impossible, its test shows
that. Numbers 36 to 40 are missing: they are mistakes in methods that are not here (SuperTickets,
coreset pruning, LayerDrop), and come back together with their methods.
"""

import math
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, BertConfig, BertModel

from leaderboard import write
from leaderboard.collect import collect
from leaderboard.tables import selection_grid
from methods.movement import movement, soft_movement
from methods.smp import smp_l
from tasks.glue import mnli, sst2, stsb
from tasks.scales import base
from tests.helpers import DEVICES, a_remaining, a_result, a_trial, given_for, save_checkpoint
from tests.test_compact import (
    difference,
    masked_states,
    pruned,
    scaled_by_what_is_left,
    without_heads_that_lost_a_part,
    without_inner_bias,
    without_query_bias,
    without_value_bias,
    worst,
)
from tests.test_leaderboard import rows
from zoo import (
    CLASSES,
    Bank,
    Cell,
    ConfigError,
    Contrast,
    MaskedModel,
    Method,
    Step,
    above_threshold,
    allot,
    count,
    expected_l0,
    export,
    hard_concrete,
    keep,
    mean_sigmoid,
    mean_sigmoid_gradient,
    mlm_label_words,
    rate,
    same_class,
    same_example,
    topk_by_type,
    topk_local,
    trained,
)
from zoo.engine.build import Run, build, make_method
from zoo.engine.compact import compact, compact_layers
from zoo.engine.evaluate import evaluate
from zoo.engine.frozen import Frozen, predict
from zoo.engine.layers import Counts
from zoo.engine.train import fit
from zoo.engine.trainer import make_optimizer
from zoo.inputs.batches import Batch
from zoo.inputs.checkpoint import find_checkpoint
from zoo.inputs.task import divergence, regression_distillation
from zoo.inputs.tokeniser import load_tokenizer, word_ids
from zoo.records.result import Best, Point
from zoo.records.storage import save
from zoo.registry import methods
from zoo.runs.values import Resolved, resolve
from zoo.tools.fidelity import BERT
from zoo.tools.released import as_released

T = 73_632
"""Optimiser steps of the MNLI runs of Sanh 2020 and of SMP."""


# What the tests share ---------------------------------------------------------------------------


def values(name: str, density: float = 0.03, version: str = "released") -> Resolved:
    """The values of a method on MNLI for BERT-base; no run is known that gives RPP's penalty."""
    given = (("penalty", 10.0),) if name == "rpp" else ()
    return resolve(Cell(name, "mnli", density, False, 0, given), base(), version, BERT)


def from_recipe(name: str, density: float = 0.03) -> Method:
    """A registered method as its recipe makes it."""
    hyper = values(name, density).hyper
    return methods[name].make(density, **{n: value.value for n, value in hyper.items()})


@pytest.fixture(scope="module")
def twelve(tmp_path_factory):
    """A checkpoint of 12 narrow layers: 72 matrices."""
    return save_checkpoint(tmp_path_factory.mktemp("twelve") / "small", layers=12)


@pytest.fixture
def make_run(planner, resources) -> Callable[..., Run]:
    """(method, density, **training values) -> a run that is ready to train, on SST-2."""

    def make(method: str, density: float = 0.5, **train) -> Run:
        given = given_for(method) if method in SIMPLE else ()
        trial = planner.plan(Cell(method, "sst2", density, False, 0, given)).trial
        return build(replace(trial, train=replace(trial.train, **train)), resources)

    return make


SIMPLE = [
    entry.name for entry in methods if entry.facts.drives == "density" and entry.name != "cap_lite"
]
"""Methods that need no teacher and no published penalty on SST-2; the others build on these."""


def short_run(make_run, name: str) -> Run:
    """A run of a few steps of a registered method."""
    return make_run(name, 0.3 if methods[name].facts.prunes else 1.0, steps=6)


def on_base(method: Method) -> tuple[BertModel, MaskedModel]:
    """A method on BERT-base's geometry, without its memory."""
    with torch.device("meta"):
        encoder = BertModel(BertConfig())
    return encoder, MaskedModel(encoder, method)


def zeros_of_base() -> dict[str, torch.Tensor]:
    """The 72 score matrices of BERT-base at 0, without their memory."""
    zero = torch.zeros(1)
    attention = {f"a{i}": zero.expand(768, 768) for i in range(48)}
    return attention | {f"f{i}": zero.expand(3072, 768) for i in range(24)}


def contrast_of(classes: list[int], rows: list[int], vectors: torch.Tensor) -> Step:
    """A training step in which student and bank have the representations `vectors`."""

    class NoTask:
        output = CLASSES

    at = torch.tensor(rows)
    return Step(
        task=NoTask(),
        logits=torch.zeros(len(rows), 2),
        labels=torch.tensor(classes)[at],
        representation=vectors[at],
        rows=at,
        generator=torch.Generator().manual_seed(0),
        classes=torch.tensor(classes),
        banks={"b": Bank(vectors)},
    )


# Loading, penalties, schedules ------------------------------------------------------------------


def test_pitfall_01_loading_starts_masked_matrices_anew(twelve):
    stored = load_file(twelve / "model.safetensors")
    network = trained.build(find_checkpoint(str(twelve)), sst2()).eval()
    plain = trained.build(find_checkpoint(str(twelve)), sst2()).eval()
    plain.load_state_dict(network.state_dict())
    masked = MaskedModel(network.encoder, smp_l(1.0, stop=0.5, penalty=400.0))
    assert len(masked.layers) == 72
    for name, layer in masked.layers.items():
        assert (layer.weight - stored[f"bert.{name}.weight"]).abs().max() == 0
    masked.refresh(1.0)
    tokens = torch.tensor([[2, 9, 12, 8, 3]])
    batch = Batch(torch.arange(1), tokens, torch.zeros_like(tokens), tokens > 0, torch.tensor([0]))
    with torch.no_grad():
        assert (network(batch)[0] - plain(batch)[0]).abs().max() <= 1e-6


def test_pitfall_02_the_penalty_is_a_sum_or_one_global_mean():
    assert mean_sigmoid(zeros_of_base()).item() == 0.5
    query = mean_sigmoid_gradient(torch.zeros(768, 768), 72)[0, 0].item()
    inner = mean_sigmoid_gradient(torch.zeros(3072, 768), 72)[0, 0].item()
    assert query == pytest.approx(1 / (72 * 589_824) * 0.25, rel=1e-6)
    assert query / inner == pytest.approx(4.0, rel=1e-6)


def test_pitfall_03_lambda_scaled_by_the_density_or_over_the_wrong_horizon():
    released = from_recipe("smp_l").penalty.weight
    for t, value in ((1000, 16.0769), (10_000, 141.8412), (21_816, 260.6035), (43_632, 372.9465)):
        assert released(t, T) == pytest.approx(value, abs=1e-4)
    assert released(0, T) == 0
    stop = 43_632 / T
    printed = smp_l(0.03, stop=stop, penalty=400.0, penalty_stop=stop).penalty.weight
    assert printed(21_816, T) == pytest.approx(350.0, abs=1e-4)
    asked = values("smp_l", version="paper").hyper
    assert asked["penalty_stop"].value == asked["stop"].value
    density = from_recipe("smp_l").level
    for t, value in ((1000, 0.934823), (10_000, 0.474237), (21_816, 0.15125), (43_632, 0.03)):
        assert density(t, T) == pytest.approx(value, abs=1e-6)
    soft = from_recipe("soft_movement", density=0.1)
    assert soft.level(36_816, T) == pytest.approx(0.0875, abs=1e-6)
    assert soft.penalty.weight(0, T) == soft.penalty.weight(12_000, T) == 0
    final = soft.penalty.weight(T, T)
    assert soft.penalty.weight(36_816, T) == pytest.approx(final * 0.0875 / 0.1)


# Gradients and masks ----------------------------------------------------------------------------


def test_pitfall_04_the_score_gradient_is_multiplied_by_the_mask_or_a_slope():
    """y = W' x with W = [2, 3], S = [1, -1], x = [1, 1]: dL/dS = [2, 3], dL/dW = [1, 0]."""
    config = BertConfig(vocab_size=9, hidden_size=2, num_hidden_layers=1)
    config.num_attention_heads = config.intermediate_size = 1
    for method in (
        movement(0.5, start=0.0, stop=1.0),
        soft_movement(0.5, start=0.0, stop=1.0, penalty=1.0),
    ):
        model = MaskedModel(BertModel(config), method)
        layer = model.layers["encoder.layer.0.intermediate.dense"]
        layer.weight.data = torch.tensor([[2.0, 3.0]])
        layer.score.data = torch.tensor([[1.0, -1.0]])
        model.refresh(0.5)
        for other in model.layers.values():
            other.working.grad = torch.zeros_like(other.working)
        assert layer.mask.tolist() == [[True, False]]
        layer(torch.ones(1, 2)).sum().backward()
        model.backward()
        assert layer.score.grad.tolist() == [[2.0, 3.0]]
        assert layer.weight.grad.tolist() == [[1.0, 0.0]]


def test_pitfall_05_a_wrong_number_of_weights_is_kept():
    scores = {"q": torch.randn(96, 64), "u": torch.zeros(77, 131)}
    for density in (0.03, 0.1, 0.5, 0.8, 1.0):
        for name, mask in topk_local(scores, density).items():
            numel = scores[name].numel()
            assert mask.sum().item() == int(density * numel)
    assert count(1.3, 77) == 77  # a share above 1 keeps the matrix whole


def test_pitfall_06_ties_after_the_first_step_of_adam_change_the_count():
    draw = torch.Generator().manual_seed(1)
    score = torch.randint(-1, 2, (768, 768), generator=draw) * 2e-2
    for device in DEVICES:
        mask = keep(score.to(device), int(0.5 * score.numel()))
        assert mask.sum().item() == 294_912
        assert torch.equal(mask, keep(score.clone().to(device), int(0.5 * score.numel())))
        order = np.argsort(-score.flatten().numpy(), kind="stable")[:294_912]
        assert mask.cpu().flatten().nonzero().flatten().tolist() == sorted(order.tolist())


def test_pitfall_07_the_score_is_taken_without_its_sign_or_times_the_weight(make_run):
    score = torch.tensor([[-5.0, 1.0]])
    assert topk_local({"a": score}, 0.5)["a"].tolist() == [[False, True]]
    run = make_run("movement")
    layer = next(iter(run.masked.layers.values()))
    layer.score.data.copy_(torch.linspace(-5, 1, layer.score.numel()).view_as(layer.score))
    assert torch.equal(run.masked.method.score.read(layer), layer.score)


def test_pitfall_08_the_optimiser_shrinks_scores(make_run):
    run = make_run("movement")
    optimizer, parameters = make_optimizer(run)
    for score in run.masked.trained_scores:
        score.data.normal_()
    before = [p.detach().clone() for p in parameters]
    for _ in range(100):
        for p in parameters:
            p.grad = torch.zeros_like(p)
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, parameters, strict=True))


def test_pitfall_09_scores_lose_their_precision(make_run):
    run = make_run("smp_l")
    run.masked.refresh(0.5)
    tokens = torch.tensor([[2, 9, 12, 8, 3]], device=run.device)
    with torch.autocast(run.device.type, dtype=torch.bfloat16):
        loss = 1e-8 * run.network.encoder(tokens).last_hidden_state.float().pow(2).mean()
    loss.backward()
    for layer in run.masked.layers.values():
        assert layer.score.dtype == layer.working.dtype == layer.working.grad.dtype == torch.float32
    upstream = {n: x.working.grad.clone() for n, x in run.masked.layers.items()}
    run.masked.backward()
    for name, layer in run.masked.layers.items():
        assert layer.score.grad.dtype == torch.float32
        assert 0 < layer.score.grad.abs().max() < 1e-7, name
        assert torch.equal(layer.score.grad, upstream[name] * layer.weight)


def test_pitfall_10_other_parameters_are_masked_or_trained(make_run):
    """Which matrices are masked on BERT-base, and which names the optimiser gets in a real run,
    written down by hand."""
    for entry in methods:
        method = from_recipe(entry.name, density=0.1)
        encoder, masked = on_base(method)
        every = {n for n, _ in encoder.named_parameters()}
        if method.score is not None:
            assert set(masked.layers) == {n[: -len(".weight")] for n in every if is_matrix(n)}
            assert len(masked.layers) == 72
            assert sum(masked.sizes.values()) == 84_934_656
        if entry.name == "smp_structured":  # one for each block of 32 x 32, and each neuron
            assert sum(s.numel() for s in masked.trained_scores) == 48 * 24 * 24 + 12 * 3072
        elif entry.name.startswith("smp"):
            assert len(masked.trained_scores) == 72
            assert sum(s.numel() for s in masked.trained_scores) == 84_934_656
    for name in SIMPLE:
        run = short_run(make_run, name)
        optimizer, parameters = make_optimizer(run)
        named = {id(p): n for n, p in run.network.named_parameters()}
        got = {named[id(p)] for p in parameters if id(p) in named}
        every = set(named.values())
        new = {n for n in every if n.startswith(("head.classifier.", "encoder.pooler."))}
        dense = name in ("dense", "scratch", "first_half", "gmp_star", "obert", "platon")
        dense = dense or name in ("imp", "sparse_transfer", "drop_layers", "layerdrop")
        dense = dense or run.method.dense
        whole = every if dense else set()
        free = {n for n in every if not n.startswith("encoder.embeddings.")}
        frozen = name.startswith("smp") or name == "head_only"
        assert got == (whole or (new if frozen else free)), name
        scores = sum(len(group["params"]) for group in optimizer.param_groups) - len(got)
        learned = 10 if name == "smp_structured" else 12 if learns(name) else 0
        assert scores == len(run.masked.trained_scores) == learned, name


def learns(name: str) -> bool:
    """Whether a method has scores that train."""
    return name.startswith(("smp", "movement"))


def is_matrix(name: str) -> bool:
    """Q, K, V, O, U, D of a layer, by their names in BERT."""
    ends = ("query", "key", "value", "output.dense", "intermediate.dense")
    return "layer." in name and name.endswith(tuple(f"{end}.weight" for end in ends))


def test_pitfall_11_a_share_above_one_is_redistributed_unasked():
    names = [f"encoder.layer.{i}.output.dense" for i in range(12)]
    scores = {n: torch.full((400, 250), v) for n, v in zip(names, [2.0] + [-1.0] * 11, strict=True)}
    for temperature, realised in ((1.0, 0.6998), (4.0, 0.7917)):
        masks = topk_by_type(scores, 0.8, temperature=temperature)
        kept = sum(mask.sum().item() for mask in masks.values())
        assert masks[names[0]].all()
        assert kept / 1_200_000 == pytest.approx(realised, abs=1e-4)
    as_released_masks = from_recipe("smp_s", density=0.8).mask(scores, 0.8)
    kept = sum(mask.sum().item() for mask in as_released_masks.values())
    assert kept / 1_200_000 == pytest.approx(0.7917, abs=1e-4)
    masks = topk_by_type(scores, 0.8, redistribute=True)
    assert sum(m.sum().item() for m in masks.values()) == pytest.approx(960_000, abs=12)


def test_pitfall_12_eq_4_is_pooled_over_types():
    torch.manual_seed(0)
    centres = {"query": 3.0, "key": 0.0, "value": -1.0, "output": 1.0, "up": -4.0, "down": 0.5}
    scores = {
        f"encoder.layer.{i}.{kind}": torch.randn(50, 40) + centre + i / 10
        for kind, centre in centres.items()
        for i in range(12)
    }
    masks = topk_by_type(scores, 0.1)
    for kind in centres:
        own = [f"encoder.layer.{i}.{kind}" for i in range(12)]
        means = {n: torch.sigmoid(scores[n]).mean().item() for n in own}
        assert sum(allot(means, 0.1).values()) == pytest.approx(12 * 0.1)
        kept = sum(masks[n].sum().item() for n in own)
        assert 12 * 200 - 12 <= kept <= 12 * 200
        for n in own:
            share = 0.1 * 12 * means[n] / sum(means.values())
            assert masks[n].sum().item() == int(share * 2000)


def test_pitfall_13_sigmoid_twice_or_the_threshold_on_raw_scores():
    scores = {"a": torch.tensor([[-2.19, -2.20] * 500])}
    mask = above_threshold(scores, 0.1)["a"]
    assert mask[0, 0::2].all() and not mask[0, 1::2].any()
    assert above_threshold({"a": torch.zeros(30, 30)}, 0.0)["a"].all()
    method = from_recipe("soft_movement", density=0.1)
    assert method.level(T, T) == 0.1 and method.level(0, T) == 0.0
    assert method.mask(scores, method.level(T, T))["a"].sum().item() == 500


def test_pitfall_14_the_floor_of_half_a_percent_is_forgotten():
    for shape, least in (((768, 768), 2_950), ((3072, 768), 11_797)):
        noise = torch.linspace(0, 1e-3, shape[0] * shape[1]).view(shape)
        for score in (noise - 50, torch.full(shape, -50.0)):
            assert above_threshold({"a": score}, 0.1)["a"].sum().item() == least


# L0 ---------------------------------------------------------------------------------------------


def gate_at(score: float) -> float:
    """L0's gate in evaluation."""
    return hard_concrete.test(torch.tensor([[score]], dtype=torch.float64), None, None).item()


def test_pitfall_15_the_evaluation_gate_is_divided_by_beta_or_made_binary():
    assert gate_at(2.197) == pytest.approx(0.97998, abs=1e-5)
    assert gate_at(-2.39790) == pytest.approx(0.0, abs=1e-6)
    assert gate_at(-2.398) == 0.0 and gate_at(-2.3978) > 0
    assert gate_at(0.0) == pytest.approx(0.5)


def test_pitfall_16_the_penalty_of_l0_lacks_its_shift():
    assert expected_l0({"a": torch.full((4, 4), 2.197)}).item() == pytest.approx(0.978024, abs=1e-6)


def test_pitfall_17_lambda_of_l0_rises():
    penalty = from_recipe("l0", density=0.1).penalty.weight
    assert penalty(0, T) == penalty(T // 2, T) == penalty(T, T) > 0


# Distillation and heads -------------------------------------------------------------------------


def test_pitfall_18_distillation_the_wrong_way_or_without_the_temperature_squared():
    teacher, student = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.5, 0.5]]).log()
    assert divergence(student, teacher, 1.0).item() == pytest.approx(0.368064, abs=1e-6)
    assert divergence(teacher, student, 1.0).item() == pytest.approx(0.510826, abs=1e-6)
    torch.manual_seed(0)
    one, other = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    four = divergence(2 * one, 2 * other, 2.0) / divergence(one, other, 1.0)
    assert four.item() == pytest.approx(4.0, rel=1e-12)


def test_pitfall_19_distillation_of_a_regression_is_silently_zero():
    student = torch.tensor([[1.0], [2.5]], requires_grad=True)
    teacher = torch.tensor([[2.0], [2.0]])
    assert stsb().output.distillation is regression_distillation
    stsb().output.distillation(student, teacher, 2.0).backward()
    assert student.grad.tolist() == [[-1.0], [0.5]]


def test_pitfall_20_the_weights_of_distillation_are_wrong(planner):
    """In planned trials, and in the losses of their methods."""
    for entry in methods:
        if not entry.facts.prunes:
            continue
        given = given_for(entry.name, 1.0)
        *_, job = planner.jobs([Cell(entry.name, "sst2", 0.1, True, 0, given)])
        train = job.trial.train
        mix = (train.task_weight, train.teacher_weight)
        teacher_alone = entry.name in ("gmp_star", "obert", "sparse_transfer")
        usual = (0.0, 1.0) if teacher_alone else (0.1, 0.9)
        assert mix == ((0.5, 0.5) if entry.name.startswith("smp") else usual), entry.name
        warm = 5.5 if entry.name == "sparse_transfer" else 2.0
        assert train.temperature == warm
        terms = make_method(job.trial).losses
        assert (terms[0].weight, terms[-1].weight) == mix
        assert terms[-1].value.temperature == warm


def test_pitfall_21_the_mlm_head_is_left_out_or_the_pooler_used(checkpoint):
    found = find_checkpoint(str(checkpoint))
    network = mlm_label_words.build(found, sst2()).eval()
    stock = AutoModelForMaskedLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    tokens = torch.tensor([[2, 9, 12, 3], [2, 15, 13, 3]])
    with torch.no_grad():
        hidden = network.encoder(tokens).last_hidden_state
        logits, _ = network.head(hidden, None)
        ids = word_ids(found, "sst2", sst2().words)
        assert (logits - stock(tokens).logits[:, 0, ids]).abs().max() <= 1e-5
        assert torch.equal(network.head(hidden, torch.randn(2, 32))[0], logits)
    assert network.encoder.pooler is None
    assert from_recipe("smp_l").head is mlm_label_words


def test_pitfall_22_a_label_word_has_several_tokens(checkpoint, tmp_path):
    """BERT's word pieces, and a byte-level vocabulary as RoBERTa's, where the space belongs to
    the word."""
    found = find_checkpoint(str(checkpoint))
    assert word_ids(found, "mnli", ("Yes", "Maybe", "No")) == [5, 7, 6]
    with pytest.raises(ConfigError, match="must be one token"):
        word_ids(found, "t", ("wonderful",))
    byte_level = find_checkpoint(str(save_checkpoint(tmp_path / "bytes", kind="roberta")))
    words = load_tokenizer(byte_level).get_vocab()
    assert word_ids(byte_level, "sst2", ("terrible", "great")) == [
        words["Ġterrible"],
        words["Ġgreat"],
    ]
    assert load_tokenizer(byte_level).tokenize(" great great") == ["Ġgreat", "Ġgreat"]
    with pytest.raises(ConfigError, match="must be one token"):
        word_ids(byte_level, "t", ("greatest",))


def test_pitfall_23_the_classes_of_mnli_are_in_another_order():
    task = mnli()
    named = dict(zip(task.labels, task.words, strict=True))
    assert named == {"entailment": "Yes", "neutral": "Maybe", "contradiction": "No"}
    released = dict(zip(task.labels, as_released(task).words, strict=True))
    assert released == {"contradiction": "Yes", "entailment": "Maybe", "neutral": "No"}
    assert as_released(sst2()).words == sst2().words


# The loop ---------------------------------------------------------------------------------------


def test_pitfall_24_the_schedule_counts_something_else_than_optimiser_steps(make_run, monkeypatch):
    """Masks are made once per update and nowhere else: there are no micro-batches to count, and
    forward passes, which several could share one update, never move the schedule."""
    run = make_run("movement", 0.1, steps=20, evaluate_every=1)
    updates = []
    plain_step = torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW, "step", lambda self, *a: updates.append(1) or plain_step(self, *a)
    )
    levels = []
    run.masked.method = replace(
        run.method, mask=lambda s, level: levels.append(level) or topk_local(s, level)
    )
    for step, level, _ in fit(run, Frozen()):
        evaluate(run, level)
        assert len(updates) == step and len(levels) == step + 1
        assert level == levels[-1] == run.method.level(step, 20)
        if step == 10:
            density = run.masked.remaining().density
            assert density == pytest.approx(run.method.level(10, 20), abs=1e-3)


def test_pitfall_25_the_planned_steps_are_not_those_that_are_taken(make_run, monkeypatch):
    run = make_run("movement", 0.1, evaluate_every=1)
    assert run.steps == run.trial.train.planned_steps(48)
    assert run.steps == run.trial.train.epochs * math.ceil(48 / 32)  # short batches count
    rates = []
    plain_step = torch.optim.AdamW.step

    def step(self, *arguments):
        rates.append([group["lr"] / group["peak"] for group in self.param_groups])
        return plain_step(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    list(fit(run, Frozen()))
    rise = round(12_000 / T * run.steps)
    by_hand = [
        t / rise if t < rise else (run.steps - t) / (run.steps - rise) for t in range(run.steps)
    ]
    assert [factors[0] for factors in rates] == pytest.approx(by_hand)
    assert all(max(factors) == pytest.approx(min(factors)) for factors in rates)
    assert rate(T - 1, T, 12_000 / T) < 1e-3 and rate(T, T, 12_000 / T) == 0


def test_pitfall_26_evaluated_masks_are_not_the_exported_ones(make_run):
    run = make_run("smp_l", 0.5)
    *_, (_, level, _) = fit(run, Frozen())
    evaluated = []
    for layer in run.masked.layers.values():
        layer.register_forward_pre_hook(
            lambda module, args: evaluated.append((module, module.working.detach().clone()))
        )
    evaluate(run, level)
    state = export(run.network.encoder, run.masked)
    names = {id(layer): name for name, layer in run.masked.layers.items()}
    assert evaluated
    for module, working in evaluated:
        assert torch.equal(working, state[f"{names[id(module)]}.weight"])
        assert torch.equal(working != 0, module.mask)
    assert abs(run.masked.remaining().density - 0.5) <= 1e-6


def test_pitfall_27_dropout_is_on_in_evaluation(make_run):
    run = make_run("movement")
    run.masked.refresh(0.5)
    run.network.train()
    first = predict(run.network, run.data.train, representations=True)
    second = predict(run.network, run.data.train, representations=True)
    assert np.array_equal(first["logits"], second["logits"])
    assert np.array_equal(first["representations"], second["representations"])
    assert run.network.training
    assert evaluate(run, 0.5)[0] == evaluate(run, 0.5)[0]


# CAP-lite ---------------------------------------------------------------------------------------


def test_pitfall_28_the_supervised_reduction_of_cap_is_the_usual_mean():
    axes = torch.eye(2, dtype=torch.float64)
    alone = contrast_of([0, 1], [0, 1], axes)
    equal = contrast_of([0, 0], [0, 1], axes)
    supervised = Contrast(same_class, banks=("b",), extras=0)
    unsupervised = Contrast(same_example, banks=("b",), extras=0)
    assert unsupervised(alone).item() == pytest.approx(9.0796e-5, rel=1e-5)
    assert supervised(equal).item() == pytest.approx(2.2222525, rel=1e-7)
    assert supervised(equal).item() != pytest.approx(6.6667575, rel=1e-3)
    assert supervised(alone).item() == pytest.approx(9.0796e-5, rel=1e-5)


def test_pitfall_29_the_anchors_own_column_takes_part():
    one = contrast_of([0], [0], torch.eye(1))
    assert Contrast(same_example, banks=("b",), extras=0)(one).item() == 0.0
    assert Contrast(same_class, banks=("b",), extras=0)(one).item() == 0.0


# Compaction -------------------------------------------------------------------------------------


def test_pitfall_30_biases_of_dead_rows_are_forgotten(monkeypatch):
    for dtype, most in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        model, state = pruned(dtype=dtype)
        assert difference(model, state) < most
    assert worst(monkeypatch, "compact_heads", without_query_bias) > 1e-2
    assert worst(monkeypatch, "compact_heads", without_value_bias) > 1e-2
    assert worst(monkeypatch, "compact_inner", without_inner_bias) > 1e-2
    assert worst(monkeypatch, "compact_heads", without_heads_that_lost_a_part) > 1e-2


def test_pitfall_31_logits_are_scaled_by_what_is_left_of_a_head(monkeypatch):
    """A head of 64 dimensions that keeps 3 still divides by 8."""
    config = BertConfig(vocab_size=20, hidden_size=128, num_hidden_layers=1)
    config.num_attention_heads, config.intermediate_size = 2, 64
    model = BertModel(config, add_pooling_layer=False)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for part in ("query", "key"):
        state[f"encoder.layer.0.attention.self.{part}.weight"][[*range(3, 64), *range(67, 128)]] = 0
    (layer,) = compact_layers(compact(model, state))
    assert layer.query.weight.shape == (2 * 3, 128)
    assert layer.scale == 1 / 8
    assert worst(monkeypatch, "compact_heads", scaled_by_what_is_left) > 1e-2


def test_pitfall_32_a_head_whose_keys_are_dead_is_removed():
    """It attends evenly, and what it reads still counts."""
    model, state = pruned()
    before = masked_states(model, state)
    head = slice(0, 8)
    state["encoder.layer.2.attention.self.key.weight"][head] = 0
    even = masked_states(model, state)
    assert difference(model, state) < 1e-10
    state["encoder.layer.2.attention.output.dense.weight"][:, head] = 0
    removed = masked_states(model, state)
    assert (even - removed).abs().max() > 1e-2 < (even - before).abs().max()


# Counting and reporting -------------------------------------------------------------------------


def test_pitfall_33_remaining_weights_are_counted_over_other_parameters():
    _, masked = on_base(movement(0.1, start=0.0, stop=1.0))
    kept = {name: int(0.1 * size) for name, size in masked.sizes.items()}
    counted = Counts(kept, masked.sizes, masked.depth.inside.others)
    assert masked.depth.inside.others == 119_808 and sum(kept.values()) == 8_493_432
    assert 100 * counted.density == pytest.approx(9.99996, abs=5e-6)
    assert 100 * counted.encoder_density == pytest.approx(10.1267, abs=5e-5)


def test_pitfall_34_masked_weights_drift_into_the_export(make_run):
    run = make_run("movement", 0.1, lr_weights=1e-2, steps=20, evaluate_every=1)
    before: dict[str, torch.Tensor] = {}
    for step, _, _ in fit(run, Frozen()):
        if step == 17:  # the density has reached its target, weights still train
            before = {n: x.weight.detach().clone() for n, x in run.masked.layers.items()}
            out = {n: ~x.mask for n, x in run.masked.layers.items()}
    state = export(run.network.encoder, run.masked)
    for name, layer in run.masked.layers.items():
        gone = out[name] & ~layer.mask
        assert (layer.weight[gone] != before[name][gone]).float().mean() > 0.9  # they have drifted
        assert torch.equal(state[f"{name}.weight"] != 0, layer.mask)


def test_pitfall_35_compilation_or_checkpointing_detaches_the_scores(make_run):
    """At least 99 % of the scores get a gradient from a single batch, whatever wraps the encoder:
    W' is a leaf outside of any graph, so that nothing can be detached."""
    tokens = torch.tensor([[2, 9, 12, 8, 3], [2, 15, 13, 7, 3]])
    for wrap in ("plain", "checkpointing", "compile"):
        torch.manual_seed(0)
        run = make_run("smp_l")
        run.masked.refresh(0.5)
        encoder = run.network.encoder.train()
        if wrap == "checkpointing":
            encoder.gradient_checkpointing_enable({"use_reentrant": False})
        call = torch.compile(encoder, backend="aot_eager") if wrap == "compile" else encoder
        call(tokens.to(run.device)).last_hidden_state.pow(3).sum().backward()
        run.masked.backward()
        for name, layer in run.masked.layers.items():
            assert (layer.score.grad != 0).float().mean() >= 0.99, (wrap, name)


def test_pitfall_41_a_penalty_driven_run_under_its_nominal_target(tmp_path):
    """What is not at the target is interpolated and marked, or shown apart with what it kept."""
    folder = tmp_path / "suite"
    for seed, target, density in ((0, 0.1, 0.12), (0, 0.03, 0.05), (1, 0.1, 0.2)):
        trial = a_trial(method="l0", density=target, seed=seed)
        metrics = {"acc": 70.0 if density == 0.05 else 80.0}
        save(a_result(trial, metrics=metrics, remaining=a_remaining(density)), folder)
    page = write(folder, figures=False).read_text()
    between = 70 + 10 * math.log(0.1 / 0.05) / math.log(0.12 / 0.05)
    assert rows(page)["l0", "10"][3] == f"{between:.1f} (1/2 at ~10.00 %; 1 over)"
    assert re.search(r"\| l0 +\| +10 \| +t \| +1 \| +20\.00 \| +acc 80\.0 \|", page)


def test_pitfall_42_the_last_step_is_compared_with_the_best_evaluation(tmp_path):
    folder = tmp_path / "suite"
    best = Best(candidates=4, step=200, metrics={"acc": 83.5})
    point = Point(200, level=0.1, loss=0.5, remaining=0.1, metrics=best.metrics)
    save(replace(a_result(), best=best, curve=(point, *a_result().curve)), folder)
    page = write(folder, figures=False).read_text()
    assert rows(page)["movement", "10"][3].startswith("80.0")
    (table,) = collect(folder).tables
    (both,) = selection_grid(table).rows
    assert list(map(str, both)) == ["movement", "10", "t acc", "1 of 1", "80.0", "83.5", "4"]
