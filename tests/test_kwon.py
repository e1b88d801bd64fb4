"""Kwon et al.: search by operations and by latency, rearrangement, and scales."""

import math
from collections import Counter
from itertools import product

import pytest
import torch
from transformers import BertConfig

from methods.kwon import Rearranged, Searched, fisher, of_batches, rearranged, search
from zoo import (
    Cell,
    ConfigError,
    GateCalibration,
    Part,
    Rescaling,
    UnitCost,
    UnitGroup,
)
from zoo.engine.build import build
from zoo.engine.gate_gradients import read_batches, unit_costs
from zoo.engine.rehearse import Rehearsed
from zoo.engine.rescale import _solved, _Sums
from zoo.registry import methods

GATES = {"layer.0.heads": [5.0, 3.0, 1.0], "layer.0.neurons": [2.0, 2.0, 1.0, 0.5]}
"""Fisher information of units."""


@pytest.mark.parametrize(("budget", "heads", "most"), [(8.0, 1, 10.5), (3.0, 0, 5.0)])
def test_pitfall_60_a_search_stays_within_its_budget(budget, heads, most):
    rows = {name: torch.tensor([own]).sqrt() for name, own in GATES.items()}
    masks = search(rows, UnitCost(4.0), UnitCost(1.0), budget / 16)
    assert int(masks["layer.0.heads"].sum()) == heads
    kept = sum(float(torch.tensor(own)[masks[name]].sum()) for name, own in GATES.items())
    assert kept == pytest.approx(most)


def test_pitfall_61_rearrangement_sees_what_units_do_together():
    gradients = torch.tensor([[1.0, 0.0, -1.2], [0.0, 1.1, 0.0]])
    assert rearranged(gradients, 2).tolist() == [False, True, False]
    assert rearranged(gradients, 0).all() and not rearranged(gradients, 3).any()


def test_pitfall_62_gradients_are_those_of_batches():
    products = torch.tensor([[[1.0]], [[-1.0]]])
    assert fisher({"a": of_batches(products, torch.ones(2, 1))})["a"].item() == 0


def test_pitfall_63_scales_are_damped():
    """A^T A = diag(2, 1) and A^T r = (1, .5), r what is missing: 1.4 and 1.25, undamped 1.5."""
    sums = _Sums()
    sums.add(
        torch.tensor([[math.sqrt(2), 0.0], [0.0, 1.0]]), torch.tensor([[math.sqrt(0.5)], [0.5]])
    )
    group = UnitGroup((2,), (Part("D", (1, 2), 1, 1),))
    scales = _solved(sums, torch.ones(1, 2), group, constant=False)
    assert scales.tolist() == pytest.approx([1.4, 1.25])


def test_a_search_is_the_best_of_all_sets_within_the_budget():
    """Over all sets of ten units, and ten budgets."""
    draw = torch.Generator().manual_seed(3)
    costs = {"layer.0.heads": 3.7, "layer.1.heads": 3.7}
    costs |= {"layer.0.neurons": 1.0, "layer.1.neurons": 1.0}
    sizes = {name: 2 if name.endswith("heads") else 3 for name in costs}
    for level in torch.linspace(0.05, 1.0, 10).tolist():
        rows = {name: torch.rand(4, n, generator=draw) for name, n in sizes.items()}
        values = torch.cat([row.double().square().sum(0) for row in rows.values()])
        price = torch.cat(
            [torch.full((n,), costs[name], dtype=torch.float64) for name, n in sizes.items()]
        )
        sets = torch.tensor(list(product((0.0, 1.0), repeat=10))).double()
        within = sets @ price <= level * price.sum() + 1e-9
        best = float((sets @ values)[within].max())
        kept = torch.cat(list(search(rows, UnitCost(3.7), UnitCost(1.0), level).values())).double()
        assert float(kept @ price) <= level * float(price.sum()) + 1e-9
        assert float(kept @ values) == pytest.approx(best)


def test_a_search_by_latency_is_the_best_of_all_numbers_of_heads_and_neurons():
    """By times that do not fall below some number of units, and vanish with the last; each pair of
    numbers is priced anew, layer by layer."""
    draw = torch.Generator().manual_seed(5)
    sizes = {"layer.0.heads": 4, "layer.1.heads": 4, "layer.0.neurons": 9, "layer.1.neurons": 9}

    def seconds(name: str, many: int) -> float:
        least, flat, each = (5.0, 2, 1.5) if name.endswith("heads") else (3.0, 4, 0.5)
        return 0.0 if many == 0 else least + each * max(0, many - flat)

    whole = sum(seconds(name, many) for name, many in sizes.items())
    for level in torch.linspace(0.0, 1.0, 21).tolist():
        rows = {name: torch.rand(1, n, generator=draw).sqrt() for name, n in sizes.items()}
        ranked = {
            kind: sorted(
                (
                    (float(x), name)
                    for name, row in rows.items()
                    if kind in name
                    for x in row[0] ** 2
                ),
                reverse=True,
            )
            for kind in ("heads", "neurons")
        }
        best = 0.0
        for h, n in product(range(9), range(19)):
            kept = ranked["heads"][:h] + ranked["neurons"][:n]
            counts = Counter(name for _, name in kept)
            if sum(seconds(name, counts[name]) for name in sizes) <= level * whole:
                best = max(best, sum(value for value, _ in kept))
        masks = search(rows, UnitCost(1.5, 2, 5.0), UnitCost(0.5, 4, 3.0), level)
        spent = sum(seconds(name, int(mask.sum())) for name, mask in masks.items())
        assert spent <= level * whole + 1e-6
        kept = sum(float((rows[name][0] ** 2)[mask].sum()) for name, mask in masks.items())
        assert kept == pytest.approx(best, rel=1e-5)


def test_a_search_by_latency_says_which_times_it_needs():
    times = {"heads_each": 1.5, "heads_flat": 2, "heads_least": 5.0, "neurons_each": 0.5}
    with pytest.raises(ConfigError, match=r"needs neurons_each, .* got 0.5, None, None: python -m"):
        methods["kwon"].make(0.5, constraint="latency", **times)
    with pytest.raises(ConfigError, match="unknown constraint 'time': operations or latency"):
        methods["kwon"].make(0.5, constraint="time")
    times |= {"neurons_flat": 4, "neurons_least": 3.0}
    chosen = methods["kwon"].make(0.5, constraint="latency", **times).calibration.choose
    assert chosen == Rearranged(Searched((UnitCost(1.5, 2, 5.0), UnitCost(0.5, 4, 3.0))))
    whole = methods["kwon"].make(0.5, constraint="latency", **times | {"heads_flat": 2.0})
    assert whole.calibration.choose == chosen
    with pytest.raises(ConfigError, match="heads_each, heads_flat, .* times count with constraint"):
        methods["kwon"].make(0.5, **times)


@pytest.mark.parametrize("name", ["heads_each", "heads_flat", "neurons_least"])
@pytest.mark.parametrize(
    "value",
    [0, -1, math.nan, math.inf, pytest.param(10**400, id="huge"), 1e308, True, "2", "", (1, 2)],
)
def test_what_is_no_time_is_refused_in_one_line(name, value):
    times = {"heads_each": 1.5, "heads_flat": 2, "heads_least": 5.0}
    times |= {"neurons_each": 0.5, "neurons_flat": 4, "neurons_least": 3.0, name: value}
    with pytest.raises(ConfigError, match=rf"needs .*{name}.* numbers above 0") as refused:
        methods["kwon"].make(0.5, constraint="latency", **times)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 250
    with pytest.raises(ConfigError, match="the second a whole one, got .*, 2.5, 5.0"):
        methods["kwon"].make(0.5, constraint="latency", **times | {name: 3, "heads_flat": 2.5})


def test_units_cost_what_their_weights_and_attention_cost(planner, resources):
    """All units of a layer cost its linear layers and both products of attention."""
    (*_, job) = planner.jobs([Cell("kwon", "sst2", 0.5, False, 0, (("examples", 5),))])
    run = build(job.trial, resources)
    batches = read_batches(run, run.method.calibration)
    costs = unit_costs(run, batches)
    mean = sum(float(b.attention.sum()) for b in batches) / 5
    config = run.network.encoder.config
    width, inner = config.hidden_size, config.intermediate_size
    linear = 4 * width**2 + 2 * width * inner
    groups = run.masked.groups.groups
    whole = sum(costs[name] * groups[name].units for name in costs) / config.num_hidden_layers
    assert whole == pytest.approx(mean * linear + 2 * mean**2 * width)


def test_encoders_without_layer_norms_behind_sub_layers_cannot_be_scaled():
    scaled = GateCalibration(of_batches, rescaling=Rescaling(Searched(None)))
    with pytest.raises(ConfigError, match="no LayerNorm stands behind"):
        Rehearsed(config=BertConfig(), norms=False)._check_gates(scaled, {})
