"""Trials and their ids, and the files that hold records."""

import json
import os
from dataclasses import replace

import pytest

from tests.helpers import a_result, a_training, a_trial
from zoo.errors import ConfigError, StorageError
from zoo.records.facts import MethodFacts
from zoo.records.result import Failure, Plan
from zoo.records.storage import (
    Folder,
    load_folder,
    load_result,
    result_path,
    save,
    save_plan,
    write_whole,
)
from zoo.records.trial import Conditions, canonical

# Trials -----------------------------------------------------------------------------------------


def test_the_id_changes_with_everything_that_changes_the_outcome():
    changes = (
        {},
        {"seed": 1},
        {"density": 0.2},
        {"distill": True},
        {"model_sha": "x"},
        {"data_sha": "x"},
        {"recipe": "paper"},
        {"train": a_training(batch=16)},
        {"train": a_training(steps=None, epochs=3)},
        {"train": a_training(max_steps=5)},
        {"train": a_training(precision="bfloat16")},
        {"train": a_training(compile=True)},
        {"hyper": {"start": 0.2}},
        {"teacher": "x"},
        {"plugin_sha": "x"},
        {"scale": "base"},
        {"task": "u"},
        {"method": "l0"},
        {"extra": {"rounds": 2}},
        {"train": a_training(extra={"momentum": 0.5})},
    )
    assert len({a_trial(**change).id for change in changes}) == len(changes)


def test_the_id_does_not_depend_on_names_or_on_the_order_of_hyper_parameters():
    assert a_trial(model="elsewhere/small", data="the hub").id == a_trial().id
    first, second = ({"start": 0.1, "stop": 0.9}, {"stop": 0.9, "start": 0.1})
    assert a_trial(hyper=first).id == a_trial(hyper=second).id
    assert a_trial().id.startswith("t-movement-0.1-seed0-")
    assert a_trial(distill=True).id.startswith("t-movement-0.1-distill-seed0-")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"clip": 0.0}, "clip must be greater than 0, got 0.0"),
        ({"lr_scores": -0.1}, "lr_scores must be at least 0, got -0.1"),
        ({"lr_scores": float("nan")}, "lr_scores must be at least 0, got nan"),
        ({"temperature": 0.0}, "temperature must be greater than 0, got 0.0"),
        ({"warmup": 1.0}, r"warmup must be in \[0, 1\), got 1.0"),
        ({"betas": (0.9, 1.0)}, r"betas must be in \[0, 1\), got \(0.9, 1.0\)"),
        ({"betas": (0.9,)}, r"betas must be two numbers, got \(0.9,\)"),
        ({"steps": None}, "training needs epochs or steps, and has neither"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"max_steps": 0}, "max_steps must be at least 1, got 0"),
        ({"precision": "float16"}, "precision must be float32 or bfloat16, got 'float16'"),
    ],
)
def test_training_values_outside_their_range_are_rejected(change, message):
    with pytest.raises(ConfigError, match=message):
        a_training(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"density": 0.0}, r"density must be in \(0, 1\], got 0.0"),
        ({"density": 10.0}, r"density must be in \(0, 1\], got 10.0"),
        ({"task": "../x"}, "task must be 1 to 64 of a-z, .* got '../x'"),
        ({"method": "<img>"}, "method must be 1 to 64 of a-z"),
        ({"scale": "s" * 65}, "scale must be 1 to 64 of a-z"),
        ({"recipe": ""}, "recipe must be 1 to 64 of a-z"),
    ],
)
def test_a_trial_has_names_that_files_may_have_and_a_density(change, message):
    with pytest.raises(ConfigError, match=message):
        a_trial(**change)


def test_steps_come_from_epochs_unless_steps_are_given():
    by_epochs = a_training(steps=None, epochs=3)
    assert by_epochs.recipe_steps(100) == 3 * 4  # 32, 32, 32 and 4 examples
    assert replace(by_epochs, steps=7).recipe_steps(100) == 7
    assert replace(by_epochs, max_steps=5).planned_steps(100) == 5
    assert replace(by_epochs, max_steps=50).planned_steps(100) == 12


def test_conditions_have_words_and_options_only_where_they_are_not_the_default():
    assert Conditions().words == Conditions().options == []
    changed = Conditions(max_steps=5, precision="bfloat16", compile=True)
    assert changed.words == ["SHORTENED to at most 5 steps", "trained in bfloat16", "compiled"]
    assert changed.options == ["--max-steps", "5", "--precision", "bfloat16", "--compile"]
    assert a_training(max_steps=5, batch=16).conditions == Conditions(max_steps=5)


# Files ------------------------------------------------------------------------------------------


def test_a_saved_result_is_read_back_unchanged(tmp_path):
    result = a_result()
    path = save(result, tmp_path)
    assert path == result_path(result.trial, tmp_path)
    assert load_result(path) == result
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_folder_that_does_not_exist_counts_as_empty(tmp_path):
    assert load_folder(tmp_path / "absent") == Folder()


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
        {"notes": "many"},
        {"status": 1},
    ],
)
def test_a_result_with_a_damaged_part_is_unreadable(tmp_path, damage):
    path = save(a_result(), tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    found = load_folder(tmp_path)
    assert not found.results and [one.path for one in found.unreadable] == [path]
    (name,) = damage
    assert f"ValueError: {name}" in found.unreadable[0].reason


def test_a_result_removes_the_failure_of_its_trial(tmp_path):
    failure = Failure(a_trial(), "it rained", MethodFacts(family="movement"))
    save(failure, tmp_path)
    assert load_folder(tmp_path).failures == [failure]
    save(a_result(), tmp_path)
    found = load_folder(tmp_path)
    assert (len(found.results), found.failures, found.unreadable) == (1, [], [])
    assert not list(tmp_path.glob("*.failed.json"))


def test_a_failure_beside_a_result_does_not_count(tmp_path):
    save(a_result(), tmp_path)
    save(Failure(a_trial(), "an old one"), tmp_path)
    assert load_folder(tmp_path).failures == []


DAMAGE = {
    "empty": lambda text, content: "",
    "cut in half": lambda text, content: text[: len(text) // 2],
    "null": lambda text, content: "null",
    "a list": lambda text, content: "[]",
    "zeros": lambda text, content: "\0" * 100,
    "a later schema": lambda text, content: json.dumps(content | {"schema": 99}),
    "a schema of another type": lambda text, content: json.dumps(content | {"schema": [4]}),
    "without a schema": lambda text, content: json.dumps(without(content, "schema")),
    "without metrics": lambda text, content: json.dumps(without(content, "metrics")),
    "another trial": lambda text, content: json.dumps(
        content | {"trial": content["trial"] | {"seed": 5}}
    ),
    "NaN": lambda text, content: text.replace("80.0", "NaN"),
    "deeply nested": lambda text, content: "[" * 100_000,
}


def without(content: dict, name: str) -> dict:
    """The content of a file without one of its fields."""
    return {key: value for key, value in content.items() if key != name}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_file_is_listed_and_left_as_it_is(tmp_path, case):
    path = save(a_result(), tmp_path)
    good = save(a_result(a_trial(seed=1)), tmp_path)
    text = DAMAGE[case](path.read_text(), json.loads(path.read_text()))
    path.write_text(text)
    found = load_folder(tmp_path)
    assert [result.trial.seed for result in found.results] == [1]
    assert [one.path for one in found.unreadable] == [path]
    assert found.unreadable[0].reason
    assert path.read_text() == text and good.exists()


def test_a_field_that_this_program_does_not_know_is_no_damage(tmp_path):
    path = save(a_result(), tmp_path)
    content = without(json.loads(path.read_text()), "checksum")
    path.write_text(json.dumps(content | {"surprise": 1}))
    (result,) = load_folder(tmp_path).results
    assert result.extra == {"surprise": 1}
    assert json.loads(save(result, tmp_path).read_text())["surprise"] == 1


def test_every_truncation_is_unreadable(tmp_path):
    path = save(a_result(), tmp_path)
    text = path.read_text()
    for length in range(0, len(text), max(len(text) // 60, 1)):
        path.write_text(text[:length])
        found = load_folder(tmp_path)
        assert not found.results and len(found.unreadable) == 1


def test_numbers_that_json_does_not_have_are_refused(tmp_path):
    with pytest.raises(ValueError):
        save(a_result(metrics={"acc": float("nan")}), tmp_path)
    with pytest.raises(ValueError):
        canonical(float("inf"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"cannot write x.json in .*file"):
        write_whole(tmp_path / "file" / "x.json", b"{}")


@pytest.mark.parametrize("call", ["fsync", "replace", "fdopen"])
def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, call):
    path = tmp_path / "x.json"
    write_whole(path, b"old")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(StorageError, match="No space left on device; finished trials are safe"):
        write_whole(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


# Plans ------------------------------------------------------------------------------------------


def test_plans_add_up(tmp_path):
    first, second = a_trial(), a_trial(seed=1)
    facts = {"movement": MethodFacts(family="movement", order=40.0)}
    one = Plan((first,), facts, {"tiny": "a toy"})
    assert save_plan(one, tmp_path) == save_plan(one, tmp_path)
    save_plan(Plan((second, first), facts, {"base": "slow"}), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    found = load_folder(tmp_path)
    assert {trial.id for trial in found.planned} == {first.id, second.id}
    assert found.facts == facts and found.caveats == {"tiny": "a toy", "base": "slow"}
    assert (found.results, found.failures, found.unreadable) == ([], [], [])


def test_the_order_of_trials_does_not_change_the_name_of_a_plan(tmp_path):
    first, second = a_trial(), a_trial(seed=1)
    orders = ((first, second), (second, first))
    paths = {path for trials in orders for path in save_plan(Plan(trials), tmp_path)}
    assert len(paths) == len(list(tmp_path.iterdir())) == 1


def test_a_plan_that_cannot_be_read_is_listed_and_the_others_count(tmp_path):
    (path,) = save_plan(Plan((a_trial(),)), tmp_path)
    save_plan(Plan((a_trial(seed=1),)), tmp_path)
    path.write_text(path.read_text().replace('"seed":0', '"seed":"zero"'))
    found = load_folder(tmp_path)
    assert [trial.seed for trial in found.planned] == [1]
    (one,) = found.unreadable
    assert one.path == path
    assert "trials[0].seed is 'zero', not a whole number" in one.reason


def test_facts_of_a_result_take_precedence_over_those_of_a_plan(tmp_path):
    planned, ran = MethodFacts(label="planned"), MethodFacts(label="ran")
    save_plan(Plan((a_trial(),), {"movement": planned, "l0": planned}), tmp_path)
    save(a_result(facts=ran), tmp_path)
    assert load_folder(tmp_path).facts == {"movement": ran, "l0": planned}
