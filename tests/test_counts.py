"""What a step asks of a GPU, on torch's meta device, which has no numbers: operations on tensors of
two devices raise there, as on a GPU, and nothing can be read."""

import pytest
import torch
from torch import Tensor
from torch.optim import AdamW

from zoo.engine.sweeps import Update
from zoo.records.trial import Conditions
from zoo.registry import methods
from zoo.tools import counts
from zoo.tools.arms import Bench
from zoo.tools.counts import Counting, chunked, count
from zoo.tools.synthetic import SIZES, Geometry

LAUNCHES = {"smp_s": 180, "smp_s_shuffled": 180, "smp_g": 180, "l0": 200}
LAUNCHES |= {"gmp_star": 200, "imp": 200, "platon": 550, "rpp": 250}
"""Most launches of a step's own work; 150 for other methods. Weights are zeroed, and statistics
gathered, without kernels."""
PASSES = {"smp_s": 20.0, "smp_s_shuffled": 20.0, "smp_g": 20.0}
PASSES |= {"gmp_star": 24.0, "imp": 24.0, "obert": 18.0, "platon": 36.0, "movement_blocks": 21.5}
"""Most passes over the scores; 16.2 for other methods that train no weights."""
EMBEDDED = (
    *("magnitude_row", "wanda", "sparsegpt", "admm", "obert_one_shot"),
    *(
        "gmp_star",
        "obert",
        "platon",
        "imp",
        "sparse_transfer",
        "taylor",
        "coreset",
        "supertickets",
        "kwon",
        "movement_blocks",
    ),
)
"""Methods whose embeddings train too, which are a pass more."""
WEIGHTS = 10.0
"""Passes of a dense step over weights that train: norm, clipping, AdamW."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    """As many layers as BERT-base, which are smaller."""
    SIZES["narrow"] = (12, 128, 4, 512)
    bfloat16 = Conditions(precision="bfloat16")
    return Bench(
        Geometry("narrow", 4, 8, 0.1), tmp_path_factory.mktemp("narrow"), 1, bfloat16, counts.META
    )


@pytest.mark.parametrize("name", [entry.name for entry in methods])
def test_a_step_launches_little_moves_little_and_never_waits(bench, name):
    """With distillation, on the device alone: masks of the step are in mid-schedule."""
    facts = methods[name].facts
    parts = count(bench, name, distill=facts.prunes)
    assert sum(tally.waits for tally in parts.values()) == 0
    own = [parts[part] for part in counts.PARTS[1:]]
    launches = sum(tally.launches for tally in own)
    if not facts.prunes:
        return
    assert launches <= LAUNCHES.get(name, 150)
    bound = PASSES.get(name, 16.2) + (name in EMBEDDED)
    own_passes = sum(tally.bytes for tally in own) / 4 / counts.prunable(bench)
    trained = "_fused_adamw_" in parts["optimiser"].names and parts["gradients"].bytes
    weights = WEIGHTS if trained and not name.startswith("smp") else 0.0
    assert own_passes - weights <= (24.0 if name == "l0" else bound)


def test_without_kernels_the_same_step_launches_hundreds(bench, monkeypatch):
    """The tool sees what it is there to see."""
    monkeypatch.setenv("PLAIN_STEPS", "1")
    parts = count(bench, "smp_s")
    own = [parts[part] for part in counts.PARTS[1:]]
    assert sum(tally.launches for tally in own) > 1000
    assert sum(tally.bytes for tally in own) / 4 / counts.prunable(bench) > 30
    assert parts["masks"].waits == 1  # SMP-S reads the means of its scores


def test_reading_copying_and_mixing_are_seen():
    with Counting() as counting:
        there = torch.ones(3, device="meta")
        assert int(there.sum()) == 1 and there.cpu().tolist() == [1, 1, 1]
        assert counting.now.waits == 2
        there.view(1, 3).mul_(2)
        assert counting.now.names["mul_"] == 1 and counting.now.names["view"] == 0
        before = counting.now.bytes
        there.add_(there)
        assert counting.now.bytes - before == 3 * 12
        there.copy_(there)
        assert counting.now.bytes - before == 5 * 12
        with pytest.raises(RuntimeError, match="several devices"):
            there + torch.ones(3)


@pytest.mark.parametrize(
    ("sizes", "lists", "launches"),
    [([10] * 110, 1, 1), ([10] * 111, 1, 2), ([65536 * 320], 1, 1), ([65536 * 321], 1, 2)],
)
def test_operations_on_lists_go_in_chunks(sizes: list[int], lists: int, launches: int):
    tensors: list[Tensor] = [torch.empty(size, device="meta") for size in sizes]
    assert chunked([tensors] * lists) == launches


def test_the_command_prints_a_row_for_each_method(capsys):
    command = ["--model-size", "tiny", "--methods", "smp_l", "--batch", "4", "--tokens", "8"]
    assert counts.main(command) == 0
    row = capsys.readouterr().out.splitlines()[-1]
    assert row.split("|")[1].strip() == "smp_l"


def test_an_optimiser_of_several_groups_takes_its_own_steps(bench):
    """Kernels take one rate for all weights and one for all scores, and know no hooks."""
    with counts.on_meta():
        run = bench.run("movement", steps=4)
        layers = list(run.masked.layers.values())
        weights, scores = [x.weight for x in layers], run.masked.trained_scores
        groups = [{"params": weights}, {"params": scores, "lr": 0.1}]
        assert Update.possible(run.method, layers, AdamW(groups, lr=1e-3))
        for apart in (
            [{"params": weights[:3], "lr": 1e-5}, {"params": weights[3:]}, groups[1]],
            [groups[0], {**groups[1], "betas": (0.5, 0.9)}],
            [groups[0], {**groups[1], "eps": 1e-3}],
            [groups[0], {"params": scores[:5]}, {"params": scores[5:]}],
            [groups[0]],
            [{**groups[0], "amsgrad": True}, groups[1]],
        ):
            assert not Update.possible(run.method, layers, AdamW(apart, lr=1e-3))
        hooked = AdamW(groups, lr=1e-3)
        hooked.register_step_pre_hook(lambda *_: None)
        assert not Update.possible(run.method, layers, hooked)
