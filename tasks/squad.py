"""SQuAD v1.1 (Rajpurkar 2016): `rajpurkar/squad` from the hub, or `<data-dir>/squad`.

A long context is read in overlapping windows; the best span over all windows of a question is its
answer. The metrics are the official script's exact match (EM) and F1.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from tasks.metrics import answer_exact, answer_f1, compute
from tasks.reading import locate
from tasks.text import flattened, texts_of
from zoo import SPAN, ConfigError, Encoded, Evaluation, Task, register_task

COLUMNS = ("context", "question", "answers")
STRIDE, BEST, LONGEST = 128, 20, 30
"""Tokens that windows share, starts and ends that are combined per window, tokens of the longest
answer."""
MISPLACED = 0.01
"""Largest fraction of answers that are not at their answer_start; other data is refused."""


def encode_spans(
    columns: Mapping[str, Sequence[Any]], tokenizer: Any, max_length: int, training: bool
) -> Encoded:
    """Tokenise questions and contexts in windows. Labels (n, 2) are the first and last token of the
    first answer, both 0 (the first token) where the window does not hold it.

    `arrays` hold each window's `example` and each token's characters in the context, `chars` (sum
    of lengths, 2), -1 outside the context; `texts` holds contexts and answers.
    """
    contexts, questions = texts_of(columns, "context"), texts_of(columns, "question")
    answers = list(columns["answers"])
    questions = [question.lstrip() for question in questions]
    stride = min(STRIDE, max_length // 3)
    _check(contexts, answers)
    _check_lengths(questions, tokenizer, max_length, stride)
    windows = tokenizer(
        questions,
        contexts,
        truncation="only_second",
        max_length=max_length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_attention_mask=False,
    )
    examples = np.asarray(windows["overflow_to_sample_mapping"], dtype=np.int32)
    chars, labels = [], []
    for window, example in enumerate(examples):
        offsets = np.asarray(windows["offset_mapping"][window], dtype=np.int32)
        outside = np.asarray([part != 1 for part in windows.sequence_ids(window)])
        offsets[outside] = -1
        chars.append(offsets)
        labels.append(_token_span(offsets, answers[example]) if training else (0, 0))
    _check_ends(contexts, tokenizer, examples, chars)
    arrays = {"example": examples, "chars": np.concatenate(chars)}
    texts = None if training else {"contexts": contexts, "answers": [a["text"] for a in answers]}
    return flattened(windows, np.asarray(labels, dtype=np.int64), arrays=arrays, texts=texts)


def _check(contexts: Sequence[str], answers: Sequence[Mapping[str, Any]]) -> None:
    """Raise ConfigError unless every answer of every question is a text with a start inside its
    context, and nearly all stand where they are said to."""
    elsewhere: dict[int, None] = {}
    for row, (context, answer) in enumerate(zip(contexts, answers, strict=True)):
        for text, start in _pairs(answer, row):
            if not 0 <= start <= len(context) - len(text):
                raise ConfigError(
                    f"column 'answers', row {row}: answer_start {start} is outside its context of"
                    f" {len(context)} characters"
                )
            if context[start : start + len(text)] != text:
                elsewhere[row] = None
    if len(elsewhere) > MISPLACED * len(answers):
        raise ConfigError(
            f"column 'answers': {len(elsewhere)} of {len(answers)} answers are not where"
            f" answer_start says, first row {next(iter(elsewhere))}"
        )


def _pairs(answer: Any, row: int) -> list[tuple[str, int]]:
    """Texts and starts of a question's answers; raises ConfigError unless there is one, and each
    has both."""
    try:
        texts, starts = list(answer["text"]), list(answer["answer_start"])
        fits = len(texts) == len(starts) > 0
        fits &= all(isinstance(text, str) and text for text in texts)
        fits &= all(isinstance(start, int) and start >= 0 for start in starts)
    except (TypeError, KeyError):
        fits = False
    if not fits:
        raise ConfigError(
            f"column 'answers', row {row}: expected at least one text with a start, as"
            f" {{'text': [...], 'answer_start': [...]}}, got {answer!r:.80}"
        )
    return list(zip(texts, starts, strict=True))


def _check_lengths(questions: Sequence[str], tokenizer: Any, max_length: int, stride: int) -> None:
    """Raise ConfigError for a question beside which a window has no room for more than `stride`
    tokens of its context: windows would not move on."""
    room = max_length - tokenizer.num_special_tokens_to_add(pair=True) - stride
    for row, question in enumerate(questions):
        if len(question.encode()) < room:  # a token has at least one byte
            continue
        tokens = len(tokenizer(question, add_special_tokens=False)["input_ids"])
        if tokens >= room:
            raise ConfigError(
                f"column 'question', row {row}: {question!r:.40} has {tokens} tokens, of which at"
                f" most {room - 1} leave room for its context in {max_length}; shorten it, or raise"
                " max_length"
            )


def _check_ends(
    contexts: Sequence[str], tokenizer: Any, examples: np.ndarray, chars: Sequence[np.ndarray]
) -> None:
    """Raise ConfigError unless the last window of each context reaches its end."""
    ends = {int(example): part[:, 1].max() for example, part in zip(examples, chars, strict=True)}
    for row, end in ends.items():
        rest = contexts[row][end:].strip()
        if rest and tokenizer.tokenize(rest):
            raise ConfigError(
                f"column 'context', row {row}: its windows end before {rest!r:.40}; tokenizers"
                " 0.23.1 and 0.23.2 leave out windows, install 0.23.3"
            )


def _token_span(offsets: np.ndarray, answers: Mapping[str, Any]) -> tuple[int, int]:
    """First and last token that overlap the first answer, or (0, 0) if it is not all inside."""
    first = answers["answer_start"][0]
    last = first + len(answers["text"][0])
    inside = np.flatnonzero(offsets[:, 0] >= 0)
    if not len(inside) or offsets[inside[0], 0] > first or offsets[inside[-1], 1] < last:
        return 0, 0
    start = inside[np.searchsorted(offsets[inside, 0], first, side="right") - 1]
    end = inside[np.searchsorted(offsets[inside, 1], last, side="left")]
    return int(start), int(end)


def evaluate_spans(split: str, logits: Any, encoded: Encoded) -> Evaluation:
    """EM and F1 of the best span per question; `logits` (sum of lengths, 2)."""
    texts = encoded.texts
    predictions = best_spans(np.asarray(logits), encoded, texts["contexts"])
    correct = [answer_exact(p, a) for p, a in zip(predictions, texts["answers"], strict=True)]
    metrics = {
        "em": compute("em", predictions, texts["answers"]),
        "f1": compute("span_f1", predictions, texts["answers"]),
    }
    overlap = [answer_f1(p, a) for p, a in zip(predictions, texts["answers"], strict=True)]
    return Evaluation(metrics, np.asarray(correct, dtype=bool), np.asarray(overlap))


def best_spans(logits: np.ndarray, encoded: Encoded, contexts: Sequence[str]) -> list[str]:
    """The text of each question's best span over all its windows; "" if there is none.

    The best span has the largest start logit + end logit among the BEST best starts and ends of a
    window, has at most LONGEST tokens, and both ends are in the context.
    """
    answers = [""] * len(contexts)
    best = np.full(len(contexts), -np.inf)
    for window, example in enumerate(encoded.arrays["example"]):
        begin, end = encoded.bounds[window], encoded.bounds[window + 1]
        chars = encoded.arrays["chars"][begin:end]
        inside = np.flatnonzero(chars[:, 0] >= 0)
        if not len(inside):
            continue
        starts, ends = (_best(logits[begin:end, side], inside) for side in (0, 1))
        length = ends[None, :] - starts[:, None]
        total = logits[begin + starts, 0][:, None] + logits[begin + ends, 1][None, :]
        total = np.where((length >= 0) & (length < LONGEST), total, -np.inf)
        i, j = np.unravel_index(np.argmax(total), total.shape)
        if total[i, j] > best[example]:
            best[example] = total[i, j]
            answers[example] = contexts[example][chars[starts[i], 0] : chars[ends[j], 1]]
    return answers


def _best(logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """The BEST of the tokens with the largest logits."""
    return tokens[np.argsort(-logits[tokens], kind="stable")[:BEST]]


@register_task("squad")
def squad() -> Task:
    """Answer spans in Wikipedia paragraphs, 88k questions; EM / F1 (Rajpurkar 2016)."""
    return Task(
        name="squad",
        output=SPAN,
        labels=(),
        words=("Yes", "No"),
        metrics=("em", "f1"),
        train="train",
        evaluation=("validation",),
        official={"train": 87599, "validation": 10570},
        locate=partial(locate, "rajpurkar/squad", None, "squad", COLUMNS, ("train", "validation")),
        encode=encode_spans,
        evaluate=evaluate_spans,
    )
