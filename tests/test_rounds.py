"""Rounds with rewinding, masks that are given, and weights that stay exactly zero."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from methods.imp import densities
from zoo import Cell, ConfigError, magnitude_of, nonzero, topk_in_all
from zoo.engine.build import Run, build
from zoo.engine.frozen import Frozen, load_frozen
from zoo.engine.train import run_trial
from zoo.engine.trainer import Trainer
from zoo.registry import methods

BERT = 84_934_656


def a_run(planner, resources, name: str, density: float = 0.3, **given) -> Run:
    """A run of a method on SST-2, its dense trial done where it needs one."""
    values = {"batch": 16, "max_length": 16, "lr_weights": 1e-3, **given}
    *teachers, job = planner.jobs([Cell(name, "sst2", density, False, 0, tuple(values.items()))])
    for teacher in teachers:
        run_trial(teacher.trial, replace(resources, keep_outputs=True, reads=0))
    run = build(job.trial, resources)
    load_frozen(run, Path(resources.cache))
    return run


def test_pitfall_78_fractions_are_of_the_original_count():
    """With the pooler exactly n (1 - r / 10); over the 72 matrices as many as weights allow."""
    levels = densities(0.1)
    assert len(levels) == 9
    left = BERT
    for number, level in enumerate(levels, 1):
        left -= round(left / (11 - number))
        assert abs(int(level * BERT) - left) <= 1  # they round, we never keep more than asked
    assert [int(level * 85_524_480 + 0.5) for level in (levels[0], levels[-1])] == [
        *(76_972_032, 8_552_448)
    ]
    assert densities(0.03)[-2:] == [pytest.approx(0.1), 0.03] and densities(0.95) == [0.95]


def test_pitfall_78_masks_are_nested():
    """Index 0 was pruned; whatever it is rewound to, it is 0 when weights are ranked again."""
    first = topk_in_all({"a": torch.tensor([[0.1, 0.4, 0.3, 0.9]])}, 0.75)["a"]
    weight = torch.tensor([[5.0, 0.4, 0.1, -0.9]]) * first
    assert topk_in_all({"a": weight.abs()}, 0.5)["a"].int().tolist() == [[0, 1, 0, 1]]


def test_pitfall_80_rewinding_is_not_exact(planner, resources):
    """After each round: the checkpoint's weights outside the mask, 0 inside, an empty optimiser;
    the head is carried on, and masks only shrink."""
    run = a_run(planner, resources, "imp", 0.7, steps=12)  # rounds end at 3, 6 and 9
    start = {n: p.detach().clone() for n, p in run.network.named_parameters()}
    trainer = Trainer(run, Frozen())
    before = {n: layer.mask.clone() for n, layer in run.masked.layers.items()}
    for step in range(1, 13):
        trainer.step()
        moved = {n for n, p in run.network.named_parameters() if not torch.equal(p, start[n])}
        if step not in (3, 6, 9):
            assert any(n.startswith("encoder.") for n in moved) and trainer.optimizer.state
            continue
        assert not trainer.optimizer.state
        assert "head.classifier.weight" in moved
        for name, layer in run.masked.layers.items():
            expected = start[f"encoder.{name}.weight"] * layer.mask
            assert torch.equal(layer.weight, expected) and torch.equal(layer.working, expected)
            assert bool((layer.mask <= before[name]).all())
            before[name] = layer.mask.clone()
        matrices = {f"encoder.{name}.weight" for name in run.masked.layers}
        assert {n for n in moved if n.startswith("encoder.")} <= matrices
    kept = sum(int(mask.sum()) for mask in before.values())
    assert kept == int(0.7 * sum(run.masked.sizes.values()))


@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("wanda", {"retrain": True, "examples": 8}),
        ("sparsegpt", {"retrain": True, "examples": 8}),
        ("gmp_star", {"first": 0.5, "start": 0.2, "stop": 0.6, "every": 0.2}),
        ("imp", {}),
        ("sparse_transfer", {}),
    ],
)
def test_pitfall_79_masked_weights_move_by_momentum(planner, resources, name, given, decay):
    """W itself, and not only W', is 0 where it is masked, after every step."""
    run = a_run(planner, resources, name, steps=15, weight_decay=decay, **given)
    if name == "sparse_transfer":
        with torch.no_grad():
            for layer in run.masked.layers.values():
                layer.weight.mul_(layer.weight.abs() > 0.02)
    trainer = Trainer(run, Frozen())
    masked = 0
    for _ in range(15):
        trainer.step()
        for layer in run.masked.layers.values():
            masked += int((~layer.mask).sum())
            assert not layer.weight[~layer.mask].any()
            assert torch.equal(layer.working, layer.weight)
    assert masked


def test_pitfall_79_momentum_would_move_them():
    """What is prevented: AdamW at rate .1 moves a weight that was set to 0 by -.0773 and on."""
    weight = torch.nn.Parameter(torch.tensor([0.5]))
    optimizer = torch.optim.AdamW([weight], lr=0.1, weight_decay=0.0)
    found = []
    for step, gradient in enumerate((1.0, 1.0, 0.0, 0.0)):
        if step == 2:
            with torch.no_grad():
                weight.zero_()
        weight.grad = torch.tensor([gradient])
        optimizer.step()
        found.append(weight.item())
    assert found == pytest.approx([0.4, 0.3, -0.0773, -0.14062], abs=1e-4)


def test_pitfall_81_the_mask_of_a_pruned_checkpoint():
    scores = {"a": torch.tensor([[0.5, 0.0, -0.1, -0.0]])}
    assert nonzero({"a": scores["a"].abs()}, 1.0)["a"].int().tolist() == [[1, 0, 1, 0]]
    with pytest.raises(ConfigError, match="a has entries that are NaN"):
        nonzero({"a": torch.tensor([[float("nan")]])}, 1.0)
    assert methods["sparse_transfer"].make(0.1).score.read is magnitude_of
