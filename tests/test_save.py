"""Saved models: loaded by stock transformers, in the form that computes the trial's logits."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from tasks.scales import base
from tests.helpers import CLASSES, save_checkpoint, write_parquet, write_sst2
from tests.test_architecture import CONTEXT
from zoo import Cell
from zoo.engine.build import Resources, build
from zoo.engine.frozen import load_frozen, predict
from zoo.engine.train import fit, run_trial
from zoo.inputs.checkpoint import find_checkpoint
from zoo.inputs.kinds import prunable
from zoo.records.mask_file import decode
from zoo.records.trial import Conditions
from zoo.runs.plan import Planner

KINDS = (*CLASSES, "electra discriminator")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Checkpoints of every kind; rows of SST-2, STS-B, MNLI and SQuAD."""
    folder = tmp_path_factory.mktemp("save")
    for kind in KINDS:
        name, _, discriminates = kind.partition(" ")
        save_checkpoint(folder / kind, kind=name, mlm=not discriminates, weight=0.2)
    write_sst2(folder / "data")
    texts = ["a cat runs", "the old dog", "a fast cat sleeps", "yes"] * 6
    pairs = {"sentence1": texts, "sentence2": texts[::-1], "label": [0.0, 5.0, 2.5, 1.0] * 6}
    nli = {"premise": texts, "hypothesis": texts[::-1], "label": [0, 1, 2] * 8}
    answers = {"text": ["dog"], "answer_start": [24]}
    squad = {"context": [CONTEXT] * 8, "question": texts[:8], "answers": [answers] * 8}
    for split in ("train", "validation"):
        write_parquet(folder / f"data/glue/stsb/{split}.parquet", pairs)
        write_parquet(folder / f"data/squad/{split}.parquet", squad)
    for split in ("train", "validation_matched"):
        write_parquet(folder / f"data/glue/mnli/{split}.parquet", nli)
    return folder


def saved(root: Path, kind: str, method: str, task: str, recipe: str = "released"):
    """A short trial, saved: its run after training, and the folder of its model."""
    data, models = str(root / "data"), str(root / "models")
    planner = Planner(base(), recipe, str(root / kind), data, conditions=Conditions(max_steps=4))
    given = (("batch", 8), ("max_length", 48))
    given += (("penalty", 10.0),) if method == "l0" else ()
    trial = planner.plan(
        Cell(method, task, 0.3 if method != "dense" else 1.0, False, 0, given)
    ).trial
    resources = Resources(str(root / kind), data, str(root / "cache"), models=models)
    result = run_trial(trial, resources)
    run = build(trial, resources)
    list(fit(run, load_frozen(run, root / "cache")))
    return run, result, Path(models) / trial.id


FORMS = {
    ("dense", "sst2"): "AutoModelForSequenceClassification",
    ("movement", "stsb"): "AutoModelForSequenceClassification",
    ("magnitude", "mnli"): "AutoModelForSequenceClassification",
    ("l0", "squad"): "AutoModelForQuestionAnswering",
    ("smp_s", "sst2"): "AutoModelForMaskedLM",
    ("smp_s", "squad"): "AutoModelForMaskedLM",
}


def logits_of(folder: Path, run, max_rows: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the trial's own network, and of the saved model one example at a time, as the
    card's code reads them."""
    about = json.loads((folder / "pruning.json").read_text())
    model = getattr(transformers, about["loader"]).from_pretrained(folder).eval()
    data = next(iter(run.data.evaluation.values()))
    with run.masked.evaluating():
        ours = torch.from_numpy(np.array(predict(run.network, data)["logits"]))
    theirs = []
    for row in range(len(data)):
        at = slice(data.bounds[row], data.bounds[row + 1])
        tokens = torch.from_numpy(data.tokens[at].astype(np.int64))[None]
        inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
        if run.network.architecture.token_types:
            inputs["token_type_ids"] = torch.from_numpy(data.types[at].astype(np.int64))[None]
        with torch.no_grad():
            out = model(**inputs)
        if about["loader"] == "AutoModelForQuestionAnswering":
            logits = torch.stack([out.start_logits[0], out.end_logits[0]], -1)
        elif about["loader"] == "AutoModelForMaskedLM":
            logits = out.logits[0][:, list(about["label_words"].values())]
            logits = logits if run.task.output.per_token else logits[:1]
        elif about["loader"] == "AutoModelForTokenClassification":
            logits = out.logits[0, :1]
        else:
            logits = out.logits
        theirs.append(logits)
    return ours, torch.cat(theirs)


@pytest.mark.parametrize(("method", "task"), FORMS)
def test_stock_transformers_gives_the_trials_logits(root, method, task):
    run, result, folder = saved(root, "bert", method, task)
    about = json.loads((folder / "pruning.json").read_text())
    assert about["loader"] == FORMS[method, task] and about["metrics"] == dict(result.metrics)
    ours, theirs = logits_of(folder, run)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=2e-6)
    weights = load_file(folder / "model.safetensors")
    kept = {n: m.kept for n, m in result.remaining.matrices.items()}
    for name, many in kept.items():
        (tensor,) = [t for n, t in weights.items() if n.endswith(f".{name}.weight")]
        assert int(tensor.count_nonzero()) == many
    assert "from_pretrained" in (folder / "README.md").read_text()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("recipe", "task"), [("released", "sst2"), ("released", "squad"), ("paper", "sst2")]
)
def test_every_kind_of_encoder_and_head_can_be_taken_home(root, kind, task, recipe):
    """smp_l: the masked-LM head with the released recipe, label words' embeddings with the paper's."""
    run, _, folder = saved(root, kind, "smp_l", task, recipe)
    loader = json.loads((folder / "pruning.json").read_text())["loader"]
    if loader == "AutoModel":  # no stock class has the place
        assert kind == "modernbert" and recipe == "paper"
        code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
        assert 'logits = hidden @ head["weight"].T + head["bias"]' in code
        assert set(load_file(folder / "head.safetensors")) == {"weight", "bias"}
        return
    ours, theirs = logits_of(folder, run)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=5e-6)
    label_words = recipe == "paper" or kind == "electra discriminator"
    expected = (
        "AutoModelForQuestionAnswering" if task == "squad" else "AutoModelForTokenClassification"
    )
    assert loader == (expected if label_words else "AutoModelForMaskedLM")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", ["mnli", "squad"])
def test_every_kind_with_a_trained_head(root, kind, task):
    run, _, folder = saved(root, kind, "movement", task)
    ours, theirs = logits_of(folder, run)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=5e-6)
    if task == "mnli":
        config = json.loads((folder / "config.json").read_text())
        assert list(config["id2label"].values()) == list(run.task.labels)


def test_the_mask_and_the_base_model_are_the_model(root):
    """For a method that trains no weight: bit for bit."""
    _, result, folder = saved(root, "bert", "smp_s", "sst2")
    about = json.loads((folder / "pruning.json").read_text())
    assert about["mask_is_all"] and about["digests"] == dict(result.digests)
    found = find_checkpoint(str(root / "bert"))
    model = transformers.AutoModelForMaskedLM.from_pretrained(root / "bert").eval()
    linears = prunable(model.base_model)
    shapes = {name: tuple(linear.weight.shape) for name, linear in linears.items()}
    masks, of = decode((folder / "mask.zmsk").read_bytes(), shapes)
    assert of == found.sha
    for name, linear in linears.items():
        linear.weight.data *= torch.from_numpy(masks[name])
    saved_one = transformers.AutoModelForMaskedLM.from_pretrained(folder)
    for (name, ours), theirs in zip(model.named_parameters(), saved_one.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def test_a_process_that_knows_nothing_of_this_project_loads_it(root):
    """The card's own code, from another folder, with nothing of the checkout on the path."""
    _, _, folder = saved(root, "bert", "movement", "mnli")
    text = (folder / "README.md").read_text()
    code = text.split("```python\n")[1].split("```")[0] + "\nprint(logits.shape)\n"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "torch.Size([1, 3])" in done.stdout


def test_a_saved_model_that_is_another_is_not_kept(root, monkeypatch):
    from zoo import TrialError
    from zoo.engine import save

    real = save.stock_model

    def other(run):
        model, form = real(run)
        model.classifier.bias.data += 1.0
        return model, form

    monkeypatch.setattr(save, "stock_model", other)
    planner = Planner(base(), "released", str(root / "bert"), str(root / "data"))
    planner = replace(planner, conditions=Conditions(max_steps=5))
    trial = planner.plan(Cell("dense", "sst2", 1.0, False, 0, (("batch", 8),))).trial
    resources = Resources(
        str(root / "bert"), str(root / "data"), str(root / "cache"), models=str(root / "other")
    )
    with pytest.raises(TrialError, match="the saved model's logits differ by 1"):
        run_trial(trial, resources)
    assert not list((root / "other").iterdir())
