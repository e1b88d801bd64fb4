"""The eight GLUE tasks of the papers: `nyu-mll/glue` from the hub, or `<data-dir>/glue/<task>`."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from tasks.metrics import compute
from tasks.reading import locate
from tasks.text import encode_text
from zoo import CLASSES, REGRESSION, Encoded, Evaluation, Output, Task, register_task


def evaluate_classes(
    names: Mapping[str, Mapping[str, str]], split: str, logits: Any, encoded: Encoded
) -> Evaluation:
    """Metrics of the largest logit; `names` maps split -> shown name -> metric."""
    predictions, labels = np.asarray(logits).argmax(-1), np.asarray(encoded.labels)
    shown = {n: compute(metric, predictions, labels) for n, metric in names[split].items()}
    return Evaluation(shown, predictions == labels, predictions)


def evaluate_regression(
    names: Mapping[str, Mapping[str, str]], split: str, logits: Any, encoded: Encoded
) -> Evaluation:
    """Metrics of the one output against the target; single answers are not right or wrong."""
    predictions, labels = np.asarray(logits)[:, 0], np.asarray(encoded.labels)
    shown = {n: compute(metric, predictions, labels) for n, metric in names[split].items()}
    return Evaluation(shown, None, predictions)


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
    check = range(len(labels)) if labels else SIMILARITY
    evaluate = evaluate_classes if labels else evaluate_regression
    return Task(
        name=name,
        output=output,
        labels=labels,
        words=words,
        metrics=tuple(shown for by_split in metrics.values() for shown in by_split),
        train="train",
        evaluation=tuple(metrics),
        official=dict(zip(splits, sizes, strict=True)),
        locate=partial(
            locate,
            *("nyu-mll/glue", name, f"glue/{name}", (*texts, "label"), splits),
            classes={"label": labels} if labels else {},
        ),
        encode=partial(encode_text, texts, "label", check),
        evaluate=partial(evaluate, metrics),
    )


SIMILARITY = (0.0, 5.0)
"""The range of STS-B's labels."""
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
