"""Files of earlier schemas, and the project's own results: all are readable and keep their ids."""

import csv
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from tasks.scales import tiny
from zoo.records.earlier import METHODS_FILE, facts_of_schema_3, from_schema_3, plan_of_schema_3
from zoo.records.facts import MethodFacts
from zoo.records.reading import PLAN, plan_name
from zoo.records.result import Failure, Result
from zoo.records.storage import Folder, load, load_folder, load_result
from zoo.records.trial import canonical
from zoo.registry import methods

OLD = Path(__file__).parent / "fixtures" / "schema_3"
"""Two results of the laboratory's first version."""
RUNS = Path(__file__).resolve().parent.parent / "docs" / "runs"
FOLDERS = sorted({path.parent for path in RUNS.rglob(f"{PLAN}*.json")})


@cache
def loaded(folder: Path) -> Folder:
    """The records of a folder, read once."""
    return load_folder(folder)


def raw(path: Path) -> dict:
    """The content of a file as it was written."""
    return json.loads(path.read_text())


def results_of(folder: Path) -> list[Path]:
    """The result files of a folder."""
    return [path for path in sorted(folder.glob("*.json")) if not path.name.startswith(PLAN)]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_committed_file_is_readable(folder):
    found = loaded(folder)
    assert (found.unreadable, found.failures) == ([], [])
    assert len(found.results) == len(results_of(folder)) > 0


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_committed_result_was_planned(folder):
    """Plans are older than results: equal ids in both mean that ids have not changed."""
    found = loaded(folder)
    assert {result.trial.id for result in found.results} <= {trial.id for trial in found.planned}


def one_per_kind() -> dict[str, Path]:
    """One committed result of each method, with and without distillation, and of each condition."""
    found: dict[str, Path] = {}
    for folder in FOLDERS:
        for result in loaded(folder).results:
            trial = result.trial
            kind = [trial.scale, trial.method] + ["distilled"] * trial.distill
            kind += trial.train.conditions.words
            found.setdefault(", ".join(kind), folder / f"{trial.id}.json")
    return found


KINDS = one_per_kind()


@pytest.mark.parametrize("kind", KINDS)
def test_ids_of_committed_trials_have_not_changed(kind):
    """The file's name is the id that an earlier program gave."""
    path = KINDS[kind]
    assert load_result(path).trial.id == path.stem


def test_a_converted_result_holds_what_the_file_says():
    """Every part against the raw JSON, in a file with masks, attention heads and distillation."""
    path = next(p for p in results_of(OLD) if p.name.startswith("tiny_span-smp_s-0.1-distill"))
    old, new = raw(path), load_result(path)
    assert old["schema"] == 3 and new.schema == 4 and new.whole_data

    best = {name: old["best"][name] for name in ("em", "f1")}
    assert (new.best.candidates, new.best.step) == (old["best"]["candidates"], old["best"]["step"])
    assert new.best.metrics == best
    assert len(new.curve) == len(old["curve"]) > 1
    for point, before in zip(new.curve, old["curve"], strict=True):
        assert vars(point) == {
            "extra": {},
            "step": before["step"],
            "level": before["level"],
            "loss": before["loss"],
            "remaining": before["density"],
            "metrics": {"em": before["em"], "f1": before["f1"]},
        }

    assert new.remaining.density == old["remaining"]["density"]
    assert new.remaining.encoder_density == old["remaining"]["encoder_density"]
    assert list(new.remaining.matrices) == list(old["remaining"]["total"])
    for name, matrix in new.remaining.matrices.items():
        assert matrix.kept == old["remaining"]["kept"][name]
        assert matrix.total == old["remaining"]["total"][name]
        assert list(matrix.attention_heads) == old["remaining"]["heads"].get(name, [])
    by_name = {n: (m.layer, m.role) for n, m in new.remaining.matrices.items()}
    assert by_name["encoder.layer.0.attention.self.query"] == (0, "Q")
    assert by_name["encoder.layer.1.attention.self.key"] == (1, "K")
    assert by_name["encoder.layer.2.attention.self.value"] == (2, "V")
    assert by_name["encoder.layer.0.attention.output.dense"] == (0, "O")
    assert by_name["encoder.layer.1.intermediate.dense"] == (1, "U")
    assert by_name["encoder.layer.2.output.dense"] == (2, "D")
    assert len(by_name) == 18
    heads = new.remaining.matrices["encoder.layer.0.attention.self.query"].attention_heads
    assert len(heads) == 4

    facts = MethodFacts(old["label"], family="static model pruning", order=63.0)
    assert new.facts == facts and new.extra == {}
    for name in ("metrics", "majority", "digests", "correct", "sketch", "status"):
        assert getattr(new, name) == old[name]
    assert new.cost.seconds == old["cost"]["seconds"]
    assert new.environment.sources == old["environment"]["sources"]
    assert list(new.head.words) == old["head"]["words"]
    assert new.steps.recipe == old["steps"]["recipe"]
    assert list(new.distribution.all) == old["distribution"]["all"]
    assert new.trial.train.batch == old["trial"]["train"]["batch"]
    assert dict(new.trial.hyper) == old["trial"]["hyper"]


def test_a_converted_result_without_masks_has_no_distribution_and_no_attention_heads():
    path = next(p for p in results_of(OLD) if p.name.startswith("tiny_span-dense-"))
    assert raw(path)["distribution"] == {} and raw(path)["remaining"]["heads"] == {}
    found = load_result(path)
    assert found.distribution is None and found.sketch == ""
    assert all(matrix.attention_heads == () for matrix in found.remaining.matrices.values())
    assert found.facts.teaches and found.facts.control and not found.facts.prunes


def test_the_first_results_of_schema_3_lack_the_encoder_density():
    content = raw(results_of(OLD)[0])
    assert content["schema"] == 3
    del content["remaining"]["encoder_density"]
    assert from_schema_3(content)["remaining"]["encoder_density"] == content["remaining"]["density"]


def test_an_unknown_matrix_of_schema_3_is_named():
    content = raw(results_of(OLD)[0])
    content["remaining"]["total"]["transformer.layer.0.ffn.lin1"] = 1
    with pytest.raises(ValueError, match=r"the matrix 'transformer.layer.0.ffn.lin1', unknown to"):
        from_schema_3(content)


def test_a_failure_of_schema_3_is_readable(tmp_path):
    path = next(iter(KINDS.values()))
    content = {"trial": raw(path)["trial"], "reason": "out of memory", "schema": 3}
    failed = tmp_path / f"{path.stem}.failed.json"
    failed.write_text(json.dumps(content))
    found = load(failed)
    assert isinstance(found, Failure) and found.reason == "out of memory"
    assert found.facts == MethodFacts(**facts_of_schema_3(found.trial.method))


def test_a_plan_of_schema_3_is_a_list_and_readable(tmp_path):
    trials = [raw(path)["trial"] for path in KINDS.values()]
    (tmp_path / plan_name(canonical(trials))).write_text(canonical(trials))
    found = load_folder(tmp_path)
    assert found.unreadable == []
    assert {trial.id for trial in found.planned} == {path.stem for path in KINDS.values()}
    assert set(found.facts) == {trial["method"] for trial in trials}
    assert found.facts["dense"].teaches
    assert plan_of_schema_3(trials)["schema"] == 4
    committed = [raw(path) for folder in FOLDERS for path in folder.glob(f"{PLAN}*.json")]
    assert all(isinstance(plan, list | dict) for plan in committed)


def test_facts_of_schema_3_are_those_that_methods_register():
    with METHODS_FILE.open(newline="") as file:
        names = [row["method"] for row in csv.DictReader(file)]
    assert set(names) <= {entry.name for entry in methods}
    for name in names:
        facts = MethodFacts(**facts_of_schema_3(name), label=methods[name].facts.label)
        assert facts == methods[name].facts, name
    assert facts_of_schema_3("my_method") == {}


def test_every_committed_result_has_the_facts_of_its_method():
    """Labels were written out in schema 3, also those that are the names. Facts of a plugin's method
    are not known."""
    for folder in FOLDERS:
        for result in loaded(folder).results:
            assert isinstance(result, Result)
            name, facts = result.trial.method, result.facts
            known = methods[name].facts if name in methods else MethodFacts(facts.label)
            written = known.label or (name if facts.label else "")
            assert facts == replace(known, label=written), result.trial.id


def test_the_caveat_of_schema_3_is_that_of_the_laboratory():
    (folder,) = [folder for folder in FOLDERS if folder.name == "high_sparsity"]
    assert loaded(folder).caveats == {"tiny": tiny().caveat}
    assert plan_of_schema_3([raw(KINDS["base, dense"])["trial"]])["caveats"] == {}
