"""The examples for choosing: a fixed part of the training set, apart from those that judge."""

from dataclasses import replace

import pytest

from tasks.glue import sst2 as sst2_task
from tests.helpers import write_parquet
from zoo import Cell, ConfigError
from zoo.engine.build import build
from zoo.inputs.choosing import MOST, SHARE, for_choosing
from zoo.registry import tasks


def divided(folder, sentences: list[str]) -> tuple[list[str], list[str]]:
    """The two parts of a training set, as they are read."""
    rows = {"sentence": sentences, "label": [i % 2 for i in range(len(sentences))]}
    for split in ("train", "validation"):
        write_parquet(folder / "glue" / "sst2" / f"{split}.parquet", rows)
    task = sst2_task()
    task, source = for_choosing(task, task.locate(str(folder)))
    parts = [list(source.read(split)["sentence"]) for split in (task.train, *task.evaluation)]
    assert [len(part) for part in parts] == list(source.rows.values())
    return parts[0], parts[1]


def test_the_part_follows_from_the_texts_alone(tmp_path):
    texts = [f"text {i}" for i in range(1000)]
    train, chosen = divided(tmp_path / "a", texts)
    again, same = divided(tmp_path / "b", texts[::-1])
    assert set(train) == set(again) and set(chosen) == set(same)
    assert not set(train) & set(chosen) and len(train) + len(chosen) == 1000
    assert abs(len(chosen) / 1000 - SHARE) < 0.05


def test_rows_that_share_their_first_text_stay_together(tmp_path):
    train, chosen = divided(tmp_path, [f"text {i % 100}" for i in range(600)])
    assert not set(train) & set(chosen) and len(chosen) % 6 == 0


def test_of_a_large_set_the_part_is_about_two_thousand_rows(tmp_path):
    _, chosen = divided(tmp_path, [f"text {i}" for i in range(60_000)])
    assert abs(len(chosen) - MOST) < 6 * MOST**0.5


def test_too_few_texts_are_refused_on_one_line(tmp_path):
    with pytest.raises(ConfigError, match="sst2.*too few different texts"):
        divided(tmp_path, ["the same"] * 50)


def rows(table) -> set[tuple[str, ...]]:
    """The texts of every row."""
    columns = [column for column in table.values() if isinstance(column[0], str)]
    return set(zip(*columns, strict=True))


def test_no_example_of_the_evaluation_set_takes_part():
    """In the laboratory and in every trial: another fingerprint, and other examples."""
    for name in ("tiny_inference", "tiny_paraphrase", "tiny_span"):
        task = tasks[name].make()
        source = task.locate(None)
        own, part = for_choosing(task, source)
        assert part.fingerprint != source.fingerprint and own.evaluation == ("validation",)
        whole, judged = source.read("train"), source.read("validation")
        assert rows(part.read("validation")) | rows(part.read("train")) == rows(whole)
        assert not rows(part.read("validation")) & rows(part.read("train"))
        assert not rows(part.read("validation")) & rows(judged)


def test_a_trial_of_a_candidate_trains_without_them_and_is_judged_on_them(planner, resources):
    cell = Cell("magnitude", "sst2", 0.5, False, 0)
    usual = planner.plan(cell).trial
    trial = replace(planner, choosing=True).plan(cell).trial
    assert trial.choosing and trial.id != usual.id
    run, whole = build(trial, resources), build(usual, resources)
    assert len(run.data.train) + len(run.data.evaluation["validation"]) == len(whole.data.train)
    assert len(whole.data.evaluation["validation"]) == 12
