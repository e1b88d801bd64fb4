"""The contract of a method, run over everything that is registered, built-in or in the README."""

import inspect
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers import save_checkpoint
from zoo.build import Place, build, make_method
from zoo.errors import ConfigError
from zoo.plan import Planner
from zoo.registry import find_plugin, load_plugin, methods
from zoo.suites import TINY, Cell
from zoo.train import run_trial

README = Path(__file__).resolve().parent.parent / "README.md"
STEPS = 12


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def example(tmp_path_factory):
    """The README's example of a method, saved outside the repository."""
    path = tmp_path_factory.mktemp("outside") / "my_method.py"
    (text,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    assert len(text.splitlines()) < 30
    path.write_text(text)
    return find_plugin(str(path))


NAMES = [entry.name for entry in methods]


@pytest.fixture(params=[*NAMES, "my_method"])
def name(request, example):
    if request.param == "my_method":
        import sys

        sys.modules.pop(f"plugin_{example.sha256[:16]}", None)
        load_plugin(example)
    return request.param


def trial_of(name: str, plugins=(), density: float = 0.1, task: str = "tiny_inference"):
    planner = Planner(TINY, "released", TINY.model, None, tuple(plugins), max_steps=STEPS)
    prunes = methods[name].facts.get("prunes", True)
    cell = Cell(name, task, density if prunes else 1.0, False, 1)
    if methods[name].facts.get("drives") == "penalty":
        cell = replace(cell, given=(("penalty", 100.0),))
    return planner.jobs([cell])


def test_a_method_trains_is_counted_and_repeats(name, example, cache):
    """Two runs of every method are equal bit for bit; its remaining weights are what it may keep;
    scores moved if they train; weights that must not move did not."""
    place = Place(TINY.model, None, str(cache), (example,) if name == "my_method" else ())
    jobs = trial_of(name, place.plugins)
    *teachers, last = jobs
    for job in teachers:
        run_trial(job.trial, replace(place, keep_outputs=True))
    first, second = run_trial(last.trial, place), run_trial(last.trial, place)
    assert first.status == "ok"
    assert first.digests == second.digests and first.metrics == second.metrics
    assert first.correct == second.correct
    method = make_method(last.trial)
    kept, total = sum(first.remaining["kept"].values()), sum(first.remaining["total"].values())
    if method.score is None:
        assert kept == total and first.parameters["mask_bits"] == 0
    elif method.budget is not None:
        allowed = sum(int(0.1 * size) for size in first.remaining["total"].values())
        assert (
            allowed - len(first.remaining["total"])
            <= kept
            <= allowed + len(first.remaining["total"])
        )
    assert set(first.best) >= {"candidates", "step"}
    assert first.steps["taken"] == STEPS


def test_a_method_trains_what_it_says(name, example, cache):
    """Pre-trained parameters outside `trains` are the checkpoint's after training, the others are
    not; scores that train have left their start."""
    from safetensors.torch import load_file

    from zoo.train import Frozen, fit

    place = Place(TINY.model, None, str(cache), (example,) if name == "my_method" else ())
    *teachers, last = trial_of(name, place.plugins)
    for job in teachers:
        run_trial(job.trial, replace(place, keep_outputs=True))
    run = build(last.trial, place)
    before = {n: p.detach().clone() for n, p in run.network.named_parameters()}
    scores = [s.detach().clone() for s in run.masked.trained_scores]
    list(fit(run, Frozen.of(run, place)))
    stored = load_file(Path(TINY.model) / "model.safetensors")
    for n, parameter in run.network.named_parameters():
        inner = n.removeprefix("encoder.")
        if parameter.requires_grad:
            continue
        assert (parameter == before[n]).all(), n
        assert f"bert.{inner}" not in stored or (parameter == stored[f"bert.{inner}"]).all(), n
    moved = {n for n, p in run.network.named_parameters() if not (p == before[n]).all()}
    assert all(
        run.method.trains(n.removeprefix("encoder.")) or n in run.network.fresh for n in moved
    )
    assert all(
        (now != then).any() for now, then in zip(run.masked.trained_scores, scores, strict=True)
    )


def test_a_method_is_documented(name):
    entry = methods[name]
    assert entry.summary.endswith(".") and len(entry.summary) < 100
    signature = inspect.signature(entry.make)
    assert next(iter(signature.parameters)) == "density"


def test_a_density_that_is_none(name):
    with pytest.raises(ConfigError, match="must be in \\(0, 1\\]"):
        Planner(TINY, "released", TINY.model, None).jobs([Cell(name, "tiny_span", 0.0, False, 0)])


@pytest.mark.parametrize("method", ["movement", "smp_s"])
@pytest.mark.parametrize("task", TINY.tasks)
def test_distillation_runs_on_every_kind_of_task(method, task, cache):
    place = Place(TINY.model, None, str(cache), ())
    planner = Planner(TINY, "released", TINY.model, None, max_steps=5)
    teacher, student = planner.jobs([Cell(method, task, 0.1, True, 1)])
    assert teacher.trial.method == "dense" and student.trial.teacher == teacher.trial.id
    run_trial(teacher.trial, replace(place, keep_outputs=True))
    assert run_trial(student.trial, place).status == "ok"


def test_random_weights_are_those_of_a_new_encoder_of_the_same_configuration(tmp_path):
    """Also where the encoder was loaded from a checkpoint, which initialisers may pass over."""
    from transformers import BertModel

    from zoo.method import from_random_weights

    save_checkpoint(tmp_path)
    encoder = BertModel.from_pretrained(tmp_path)
    before = {name: p.detach().clone() for name, p in encoder.named_parameters()}
    from_random_weights(encoder)
    for name, parameter in encoder.named_parameters():
        if parameter.ndim == 2:
            assert (parameter != before[name]).float().mean() > 0.9, name
            assert parameter.std().item() == pytest.approx(
                encoder.config.initializer_range, rel=0.3
            )
        else:
            constant = 1.0 if name.endswith("LayerNorm.weight") else 0.0
            assert (parameter == constant).all(), name
