"""Trials, results and their files."""

import json
import os

import pytest

from tests.helpers import a_result, a_trial
from zoo.errors import StorageError
from zoo.trial import (
    Failure,
    canonical,
    load_all,
    load_plans,
    load_result,
    result_path,
    save,
    save_plan,
    write_whole,
)


def test_the_id_is_what_changes_the_outcome():
    ids = {
        a_trial(**change).id
        for change in (
            {},
            {"seed": 1},
            {"density": 0.2},
            {"distill": True},
            {"model_sha": "x"},
            {"data_sha": "x"},
            {"recipe": "paper"},
            {"train": {"batch": 16, "steps": 300}},
            {"hyper": {"start": 0.2}},
            {"teacher": "x"},
            {"plugin_sha": "x"},
            {"scale": "base"},
            {"task": "u"},
            {"method": "l0"},
        )
    }
    assert len(ids) == 14
    assert a_trial(model="elsewhere/small", data="the hub").id == a_trial().id
    assert a_trial(train={"steps": 300, "batch": 32}).id == a_trial().id
    assert a_trial().id.startswith("t-movement-0.1-seed0-")


def test_a_result_comes_back_as_it_was(tmp_path):
    result = a_result()
    path = save(result, tmp_path)
    assert path == result_path(result.trial, tmp_path)
    assert load_result(path) == result
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "damage",
    [
        {"metrics": None},
        {"majority": []},
        {"remaining": {}},
        {"parameters": {"new": 1}},
        {"cost": {}},
        {"environment": {}},
        {"head": {}},
        {"curve": {}},
    ],
)
def test_a_result_with_damaged_parts_is_unreadable(tmp_path, damage):
    path = save(a_result(), tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    results, _, unreadable = load_all(tmp_path)
    assert not results and [one.path for one in unreadable] == [path]


def test_a_result_clears_its_failure(tmp_path):
    save(Failure(a_trial(), "it rained"), tmp_path)
    assert load_all(tmp_path)[1] == [Failure(a_trial(), "it rained")]
    save(a_result(), tmp_path)
    results, failures, unreadable = load_all(tmp_path)
    assert (len(results), failures, unreadable) == (1, [], [])
    assert not list(tmp_path.glob("*.failed.json"))


def test_a_failure_beside_a_result_does_not_count(tmp_path):
    save(a_result(), tmp_path)
    save(Failure(a_trial(), "an old one"), tmp_path)
    assert load_all(tmp_path)[1] == []


def damage(text: str) -> list[str]:
    content = json.loads(text)
    return [
        "",
        text[: len(text) // 2],
        "null",
        "[]",
        "\0" * 100,
        json.dumps(content | {"schema": 99}),
        json.dumps({k: v for k, v in content.items() if k != "metrics"}),
        json.dumps(content | {"surprise": 1}),
        json.dumps(content | {"trial": content["trial"] | {"seed": 5}}),
        "[" * 100_000,
    ]


@pytest.mark.parametrize("case", range(10))
def test_what_cannot_be_read_is_listed_and_left_alone(tmp_path, case):
    path = save(a_result(), tmp_path)
    good = save(a_result(a_trial(seed=1)), tmp_path)
    text = damage(path.read_text())[case]
    path.write_text(text)
    results, _, unreadable = load_all(tmp_path)
    assert [r.trial.seed for r in results] == [1]
    assert [u.path for u in unreadable] == [path]
    assert unreadable[0].reason
    assert path.read_text() == text and good.exists()


def test_every_truncation_is_unreadable(tmp_path):
    path = save(a_result(), tmp_path)
    text = path.read_text()
    for length in range(0, len(text), max(len(text) // 60, 1)):
        path.write_text(text[:length])
        results, _, unreadable = load_all(tmp_path)
        assert not results and len(unreadable) == 1


def test_numbers_that_json_has_not_are_refused(tmp_path):
    with pytest.raises(ValueError):
        save(a_result(metrics={"acc": float("nan")}), tmp_path)
    with pytest.raises(ValueError):
        canonical(float("inf"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write x.json in .*file"):
        write_whole(tmp_path / "file" / "x.json", b"{}")


@pytest.mark.parametrize("call", ["fsync", "replace", "fdopen"])
def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, call):
    path = tmp_path / "x.json"
    write_whole(path, b"old")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(StorageError, match="No space left on device; what was finished is safe"):
        write_whole(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_plans_add_up(tmp_path):
    first, second = a_trial(), a_trial(seed=1)
    assert save_plan([first], tmp_path) == save_plan([first], tmp_path)
    save_plan([second, first], tmp_path)
    trials, unreadable = load_plans(tmp_path)
    assert {t.id for t in trials} == {first.id, second.id}
    assert unreadable == []
    assert len(list(tmp_path.iterdir())) == 2
    assert load_all(tmp_path) == ([], [], [])
