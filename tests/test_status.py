"""What a run says while it runs, and outputs of teachers for what is read alone."""

import io
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from zoo import TrialError
from zoo.engine.frozen import has_outputs, load_outputs
from zoo.engine.train import run_trial
from zoo.inputs.batches import first_read, random_batches
from zoo.inputs.tokenised import tokenise
from zoo.records.trial import Conditions
from zoo.runs import progress
from zoo.runs.suites import Cell
from zoo.status import being_done, reporting, tell


def test_a_line_says_what_the_innermost_work_does(tmp_path):
    tell("nobody listens")
    with reporting(tmp_path, "outer"):
        tell("begins")
        with reporting(tmp_path, "inner"):
            tell("begins too")
            tell(lambda: pytest.fail("the last line is not old"))
            assert sorted(being_done(tmp_path)) == ["inner: begins too", "outer: begins"]
        assert being_done(tmp_path) == ["outer: begins"]
    assert being_done(tmp_path) == []


def test_a_cache_that_cannot_be_written_is_no_matter(tmp_path):
    (tmp_path / "file").write_text("")
    with reporting(tmp_path / "file", "work"):
        tell("goes on")


def test_a_silent_run_says_what_it_does(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "SILENT", 0.5)
    out = io.StringIO()
    shown = progress.Progress(3, out=out)
    with shown.showing(tmp_path), reporting(tmp_path, "movement 3 % t seed 0"):
        tell("step 7 of 90, loss 0.512, 31.0 % of the weights")
        deadline = time.monotonic() + 20
        while "step 7" not in out.getvalue() and time.monotonic() < deadline:
            time.sleep(0.05)
    line = "  movement 3 % t seed 0: step 7 of 90, loss 0.512, 31.0 % of the weights\n"
    assert line in out.getvalue()


def test_a_trial_tells_all_that_it_does(planner, resources, monkeypatch):
    said: list[str] = []
    for module in ("build", "frozen", "train"):
        place = f"zoo.engine.{module}.tell"
        monkeypatch.setattr(
            place, lambda what: said.append(what if isinstance(what, str) else what())
        )
    monkeypatch.setattr("zoo.inputs.tokenised.tell", said.append)
    teacher, student = planner.jobs([Cell("movement", "sst2", 0.1, True, 0)])
    run_trial(teacher.trial, replace(resources, keep_outputs=True))
    task, source = planner.task("sst2")
    tokenise(
        task, source, planner.checkpoint, student.trial.train.max_length, Path(resources.cache)
    )
    run_trial(student.trial, resources)
    kinds = {line.split(",")[0] for line in said}
    assert {"loading model and data", "tokenising sst2", "evaluating"} <= kinds
    assert "outputs over the training set, example 48 of 48" in said
    steps = [line for line in said if line.startswith("step ")]
    assert any(line.endswith(" % of the weights") for line in steps)
    assert steps[0].startswith("step 1 of ") and ", loss " in steps[0]


# Outputs of teachers ----------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 7, 32])
def test_the_first_examples_are_those_of_the_first_batches(batch):
    batches = random_batches(100, batch, seed=5)
    read = np.concatenate([next(batches) for _ in range(96 // batch)])
    assert np.array_equal(read, first_read(100, len(read), seed=5))


def students(planner, steps: int, *names: str):
    """The jobs of distilled students in so many steps of 4 examples, teachers first."""
    short = replace(planner, conditions=Conditions(max_steps=steps))
    given = (("batch", 4),)
    return short.jobs([Cell(n, "sst2", 0.3, True, 0, given) for n in names])


def test_a_teacher_computes_what_its_students_read(planner, resources):
    teacher, student = students(planner, 5, "movement")
    assert teacher.teaches and teacher.reads == 20
    cache, id = Path(resources.cache), teacher.trial.id
    run_trial(teacher.trial, replace(resources, keep_outputs=True, reads=teacher.reads))
    task, _ = planner.task("sst2")
    arrays = load_outputs(cache, id, task, 20)
    assert (arrays["logits"] != 0).any(1).sum() == 20 < len(arrays["logits"])
    assert has_outputs(cache, id, 20) and not has_outputs(cache, id, 21)
    assert not has_outputs(cache, id, None)
    few = run_trial(student.trial, resources)
    with pytest.raises(TrialError, match="left outputs of 20 examples, which are too few"):
        load_outputs(cache, id, task, 24)
    run_trial(teacher.trial, replace(resources, keep_outputs=True))  # of all, in their place
    assert has_outputs(cache, id, None)
    assert run_trial(student.trial, resources).digests == few.digests


def test_a_student_that_reads_all_gets_all(planner):
    """CAP-lite compares examples of the whole training set."""
    teacher, *_ = students(planner, 5, "movement", "cap_lite")
    assert teacher.teaches and teacher.reads is None
    longer, *_ = planner.jobs([Cell("movement", "sst2", 0.3, True, 0)])
    assert longer.teaches and longer.reads is None
