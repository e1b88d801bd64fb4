"""The eight GLUE tasks of the papers: `nyu-mll/glue` from the hub, or `<data-dir>/glue/<task>`."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from tasks.metrics import compute
from tasks.reading import locate
from zoo.errors import ConfigError
from zoo.registry import register_task
from zoo.task import CLASSES, REGRESSION, Encoded, Output, Scores, Task

VALIDATION = ("validation",)


def encode_text(
    texts: Sequence[str],
    labels: str,
    check: range | None,
    columns: Mapping[str, Sequence[Any]],
    tokenizer: Any,
    max_length: int,
    training: bool,
) -> Encoded:
    """Tokenise one text or a pair, cut to `max_length` tokens; labels must lie in `check`."""
    values = columns[labels]
    for row, value in enumerate(values):
        if value is None or (check is not None and value not in check):
            expected = f"{check.start} to {check.stop - 1}" if check else "a number"
            raise ConfigError(f"column {labels!r}, row {row}: got {value!r}; expected {expected}")
    given = [texts_of(columns, text) for text in texts]
    encoded = tokenizer(*given, truncation=True, max_length=max_length, return_attention_mask=False)
    return pack(encoded, np.asarray(values, dtype=np.int64 if check else np.float32))


def texts_of(columns: Mapping[str, Sequence[Any]], name: str) -> list[str]:
    """A column of texts; raises ConfigError for the first row that is none."""
    for row, text in enumerate(columns[name]):
        if not isinstance(text, str):
            raise ConfigError(f"column {name!r}, row {row}: got {text!r:.80}; expected a text")
    return list(columns[name])


def pack(encoded: Mapping[str, Any], labels: np.ndarray, **more: Any) -> Encoded:
    """A tokeniser's lists as flat arrays."""
    ids = encoded["input_ids"]
    types = encoded.get("token_type_ids") or [[0] * len(one) for one in ids]
    lengths = np.fromiter((len(one) for one in ids), np.int64, len(ids))
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.fromiter((t for one in ids for t in one), np.int32, bounds[-1])
    flat_types = np.fromiter((t for one in types for t in one), np.uint8, bounds[-1])
    return Encoded(tokens, flat_types, bounds, labels, **more)


def score_classes(
    names: Mapping[str, Mapping[str, str]], split: str, logits: Any, encoded: Encoded
) -> Scores:
    """Metrics of the largest logit; `names` maps split -> shown name -> metric."""
    predictions = np.asarray(logits).argmax(-1)
    references = np.asarray(encoded.labels)
    shown = {n: compute(metric, predictions, references) for n, metric in names[split].items()}
    return Scores(shown, predictions == references)


def score_regression(
    names: Mapping[str, Mapping[str, str]], split: str, logits: Any, encoded: Encoded
) -> Scores:
    """Metrics of the one output against the target; no single answer is right or wrong."""
    predictions, references = np.asarray(logits)[:, 0], np.asarray(encoded.labels)
    shown = {n: compute(metric, predictions, references) for n, metric in names[split].items()}
    return Scores(shown, None)


def _glue(
    name: str,
    texts: tuple[str, ...],
    labels: tuple[str, ...],
    words: tuple[str, ...],
    metrics: Mapping[str, Mapping[str, str]],
    sizes: tuple[int, ...],
    output: Output = CLASSES,
) -> Task:
    splits = ("train", *metrics)
    check = range(len(labels)) if labels else None
    score = score_classes if labels else score_regression
    return Task(
        name=name,
        output=output,
        labels=labels,
        words=words,
        metrics=tuple(shown for by_split in metrics.values() for shown in by_split),
        train="train",
        evaluation=tuple(metrics),
        official=dict(zip(splits, sizes, strict=True)),
        locate=partial(locate, "nyu-mll/glue", name, f"glue/{name}", (*texts, "label"), splits),
        encode=partial(encode_text, texts, "label", check),
        score=partial(score, metrics),
    )


ACCURACY = {"validation": {"acc": "acc"}}
ACCURACY_F1 = {"validation": {"acc": "acc", "f1": "f1"}}
YES_NO, NO_YES = ("Yes", "No"), ("No", "Yes")


@register_task("mnli")
def mnli() -> Task:
    """Natural-language inference, 393k; accuracy matched / mismatched (Williams 2018)."""
    metrics = {"validation_matched": {"acc_m": "acc"}, "validation_mismatched": {"acc_mm": "acc"}}
    labels = ("entailment", "neutral", "contradiction")
    words = ("Yes", "Maybe", "No")
    return _glue("mnli", ("premise", "hypothesis"), labels, words, metrics, (392702, 9815, 9832))


@register_task("qqp")
def qqp() -> Task:
    """Duplicate questions, 364k; accuracy / F1."""
    texts, labels = ("question1", "question2"), ("not_duplicate", "duplicate")
    return _glue("qqp", texts, labels, NO_YES, ACCURACY_F1, (363846, 40430))


@register_task("qnli")
def qnli() -> Task:
    """Does the sentence answer the question, 105k; accuracy."""
    texts, labels = ("question", "sentence"), ("entailment", "not_entailment")
    return _glue("qnli", texts, labels, YES_NO, ACCURACY, (104743, 5463))


@register_task("sst2")
def sst2() -> Task:
    """Sentiment of film reviews, 67k; accuracy (Socher 2013)."""
    labels, words = ("negative", "positive"), ("terrible", "great")
    return _glue("sst2", ("sentence",), labels, words, ACCURACY, (67349, 872))


@register_task("mrpc")
def mrpc() -> Task:
    """Paraphrases of news sentences, 3.7k; accuracy / F1 (Dolan and Brockett 2005)."""
    texts, labels = ("sentence1", "sentence2"), ("not_equivalent", "equivalent")
    return _glue("mrpc", texts, labels, NO_YES, ACCURACY_F1, (3668, 408))


@register_task("cola")
def cola() -> Task:
    """Grammatical acceptability, 8.6k; Matthews correlation (Warstadt 2019)."""
    labels, words = ("unacceptable", "acceptable"), ("incorrect", "correct")
    metrics = {"validation": {"mcc": "mcc"}}
    return _glue("cola", ("sentence",), labels, words, metrics, (8551, 1043))


@register_task("stsb")
def stsb() -> Task:
    """Similarity of sentences from 0 to 5, 5.7k; Pearson / Spearman (Cer 2017)."""
    texts, metrics = ("sentence1", "sentence2"), {"pearson": "pearson", "spearman": "spearman"}
    return _glue("stsb", texts, (), ("Yes",), {"validation": metrics}, (5749, 1500), REGRESSION)


@register_task("rte")
def rte() -> Task:
    """Textual entailment, 2.5k; accuracy."""
    texts, labels = ("sentence1", "sentence2"), ("entailment", "not_entailment")
    return _glue("rte", texts, labels, YES_NO, ACCURACY, (2490, 277))
