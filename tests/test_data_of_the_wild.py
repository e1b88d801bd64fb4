"""Data as people have them: read and right, or one line with file, row and value."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.glue import mnli, sst2, stsb
from tasks.squad import squad
from tests.helpers import write_parquet
from zoo import ConfigError, Task
from zoo.inputs.checkpoint import find_checkpoint
from zoo.inputs.tokenised import TaskData, tokenise
from zoo.inputs.tokeniser import load_tokenizer

CONTEXT = "the old cat runs fast a dog sleeps the dog barks"


def write(folder: Path, columns: dict[str, list[Any]], names: list[str] | None = None) -> None:
    """Write a file of a split, with class names as `datasets` writes them."""
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table(columns)
    if names is not None:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        said = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": said})
    folder.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, folder)


def nli(labels: list[int]) -> dict[str, list[Any]]:
    """Rows of MNLI with these labels."""
    many = len(labels)
    return {"premise": ["a cat"] * many, "hypothesis": ["a dog"] * many, "label": labels}


def tokenised(task: Task, data: Path, checkpoint: Path, max_length: int = 64) -> TaskData:
    """The tokenised splits, as a run has them."""
    source = task.locate(str(data))
    found = find_checkpoint(str(checkpoint))
    return tokenise(task, source, found, max_length, data / "cache")


# Classes ----------------------------------------------------------------------------------------


def test_classes_in_another_order_get_the_numbers_of_the_task(tmp_path, checkpoint):
    theirs = ["contradiction", "Entailment", "neutral"]
    for split in ("train", "validation_matched"):
        write(tmp_path / f"glue/mnli/{split}.parquet", nli([0, 1, 2, 1]), theirs)
    data = tokenised(mnli(), tmp_path, checkpoint)
    expected = [mnli().labels.index(theirs[number].lower()) for number in (0, 1, 2, 1)]
    assert data.train.labels.tolist() == expected == [2, 0, 1, 0]
    assert data.evaluation["validation_matched"].labels.tolist() == expected


def test_every_file_says_for_itself_how_it_numbers_classes(tmp_path, checkpoint):
    write(tmp_path / "glue/mnli/train.parquet", nli([0, 1, 2]), [*reversed(mnli().labels)])
    write(tmp_path / "glue/mnli/validation_matched.parquet", nli([0, 1, 2]), ["0", "1", "2"])
    data = tokenised(mnli(), tmp_path, checkpoint)
    assert data.train.labels.tolist() == [2, 1, 0]
    assert all(part.labels.tolist() == [0, 1, 2] for part in data.evaluation.values())
    write(tmp_path / "glue/mnli/validation_mismatched.parquet", nli([0, 1, 2]))
    message = "train.parquet numbers the classes .* and validation_mismatched.parquet does not say"
    with pytest.raises(ConfigError, match=message):
        mnli().locate(str(tmp_path))


def test_every_shard_says_for_itself(tmp_path, checkpoint):
    ours, theirs = ["negative", "positive"], ["positive", "negative"]
    for number, names in enumerate((theirs, ours)):
        rows = {"sentence": ["a cat"] * 2, "label": [0, 1]}
        write(tmp_path / f"glue/sst2/train-0000{number}-of-00002-0a1b2c.parquet", rows, names)
    write(tmp_path / "glue/sst2/validation.parquet", {"sentence": ["a"], "label": [1]}, theirs)
    data = tokenised(sst2(), tmp_path, checkpoint)
    assert data.train.labels.tolist() == [1, 0, 0, 1]
    assert data.evaluation["validation"].labels.tolist() == [0]


def test_a_file_that_is_damaged_inside_is_named(tmp_path, checkpoint):
    for split in ("train", "validation"):
        rows = {"sentence": [f"a cat {i}" for i in range(999)], "label": [0] * 999}
        write(tmp_path / f"glue/sst2/{split}.parquet", rows)
    file = tmp_path / "glue/sst2/train.parquet"
    content = bytearray(file.read_bytes())
    content[40:400] = b"\xff" * 360
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"train.parquet cannot be read: .*; make it again"):
        tokenised(sst2(), tmp_path, checkpoint)


@pytest.mark.parametrize("names", [["yes", "maybe", "no"], ["entailment", "neutral"], [""] * 3])
def test_unknown_classes_are_refused(names, tmp_path):
    for split in ("train", "validation_matched"):
        write(tmp_path / f"glue/mnli/{split}.parquet", nli([0, 1]), names)
    with pytest.raises(ConfigError, match=r"train.parquet, column 'label' has the classes .*;"):
        mnli().locate(str(tmp_path))


@pytest.mark.parametrize("label", [-1, 2, 0.5, "1", None, float("nan"), float("inf"), [0]])
def test_a_label_that_is_no_class_is_named(label, tmp_path, checkpoint):
    for split in ("train", "validation"):
        labels = [1, None, None] if label is None else [label] * 3
        columns = {"sentence": ["a cat"] * 3, "label": labels}
        write(tmp_path / f"glue/sst2/{split}.parquet", columns)
    with pytest.raises(ConfigError, match=r"train.parquet: column 'label', row [01]: got .*0 to 1"):
        tokenised(sst2(), tmp_path, checkpoint)


# Numbers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [float("nan"), float("inf"), -1.0, 5.2, "a few", None])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_similarity_that_is_no_number_from_0_to_5_is_named(label, split, tmp_path, checkpoint):
    for name in ("train", "validation"):
        labels: list[Any] = [0.0, 5.0, 2.5]
        if name == split:
            labels = ["0", "5", label] if isinstance(label, str) else [0.0, 5.0, label]
        columns = {"sentence1": ["a cat"] * 3, "sentence2": ["a dog"] * 3, "label": labels}
        write(tmp_path / f"glue/stsb/{name}.parquet", columns)
    row = 0 if isinstance(label, str) else 2
    message = rf"{split}.parquet: column 'label', row {row}: got .*; expected a number from 0 to 5"
    with pytest.raises(ConfigError, match=message):
        tokenised(stsb(), tmp_path, checkpoint)


# Questions --------------------------------------------------------------------------------------


def questions(question: str = "a fast dog", **more: list[Any]) -> dict[str, Any]:
    """One row of SQuAD with two answers, of which either may be changed."""
    answers = {"text": ["dog", "cat"], "answer_start": [24, 8]} | more
    return {"context": [CONTEXT], "question": [question], "answers": [answers]}


def write_squad(folder: Path, columns: dict[str, Any], split: str = "train") -> None:
    """Both splits of SQuAD, one of them with these columns."""
    for name in ("train", "validation"):
        write_parquet(folder / f"squad/{name}.parquet", columns if name == split else questions())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"answer_start": [24, 99]}, "answer_start 99 is outside its context of 48 characters"),
        ({"answer_start": [24, -1]}, "expected at least one text with a start"),
        ({"answer_start": [24]}, "expected at least one text with a start"),
        ({"text": ["dog", None]}, "expected at least one text with a start"),
        ({"text": ["dog", ""]}, "expected at least one text with a start"),
        ({"answer_start": [24, 9]}, "1 of 1 answers are not where answer_start says, first row 0"),
    ],
)
def test_every_answer_of_every_question_is_checked(more, message, tmp_path, checkpoint):
    write_squad(tmp_path, questions(**more), "validation")
    with pytest.raises(ConfigError, match=rf"validation.parquet: column 'answers'.*{message}"):
        tokenised(squad(), tmp_path, checkpoint)


def test_a_question_may_be_as_long_as_windows_can_move_on(tmp_path, checkpoint):
    """64 tokens, 3 special ones, 21 that windows share: 39 words are the most."""
    for words, fits in ((39, True), (40, False), (200, False)):
        folder = tmp_path / str(words)
        write_squad(folder, questions(" ".join(["dog"] * words)))
        if fits:
            windows = tokenised(squad(), folder, checkpoint).train
            assert len(windows) == 1 and windows.lengths.tolist() == [39 + 11 + 3]
            continue
        message = (
            rf"train.parquet: column 'question', row 0: 'dog .* has {words} tokens, of which at"
            " most 39 leave room for its context in 64"
        )
        with pytest.raises(ConfigError, match=message):
            tokenised(squad(), folder, checkpoint)


def test_the_longest_question_that_is_refused_nowhere_fits_the_library(checkpoint):
    """By trying all lengths: what passes the check is tokenised, what does not would not be."""
    from tasks.squad import _check_lengths

    tokenizer = load_tokenizer(find_checkpoint(str(checkpoint)))
    for length in (16, 33, 64):
        stride = min(128, length // 3)
        for words in range(1, length + 4):
            question = " ".join(["dog"] * words)
            try:
                tokenizer(
                    question,
                    " ".join([CONTEXT] * 3),
                    truncation="only_second",
                    max_length=length,
                    stride=stride,
                    return_overflowing_tokens=True,
                )
                works = True
            except BaseException as error:  # a panic of Rust among others
                assert not isinstance(error, KeyboardInterrupt)
                works = False
            try:
                _check_lengths([question], tokenizer, length, stride)
                passes = True
            except ConfigError:
                passes = False
            assert passes <= works, (length, words)
            assert works <= passes or words >= length - 3 - stride, (length, words)


# Shards -----------------------------------------------------------------------------------------


def rows(start: int, many: int) -> dict[str, list[Any]]:
    """Rows of SST-2 whose sentences tell them apart."""
    words = ["cat", "dog", "runs", "sleeps", "barks", "fast", "old", "the"]
    numbers = range(start, start + many)
    return {"sentence": [words[i] for i in numbers], "label": [i % 2 for i in numbers]}


def test_shards_as_the_hub_names_them_are_one_split(tmp_path, checkpoint):
    for root, files in (
        (tmp_path / "whole", {"train": rows(0, 8), "validation": rows(0, 2)}),
        (
            tmp_path / "parts",
            {
                "train-00000-of-00003": rows(0, 3),
                "train-00001-of-00003": rows(3, 3),
                "train-00002-of-00003": rows(6, 2),
                "validation-00000-of-00001": rows(0, 2),
            },
        ),
    ):
        for name, columns in files.items():
            write(root / f"glue/sst2/{name}.parquet", columns)
    whole, parts = (tokenised(sst2(), tmp_path / n, checkpoint) for n in ("whole", "parts"))
    assert np.array_equal(whole.train.tokens, parts.train.tokens)
    assert np.array_equal(whole.train.labels, parts.train.labels)
    assert sst2().locate(str(tmp_path / "parts")).rows == {"train": 8, "validation": 2}
    (tmp_path / "parts/glue/sst2/train-00001-of-00003.parquet").unlink()
    with pytest.raises(ConfigError, match="00003 shards are expected, there are 00000, 00002"):
        sst2().locate(str(tmp_path / "parts"))


def test_a_whole_file_beside_shards_is_refused(tmp_path):
    for name in ("train", "train-00000-of-00001", "validation"):
        write(tmp_path / f"glue/sst2/{name}.parquet", rows(0, 2))
    with pytest.raises(ConfigError, match=r"train.parquet and train-00000-of-00001.parquet: which"):
        sst2().locate(str(tmp_path))
