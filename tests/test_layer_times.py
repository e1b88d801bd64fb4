"""Times of a layer by its heads and neurons, and the line through them."""

from ast import literal_eval

import pytest
import torch

from methods.kwon import Rearranged, Searched
from tests.helpers import save_checkpoint
from zoo import UnitCost
from zoo.errors import ConfigError
from zoo.inputs.checkpoint import find_checkpoint, load_encoder
from zoo.inputs.kinds import architecture_of
from zoo.registry import methods
from zoo.tools.layer_times import HEADS, NEURONS, fitted, layer_with, main, timed
from zoo.tools.synthetic import random_classifier


def at(line: UnitCost, units: int) -> float:
    """The time of so many units."""
    return float(line.of(torch.tensor(units, dtype=torch.float64)))


@pytest.mark.parametrize(
    "line", [UnitCost(1.5, 2, 5.0), UnitCost(3.0, 1, 3.0), UnitCost(0.001, 300, 0.25)]
)
def test_a_line_without_noise_is_found_again(line):
    units = range(1, 13) if line.flat < 10 else (1, 100, 300, 700, 1500, 3072)
    found = fitted({n: at(line, n) for n in units})
    assert (found.least, found.flat, found.each) == pytest.approx(
        (line.least, line.flat, line.each)
    )
    assert at(found, 0) == 0


def test_times_that_do_not_rise_are_an_error():
    with pytest.raises(ConfigError, match="more units take no longer here"):
        fitted({1: 3.0, 2: 2.0, 3: 1.0})
    with pytest.raises(ConfigError, match="more heads take no longer here"):
        fitted({1: 3.0, 2: 2.0, 3: 1.0}, "heads")


def test_an_encoder_with_one_head_has_a_line():
    assert at(fitted({1: 3.0}), 1) == 3.0


def test_times_that_noise_swallows_do_not_hold_the_line_down():
    """The first three took no longer than none, on a busy machine."""
    few = [1e-9, 1e-9, 1e-9, 0.037, 0.093, 0.032, 0.036, 0.034, 0.047, 0.058, 0.063, 0.068]
    found = fitted(dict(zip((1, 13, 24, 36, 47, 59, 70, 82, 93, 105, 116, 128), few, strict=True)))
    assert found.least > 0.01 * at(found, 128)
    assert at(found, 128) == pytest.approx(0.068, rel=0.15)


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_zeros_of_a_pruned_model_leave_no_fewer_units(tmp_path, kind):
    save_checkpoint(tmp_path, kind=kind)
    encoder = load_encoder(find_checkpoint(str(tmp_path)), pooler=False)[0].eval()
    architecture = architecture_of(encoder)
    layer = architecture.layers_of(encoder)[0]
    for path in architecture.roles.values():
        layer.get_submodule(path).weight.data.zero_()
    made = layer_with(layer, architecture, 4, {HEADS: 3, NEURONS: 5})
    assert made.heads == 3 and len(made.inner.weight) == 5
    assert not layer.get_submodule(architecture.roles["U"]).weight.any()


def test_a_layer_is_timed_by_its_heads_and_neurons():
    """A layer with all of its neurons takes longer than with one."""
    found = timed(random_classifier("mini", 1.0).base_model, (4, 32), 9)
    assert list(found[HEADS]) == [1, 2, 3, 4] and list(found[NEURONS])[-1] == 1024
    assert found[NEURONS][1024] > found[NEURONS][1] and found[HEADS][4] > found[HEADS][1]


def test_it_prints_values_for_a_suite(tmp_path, capsys, monkeypatch):
    given = {HEADS: {1: 2e-3, 2: 3e-3, 3: 4e-3}, NEURONS: {1: 1e-3, 9: 1e-3, 17: 5e-3}}
    monkeypatch.setattr("zoo.tools.layer_times.timed", lambda *_: given)
    save_checkpoint(tmp_path / "model", kind="distilbert")
    for model in (["--model", str(tmp_path / "model")], ["--random", "tiny"]):
        assert main([*model, "--batch", "2", "--tokens", "8"]) == 0
        out = capsys.readouterr().out
        assert "one layer, 2 x 8 tokens, 1 thread\n" in out
        assert '("heads_each", 1), ("heads_flat", 1), ("heads_least", 2),' in out
        assert '("neurons_each", 0.5), ("neurons_flat", 9), ("neurons_least", 1),' in out
        pasted = dict(literal_eval("(" + out[out.index('("constraint"') :] + ")"))
        chosen = methods["kwon"].make(0.5, **pasted).calibration.choose
        assert chosen == Rearranged(Searched((UnitCost(1.0, 1, 2.0), UnitCost(0.5, 9, 1.0))))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give --model DIR or --random base"),
        (["--random", "tiny", "--rounds", "3"], "--rounds: 3 rounds are too few"),
        (["--model", "./nowhere"], "./nowhere"),
        (["--random", "tiny", "--tokens", "513"], "513 tokens are more than the model's 512"),
    ],
)
def test_what_is_missing_is_one_line(options, message, capsys):
    assert main(options) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_an_encoder_that_cannot_be_compacted_is_named(tmp_path, capsys):
    save_checkpoint(tmp_path / "model", kind="modernbert")
    assert main(["--model", str(tmp_path / "model")]) == 2
    assert "modernbert cannot be compacted" in capsys.readouterr().err


@pytest.mark.parametrize("batch", [10**11, 10**17])
def test_a_batch_that_no_memory_holds_is_one_line(batch, capsys):
    assert main(["--random", "tiny", "--batch", str(batch)]) == 5
    err = capsys.readouterr().err
    assert err.startswith("error: out of memory (") and err.count("\n") == 1
