"""The engine against the second implementation: 50 steps in float64 with dropout, paired in all
randomness."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertModel,
)

from tasks.scales import base
from tests import second_implementation
from tests.helpers import in_double, without_dropout, write_parquet
from tests.second_implementation import Setting
from zoo import Calibration, Cell, GateCalibration, Request, permuted
from zoo.engine.build import Resources, Run, build
from zoo.engine.calibrate import mini_batches
from zoo.engine.frozen import Frozen, load_frozen
from zoo.engine.gate_gradients import drawn
from zoo.engine.streams import stream
from zoo.engine.train import fit, run_trial
from zoo.inputs.batches import collate, random_batches
from zoo.inputs.checkpoint import find_checkpoint
from zoo.inputs.tokeniser import word_ids
from zoo.records.trial import Conditions
from zoo.registry import methods
from zoo.runs.plan import Planner
from zoo.runs.values import recipe_of

STEPS = 50
OWN = {  # far enough for scores to cross the threshold, and not for all of them
    "soft_movement": {"lr_scores": 0.4, "penalty": 300.0},
    "smp_t": {"lr_scores": 0.4, "penalty": 300.0},
    "l0": {"lr_scores": 0.4, "penalty": 0.3},
    "l0 distilled": {"lr_scores": 0.4, "penalty": 0.03, "batch": 32},
    "smp_l_no_penalty": {"clip": 1e-4},  # its gradients are small
    "magnitude_row": {"retrain": True},
    "wanda": {"retrain": True, "examples": 24},
    "sparsegpt": {"retrain": True, "examples": 24},
    "platon": {"window": 4, "start": 0.1, "stop": 0.7},
    "admm": {"retrain": True, "examples": 24},
    "rpp": {"penalty": 50.0, "rounds": 3},
    "layerdrop": {"rate": 0.4},
    "obert": {"gradients": 9, "gradient_batch": 8, "damping": 1e-4, "recomputations": 2},
    "taylor": {"examples": 12, "retrain": True},
    "kwon": {"retrain": True},
    "coreset": {"retrain": True},
    "smp_structured": {"block": 4},
    "movement_blocks": {"block": 4, "lr_scores": 0.4, "penalty": 300.0},
    "obert_one_shot": {"gradients": 12, "gradient_batch": 8, "recomputations": 3, "retrain": True},
}
GIVEN = {
    "penalty": 30.0,  # within the scores' reach in 50 steps
    "lr_weights": 1e-3,
    "lr_head": 2e-3,
    "lr_scores": 3e-2,
    "clip": 0.02,  # less than most gradients
    "batch": 16,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """SST-2, STS-B and SQuAD of 48 rows each, in the words of the small checkpoint."""
    folder = tmp_path_factory.mktemp("data")
    words = ["cat", "dog", "runs", "sleeps", "barks", "fast", "old", "great", "terrible"]
    pick = np.random.default_rng(3).integers
    text = [" ".join(words[i] for i in pick(0, len(words), pick(3, 9))) for _ in range(96)]
    for split in ("train", "validation"):
        rows = range(48)
        sst2 = {"sentence": text[:48], "label": [int(pick(0, 2)) for _ in rows]}
        write_parquet(folder / "glue" / "sst2" / f"{split}.parquet", sst2)
        pairs = {"sentence1": text[:48], "sentence2": text[48:]}
        stsb = {**pairs, "label": [float(pick(0, 6)) for _ in rows]}
        write_parquet(folder / "glue" / "stsb" / f"{split}.parquet", stsb)
        answers = [
            {"text": [t.split()[1]], "answer_start": [len(t.split()[0]) + 1]} for t in text[48:]
        ]
        squad = {
            "id": [str(i) for i in rows],
            "question": text[:48],
            "context": text[48:],
            "answers": answers,
        }
        write_parquet(folder / "squad" / f"{split}.parquet", squad)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache for tokenised data and teachers' outputs."""
    return tmp_path_factory.mktemp("cache")


def has_penalty(name: str) -> bool:
    """Whether a method has a hyper-parameter `penalty`."""
    entry = methods[name]
    _, hyper = recipe_of(entry)[1](Request("released", "sst2", 0.3))
    return entry.facts.drives == "penalty" or ("penalty" in hyper and entry.takes("penalty"))


def ready(name, checkpoint, data, cache, task="sst2", distill=False, **given) -> tuple[Run, Frozen]:
    """The engine's run and the frozen outputs that it needs; teachers run first."""
    short = Conditions(max_steps=STEPS)
    planner = Planner(base(), "released", str(checkpoint), str(data), conditions=short)
    resources = Resources(str(checkpoint), str(data), str(cache))
    values = {k: v for k, v in GIVEN.items() if k != "penalty" or has_penalty(name)} | given
    values |= OWN.get(name, {}) | (OWN.get(f"{name} distilled", {}) if distill else {})
    values |= {"max_length": 32}
    density = 0.3 if methods[name].facts.prunes else 1.0
    cell = Cell(name, task, density, distill, 0, tuple(values.items()))
    *teachers, last = planner.jobs([cell])
    for job in teachers:
        run_trial(job.trial, replace(resources, keep_outputs=True))
    train = replace(last.trial.train, steps=STEPS, evaluate_every=1)
    run = build(replace(last.trial, train=train), resources)
    frozen = load_frozen(run, cache)
    if name == "sparse_transfer":  # of a checkpoint that is pruned already
        with torch.no_grad():
            for layer in run.masked.layers.values():
                layer.weight.mul_(layer.weight.abs() > 0.02)
    return run, frozen


def setting_of(run: Run, frozen: Frozen, checkpoint) -> Setting:
    """The stock model of the run's head before the first step, on the run's device, and the run's
    randomness."""
    trial, head = run.trial, run.method.head.name
    own = {n: p.detach().clone() for n, p in run.network.named_parameters()}
    prefix, words = "bert.", run.task.words
    if head == "mlm_label_words":
        model = BertForMaskedLM.from_pretrained(checkpoint, dtype=torch.float32)
        ids = word_ids(find_checkpoint(str(checkpoint)), run.task.name, words)
        at = slice(None) if run.task.output.per_token else 0
        pick = lambda out: out.logits[:, at][..., ids]  # noqa: E731
    elif head == "label_words":
        model = BertModel.from_pretrained(checkpoint, add_pooling_layer=False, dtype=torch.float32)
        ids, prefix = word_ids(find_checkpoint(str(checkpoint)), run.task.name, words), ""
        table = model.embeddings.word_embeddings.weight.detach().double().to(run.device)
        pick = lambda out: out.last_hidden_state[:, 0] @ table[ids].T  # noqa: E731
    elif run.task.output.per_token:
        model = BertForQuestionAnswering.from_pretrained(checkpoint, dtype=torch.float32)
        pick = lambda out: torch.stack([out.start_logits, out.end_logits], -1)  # noqa: E731
    else:
        model = BertForSequenceClassification.from_pretrained(
            checkpoint, num_labels=run.task.logits, dtype=torch.float32
        )
        pick = lambda out: out.logits  # noqa: E731
    layers = model.base_model.encoder.layer
    stay = second_implementation.DEPTH.get(trial.method, lambda many, density: range(many))
    left = [layers[i] for i in stay(len(layers), trial.density)]
    model.base_model.encoder.layer = torch.nn.ModuleList(left)
    model.double().to(run.device).train()
    if trial.train.accumulation > 1:  # passes draw their dropout in other shapes
        without_dropout(model), without_dropout(run.network)
    own = {rename(n, prefix, run): p for n, p in own.items()}
    start = {n: own.get(n, p.detach().clone()) for n, p in model.named_parameters()}
    dense = {n: p.double() for n, p in start.items()} if frozen.start else {}
    start |= {rename(n, prefix, run): p for n, p in frozen.start.items()}
    order = stream(trial.task, 0, "order")
    rows = random_batches(len(run.data.train), trial.train.batch, order)
    batches, attention = [], []
    for _ in range(STEPS):
        batch = collate(run.data.train, next(rows), run.network.pad, run.device)
        inputs = {
            "input_ids": batch.tokens,
            "attention_mask": batch.attention.long(),
            "token_type_ids": batch.types,
        }
        batches.append((batch.rows, inputs, batch.labels))
        attention.append(batch.attention)
    seen = iter(attention)
    layerwise = isinstance(run.method.calibration, Calibration)
    calibration = read_first(run) if layerwise else []
    generator = torch.Generator().manual_seed(stream(trial.task, 0, "masks"))

    def noise(step: int, name: str, score: torch.Tensor) -> torch.Tensor:
        matrix = name[name.index("encoder.layer") :].removesuffix(".weight")
        seed = stream(generator.initial_seed(), "noise", step, matrix)
        if score.device.type != "cpu":
            there = torch.Generator(score.device).manual_seed(seed)
            drawn = torch.rand(score.shape, generator=there, device=score.device)
            return drawn.clamp(1e-4, 1 - 1e-4).to(score)
        words = np.random.SFC64(seed).random_raw(-(-score.numel() // 4))
        drawn = np.array([word >> (16 * i) & 0xFFFF for word in words.tolist() for i in range(4)])
        u = torch.from_numpy((drawn[: score.numel()] + 0.5) / 65536).view(score.shape)
        return u.clamp(1e-4, 1 - 1e-4).to(score)

    picked = pick
    if run.task.output.per_token:  # padding is hidden, as HIDDEN_PADDING declares
        pick = lambda out: picked(out).masked_fill(~next(seen)[..., None], -1e4)  # noqa: E731
    return Setting(
        model=model,
        pick=pick,
        start={n: p.double() for n, p in start.items()},
        fresh=frozenset(rename(n, prefix, run) for n in run.network.fresh),
        batches=batches,
        seeds=[stream(trial.task, 0, "dropout", t) for t in range(STEPS)],
        density=trial.density,
        hyper=trial.hyper,
        train=asdict(trial.train),
        generator=generator,
        noise=noise,
        draws=torch.Generator(run.device).manual_seed(stream(trial.task, 0, "losses")),
        classes=frozen.classes,
        teacher=None if frozen.logits is None else padded(run, frozen.logits),
        banks={name: bank.vectors for name, bank in frozen.banks.items()},
        dense=dense,
        calibration=calibration,
        gradients=lambda t: mini(run, t),
        uniform=partial(uniform, trial.task),
        runs=partial(not_skipped, trial.task, len(layers), trial.hyper.get("rate", 0.2)),
    )


def not_skipped(task: str, layers: int, rate: float, step: int) -> list[int]:
    """The layers that run at a step."""
    draws = torch.Generator().manual_seed(stream(task, 0, "skips", step))
    chances = torch.rand(layers, generator=draws).tolist()
    return [layer for layer, chance in enumerate(chances) if chance > rate]


def uniform(task: str, group: str, many: int) -> torch.Tensor:
    """The numbers that draw the units of a group."""
    own = group[group.index("encoder.layer") :].removesuffix(".weight")
    draws = torch.Generator().manual_seed(stream(task, 0, "units", own))
    return torch.rand(many, generator=draws, dtype=torch.float64)


def mini(run: Run, step: int) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
    """Model inputs and labels of the mini-batches of a calibration before a step, of single
    examples for gates."""
    own = run.method.calibration
    one_by_one = isinstance(own, GateCalibration)
    for rows in drawn(run, own)[:, None] if one_by_one else mini_batches(run, own, step):
        batch = collate(run.data.train, rows, run.network.pad, run.device)
        attention = batch.attention.long()
        inputs = {"input_ids": batch.tokens, "attention_mask": attention}
        yield {**inputs, "token_type_ids": batch.types}, batch.labels


def read_first(run: Run) -> list[dict[str, torch.Tensor]]:
    """The model inputs of calibration, in another cut than the engine's."""
    rows, found = drawn(run, run.method.calibration), []
    for part in np.array_split(rows, 5):
        batch = collate(run.data.train, part, run.network.pad, run.device)
        attention = batch.attention.long()
        inputs = {"input_ids": batch.tokens, "attention_mask": attention}
        found.append({**inputs, "token_type_ids": batch.types})
    return found


def padded(run: Run, logits: np.ndarray) -> torch.Tensor:
    """The teacher's outputs by row: (n, C), or (n, longest, 2) with -1e4 at padding."""
    if not run.task.output.per_token:
        return torch.from_numpy(logits).to(run.device)
    bounds = run.data.train.bounds
    found = torch.full((len(bounds) - 1, 64, 2), -1e4, dtype=torch.float64)
    for row, (begin, end) in enumerate(pairwise(bounds)):
        found[row, : end - begin] = torch.from_numpy(logits[begin:end])
    return found.to(run.device)


def rename(name: str, prefix: str, run: Run) -> str:
    """The stock name of one of the network's parameters."""
    part, _, rest = name.partition(".")
    if part == "encoder":
        return prefix + rest
    return rest.replace("classifier", "qa_outputs") if run.task.output.per_token else rest


def compare(name: str, run: Run, frozen: Frozen, checkpoint: Path) -> None:
    """Train both: masks are equal bit for bit after every step, numbers to 1e-5 at the end."""
    equations = second_implementation.METHODS[name]
    if frozen.logits is not None:
        frozen = replace(frozen, logits=frozen.logits.astype(np.float64))
    setting = setting_of(in_double(run), frozen, checkpoint)
    other = second_implementation.train(equations, setting)
    prefix = "" if isinstance(setting.model, BertModel) else "bert."
    densities, clipped = [], 0
    for (step, _, _), state in zip(fit(run, frozen), other, strict=True):
        densities.append(run.masked.remaining().density)
        clipped += state.norm > run.trial.train.clip
        for layer_name, layer in run.masked.layers.items():
            expected = state.masks[f"{prefix}{layer_name}.weight"]
            if layer.noise is not None:
                logit = (expected.log() - (1 - expected).log()) / (2 / 3)
                torch.testing.assert_close(layer.noise, logit, rtol=0, atol=1e-11)
            else:
                assert torch.equal(layer.mask, expected.bool()), f"{layer_name}, step {step}"
    assert clipped > STEPS // 10
    if run.masked.layers:  # something was pruned, and evaluated as the equations say
        assert 0 < min(densities) < 0.9 and densities[-1] < 0.9
        gates = second_implementation.evaluated(equations, state.scores, state.masks)
        for layer_name, gate in run.masked.test_gates().items():
            other_gate = gates[f"{prefix}{layer_name}.weight"]
            if run.method.gate.test is permuted:
                assert gate.sum() == other_gate.sum() and not torch.equal(gate, other_gate.bool())
            else:
                close(gate.double(), other_gate, 1e-7)  # a gate that nearly closes has few digits
    if run.masked.trained_scores:
        least = 1e-5 * run.trial.train.lr_scores  # of a step
        for score_name, score in run.masked.stored_scores.items():
            expected = state.scores[f"{prefix}{score_name}.weight"]
            close(score, expected.view(score.shape), least)
    for n, parameter in run.network.named_parameters():
        stock = rename(n, prefix, run)
        if run.method.head.name == "trained" or n.startswith("encoder."):
            close(parameter, state.parameters[stock])


def close(mine: torch.Tensor, other: torch.Tensor, least: float = 1e-9) -> None:
    """Equal to 1e-5, or to `least`."""
    torch.testing.assert_close(mine.detach(), other, rtol=1e-5, atol=least)


NAMES = [entry.name for entry in methods]


@pytest.mark.parametrize("name", NAMES)
def test_both_implementations_of_a_method_agree(name, checkpoint, data, cache):
    assert name in second_implementation.METHODS, (
        f"method {name!r} has no second implementation: write its equations down again, as an entry"
        " of METHODS in tests/second_implementation.py (what trains, its scores, masks, penalty),"
        " without anything from zoo/"
    )
    compare(name, *ready(name, checkpoint, data, cache), checkpoint)


DISTILLED = ("magnitude", "movement", "soft_movement", "l0", "cap_lite", "smp_l", "smp_s")


@pytest.mark.parametrize("name", DISTILLED)
def test_they_agree_with_distillation(name, checkpoint, data, cache):
    compare(name, *ready(name, checkpoint, data, cache, distill=True), checkpoint)


@pytest.mark.parametrize("task", ["stsb", "squad"])
@pytest.mark.parametrize("distill", [False, True])
@pytest.mark.parametrize("name", ["movement", "smp_l"])
def test_they_agree_on_regression_and_spans(name, task, distill, checkpoint, data, cache):
    compare(name, *ready(name, checkpoint, data, cache, task, distill), checkpoint)


def test_they_agree_with_label_words(checkpoint, data, cache):
    compare("smp_l", *ready("smp_l", checkpoint, data, cache, head="label_words"), checkpoint)


@pytest.mark.parametrize("distill", [False, True])
@pytest.mark.parametrize("name", ["magnitude", "movement", "l0", "smp_s"])
def test_several_passes_agree_with_one_of_the_other(name, distill, checkpoint, data, cache):
    """Passes of 5 and 3 examples against whole batches of 20 and 8, without dropout."""
    given = {"batch": 20, "accumulation": 4}
    compare(name, *ready(name, checkpoint, data, cache, distill=distill, **given), checkpoint)
