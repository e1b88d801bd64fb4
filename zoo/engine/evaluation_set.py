"""The evaluation set of a task, for models that are no trial's."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from zoo.engine.frozen import predict
from zoo.inputs.batches import Encoded
from zoo.inputs.checkpoint import Checkpoint
from zoo.inputs.task import Source, Task
from zoo.inputs.tokeniser import load_tokenizer


@dataclass(frozen=True)
class EvaluationSet:
    """The evaluation splits of a task that are there, with at most `length` tokens an example."""

    task: Task
    source: Source
    checkpoint: Checkpoint
    length: int

    @cached_property
    def splits(self) -> Mapping[str, Encoded]:
        """Examples by split, encoded once."""
        tokenizer = load_tokenizer(self.checkpoint)
        there = [split for split in self.task.evaluation if split in self.source.rows]
        encode = self.task.encode
        return {s: encode(self.source.read(s), tokenizer, self.length, False) for s in there}

    def metrics(self, network: Any) -> dict[str, float | None]:
        """The metrics in percent of a Network, or a StockNetwork."""
        found: dict[str, float | None] = {}
        for split, data in self.splits.items():
            logits = predict(network, data)["logits"]
            found |= self.task.evaluate(split, logits, data).metrics
        return found
