"""Calibration in the engine: what matrices read, on every architecture, and what is repeated."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from methods.obert import BlockFisher
from tests.helpers import CLASSES, save_checkpoint, write_sst2
from zoo import Calibration, Cell, ConfigError, GradientCalibration, Owl, products, squares
from zoo.engine.build import Resources, Run, build
from zoo.engine.calibrate import prepare
from zoo.engine.frozen import load_frozen
from zoo.engine.gate_gradients import drawn
from zoo.engine.train import run_trial
from zoo.errors import TrialError
from zoo.inputs.batches import collate
from zoo.runs.plan import Planner
from zoo.runs.suites import Scale

EXAMPLES = 20
GIVEN = (("examples", EXAMPLES), ("max_length", 16), ("batch", 16), ("steps", 4))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """SST-2, and a place for checkpoints."""
    folder = tmp_path_factory.mktemp("calibration")
    write_sst2(folder / "data")
    return folder


def planned(folder: Path, kind: str, name: str = "wanda", **given) -> tuple[list, Resources]:
    """The jobs of a trial that prunes at once to 50 % on a kind of encoder, and what they run
    with."""
    model = folder / kind
    if not model.exists():
        save_checkpoint(model, kind=kind, mlm=kind != "electra", layers=3, weight=0.2)
    scale = Scale("mine", tasks=("sst2",), model=str(model), about="")
    planner = Planner(scale, "released", str(model), str(folder / "data"))
    values = dict(GIVEN) | ({"gradients": 4} if name == "obert_one_shot" else {}) | given
    if name in ("obert_one_shot", "magnitude_row"):
        del values["examples"]
    cell = Cell(name, "sst2", 0.5, False, 0, tuple(values.items()))
    resources = Resources(str(model), str(folder / "data"), str(folder / "cache"))
    return planner.jobs([cell]), resources


def ready(folder: Path, kind: str, **given) -> Run:
    """A run of Wanda with the weights of its dense trial, before it is calibrated."""
    (dense, last), resources = planned(folder, kind, **given)
    run_trial(dense.trial, replace(resources, keep_outputs=True, reads=0))
    run = build(last.trial, resources)
    load_frozen(run, Path(resources.cache))
    return run


def read(run: Run) -> dict[str, torch.Tensor]:
    """What every matrix reads at real tokens in whole forward passes of single examples, without
    any padding, with the weights and masks that stand: by another route than the engine's."""
    found: dict[str, list[torch.Tensor]] = {name: [] for name in run.masked.layers}
    handles = [
        layer.register_forward_pre_hook(
            lambda module, args, name=name: found[name].append(args[0].detach())
        )
        for name, layer in run.masked.layers.items()
    ]
    run.network.eval()
    with torch.no_grad():
        for row in drawn(run, run.method.calibration):
            before = {name: len(parts) for name, parts in found.items()}
            run.network(collate(run.data.train, [row], run.network.pad, run.device))
            for name, parts in found.items():  # DeBERTa's Q and K also read a table
                del parts[before[name] + 1 :]
    for handle in handles:
        handle.remove()
    return {name: torch.cat([p.flatten(0, -2) for p in parts]) for name, parts in found.items()}


@pytest.mark.parametrize("kind", CLASSES)
def test_pitfall_47_each_layer_is_pruned_by_what_the_pruned_layers_before_it_give(folder, kind):
    """The mask of layer l, from whole passes with the final masks before l, and l as it was."""
    run = ready(folder, kind)
    dense = {name: layer.weight.detach().clone() for name, layer in run.masked.layers.items()}
    prepare(run, 0)
    masks = {name: layer.mask.clone() for name, layer in run.masked.layers.items()}
    index = {n: run.masked.architecture.parameter(f"{n}.weight").layer for n in masks}
    differ = 0
    for number in range(3):
        for name, layer in run.masked.layers.items():
            pruned = dense[name] * masks[name] if index[name] < number else dense[name]
            layer.working.detach().copy_(pruned)
        inputs = read(run)
        for name in [n for n in masks if index[n] == number]:
            scores = dense[name].abs() * inputs[name].square().mean(0).sqrt()
            order = np.argsort(-scores.numpy(), axis=1, kind="stable")
            mask = np.zeros(scores.shape, bool)
            np.put_along_axis(mask, order[:, : scores.shape[1] // 2], True, axis=1)
            differ += int((mask != masks[name].numpy()).sum())  # scores that rounding makes equal
    assert differ <= 4
    for name, layer in run.masked.layers.items():
        assert torch.equal(layer.weight, dense[name] * masks[name])


def test_pitfall_46_padding_is_in_the_moments():
    real, padded = torch.tensor([[1.0, 2], [3, 0], [0, 1]]), torch.full((3, 2), 5.0)
    assert squares(real).tolist() == [10, 5]
    assert squares(torch.cat([real, padded])).tolist() == [85, 80]
    assert torch.equal(products(real).diagonal(), squares(real))


def test_a_trial_repeats_and_follows_its_calibration_seed(folder):
    (dense, last), resources = planned(folder, "bert")
    run_trial(dense.trial, replace(resources, keep_outputs=True, reads=0))
    first, again = (run_trial(last.trial, resources) for _ in range(2))
    assert first.digests == again.digests and first.steps.taken == 0
    assert first.curve[-1].loss is None and first.cost.step_seconds is None
    (_, other), _ = planned(folder, "bert", calibration_seed=7)
    moved = run_trial(other.trial, resources)
    assert other.trial.id != last.trial.id and moved.digests["masks"] != first.digests["masks"]


def test_trials_of_all_seeds_may_start_from_one_dense_trial(folder):
    (own, _), _ = planned(folder, "bert")
    (dense, last), _ = planned(folder, "bert", dense_seed=3)
    assert own.trial.seed == 0 and dense.trial.seed == 3 and last.trial.seed == 0
    assert dense.starts and dense.reads == 0 and not last.trains


def test_without_its_dense_trial_a_trial_says_what_is_missing(folder, tmp_path):
    (_, last), resources = planned(folder, "bert", dense_seed=9)
    with pytest.raises(TrialError, match="its dense trial sst2-dense-1-seed9-.* left no weights"):
        run_trial(last.trial, replace(resources, cache=str(tmp_path)))


def test_a_teacher_cannot_help_what_does_not_train(folder):
    (_, last), resources = planned(folder, "bert")
    with pytest.raises(ConfigError, match="trains nothing, so that a teacher changes nothing"):
        build(replace(last.trial, distill=True), resources)


def test_a_pattern_that_does_not_fit_is_refused_by_the_name_of_the_matrix(folder):
    """Before any trial runs: 6 does not divide 32."""
    with pytest.raises(ConfigError, match=r"query has 32 inputs, which pattern 3:6 cannot"):
        planned(folder, "bert", pattern="3:6")


@pytest.mark.parametrize("pattern", ["matrix", "row", "4x4"])
def test_owl_shares_the_density_of_wanda_among_layers(folder, pattern):
    """By outliers of the dense model's scores: all matrices of a layer alike, layers not."""
    run = ready(folder, "bert", pattern=pattern, allocation="owl")
    dense = {name: layer.weight.detach().clone() for name, layer in run.masked.layers.items()}
    inputs = read(run)
    scores = {n: w.abs() * inputs[n].square().mean(0).sqrt() for n, w in dense.items()}
    wanted = Owl()(scores, 0.5)
    prepare(run, 0)
    assert len({round(density, 6) for density in wanted.values()}) == 3
    for name, layer in run.masked.layers.items():
        lost = {"matrix": 1, "row": len(layer.mask), "4x4": 16}[pattern] / layer.mask.numel()
        kept = float(layer.mask.float().mean())
        assert wanted[name] - lost - 0.01 <= kept <= wanted[name] + 0.01  # an outlier more or less
        assert not layer.weight[~layer.mask].any()
    run.masked.check_budget(0.5)


@pytest.mark.parametrize("name", ["sparsegpt", "admm", "obert_one_shot", "magnitude_row"])
@pytest.mark.parametrize("pattern", ["2:4", "4:8", "row", "4x4"])
def test_every_calibrated_method_keeps_every_pattern(folder, name, pattern):
    run = ready(folder, "bert", name=name, pattern=pattern)
    prepare(run, 0)
    for layer in run.masked.layers.values():
        mask = layer.mask
        assert int(mask.sum()) == mask.numel() // 2
        if ":" in pattern:
            group = int(pattern[-1])
            assert (mask.unflatten(1, (-1, group)).sum(-1) == group // 2).all()
        elif pattern == "row":
            assert (mask.sum(1) == mask.shape[1] // 2).all()
        else:
            blocks = mask.unflatten(1, (-1, 4)).unflatten(0, (-1, 4)).sum((1, 3))
            assert set(blocks.flatten().tolist()) == {0, 16}


@pytest.mark.parametrize("pattern", ["type", "global"])
def test_layers_that_are_pruned_one_after_another_cannot_compete(folder, pattern):
    with pytest.raises(ConfigError, match=f"pattern {pattern} lets matrices of several layers"):
        planned(folder, "bert", pattern=pattern)
    jobs, _ = planned(folder, "bert", name="obert_one_shot", pattern=pattern)
    assert jobs


def test_memory_is_told_from_widths():
    diagonal, full = Calibration(None, squares), Calibration(None, products)
    one = {"layer.0.a": (768, 768), "layer.0.o": (768, 768), "layer.0.d": (768, 3072)}
    shapes = one | {"layer.1.d": (768, 3072)}
    assert diagonal.memory(shapes) == 4 * (768 + 768 + 3072)
    assert full.memory(shapes) == 4 * (2 * 768**2 + 3072**2) == 42_467_328
    base = {f"layer.{i}.{j}": (768, 768) for i in range(12) for j in "qkvo"}
    base |= {f"layer.{i}.u": (3072, 768) for i in range(12)}
    base |= {f"layer.{i}.d": (768, 3072) for i in range(12)}
    fisher = GradientCalibration(BlockFisher(50, 1e-7, 1024), gradients=1024)
    assert fisher.memory(base) == pytest.approx(84_934_656 * 50 * 4, rel=1e-4)
