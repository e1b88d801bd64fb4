"""A BERT of random weights and sentences of random words, for timing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoo.inputs.kinds import prunable

SIZES = {"tiny": (2, 128, 2, 512), "mini": (4, 256, 4, 1024), "base": (12, 768, 12, 3072)}
"""Layers, hidden size, attention heads and intermediate size."""
VOCABULARY = 30522


@dataclass(frozen=True)
class Geometry:
    """What a step works on: size of the model, examples, tokens of each, target density."""

    size: str
    batch: int
    tokens: int
    density: float


def _config(size: str) -> Any:
    from transformers import BertConfig

    layers, hidden, heads, intermediate = SIZES[size]
    return BertConfig(
        vocab_size=VOCABULARY,
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        intermediate_size=intermediate,
    )


def write_model(folder: Path, size: str) -> None:
    """A BERT of random weights with an MLM head, and its vocabulary."""
    from transformers import BertForMaskedLM, BertTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    BertForMaskedLM(_config(size)).save_pretrained(folder)
    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "great", "terrible"]
    words = [*known, *(f"w{number}" for number in range(VOCABULARY - len(known)))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", "utf-8")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)


def write_data(folder: Path, geometry: Geometry) -> None:
    """Sentences of random words with exactly the tokens of the geometry, in SST-2's columns."""
    import pyarrow
    from pyarrow import parquet

    rng = np.random.default_rng(0)
    (folder / "glue" / "sst2").mkdir(parents=True)
    for split, rows in (("train", 64 * geometry.batch), ("validation", 4 * geometry.batch)):
        words = rng.integers(0, 20000, (rows, geometry.tokens - 2))
        columns = {
            "sentence": [" ".join(f"w{word}" for word in row) for row in words],
            "label": [row % 2 for row in range(rows)],
        }
        path = folder / "glue" / "sst2" / f"{split}.parquet"
        parquet.write_table(pyarrow.table(columns), path)


def random_classifier(size: str, density: float) -> Any:
    """A stock classifier of random weights, of which random masks keep this fraction."""
    from transformers import BertForSequenceClassification

    torch.manual_seed(0)
    model = BertForSequenceClassification(_config(size)).eval()
    with torch.no_grad():
        for linear in prunable(model.base_model).values():
            linear.weight *= torch.rand_like(linear.weight) < density
    return model
