"""A trained model as a folder that stock transformers loads, without this project.

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
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from zoo.engine.build import Run
from zoo.engine.cards import card
from zoo.engine.export import export
from zoo.errors import StorageError, TrialError
from zoo.inputs.batches import collate
from zoo.inputs.checkpoint import load_masked_lm
from zoo.inputs.tokeniser import load_tokenizer
from zoo.parts.heads import (
    FirstTokenClassifier,
    LabelWords,
    PooledClassifier,
    PredictionHead,
    TokenClassifier,
)
from zoo.records.codec import to_json
from zoo.records.mask_file import encode
from zoo.records.result import Result

CLASSIFIER, SPANS = "AutoModelForSequenceClassification", "AutoModelForQuestionAnswering"
TOKENS, LANGUAGE, BARE = "AutoModelForTokenClassification", "AutoModelForMaskedLM", "AutoModel"
MASK_FILE = "mask.zmsk"
CLOSE = 1e-4
"""Largest difference of logits between the trial's model and the saved one that is rounding."""
TRAINED = (PooledClassifier, FirstTokenClassifier, PredictionHead, TokenClassifier)


@dataclass(frozen=True)
class Form:
    """How a saved model is loaded and read: its class in transformers, and for label words of a
    language model their numbers."""

    loader: str
    words: tuple[int, ...] = ()


def save_model(run: Run, result: Result, folder: Path) -> Path:
    """Save the model of a trial that has ended in `folder`/ID, whole or not at all, and load it
    again to compare its logits.

    Raises StorageError, and TrialError if the logits differ by more than rounding.
    """
    target = folder / run.trial.id
    half = folder / f".{run.trial.id}.{os.getpid()}"
    try:
        half.mkdir(parents=True, exist_ok=True)
        with torch.no_grad():
            form = _write(run, result, half)
            _compare(run, form, half)
        for file in half.iterdir():
            file.chmod(0o644)  # safetensors writes for its owner alone
        shutil.rmtree(target, ignore_errors=True)
        half.rename(target)
    except OSError as error:
        raise StorageError(f"cannot keep the model in {target}: {error}") from error
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return target


def _write(run: Run, result: Result, folder: Path) -> Form:
    model, form = stock_model(run)
    model.save_pretrained(folder)
    tokenizer = load_tokenizer(run.checkpoint)
    tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names
    tokenizer.save_pretrained(folder)
    if form.loader == BARE:
        save_file(_tensors_of(run.network.head), folder / "head.safetensors")
    masks = {n: (g != 0).cpu().numpy() for n, g in run.masked.test_gates().items()}
    if masks:
        (folder / MASK_FILE).write_bytes(encode(masks, run.trial.model_sha))
    about = {
        "trial": to_json(run.trial),
        "loader": form.loader,
        "label_words": dict(zip(run.task.words, form.words, strict=False)),
        "labels": list(run.task.labels),
        "metrics": dict(result.metrics),
        "remaining": {
            "prunable": result.remaining.density,
            "with_biases_and_norms": result.remaining.encoder_density,
        },
        "digests": dict(result.digests),
        "linear_head": form.loader == BARE and isinstance(run.network.head, LabelWords),
        "has_mask": bool(masks),
        "mask_is_all": result.parameters.values == result.parameters.other == 0,
    }
    (folder / "pruning.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
    (folder / "README.md").write_text(card(about, result), encoding="utf-8")
    return form


def _tensors_of(head: nn.Module) -> dict[str, Tensor]:
    """A head's tensors; of label words the rows and the bias of their last layer."""
    state = dict(head.state_dict())
    if isinstance(head, LabelWords):
        rows, bias = head.matrix()
        state = {"weight": rows, "bias": bias}
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def stock_model(run: Run) -> tuple[Any, Form]:
    """A stock model of transformers on the CPU that computes the trial's logits, and its form."""
    head, network = run.network.head, run.network
    state = {name: tensor.cpu() for name, tensor in export(network.encoder, run.masked).items()}
    if isinstance(head, LabelWords) and not isinstance(head.transform, nn.Identity):
        model = load_masked_lm(run.checkpoint)
        _fill(model.base_model, state)
        return model.eval(), Form(LANGUAGE, tuple(head.words.tolist()))
    kind = _kind(head, run.task.output.per_token, network.architecture.prediction_head)
    config = _config(network.encoder.config, run, kind)
    import transformers

    model = getattr(transformers, kind).from_config(config).float().eval()
    _fill(model.base_model, state)
    if isinstance(head, LabelWords) and kind != BARE:
        rows, bias = head.matrix()
        last = model.qa_outputs if kind == SPANS else model.classifier
        last.load_state_dict({"weight": rows.cpu(), "bias": bias.cpu()})
    elif kind != BARE:
        names = network.architecture.stock_names(per_token=run.task.output.per_token)
        for ours, theirs in names.items():
            part = {n: t.cpu() for n, t in head.get_submodule(ours).state_dict().items()}
            model.get_submodule(theirs).load_state_dict(part)
    return model, Form(kind)


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


def read_logits(form: Form, model: Any, inputs: Mapping[str, Tensor], per_token: bool) -> Tensor:
    """A saved model's logits, as the trial's head gives them."""
    out = model(**inputs)
    if form.loader == SPANS:
        return torch.stack([out.start_logits, out.end_logits], -1)
    if form.loader == LANGUAGE:
        logits = out.logits[..., list(form.words)]
        return logits if per_token else logits[:, 0]
    return out.logits[:, 0] if form.loader == TOKENS else out.logits


def _compare(run: Run, form: Form, folder: Path) -> None:
    """Raise TrialError unless the model in a folder, loaded as anybody would, gives the trial's
    logits for some examples of the evaluation set."""
    if form.loader == BARE:
        return
    import transformers

    model = getattr(transformers, form.loader).from_pretrained(folder).eval().to(run.device)
    data = next(iter(run.data.evaluation.values()))
    batch = collate(data, np.arange(min(8, len(data))), run.network.pad, run.device)
    inputs = run.network.architecture.inputs(batch.tokens, batch.types)
    inputs["attention_mask"] = batch.attention.long()
    per_token = run.task.output.per_token
    run.network.eval()
    with run.masked.evaluating():
        ours = run.network(batch)[0]
    theirs = read_logits(form, model, inputs, per_token)
    seen = batch.attention if per_token else slice(None)
    worst = float((ours - theirs)[seen].abs().max())
    if not worst <= CLOSE:
        raise TrialError(f"the saved model's logits differ by {worst:.2g} from the trial's")
