"""The engine against the slow reference: 50 steps in float64, dropout on, everything paired."""

from dataclasses import replace
from inspect import signature
from itertools import pairwise

import numpy as np
import pytest
import torch
from transformers import (
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertModel,
)

from tests import reference
from tests.helpers import write_parquet
from tests.reference import REFERENCES, Setting
from zoo.build import Place, Run, build, stream
from zoo.checkpoint import word_ids
from zoo.plan import Planner
from zoo.registry import methods
from zoo.suites import BASE, Cell
from zoo.task import collate, shuffled
from zoo.train import Frozen, fit, run_trial

STEPS = 50
SHUFFLED = ("smp_s_shuffled",)
OWN = {  # far enough for scores to cross the threshold, and not for all of them
    "soft_movement": {"lr_scores": 0.4, "penalty": 300.0},
    "smp_t": {"lr_scores": 0.4, "penalty": 300.0},
    "l0": {"lr_scores": 0.4, "penalty": 0.3},
    "l0 distilled": {"lr_scores": 0.4, "penalty": 0.03},
    "smp_l_no_penalty": {"clip": 1e-4},  # its gradients are small
}
SMP_BY_KEYWORDS = ("smp_s", "smp_s_shuffled", "smp_g")
GIVEN = {
    "penalty": 30.0,  # within the scores' reach in 50 steps
    "lr_weights": 1e-3,
    "lr_head": 2e-3,
    "lr_scores": 3e-2,
    "clip": 0.02,  # less than most gradients
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
    return tmp_path_factory.mktemp("cache")


def ready(name, checkpoint, data, cache, task="sst2", distill=False, **given) -> tuple[Run, Place]:
    """The engine's run, teachers first."""
    planner = Planner(BASE, "released", str(checkpoint), str(data), max_steps=STEPS)
    place = Place(str(checkpoint), str(data), str(cache), ())
    entry = methods[name]
    takes = "penalty" in signature(entry.make).parameters or name in SMP_BY_KEYWORDS
    values = {k: v for k, v in GIVEN.items() if k != "penalty" or takes} | given
    values |= OWN.get(name, {}) | (OWN.get(f"{name} distilled", {}) if distill else {})
    values |= {"max_length": 32}
    density = 0.3 if entry.facts.get("prunes", True) else 1.0
    cell = Cell(name, task, density, distill, 0, tuple(values.items()))
    *teachers, last = planner.jobs([cell])
    for job in teachers:
        run_trial(job.trial, replace(place, keep_outputs=True))
    trial = replace(last.trial, train={**last.trial.train, "steps": STEPS, "evaluate_every": 1})
    return build(trial, place), place


def in_double(run: Run) -> Run:
    """The same run in float64."""
    run.network.double()
    for layer in run.masked.layers.values():
        layer.working = layer.weight.detach().clone().requires_grad_()
        if hasattr(layer, "score"):
            layer.score = layer.score.double().detach().requires_grad_(layer.score.requires_grad)
    return run


def setting_of(run: Run, frozen: Frozen, checkpoint) -> Setting:
    """The stock model of the run's head at the run's start, and the run's chances."""
    trial, head = run.trial, run.method.head.name
    own = {n: p.detach().clone() for n, p in run.network.named_parameters()}
    prefix, outputs = "bert.", run.task.outputs
    words = list(run.task.words)
    if head == "mlm_label_words":
        model = BertForMaskedLM.from_pretrained(checkpoint, dtype=torch.float32)
        ids = word_ids(*_asked(run, checkpoint), tuple(words))
        at = slice(None) if run.task.output.per_token else 0
        pick = lambda out: out.logits[:, at][..., ids]  # noqa: E731
    elif head == "label_words":
        model = BertModel.from_pretrained(checkpoint, add_pooling_layer=False, dtype=torch.float32)
        ids, prefix = word_ids(*_asked(run, checkpoint), tuple(words)), ""
        table = model.embeddings.word_embeddings.weight.detach().double()
        pick = lambda out: out.last_hidden_state[:, 0] @ table[ids].T  # noqa: E731
    elif run.task.output.per_token:
        model = BertForQuestionAnswering.from_pretrained(checkpoint, dtype=torch.float32)
        pick = lambda out: torch.stack([out.start_logits, out.end_logits], -1)  # noqa: E731
    else:
        model = BertForSequenceClassification.from_pretrained(
            checkpoint, num_labels=outputs, dtype=torch.float32
        )
        pick = lambda out: out.logits  # noqa: E731
    model.double().train()
    own = {rename(n, prefix, run): p for n, p in own.items()}
    start = {n: own.get(n, p.detach().clone()) for n, p in model.named_parameters()}
    rows = shuffled(len(run.data.train), trial.train["batch"], stream(trial.task, 0, "order"))
    batches, hidden = [], []
    for _ in range(STEPS):
        batch = collate(run.data.train, next(rows), run.pad, run.device)
        inputs = {
            "input_ids": batch.tokens,
            "attention_mask": batch.attention.long(),
            "token_type_ids": batch.types,
        }
        labels = batch.labels.double() if batch.labels.is_floating_point() else batch.labels
        batches.append((batch.rows, inputs, labels))
        hidden.append(batch.attention)
    places = iter(hidden)
    picked = pick
    if run.task.output.per_token:  # padding takes no part; the one declared difference
        pick = lambda out: picked(out).masked_fill(~next(places)[..., None], -1e4)  # noqa: E731
    return Setting(
        model=model,
        pick=pick,
        start={n: p.double() for n, p in start.items()},
        fresh=frozenset(rename(n, prefix, run) for n in run.network.fresh),
        batches=batches,
        seeds=[stream(trial.task, 0, "dropout", t) for t in range(STEPS)],
        density=trial.density,
        hyper=trial.hyper,
        train=trial.train,
        generator=torch.Generator().manual_seed(stream(trial.task, 0, "masks")),
        draws=torch.Generator().manual_seed(stream(trial.task, 0, "losses")),
        classes=frozen.classes,
        teacher=None if frozen.logits is None else padded(run, frozen.logits),
        banks={name: bank.vectors for name, bank in frozen.banks.items()},
    )


def padded(run: Run, logits: np.ndarray) -> torch.Tensor:
    """The teacher's outputs by row: (n, C), or (n, longest, 2) with -1e4 at padding."""
    if not run.task.output.per_token:
        return torch.from_numpy(logits)
    bounds = run.data.train.bounds
    found = torch.full((len(bounds) - 1, 64, 2), -1e4, dtype=torch.float64)
    for row, (begin, end) in enumerate(pairwise(bounds)):
        found[row, : end - begin] = torch.from_numpy(logits[begin:end])
    return found


def _asked(run: Run, checkpoint):
    from zoo.checkpoint import find_checkpoint

    return find_checkpoint(str(checkpoint)), run.task.name


def rename(name: str, prefix: str, run: Run) -> str:
    """The stock name of one of the network's parameters."""
    part, _, rest = name.partition(".")
    if part == "encoder":
        return prefix + rest
    return rest.replace("classifier", "qa_outputs") if run.task.output.per_token else rest


def compare(name: str, run: Run, place: Place, checkpoint) -> None:
    """Train both; masks equal bit for bit after every step, numbers to 1e-5 at the end."""
    frozen = Frozen.of(run, place)
    if frozen.logits is not None:
        frozen = replace(frozen, logits=frozen.logits.astype(np.float64))
    setting = setting_of(in_double(run), frozen, checkpoint)
    other = reference.train(REFERENCES[name], setting)
    prefix = "" if isinstance(setting.model, BertModel) else "bert."
    densities, clipped = [], 0
    for (step, _, _), state in zip(fit(run, frozen), other, strict=True):
        densities.append(run.masked.remaining().density)
        clipped += state.norm > run.trial.train["clip"]
        for layer_name, layer in run.masked.layers.items():
            mine = state.masks[f"{prefix}{layer_name}.weight"]
            if layer.noise is not None:
                assert torch.equal(layer.noise, mine), f"noise of {layer_name} after step {step}"
            else:
                assert torch.equal(layer.mask, mine.bool()), f"{layer_name} after step {step}"
    assert clipped > STEPS // 10
    if run.masked.layers:  # something was pruned, and judged with what the equations say
        assert 0 < min(densities) < 0.9 and densities[-1] < 0.9
        expected = reference.evaluated(REFERENCES[name], state.scores, state.masks)
        for layer_name, gate in run.masked.test_gates().items():
            other_gate = expected[f"{prefix}{layer_name}.weight"]
            if name in SHUFFLED:
                assert gate.sum() == other_gate.sum() and not torch.equal(gate, other_gate.bool())
            else:
                close(gate.double(), other_gate)
    if run.masked.trained_scores:
        for layer_name, layer in run.masked.layers.items():
            close(layer.score, state.scores[f"{prefix}{layer_name}.weight"])
    for n, parameter in run.network.named_parameters():
        stock = rename(n, prefix, run)
        if run.method.head.name == "trained" or n.startswith("encoder."):
            close(parameter, state.parameters[stock])


def close(mine: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(mine.detach(), other, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", [entry.name for entry in methods])
def test_engine_and_reference_agree(name, checkpoint, data, cache):
    assert name in REFERENCES, (
        f"method {name!r} has no reference: write its equations down a second time, as an entry of"
        " REFERENCES in tests/reference.py (what trains, its scores, masks, penalty), without"
        " anything from zoo/"
    )
    compare(name, *ready(name, checkpoint, data, cache), checkpoint)


TAUGHT = ("magnitude", "movement", "soft_movement", "l0", "cap_lite", "smp_l", "smp_s")


@pytest.mark.parametrize("name", TAUGHT)
def test_they_agree_with_distillation(name, checkpoint, data, cache):
    compare(name, *ready(name, checkpoint, data, cache, distill=True), checkpoint)


@pytest.mark.parametrize("task", ["stsb", "squad"])
@pytest.mark.parametrize("distill", [False, True])
@pytest.mark.parametrize("name", ["movement", "smp_l"])
def test_they_agree_on_regression_and_spans(name, task, distill, checkpoint, data, cache):
    compare(name, *ready(name, checkpoint, data, cache, task, distill), checkpoint)


def test_they_agree_with_the_head_of_the_text(checkpoint, data, cache):
    compare("smp_l", *ready("smp_l", checkpoint, data, cache, head="label_words"), checkpoint)
