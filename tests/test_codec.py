"""Records to JSON and back: what may be missing, what is kept, and what is refused."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from tests.helpers import a_remaining, a_result, a_training, a_trial
from zoo.errors import ConfigError
from zoo.records.arrays import Distribution
from zoo.records.codec import Record, from_json, omitted, to_json
from zoo.records.facts import MethodFacts
from zoo.records.result import Divergence, Environment, Failure, Matrix, Plan, Result
from zoo.records.trial import Training, Trial
from zoo.runs.jobs import Job


@dataclass(frozen=True)
class Part(Record):
    """A part of a record."""

    number: float
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Whole(Record):
    """A record with a field of every kind."""

    name: str
    count: int
    part: Part
    parts: tuple[Part, ...] = ()
    by_name: Mapping[str, Part] = field(default_factory=dict)
    score: float | None = None
    flag: bool = False
    added: str = omitted("")

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ConfigError(f"count must be at least 0, got {self.count}")


WHOLE = Whole("a", 2, Part(0.5, ("x",)), (Part(1.0), Part(2.0)), {"p": Part(3.0)}, 4.0, True, "new")


def through_json(record: Record) -> Record:
    """The record after it was written as text and read again."""
    return from_json(type(record), json.loads(json.dumps(to_json(record))))


RECORDS = {
    "a small record": WHOLE,
    "a trial": a_trial(),
    "a trial with conditions": a_trial(train=a_training(max_steps=5, precision="bfloat16")),
    "a result": a_result(),
    "a result that diverged": a_result(
        status="diverged", metrics={"acc": None}, diverged=Divergence(7, "nan")
    ),
    "a result with everything": a_result(
        facts=MethodFacts("L", "movement", 4.0, False, True, True, "penalty"),
        sketch="AAAAAA==",
        distribution=Distribution((-1.0, 1.0), (1, 2), (0, 2), (0.0, 9.0), "AAA="),
        environment=Environment(
            {"torch": "2"}, "cuda H100", 4, "3.13", "abc+", ("-x",), {"a": "b"}
        ),
        notes=("a note",),
    ),
    "a failure": Failure(a_trial(), "out of memory", MethodFacts(order=3.0)),
    "a plan": Plan((a_trial(), a_trial(seed=1)), {"movement": MethodFacts()}),
    "a job": Job(a_trial(), True, {"batch": "a paper"}, MethodFacts()),
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_survives_json(name):
    assert through_json(RECORDS[name]) == RECORDS[name]


def test_a_record_is_written_as_plain_json():
    assert to_json(WHOLE) == {
        "name": "a",
        "count": 2,
        "part": {"number": 0.5, "words": ["x"]},
        "parts": [{"number": 1.0, "words": []}, {"number": 2.0, "words": []}],
        "by_name": {"p": {"number": 3.0, "words": []}},
        "score": 4.0,
        "flag": True,
        "added": "new",
    }


# Fields that come and go ------------------------------------------------------------------------


def test_a_missing_field_gets_its_default():
    content = {"name": "a", "count": 2, "part": {"number": 0.5}}
    assert from_json(Whole, content) == Whole("a", 2, Part(0.5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ...}, "name is missing"),
        ({"part": {"words": []}}, "part.number is missing"),
        ({"parts": [{"number": 1.0}, {}]}, r"parts\[1\].number is missing"),
        ({"by_name": {"p": {}}}, "by_name.p.number is missing"),
    ],
)
def test_a_missing_field_without_a_default_is_named(change, message):
    content = {name: v for name, v in (to_json(WHOLE) | change).items() if v is not ...}
    with pytest.raises(ValueError, match=f"^{message}$"):
        from_json(Whole, content)


def test_fields_of_optional_parts_may_be_missing_from_a_result():
    content = to_json(a_result())
    for name in ("facts", "sketch", "distribution", "diverged", "schema"):
        del content[name]
    for name in ("threads", "python", "git", "options", "sources", "node", "visible_gpus"):
        del content["environment"][name]
    found = from_json(Result, content)
    assert found == a_result(facts=MethodFacts())
    assert found.environment.options == () and found.distribution is None


def test_an_omitted_default_is_not_written():
    assert "added" not in to_json(replace(WHOLE, added=""))
    written = to_json(a_training())
    absent = {"max_steps", "precision", "compile", "epochs"}
    absent |= {"task_weight", "teacher_weight", "temperature"}
    assert not absent & set(written)
    distilled = a_training(max_steps=5, compile=True, task_weight=0.5)
    assert to_json(distilled) == written | {"max_steps": 5, "compile": True, "task_weight": 0.5}


def test_unknown_fields_are_kept_at_every_depth_and_written_again():
    content = to_json(WHOLE) | {"later": [1, {"a": None}]}
    content["part"] |= {"depth": 1}
    content["parts"][1] |= {"depth": 2}
    content["by_name"]["p"] |= {"depth": 3}
    found = from_json(Whole, content)
    assert found.extra == {"later": [1, {"a": None}]}
    assert (found.part.extra, found.parts[1].extra) == ({"depth": 1}, {"depth": 2})
    assert found.by_name["p"].extra == {"depth": 3}
    assert to_json(found) == content


def test_unknown_fields_of_a_result_are_kept_in_all_its_parts():
    content = to_json(a_result())
    parts = ("best", "remaining", "parameters", "steps", "head", "cost", "environment", "facts")
    for part in (content, *(content[name] for name in parts), content["curve"][0]):
        part["later"] = 1
    (matrix,) = content["remaining"]["matrices"].values()
    matrix["later"] = 2
    found = from_json(Result, content)
    assert to_json(found) == content
    assert found.cost.extra == {"later": 1}
    assert found.remaining.matrices["encoder.layer.0.output.dense"].extra == {"later": 2}


def test_unknown_fields_of_a_trial_are_part_of_its_id():
    """They may change the outcome: a later program wrote them."""
    content = to_json(a_trial())
    top = from_json(Trial, content | {"rounds": 3})
    inside = from_json(Trial, content | {"train": content["train"] | {"momentum": 0.9}})
    assert (top.extra, inside.train.extra) == ({"rounds": 3}, {"momentum": 0.9})
    assert len({a_trial().id, top.id, inside.id}) == 3
    assert to_json(top) == content | {"rounds": 3}


# What is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 3}, "name is 3, not a text"),
        ({"name": None}, "name is null, not a text"),
        ({"count": 2.0}, "count is 2.0, not a whole number"),
        ({"count": True}, "count is True, not a whole number"),
        ({"count": "2"}, "count is '2', not a whole number"),
        ({"score": "high"}, "score is 'high', not a number"),
        ({"score": False}, "score is False, not a number"),
        ({"flag": 1}, "flag is 1, not true or false"),
        ({"part": []}, "part is a list, not an object"),
        ({"part": {"number": [1]}}, "part.number is a list, not a number"),
        ({"part": {"number": 1, "words": "x"}}, "part.words is 'x', not a list"),
        ({"part": {"number": 1, "words": ["x", 2]}}, r"part.words\[1\] is 2, not a text"),
        ({"parts": {}}, "parts is an object, not a list"),
        ({"parts": [3]}, r"parts\[0\] is 3, not an object"),
        ({"by_name": []}, "by_name is a list, not an object"),
        ({"by_name": {"p": {"number": None}}}, "by_name.p.number is null, not a number"),
        ({"count": -1}, "count must be at least 0, got -1"),
    ],
)
def test_a_value_of_the_wrong_type_is_named_with_its_path(change, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        from_json(Whole, to_json(WHOLE) | change)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("cost", {"seconds": "long"}, "cost.seconds is 'long', not a number"),
        ("steps", {"taken": 1.5}, "steps.taken is 1.5, not a whole number"),
        ("best", {"metrics": {"acc": "good"}}, "best.metrics.acc is 'good', not a number"),
        ("trial", {"train": {}}, "trial.train.batch is missing"),
        ("trial", {"seed": None}, "trial.seed is null, not a whole number"),
        (
            "cost",
            {"seconds": 10**30},
            "cost.seconds is 1000000000000000000000000000000, not a number",
        ),
        ("steps", {"taken": 2**63}, "steps.taken is 9223372036854775808, not a whole number"),
        (
            "best",
            {"metrics": {"acc": 1e6}},
            "best: acc must be a percentage, from -100 to 100, got 1000000.0",
        ),
        ("environment", {"options": [1]}, r"environment.options\[0\] is 1, not a text"),
        (
            "remaining",
            {"matrices": {"m": {"kept": 1, "total": 2, "layer": 0, "role": 4}}},
            "remaining.matrices.m.role is 4, not a text",
        ),
    ],
)
def test_a_damaged_part_of_a_result_is_named_with_its_path(part, change, message):
    content = to_json(a_result())
    with pytest.raises(ValueError, match=f"^{message}$"):
        from_json(Result, content | {part: content[part] | change})


def test_a_value_that_a_record_refuses_is_named_with_its_path():
    content = to_json(a_trial())
    content["train"]["batch"] = 0
    with pytest.raises(ValueError, match=r"^train: batch must be at least 1, got 0$"):
        from_json(Trial, content)
    with pytest.raises(ValueError, match=r"^it is a list, not an object$"):
        from_json(Trial, [])


def test_a_whole_number_is_taken_for_a_number():
    content = to_json(a_training()) | {"lr_weights": 0, "clip": 1}
    found = from_json(Training, content)
    assert (found.lr_weights, found.clip) == (0, 1)
    assert from_json(Matrix, {"kept": 1, "total": 2, "layer": 0, "role": "Q"}) == Matrix(
        1, 2, 0, "Q"
    )
    assert a_remaining(0.1).matrices["encoder.layer.0.output.dense"].attention_heads == ()


# Bounds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "a" * 10_001}, "name has a length of 10,001, more than 10,000"),
        ({"parts": [{"number": 1.0}] * 2001}, "parts has a length of 2,001, more than 2,000"),
        (
            {"by_name": {f"n{i}": {"number": 1.0} for i in range(2001)}},
            "by_name has a length of 2,001, more than 2,000",
        ),
        (
            {"by_name": {"n" * 201: {"number": 1.0}}},
            "a name in by_name has a length of 201, more than 200",
        ),
        ({"part": {"number": 1.0, "words": ["a" * 10_001]}}, r"part.words\[0\] has a length of"),
        ({"part": {"number": 1e101}}, r"part.number is 1e\+101, not a number"),
        ({"unknown": {"a": ["b" * 10_001]}}, "it.unknown.a has a length of 10,001"),
    ],
)
def test_what_is_too_large_for_what_is_made_of_it_is_refused(change, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        from_json(Whole, to_json(WHOLE) | change)


def test_packed_arrays_and_lists_of_records_may_be_long():
    content = to_json(a_result(correct={"validation": "80000:" + "AAAA" * 3333 + "AA=="}))
    assert from_json(Result, content).correct == content["correct"]
    plan = Plan(tuple(a_trial(seed=seed) for seed in range(2001)))
    assert through_json(plan) == plan
