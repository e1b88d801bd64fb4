"""SQuAD: windows, answer tokens, and the best span over windows."""

from importlib.metadata import version

import numpy as np
import pytest

from tasks.squad import best_spans, encode_spans, evaluate_spans
from zoo import ConfigError
from zoo.inputs.checkpoint import find_checkpoint
from zoo.inputs.tokeniser import load_tokenizer

CONTEXT = (
    "a cat runs fast the old dog barks a cat sleeps the dog runs the old cat barks a dog sleeps"
)
START = CONTEXT.index("old cat")


def columns(text="old cat", start=START, question="  a fast dog"):
    """One question with one answer, in the columns of SQuAD."""
    answers = {"text": [text], "answer_start": [start]}
    return {"context": [CONTEXT], "question": [question], "answers": [answers]}


WINDOWS = pytest.mark.skipif(
    version("tokenizers") in ("0.23.1", "0.23.2"), reason="this tokenizers leaves out windows"
)


@pytest.fixture
def tokenizer(checkpoint):
    """The tokeniser of the small checkpoint."""
    return load_tokenizer(find_checkpoint(str(checkpoint)))


def words(tokenizer, encoded, window):
    """The tokens of a window."""
    part = slice(encoded.bounds[window], encoded.bounds[window + 1])
    return tokenizer.convert_ids_to_tokens(encoded.tokens[part])


def test_the_labels_of_a_window_mark_the_answer(tokenizer):
    encoded = encode_spans(columns(), tokenizer, 64, True)
    assert len(encoded) == 1
    start, end = encoded.labels[0]
    assert words(tokenizer, encoded, 0)[start : end + 1] == ["old", "cat"]


@WINDOWS
def test_windows_without_the_answer_point_at_the_first_token(tokenizer):
    encoded = encode_spans(columns(), tokenizer, 16, True)
    assert len(encoded) > 2
    found = [tuple(label) != (0, 0) for label in encoded.labels]
    assert any(found) and not all(found)
    for window, has in enumerate(found):
        start, end = encoded.labels[window]
        shown = words(tokenizer, encoded, window)
        assert shown[start : end + 1] == (["old", "cat"] if has else ["[CLS]"])


@WINDOWS
def test_windows_together_cover_the_context(tokenizer):
    encoded = encode_spans(columns(), tokenizer, 16, False)
    covered = np.zeros(len(CONTEXT), bool)
    for first, last in encoded.arrays["chars"]:
        if first >= 0:
            covered[first:last] = True
    assert all(covered[i] for i, letter in enumerate(CONTEXT) if letter != " ")
    assert (encoded.lengths <= 16).all()


def test_a_tokeniser_that_leaves_out_windows_is_refused(tokenizer):
    """As tokenizers 0.23.1 and 0.23.2 do. What no token is made of may be left."""
    ends = columns() | {"context": [f"{CONTEXT} \x07"]}
    assert len(encode_spans(ends, tokenizer, 64, True)) == 1

    class Short:
        """Makes windows of the beginning alone."""

        tokenize = tokenizer.tokenize
        num_special_tokens_to_add = tokenizer.num_special_tokens_to_add

        def __call__(self, questions, contexts, **more):
            return tokenizer(questions, [text[:60] for text in contexts], **more)

    with pytest.raises(ConfigError, match="row 0: its windows end before .*install 0.23.3"):
        encode_spans(columns(), Short(), 64, True)


@WINDOWS
def test_perfect_logits_give_the_answer(tokenizer):
    """Although logits outside the context are higher, in one window and in several."""
    for length in (64, 16):
        train = encode_spans(columns(), tokenizer, length, True)
        encoded = encode_spans(columns(), tokenizer, length, False)
        logits = np.zeros((len(encoded.tokens), 2), np.float32)
        logits[encoded.arrays["chars"][:, 0] < 0] = 99
        for window, (start, end) in enumerate(train.labels):
            if (start, end) != (0, 0):
                logits[encoded.bounds[window] + start, 0] = 9
                logits[encoded.bounds[window] + end, 1] = 9
        assert best_spans(logits, encoded, [CONTEXT]) == ["old cat"]
        found = evaluate_spans("validation", logits, encoded)
        assert found.metrics == {"em": 100.0, "f1": 100.0}
        assert found.correct.tolist() == [True]


def test_the_best_span_is_ordered_and_has_at_most_thirty_tokens(tokenizer):
    """The same span as by brute force over all pairs of tokens."""
    long = {
        "context": [" ".join(["cat dog"] * 20)],
        "question": ["a"],
        "answers": columns()["answers"],
    }
    long["answers"][0] = {"text": ["cat"], "answer_start": [0]}
    encoded = encode_spans(long, tokenizer, 64, False)
    rng = np.random.default_rng(0)
    for _ in range(20):
        logits = rng.normal(size=(len(encoded.tokens), 2)).astype(np.float32)
        chars = encoded.arrays["chars"]
        inside = [i for i in range(len(chars)) if chars[i, 0] >= 0]
        pairs = [(i, j) for i in inside for j in inside if i <= j < i + 30]
        i, j = max(pairs, key=lambda pair: logits[pair[0], 0] + logits[pair[1], 1])
        expected = long["context"][0][chars[i, 0] : chars[j, 1]]
        got = best_spans(logits, encoded, long["context"])[0]
        assert len(got.split()) == len(expected.split()) and got == expected


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"text": [], "answer_start": []}, "row 0: expected at least one text"),
        ({"text": ["x"], "answer_start": [9999]}, "answer_start 9999 is outside its context"),
    ],
)
def test_malformed_answers_are_rejected(tokenizer, answers, message):
    with pytest.raises(ConfigError, match=message):
        encode_spans(columns() | {"answers": [answers]}, tokenizer, 64, True)
