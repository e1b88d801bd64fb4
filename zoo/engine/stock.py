"""Stock models of transformers that compute what trained trials do.

Weights have stock names and shapes, pruned ones are exactly zero, gates are multiplied in. The form
depends on the head:

| head | stock class | logits |
|---|---|---|
| trained | AutoModelForSequenceClassification, AutoModelForQuestionAnswering | its own |
| label words, spans | AutoModelForQuestionAnswering | its own: the words' rows are its last layer |
| label words, classes | AutoModelForTokenClassification | those of the first token |
| masked-LM head | AutoModelForMaskedLM | at the label words' numbers |
| any other | AutoModel, and head.safetensors | by the head's own code |
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.engine.build import Run
from zoo.engine.export import export
from zoo.errors import ConfigError, TrialError, one_line
from zoo.inputs.batches import Batch
from zoo.inputs.checkpoint import load_masked_lm, quiet
from zoo.inputs.kinds import architecture_of
from zoo.parts.heads import (
    FirstTokenClassifier,
    LabelWords,
    PooledClassifier,
    PredictionHead,
    TokenClassifier,
)

CLASSIFIER, SPANS = "AutoModelForSequenceClassification", "AutoModelForQuestionAnswering"
TOKENS, LANGUAGE, BARE = "AutoModelForTokenClassification", "AutoModelForMaskedLM", "AutoModel"
LOADERS = (CLASSIFIER, SPANS, TOKENS, LANGUAGE, BARE)
TRAINED = (PooledClassifier, FirstTokenClassifier, PredictionHead, TokenClassifier)


@dataclass(frozen=True)
class Reading:
    """How a saved model is loaded and read: its class in transformers, whether there are logits at
    every token, and for label words of a language model their numbers."""

    loader: str
    per_token: bool
    words: tuple[int, ...] = ()


def stock_model(run: Run) -> tuple[Any, Reading]:
    """A stock model of transformers on the CPU that computes the trial's logits, and how it
    is read."""
    head, network, per_token = run.network.head, run.network, run.task.output.per_token
    state = {name: tensor.cpu() for name, tensor in export(network.encoder, run.masked).items()}
    if isinstance(head, LabelWords) and not isinstance(head.transform, nn.Identity):
        model = load_masked_lm(run.checkpoint)
        _fill(model.base_model, state)
        return model.eval(), Reading(LANGUAGE, per_token, tuple(head.words.tolist()))
    kind = _kind(head, per_token, network.architecture.prediction_head)
    config = _config(network.encoder.config, run, kind)
    import transformers

    model = getattr(transformers, kind).from_config(config).float().eval()
    _fill(model.base_model, state)
    if isinstance(head, LabelWords) and kind != BARE:
        rows, bias = head.matrix()
        last = model.qa_outputs if kind == SPANS else model.classifier
        last.load_state_dict({"weight": rows.cpu(), "bias": bias.cpu()})
    elif kind != BARE:
        names = network.architecture.stock_names(per_token=per_token)
        for ours, theirs in names.items():
            part = {n: t.cpu() for n, t in head.get_submodule(ours).state_dict().items()}
            model.get_submodule(theirs).load_state_dict(part)
    return model, Reading(kind, per_token)


def _kind(head: nn.Module, per_token: bool, own_head: bool) -> str:
    """The stock class that has the place for a head; AutoModel for a head that none has."""
    if isinstance(head, LabelWords) and not own_head:
        return SPANS if per_token else TOKENS
    if isinstance(head, TRAINED):
        return SPANS if per_token else CLASSIFIER
    return BARE


def _config(config: Any, run: Run, kind: str) -> Any:
    """The encoder's configuration with the task's classes."""
    made = type(config).from_dict(config.to_dict())
    if kind in (CLASSIFIER, TOKENS):
        names = run.task.labels or ("value",)
        made.id2label = dict(enumerate(names))
        made.label2id = {name: number for number, name in enumerate(names)}
        regression = not run.task.labels
        made.problem_type = "regression" if regression else "single_label_classification"
    elif kind == SPANS:
        made.num_labels = 2
    return made


def _fill(encoder: Any, state: Mapping[str, Tensor]) -> None:
    """Load an encoder's weights; a pooler may be on one side alone."""
    missing, extra = encoder.load_state_dict(state, strict=False)
    odd = [name for name in (*missing, *extra) if not name.startswith("pooler.")]
    if odd:
        raise TrialError(f"the stock model has no place for {odd[0]}")


def read_logits(reading: Reading, model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """A saved model's logits, as the trial's head gives them."""
    out = model(**inputs)
    if reading.loader == SPANS:
        return torch.stack([out.start_logits, out.end_logits], -1)
    if reading.loader == LANGUAGE:
        logits = out.logits[..., list(reading.words)]
        return logits if reading.per_token else logits[:, 0]
    return out.logits[:, 0] if reading.loader == TOKENS else out.logits


def outputs_of(model: Any) -> list[str]:
    """The names of what a stock model, or a compact one made of it, returns."""
    kind = type(model).__name__
    if kind.endswith("ForQuestionAnswering"):
        return ["start_logits", "end_logits"]
    return ["logits"] if "For" in kind else ["last_hidden_state"]


class StockNetwork(nn.Module):
    """A stock model, or a compact one made of it, that takes batches as a trial's network does."""

    def __init__(self, model: Any, reading: Reading, pad: int):
        super().__init__()
        self.model, self.reading, self.pad = model, reading, pad
        self.architecture = replace(architecture_of(model.base_model), packs=False)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits, and a representation that is empty."""
        inputs = self.architecture.inputs(batch.tokens, batch.types)
        inputs["attention_mask"] = batch.attention.long()
        logits = read_logits(self.reading, self.model, inputs)
        return logits, logits[:, :0]


ABOUT = "pruning.json"
"""The file of a saved model that says what it is."""


def read_about(folder: Path) -> Mapping[str, Any]:
    """What pruning.json of a saved model says. Raises ConfigError if there is none."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if not isinstance(about, dict):
            raise ValueError(f"{ABOUT} holds no object")
        return about
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder}: not a saved model: {one_line(error, 200)}") from None


def load_stock(folder: Path) -> tuple[Any, Reading, Mapping[str, Any]]:
    """The stock model that was saved in a folder, in evaluation mode, how it is read, and what
    pruning.json says. Raises ConfigError if there is none."""
    import transformers

    quiet()
    about = read_about(folder)
    try:
        words = tuple(about["label_words"].values())
        reading = Reading(about["loader"], bool(about["per_token"]), words)
        if reading.loader not in LOADERS:
            raise ValueError("its class is not known")
        kind = getattr(transformers, reading.loader)
        model = kind.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    except Exception as error:  # transformers raises anything
        raise ConfigError(f"{folder}: not a saved model: {one_line(error, 200)}") from None
    return model.eval(), reading, about
