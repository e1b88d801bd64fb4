"""Small checkpoints, data, trials and results that several tests make."""

from dataclasses import replace
from pathlib import Path

import torch

from zoo.trial import Result, Trial

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
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def save_checkpoint(
    folder: Path, *, mlm: bool = True, words: list[str] | None = None, layers: int = 2
) -> Path:
    """A BERT of 2 layers x 32 with random weights and a whole-word vocabulary."""
    from transformers import BertConfig, BertForMaskedLM, BertModel, BertTokenizer

    vocabulary = [*SPECIAL, *(WORDS if words is None else words)]
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    torch.manual_seed(7)
    model = (BertForMaskedLM if mlm else BertModel)(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # a fresh model's biases are zero and would hide mistakes
            torch.nn.init.normal_(parameter, std=0.1)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


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
    import pyarrow
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(columns), path)


def a_trial(**changes) -> Trial:
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
        train={"batch": 32, "steps": 300},
        hyper={"start": 0.1},
    )
    return replace(base, **changes)


def a_result(trial: Trial | None = None, **changes) -> Result:
    trial = trial or a_trial()
    base = Result(
        trial=trial,
        label=trial.method,
        status="ok",
        metrics={"acc": 80.0 + trial.seed},
        best={"candidates": 1, "step": 300, "acc": 81.0},
        majority={"acc": 50.0},
        curve=[{"step": 300, "level": 0.1, "loss": 0.5, "density": 0.1, "acc": 80.0}],
        remaining={
            "density": trial.density,
            "kept": {"encoder.layer.0.output.dense": 10},
            "total": {"encoder.layer.0.output.dense": 100},
            "heads": {},
        },
        parameters={
            "trainable": 200,
            "values": 10,
            "other": 5,
            "mask_bits": 100,
            "new": 19,
            "artifact_bytes": 73,
        },
        steps={"taken": 300, "planned": 300, "recipe": 300},
        head={"name": "trained", "words": ["Yes"], "labels": []},
        notes=[],
        digests={"masks": "a", "scores": "b", "weights": "c"},
        correct={"validation": "4:8A=="},
        cost={"seconds": 5.0, "evaluation_seconds": 1.0, "peak_bytes": 2**20},
        environment={"packages": {"torch": "2.13.0"}, "device": "cpu x86_64", "threads": 1},
    )
    return replace(base, **changes)
