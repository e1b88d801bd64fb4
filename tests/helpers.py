"""Small checkpoints, data, trials, results and processes that several tests make."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.tokenisers import tokeniser_of
from zoo.engine.build import Run
from zoo.parts.recipes import Request
from zoo.parts.schedules import Schedule
from zoo.records.facts import MethodFacts
from zoo.records.result import (
    Best,
    Cost,
    Environment,
    HeadFacts,
    Matrix,
    Parameters,
    Point,
    Remaining,
    Result,
    Steps,
)
from zoo.records.trial import Training, Trial
from zoo.registry import methods
from zoo.runs.values import recipe_of

ROOT = Path(__file__).resolve().parent.parent
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]

WORDS = [
    "yes",
    "no",
    "maybe",
    "great",
    "terrible",
    "correct",
    "incorrect",
    "a",
    "the",
    "cat",
    "dog",
    "runs",
    "sleeps",
    "barks",
    "fast",
    "old",
]


def save_checkpoint(
    folder: Path,
    *,
    kind: str = "bert",
    mlm: bool = True,
    words: list[str] | None = None,
    layers: int = 2,
    embedding: int = 32,
    weight: float | None = None,
    bias: float = 0.1,
) -> Path:
    """A model of `layers` x 32 with random weights and a whole-word vocabulary.

    `mlm` asks for an MLM head; without one an ELECTRA is a discriminator, the others bare encoders.
    `embedding` is the width of ELECTRA's embeddings. `weight` is the standard deviation of all
    matrices, if they are not to be as small as in a fresh model; `bias` is that of all biases,
    which are zero in a fresh model and would hide mistakes.
    """
    words = WORDS if words is None else words
    tokenizer = tokeniser_of(kind, words, folder)
    torch.manual_seed(7)
    model = random_model(kind, mlm, tokenizer, layers, embedding)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=bias)
        elif weight is not None and parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=weight)
    model.save_pretrained(folder)
    return folder


CLASSES = {
    "bert": "Bert",
    "roberta": "Roberta",
    "distilbert": "DistilBert",
    "electra": "Electra",
    "xlm-roberta": "XLMRoberta",
    "camembert": "Camembert",
    "mpnet": "MPNet",
    "deberta-v2": "DebertaV2",
    "modernbert": "ModernBert",
}
"""How the names of the stock classes begin."""
OWN_OPTIONS: dict[str, dict[str, Any]] = {
    "roberta": {"type_vocab_size": 1},
    "xlm-roberta": {"type_vocab_size": 1},
    "camembert": {"type_vocab_size": 1},
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "position_biased_input": False,
        "pooler_hidden_size": 32,
        "type_vocab_size": 0,
    },
    "modernbert": {"global_attn_every_n_layers": 2, "local_attention": 8},
}
"""Entries of a configuration beside its sizes, as the hub's checkpoints have them."""


def random_model(kind: str, mlm: bool, tokenizer: Any, layers: int, embedding: int) -> Any:
    """A stock model with random weights: 4 attention heads, 32 wide, 64 inside."""
    import transformers as stock

    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if kind == "distilbert":
        names = {"hidden_size": "dim", "num_hidden_layers": "n_layers"}
        names |= {"num_attention_heads": "n_heads", "intermediate_size": "hidden_dim"}
        sizes = {names.get(name, name): value for name, value in sizes.items()}
    if kind == "electra":
        sizes["embedding_size"] = embedding
    begin = CLASSES[kind]
    config = getattr(stock, f"{begin}Config")(**sizes, **OWN_OPTIONS.get(kind, {}))
    bare = "ForPreTraining" if kind == "electra" else "Model"
    return getattr(stock, begin + ("ForMaskedLM" if mlm else bare))(config)


def write_sst2(folder: Path, **columns: list[object]) -> None:
    """Write `glue/sst2`; columns given replace the default ones in both splits."""
    for split, rows in (("train", 48), ("validation", 12)):
        labels = [row % 2 for row in range(rows)]
        sentences = [
            ("great " if label else "terrible ") + WORDS[7 + row % 8]
            for row, label in enumerate(labels)
        ]
        table = {"sentence": sentences, "label": labels} | columns
        write_parquet(folder / "glue" / "sst2" / f"{split}.parquet", table)


def write_parquet(path: Path, columns: dict[str, list[object]]) -> None:
    """Write a table of columns, and the folders above it."""
    import pyarrow
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(columns), path)


def a_training(**changes: Any) -> Training:
    """Values to train with: 300 steps of 32 examples."""
    base = Training(
        batch=32,
        steps=300,
        warmup=0.1,
        lr_weights=3e-5,
        lr_head=3e-5,
        lr_scores=1e-2,
        max_length=128,
        clip=1.0,
        betas=(0.9, 0.999),
        epsilon=1e-8,
        weight_decay=0.0,
        evaluate_every=100,
    )
    return replace(base, **changes)


def a_trial(**changes: Any) -> Trial:
    """A trial of movement at 10 % on a task named "t"."""
    base = Trial(
        scale="tiny",
        model="small",
        model_sha="m" * 64,
        task="t",
        data="local files",
        data_sha="d" * 64,
        method="movement",
        density=0.1,
        distill=False,
        seed=0,
        recipe="released",
        train=a_training(),
        hyper={"start": 0.1},
    )
    return replace(base, **changes)


def a_result(trial: Trial | None = None, **changes: Any) -> Result:
    """What a trial gave: 80 % accuracy and one point more per seed, with one pruned matrix and one
    evaluation, of what the changes say."""
    trial = trial or a_trial()
    metrics = {"acc": 80.0 + trial.seed}
    base = Result(
        trial=trial,
        facts=methods[trial.method].facts if trial.method in methods else MethodFacts(),
        status="ok",
        metrics=metrics,
        best=Best(candidates=1, step=300, metrics=metrics),
        majority={"acc": 50.0},
        curve=(),
        remaining=a_remaining(trial.density),
        parameters=Parameters(
            trainable=200, values=10, other=5, mask_bits=100, new=19, artifact_bytes=73
        ),
        steps=Steps(taken=300, planned=300, recipe=300),
        head=HeadFacts("trained", words=("Yes",)),
        notes=(),
        digests={"masks": "a", "scores": "b", "weights": "c"},
        correct={},
        cost=Cost(seconds=5.0, evaluation_seconds=1.0, peak_bytes=2**20),
        environment=Environment(packages={"torch": "2.13.0"}, device="cpu x86_64", threads=1),
    )
    made = replace(base, **changes)
    step, kept = made.steps.taken, made.remaining.density
    last = Point(step, level=0.1, loss=0.5, remaining=kept, metrics=made.metrics)
    best = Best(candidates=1, step=step, metrics=made.metrics)
    return replace(made, **{"curve": (last,), "best": best} | changes)


def a_remaining(density: float) -> Remaining:
    """Remaining weights of this density to five digits, with one matrix."""
    matrix = Matrix(kept=round(density * 100_000), total=100_000, layer=0, role="D")
    matrices = {"encoder.layer.0.output.dense": matrix}
    return Remaining(density, encoder_density=density, matrices=matrices)


def command(results: str, *options: str) -> list[str]:
    """The command line of a suite on the checkpoint "small" and on "data"."""
    return [
        *(sys.executable, str(ROOT / "run_benchmark.py"), "--suite", "smoke"),
        *("--model", "small", "--data-dir", "data", "--tasks", "sst2", "--results", results),
        *options,
    ]


def start_command(
    folder: Path, results: str, *options: str, **environment: str
) -> subprocess.Popen[str]:
    """Run that command line in a folder, as a process of its own."""
    return subprocess.Popen(
        command(results, *options),
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str], code: int = 0) -> str:
    """Wait for a process with this exit code; returns what it printed."""
    out, err = process.communicate(timeout=480)
    assert process.returncode == code, out + err
    return out


def results_of(folder: Path) -> dict[str, dict[str, Any]]:
    """The results on SST-2 in a suite's folder by the names of their files."""
    return {
        path.name: json.loads(path.read_text())
        for path in folder.glob("sst2-*.json")
        if not path.name.endswith(".failed.json")
    }


def given_for(
    name: str, penalty: float = 100.0, *, retrain: bool = True
) -> tuple[tuple[str, Any], ...]:
    """What a method must be given so that it trains, and in a short time: a penalty where that
    decides how much remains, retraining where it prunes at once, few gradients of calibration."""
    entry, given = methods[name], {}
    _, hyper = recipe_of(entry)[1](Request("released", "sst2", 0.3))
    if entry.facts.drives == "penalty":
        given["penalty"] = penalty
    if retrain and entry.may_retrain:
        given["retrain"] = True
    if "gradients" in hyper and entry.takes("gradients"):
        given["gradients"] = 4
    return tuple(given.items())


def now_and_then(schedule: Schedule, period: int) -> Schedule:
    """A schedule that gives another one's level every `period` steps and at the end, else None."""
    return lambda step, total: (
        schedule(step, total) if step % period == 0 or step == total else None
    )


def in_double(run: Run) -> Run:
    """The same run in float64, with labels that are numbers too."""
    run.network.double()
    if run.data.train.labels.dtype.kind == "f":
        train = replace(run.data.train, labels=run.data.train.labels.astype(np.float64))
        run.data = replace(run.data, train=train)
    for layer in run.masked.layers.values():
        layer.working = layer.weight.detach().clone().requires_grad_()
        if hasattr(layer, "score"):
            layer.score = layer.score.double().detach().requires_grad_(layer.score.requires_grad)
    if run.masked.groups is not None:
        for name, score in run.masked.groups.stored.items():
            own = score.double().detach().requires_grad_(score.requires_grad)
            run.masked.groups.stored[name] = own
    return run


def without_dropout(module: Any) -> Any:
    """The same module without dropout."""
    for part in module.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    return module
