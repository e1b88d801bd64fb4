"""The contract of a task, run over everything that is registered."""

import runpy
from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest

from methods.published import SMP_STEPS
from tests.helpers import save_checkpoint, write_parquet
from zoo import ConfigError, Source, Task
from zoo.inputs.cache import code_of
from zoo.inputs.checkpoint import Checkpoint, find_checkpoint
from zoo.inputs.task import label_notes
from zoo.inputs.tokenised import tokenise
from zoo.inputs.tokeniser import load_tokenizer, word_ids
from zoo.registry import tasks

ROWS = 12
TASKS = [entry.name for entry in tasks]
REAL = [name for name in TASKS if not name.startswith("tiny_")]


@pytest.fixture(params=TASKS)
def task(request) -> Task:
    """Every registered task in turn."""
    return tasks[request.param].make()


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory) -> Checkpoint:
    """A checkpoint whose tokeniser knows the label words of all tasks."""
    words = {word.lower() for name in TASKS for word in tasks[name].make().words}
    folder = tmp_path_factory.mktemp("vocabulary") / "words"
    return find_checkpoint(str(save_checkpoint(folder, words=[*sorted(words), "cat", "dog"])))


def columns_of(task: Task) -> dict[str, list]:
    """Rows in the layout of the task's data set."""
    if task.output.per_token:
        answers = [{"text": ["dog"], "answer_start": [4]}] * ROWS
        return {"context": ["cat dog cat"] * ROWS, "question": ["dog"] * ROWS, "answers": answers}
    texts, column = task.encode.args[:2]
    labels = [row % len(task.labels) if task.labels else row / 4 for row in range(ROWS)]
    return {text: ["cat dog"] * ROWS for text in texts} | {column: labels}


def write(task: Task, folder) -> None:
    """Write all splits of a task in the layout of a data folder."""
    for split in (task.train, *task.evaluation):
        write_parquet(folder / subfolder(task) / f"{split}.parquet", columns_of(task))


def subfolder(task: Task) -> str:
    """The folder of a task inside a data folder."""
    return task.locate.args[2]


def test_perfect_logits_give_perfect_metrics_and_tokens_are_cached(task, vocabulary, tmp_path):
    if task.name in REAL:
        write(task, tmp_path)
    source = task.locate(str(tmp_path))
    data = tokenise(task, source, vocabulary, 64, tmp_path / "cache")
    assert set(data.evaluation) == set(task.evaluation)
    for split, encoded in data.evaluation.items():
        logits = perfect(task, encoded, vocabulary)
        found = task.evaluate(split, logits, encoded)
        assert set(found.metrics) <= set(task.metrics)
        assert all(value == pytest.approx(100.0) for value in found.metrics.values())
        assert found.correct is None or found.correct.all()
    again = tokenise(task, source, vocabulary, 64, tmp_path / "cache")
    assert np.array_equal(again.train.tokens, data.train.tokens)
    assert isinstance(again.train.tokens, np.memmap)


def test_tokens_are_made_again_when_the_file_that_makes_them_changes(vocabulary, tmp_path):
    """A user edits the tokenising of a task in a plugin: the old tokens must not be read."""
    path = tmp_path / "mine.py"
    lengths = []
    for words in (2, 1):
        path.write_text(
            "from tasks.text import encode_text\n"
            "def encode(columns, *rest):\n"
            f"    cut = [' '.join(text.split()[:{words}]) for text in columns['sentence']]\n"
            "    return encode_text(('sentence',), 'label', range(2), {**columns, 'sentence': cut}, *rest)\n"
        )
        encode = runpy.run_path(str(path))["encode"]
        sst2 = tasks["sst2"].make()
        write(sst2, tmp_path / "data")
        mine = replace(sst2, encode=encode)
        data = tokenise(
            mine, mine.locate(str(tmp_path / "data")), vocabulary, 64, tmp_path / "cache"
        )
        lengths.append(len(data.train.tokens))
    assert lengths[0] > lengths[1]


def perfect(task: Task, encoded, checkpoint) -> np.ndarray:
    """Logits of the right answers."""
    if task.output.per_token:
        logits = np.zeros((len(encoded.tokens), 2), np.float32)
        source = task.locate(None) if task.name not in REAL else None
        columns = source.read("validation") if source else columns_of(task)
        train = task.encode(columns, load_tokenizer(checkpoint), 64, True)
        for window, (start, end) in enumerate(train.labels):
            logits[encoded.bounds[window] + start, 0] = logits[encoded.bounds[window] + end, 1] = 9
        return logits
    if not task.labels:
        return np.asarray(encoded.labels, np.float32)[:, None]
    return np.eye(len(task.labels), dtype=np.float32)[np.asarray(encoded.labels)]


def test_the_parts_of_a_task_are_consistent(task):
    assert task.name in TASKS and tasks[task.name].summary
    assert task.logits == len(task.words)
    assert len(task.words) == (len(task.labels) or (2 if task.output.per_token else 1))
    assert set(task.official) == {task.train, *task.evaluation}
    assert (tasks[task.name].recipe or task.name) in SMP_STEPS


def test_every_label_word_is_a_single_token(task, vocabulary):
    assert len(set(word_ids(vocabulary, task.name, task.words))) == len(task.words)


def test_splits_that_are_not_the_official_ones_are_noted(vocabulary, tmp_path):
    """Smaller ones, and ones that are missing."""
    task = tasks["mnli"].make()
    write(task, tmp_path)
    (tmp_path / "glue" / "mnli" / "validation_mismatched.parquet").unlink()
    source = task.locate(str(tmp_path))
    assert task.notes(source) == [
        "mnli: train has 12 of 392,702 rows",
        "mnli: validation_matched has 12 of 9,815 rows",
        "mnli: no validation_mismatched set here, its metric is missing",
    ]
    assert set(source.locations) == {"train", "validation_matched"}
    found = tokenise(task, source, vocabulary, 64, tmp_path / "cache")
    assert set(found.evaluation) == {"validation_matched"}


def test_class_names_of_a_checkpoint_in_another_order_are_noted(vocabulary):
    sst2 = tasks["sst2"].make()
    for labels in ((), ("negative", "positive"), ("Negative", "Positive"), ("a", "b")):
        assert label_notes(sst2, replace(vocabulary, labels=labels)) == []
    (note,) = label_notes(sst2, replace(vocabulary, labels=("POSITIVE", "NEGATIVE")))
    assert "labels are positive, negative, the data's negative, positive" in note


@pytest.mark.parametrize("name", REAL)
def test_a_missing_training_file_is_named(name, tmp_path):
    with pytest.raises(ConfigError, match=r"train\.parquet is missing; expected parquet with"):
        tasks[name].make().locate(str(tmp_path))


@pytest.mark.parametrize("name", REAL)
def test_every_missing_column_is_named(name, tmp_path):
    task = tasks[name].make()
    for column in columns_of(task):
        write(task, tmp_path)
        columns = columns_of(task)
        del columns[column]
        path = tmp_path / subfolder(task) / f"{task.train}.parquet"
        write_parquet(path, columns)
        with pytest.raises(ConfigError, match=f"has no column '{column}'; expected"):
            task.locate(str(tmp_path))


def test_another_column_is_tokenised_anew(tmp_path, vocabulary):
    """Arguments that a task binds to its `encode` are part of the cache's key."""
    texts = {"sentence": ["cat"] * ROWS, "title": ["dog dog"] * ROWS, "label": [0, 1] * (ROWS // 2)}
    sst2 = tasks["sst2"].make()
    source = Source(
        "s", "x", dict.fromkeys((sst2.train, *sst2.evaluation), ROWS), {}, lambda _: texts
    )
    lengths = []
    for column in ("sentence", "title"):
        encode = partial(sst2.encode.func, (column,), *sst2.encode.args[1:])
        data = tokenise(replace(sst2, encode=encode), source, vocabulary, 16, tmp_path / "cache")
        lengths.append(len(data.train.tokens))
    assert lengths == [3 * ROWS, 4 * ROWS]


def test_code_is_told_apart_by_what_is_bound_to_it():
    """Partials, closures, methods, callable values, decorated functions and functions in C."""

    def made(n):
        return lambda: n

    class Adder:
        def __init__(self, n):
            self.n = n

        def __repr__(self):
            return f"Adder({self.n})"

        def __call__(self):
            return self.n

        def add(self):
            return self.n

    for pair in (
        (partial(made, 1), partial(made, 2)),
        (made(1), made(2)),
        (Adder(1), Adder(2)),
        (Adder(1).add, Adder(2).add),
        (len, max),
        (cache(made), cache(Adder.add)),
    ):
        first, second = map(code_of, pair)
        assert first != second and first == code_of(pair[0])
    typed = {}
    exec(compile("def f(): return 1", "<stdin>", "exec"), typed)
    assert code_of(typed["f"])
