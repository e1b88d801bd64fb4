"""The contract of a method, checked for all that are registered and for the README's example."""

import inspect
import math
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tasks.scales import tiny
from tests.helpers import given_for, save_checkpoint
from zoo import Cell, ConfigError, from_random_weights, learned, learned_from, topk_by_row
from zoo.engine.build import Resources, build, make_method
from zoo.engine.frozen import load_frozen
from zoo.engine.judge import judge
from zoo.engine.train import fit, run_trial
from zoo.plugins import Plugin, find_plugin, load_plugin
from zoo.records.result import Judgement, Steps
from zoo.records.trial import Conditions, Trial
from zoo.registry import methods
from zoo.runs.plan import Planner

README = Path(__file__).resolve().parent.parent / "README.md"
TINY = tiny()
STEPS = 12
NAMES = [entry.name for entry in methods]


@pytest.fixture(scope="session")
def example(tmp_path_factory) -> Plugin:
    """The README's example of a method, saved outside the repository."""
    path = tmp_path_factory.mktemp("outside") / "my_method.py"
    (text,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    assert len(text.splitlines()) < 30
    path.write_text(text)
    return find_plugin(str(path))


@pytest.fixture(scope="session")
def laboratory(tmp_path_factory) -> Resources:
    """What trials of the laboratory run with; they share a cache."""
    return Resources(TINY.model, None, str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(params=[*NAMES, "my_method"])
def name(request, example) -> str:
    """The name of a method; the README's example is loaded first."""
    if request.param == "my_method":
        sys.modules.pop(f"plugin_{example.sha256[:16]}", None)
        load_plugin(example)
    return request.param


@dataclass(frozen=True)
class Ready:
    """A trial and what it runs with."""

    trial: Trial
    resources: Resources


@pytest.fixture
def ready(name, example, planner, resources) -> Ready:
    """A trial of 12 steps at 10 % on SST-2; if it needs a teacher, that one has run."""
    plugins = (example,) if name == "my_method" else ()
    prunes, given = methods[name].facts.prunes, given_for(name, retrain=False)
    planner = replace(planner, plugins=plugins, conditions=Conditions(max_steps=STEPS))
    cell = Cell(name, "sst2", 0.1 if prunes else 1.0, False, 1, (*given, ("steps", 250)))
    *teachers, last = planner.jobs([cell])
    resources = replace(resources, plugins=plugins)
    for job in teachers:
        run_trial(job.trial, replace(resources, keep_outputs=True))
    return Ready(last.trial, resources)


def test_a_method_repeats_bit_for_bit_and_keeps_what_it_may(ready):
    first, second = (run_trial(ready.trial, ready.resources) for _ in range(2))
    assert first.ok
    assert first.digests == second.digests and first.metrics == second.metrics
    assert first.correct == second.correct
    method, matrices = make_method(ready.trial), first.remaining.matrices.values()
    kept, total = sum(m.kept for m in matrices), sum(m.total for m in matrices)
    if method.layers or method.layers_at_end:  # of two, one stays at least
        assert 2 * kept == total and first.parameters.mask_bits == 0
    elif method.score is None:
        assert kept == total and first.parameters.mask_bits == 0
    elif method.mask is topk_by_row and method.units is None:
        shapes = [
            layer.weight.shape
            for layer in build(ready.trial, ready.resources).masked.layers.values()
        ]
        assert kept == sum(outputs * int(0.1 * inputs) for outputs, inputs in shapes)
    elif method.budget is not None:
        allowed = sum(int(0.1 * matrix.total) for matrix in matrices)
        assert allowed - len(matrices) <= kept <= allowed + len(matrices)
    assert first.best.candidates == 1 and first.best.metrics == first.metrics
    none = Steps(taken=0, planned=0, recipe=0)
    assert first.steps == (none if method.untrained else Steps(STEPS, STEPS, 250))
    assert not method.untrained or first.parameters.trainable == 0


def test_a_judge_finds_what_a_method_claims(ready, tmp_path):
    """Bit for bit, from the model's files alone."""
    resources = replace(ready.resources, handover=str(tmp_path / "files"))
    claim = run_trial(ready.trial, resources)
    found = judge(claim, tmp_path / "files", resources)
    assert found.judgement == Judgement(apart=True, claims=claim.metrics)
    assert replace(found, judgement=None, cost=claim.cost) == claim


def test_a_method_trains_what_it_says(ready):
    """After training, pre-trained parameters outside `trains` are the checkpoint's; scores that
    train have left their start."""
    run = build(ready.trial, ready.resources)
    frozen = load_frozen(run, Path(ready.resources.cache))
    before = {n: p.detach().clone() for n, p in run.network.named_parameters()}
    scores = [s.detach().clone() for s in run.masked.trained_scores]
    list(fit(run, frozen))
    stored = load_file(Path(ready.resources.model) / "model.safetensors", run.device.type)
    for n, parameter in run.network.named_parameters():
        inner = n.removeprefix("encoder.")
        pruned = run.method.zeroes(0.5) and n.removesuffix(".weight")[8:] in run.masked.layers
        if parameter.requires_grad or pruned:
            continue
        assert (parameter == before[n]).all(), n
        if run.method.dense:  # it does not start from the checkpoint
            continue
        assert f"bert.{inner}" not in stored or (parameter == stored[f"bert.{inner}"]).all(), n
    moved = {n for n, p in run.network.named_parameters() if not (p == before[n]).all()}
    assert moved or scores
    for n in moved - run.network.fresh:
        if run.method.zeroes(0.5) and n.removesuffix(".weight")[8:] in run.masked.layers:
            continue
        where = run.network.architecture.parameter(n.removeprefix("encoder."))
        assert run.method.trains(where), n
    assert all(
        (now != then).any() for now, then in zip(run.masked.trained_scores, scores, strict=True)
    )


def test_a_method_is_documented(name):
    entry = methods[name]
    assert entry.summary.endswith(".") and len(entry.summary) < 100
    signature = inspect.signature(entry.make)
    assert next(iter(signature.parameters)) == "density"


def test_density_zero_is_rejected(name):
    with pytest.raises(ConfigError, match=r"must be in \(0, 1\], got 0.0"):
        Planner(TINY, "released", TINY.model).jobs([Cell(name, "tiny_span", 0.0, False, 0)])


@pytest.mark.parametrize("method", ["movement", "smp_s"])
@pytest.mark.parametrize("task", TINY.tasks)
def test_distillation_runs_on_every_kind_of_task(method, task, laboratory):
    planner = Planner(TINY, "released", TINY.model, conditions=Conditions(max_steps=5))
    teacher, student = planner.jobs([Cell(method, task, 0.1, True, 1)])
    assert teacher.trial.method == methods.teacher == "dense"
    assert student.trial.teacher == teacher.trial.id
    run_trial(teacher.trial, replace(laboratory, keep_outputs=True))
    assert run_trial(student.trial, laboratory).ok


def test_random_weights_are_distributed_like_those_of_a_new_encoder(tmp_path):
    """Also if the encoder was loaded from a checkpoint, whose parameters initialisers may skip."""
    from transformers import BertModel

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


def test_scores_start_as_in_the_movement_code():
    """--mask_init constant, uniform and kaiming, against torch's own initialisers' ranges."""
    weight, generator = torch.empty(64, 25), torch.Generator().manual_seed(0)
    assert learned_from("constant", 0.0) is learned
    assert (learned_from("constant", 0.5).init(weight, generator) == 0.5).all()
    uniform = learned_from("uniform", 0.3).init(weight, generator)
    assert 0.29 < uniform.abs().max() <= 0.3 and abs(float(uniform.mean())) < 0.02
    ours = learned_from("kaiming", 0.0).init(weight, generator)
    theirs = torch.nn.init.kaiming_uniform_(torch.empty(64, 25), a=math.sqrt(5))
    assert float(ours.std()) == pytest.approx(float(theirs.std()), rel=0.05)
    assert ours.abs().max() <= 0.2 and theirs.abs().max() <= 0.2
    with pytest.raises(ConfigError, match="did you mean 'uniform'"):
        learned_from("unform", 0.1)


def test_movement_takes_what_the_authors_code_offers():
    """Their lambda is final_lambda * threshold / final_threshold, which falls; their tau starts at
    --initial_threshold."""
    method = methods["movement"].make(0.03, start=0.25, stop=0.75, penalty=400.0, first=0.9)
    for step in (0, 300, 500, 700, 1000):
        density = method.level(step, 1000)
        assert method.penalty.weight(step, 1000) == pytest.approx(400 * density / 0.03)
    assert method.level(0, 1000) == 0.9 and method.level(1000, 1000) == 0.03
    soft = methods["soft_movement"].make(
        0.1, start=0.25, stop=0.75, penalty=8.0, first=0.2, tau=0.4
    )
    assert soft.level(0, 1000) == 0.2 and soft.level(1000, 1000) == 0.4
    assert soft.penalty.weight(0, 1000) == pytest.approx(4.0)
    with pytest.raises(ConfigError, match="tau is a threshold"):
        methods["soft_movement"].make(0.1, start=0.25, stop=0.75, penalty=8.0, tau=0.0)
    plain = methods["movement"].make(0.03, start=0.25, stop=0.75)
    assert plain.penalty is None and plain.score is learned
