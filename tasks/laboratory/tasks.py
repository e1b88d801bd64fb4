"""The embedded laboratory's three tasks, in the language of tasks/laboratory/language.py.

They mirror MNLI, QQP and SQuAD and follow their recipes. The examples are the same everywhere.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

from tasks.glue import evaluate_classes
from tasks.laboratory import examples
from tasks.squad import encode_spans, evaluate_spans
from tasks.text import encode_text
from zoo import CLASSES, SPAN, Source, Task, register_task

DATA_SEED = 2023
DATA_VERSION = "laboratory 2"
"""Raise it when the examples change; a test compares their digest."""

SIZES = {"train": 6000, "validation": 1000}


@lru_cache
def _examples(task: str) -> dict[str, list[Any]]:
    train, validation = examples.task_data(task, DATA_SEED, SIZES["train"], SIZES["validation"])
    return {"train": list(train), "validation": list(validation)}


def read_pairs(task: str, split: str) -> Mapping[str, Sequence[Any]]:
    """Columns first, second, label."""
    pairs = _examples(task)[split]
    return {
        "first": [" ".join(pair.first) for pair in pairs],
        "second": [" ".join(pair.second) for pair in pairs],
        "label": [pair.label for pair in pairs],
    }


def read_spans(task: str, split: str) -> Mapping[str, Sequence[Any]]:
    """Columns context, question, answers, as SQuAD has them."""
    spans = _examples(task)[split]
    starts = [len(" ".join([*span.context[: span.start], ""])) for span in spans]
    return {
        "context": [" ".join(span.context) for span in spans],
        "question": [" ".join(span.question) for span in spans],
        "answers": [
            {"text": [span.answer], "answer_start": [start]}
            for span, start in zip(spans, starts, strict=True)
        ],
    }


def _locate(task: str, read: Any, data_dir: str | None) -> Source:
    """The examples are generated; the data folder is not used."""
    locations = {split: f"the embedded {task}, {split}" for split in SIZES}
    fingerprint = f"{DATA_VERSION}, {task}"
    return Source("the embedded laboratory", fingerprint, SIZES, locations, partial(read, task))


def _pairs(name: str, labels: tuple[str, ...], metrics: Mapping[str, str]) -> Task:
    return Task(
        name=name,
        output=CLASSES,
        labels=labels,
        words=examples.LABEL_WORDS[name],
        metrics=tuple(metrics),
        train="train",
        evaluation=("validation",),
        official=SIZES,
        locate=partial(_locate, name, read_pairs),
        encode=partial(encode_text, ("first", "second"), "label", range(len(labels))),
        evaluate=partial(evaluate_classes, {"validation": metrics}),
    )


@register_task("tiny_inference", recipes_of="mnli")
def tiny_inference() -> Task:
    """The laboratory's MNLI: does the second sentence follow, 3 classes, 6k; accuracy."""
    return _pairs("tiny_inference", ("entailment", "neutral", "contradiction"), {"acc": "acc"})


@register_task("tiny_paraphrase", recipes_of="qqp")
def tiny_paraphrase() -> Task:
    """The laboratory's QQP: do two questions ask the same, 6k; accuracy / F1."""
    metrics = {"acc": "acc", "f1": "f1"}
    return _pairs("tiny_paraphrase", ("different", "same"), metrics)


@register_task("tiny_span", recipes_of="squad")
def tiny_span() -> Task:
    """The laboratory's SQuAD: which words of the context answer the question, 6k; EM / F1."""
    return Task(
        name="tiny_span",
        output=SPAN,
        labels=(),
        words=examples.LABEL_WORDS["tiny_span"],
        metrics=("em", "f1"),
        train="train",
        evaluation=("validation",),
        official=SIZES,
        locate=partial(_locate, "tiny_span", read_spans),
        encode=encode_spans,
        evaluate=evaluate_spans,
    )
