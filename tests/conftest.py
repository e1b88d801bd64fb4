"""What tests share: a very small checkpoint, small data, and the command line in this process."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import torch

from zoo.registry import BUILT_IN, find_plugin, load_plugin, methods, suites, tasks

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

for name in BUILT_IN:
    load_plugin(find_plugin(name))


@pytest.fixture(autouse=True)
def registries() -> Iterator[None]:
    """What a test registers is gone after it; one thread, as trials have it."""
    torch.set_num_threads(1)
    before = [(registry, dict(registry._entries)) for registry in (methods, tasks, suites)]
    yield
    for registry, entries in before:
        registry._entries = entries


def save_checkpoint(folder: Path, *, mlm: bool = True, words: list[str] | None = None) -> Path:
    """A BERT of 2 layers x 32 with random weights and a whole-word vocabulary."""
    from transformers import BertConfig, BertForMaskedLM, BertModel, BertTokenizer

    vocabulary = [*SPECIAL, *(WORDS if words is None else words)]
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
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


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint with an MLM head."""
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint") / "small")


@pytest.fixture(scope="session")
def headless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint without an MLM head."""
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint") / "headless", mlm=False)


@pytest.fixture
def sst2(tmp_path: Path) -> Path:
    """A data folder with an SST-2 of 48 training and 12 evaluation rows that can be learnt."""
    write_sst2(tmp_path / "data")
    return tmp_path / "data"


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


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Call the command line in this process: (*options) -> exit code, stdout, stderr."""
    from run_benchmark import main

    def call(*options: str, results: Path = tmp_path / "results") -> tuple[int, str, str]:
        code = main([*options, "--results", str(results), "--executor", "inline"])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call
