"""Timings whose intervals hold, and the forms of saved models in results."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from run_benchmark import main
from zoo.errors import TrialError
from zoo.records.codec import from_json, to_json
from zoo.records.forms import COMPACT, FORMS, INT8, PACKED, SHALLOW, STOCK, ZEROS, Form, Timing
from zoo.records.storage import load_result
from zoo.tools import measured, timing, ways
from zoo.tools.export import main as export
from zoo.tools.latency import main as time_models
from zoo.tools.latency import said
from zoo.tools.synthetic import random_classifier
from zoo.tools.timing import Ratio, compare, order_statistics
from zoo.tools.ways import bytes_of, quantised, quantised_bytes, refilled, ways_of

RUN = ["--suite", "high_sparsity", "--executor", "inline", "--tasks", "tiny_inference"]
RUN += ["--methods", "dense,smp_s", "--densities", "0.03", "--seeds", "0", "--max-steps", "3"]


# Intervals --------------------------------------------------------------------------------------


def binomial(n: int, most: int) -> float:
    """P(X <= most) for n fair coins."""
    return sum(math.comb(n, k) for k in range(most + 1)) / 2**n


@pytest.mark.parametrize("rounds", (8, 11, 15, 21, 40))
def test_the_interval_is_the_narrowest_that_misses_rarely(rounds):
    low, high = order_statistics(rounds)
    assert high == rounds - 1 - low
    assert 2 * binomial(rounds, low) <= 0.01 < 2 * binomial(rounds, low + 1)


def test_too_few_rounds_are_refused():
    with pytest.raises(ValueError, match="7 rounds are too few"):
        order_statistics(7)


def test_the_interval_holds_the_true_ratio_as_often_as_it_says():
    """Of 2,000 comparisons of times with equal medians and a heavy tail."""
    draws = np.random.default_rng(0)
    places, held = order_statistics(15), 0
    for _ in range(2000):
        one, other = (1 + draws.pareto(2.0, 15) for _ in range(2))
        held += (r := timing._ratio(list(one), list(other), places)).low <= 1 <= r.high
    assert held / 2000 > 0.985


def test_medians_of_known_times(monkeypatch):
    """A clock that the calls themselves move: the other takes half of the reference's time."""
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def taking(seconds):
        def work():
            now[0] += seconds

        return work

    found = compare({"slow": taking(0.5), "fast": taking(0.25)}, "slow", 9)
    assert found["fast"] == Ratio(0.5, 0.25, 2.0, 2.0, 2.0)
    assert found["slow"].value == 1.0


def test_no_ratio_is_printed_whose_interval_holds_1():
    one = Timing(1, 8, 1, 1.0, 1.1, 0.91, 0.8, 1.02)
    assert said(one) == "no difference"
    assert said(Timing(1, 8, 1, 1.0, 0.5, 2.0, 1.9, 2.1)) == "2.00 (1.90 to 2.10)"


@pytest.mark.parametrize("wrong", ((0, 8, 1, 1, 1, 1), (1, 8, 1, 2, 2.1, 2.2), (1, 8, 1, 0, 0, 1)))
def test_a_timing_that_cannot_be_is_refused(wrong):
    batch, tokens, threads, value, low, high = wrong
    with pytest.raises(ValueError):
        Timing(batch, tokens, threads, 1.0, 1.0, value, low, high)
    with pytest.raises(ValueError):
        Form(COMPACT, -1)


def test_counts_are_checked_when_a_record_is_read():
    """Of an example, whatever the batch; older timings have none, and are written as before."""
    about = {"threads": 1, "dense_seconds": 1.0, "seconds": 1.0, "speedup": 1.0}
    about |= {"low": 1.0, "high": 1.0, "tokens": 8}
    old = from_json(Timing, about | {"batch": 1})
    assert (
        "macs" not in to_json(old) and old.macs is None and from_json(Timing, to_json(old)) == old
    )
    one, same, other = (
        from_json(Timing, about | {"batch": batch, "macs": counted})
        for batch, counted in ((1, 5), (8, 5), (8, 6))
    )
    assert to_json(one)["macs"] == 5 and Form(COMPACT, 1, timings=(one, same))
    for wrong in (-1, 2**63, 1.5, "5", True):
        with pytest.raises(ValueError, match="macs"):
            from_json(Timing, about | {"batch": 1, "macs": wrong})
    for timings in ((one, other), (one, old)):
        with pytest.raises(ValueError, match="macs of an example"):
            Form(COMPACT, 1, timings=timings)


# Ways -------------------------------------------------------------------------------------------


def test_the_reference_has_no_zero_and_the_same_bytes():
    model = random_classifier("tiny", 0.1)
    dense = refilled(model)
    for (name, before), after in zip(model.named_parameters(), dense.parameters(), strict=True):
        kept = before != 0 if before.ndim == 2 and ".layer." in name else torch.tensor(True)
        assert torch.equal(torch.where(kept, before, after), after)
        assert ".layer." not in name or before.ndim < 2 or bool(after.all())
    assert bytes_of(dense) == bytes_of(model) == 4 * sum(p.numel() for p in model.parameters())
    assert refilled(dense) is dense


def test_the_bytes_of_a_quantised_model():
    model = random_classifier("tiny", 1.0)
    matrices = [m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear)]
    assert quantised_bytes(quantised(model)) == bytes_of(model) - 3 * sum(matrices)


def test_a_pruned_and_a_dense_model_have_their_ways():
    pruned = list(ways_of(random_classifier("tiny", 0.03)))
    names = [way.label for way in pruned if way.name != "sparse"]
    assert names == [STOCK, ZEROS, COMPACT, f"{COMPACT}, ≥ 10 a row"]
    assert pruned[0].bytes == pruned[1].bytes > pruned[2].bytes > pruned[3].bytes
    assert [way.name for way in ways_of(random_classifier("tiny", 1.0))] == [STOCK, INT8]
    assert all(way.name in FORMS for way in pruned)


def test_a_shallow_model_is_compared_with_all_layers_of_its_base():
    model = random_classifier("tiny", 1.0)
    stock, shallow, *others = ways_of(model, layers=6)
    assert (stock.name, shallow.name) == (STOCK, SHALLOW)
    assert shallow.model is model and len(stock.model.bert.encoder.layer) == 6
    layer = sum(p.numel() for p in model.bert.encoder.layer[0].parameters())
    assert stock.bytes == shallow.bytes + 4 * 4 * layer
    assert [way.name for way in others] == [INT8]


# Saved models -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def suite(tmp_path_factory) -> Path:
    """Two short trials whose models are kept and timed."""
    root = tmp_path_factory.mktemp("latency")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "LEAST", 1e-6)
        patch.setattr(timing, "_bind", lambda cores: None)
        assert main([*RUN, "--save", "best", "--latency", "--results", str(root)]) == 0
    return root / "high_sparsity"


def test_forms_are_in_the_results_and_ids_stay(suite):
    results = {path: load_result(path) for path in suite.glob("tiny_*.json")}
    assert len(results) == 2
    for path, result in results.items():
        assert path.stem == result.trial.id
        forms = {(form.name, form.least): form for form in result.forms}
        names = {name for name, _ in forms}
        assert names >= ({STOCK, PACKED, INT8} if result.trial.density == 1 else {ZEROS, COMPACT})
        for form in result.forms:
            assert (form.name == PACKED) == (not form.timings)
            refilled = form.name == STOCK and result.trial.density < 1
            assert set(form.metrics) == (set() if refilled else {"acc"})
            assert [(t.batch, t.tokens, t.threads) for t in form.timings] in (
                [],
                [(1, 64, 1), (8, 64, 1)],
            )
            assert bool(form.units) == (form.name == COMPACT)
            counts = {timing.macs for timing in form.timings}
            assert len(counts) == bool(form.timings) and None not in counts
            if not form.least and form.name != INT8 and not refilled:
                assert form.metrics == result.metrics
    page = (suite / "LEADERBOARD.md").read_text()
    assert "compact" in page
    assert (suite / "leaderboard.html").read_text().count("speed-up") > 1


def test_what_was_timed_is_not_timed_again(suite, capsys):
    root = str(suite.parent)
    assert main([*RUN, "--save", "best", "--latency", "--results", root]) == 0
    assert "0 to run" in (out := capsys.readouterr().out) and "MB" not in out.split("timing")[1]


def test_the_tool_prints_a_table_and_replaces_forms(suite, capsys, monkeypatch):
    monkeypatch.setattr(timing, "LEAST", 1e-6)
    (result,) = suite.glob("*smp_s*.json")
    before = load_result(result)
    options = ["--batches", "2", "--tokens", "16", "--rounds", "8", "--least", "0"]
    assert time_models([str(result), *options]) == 0
    assert "2 x 16" in capsys.readouterr().out
    after = load_result(result)
    assert {t.tokens for form in after.forms for t in form.timings} == {16}
    assert after.trial == before.trial and after.metrics == before.metrics


@pytest.mark.parametrize(
    ("words", "says"),
    (
        ([], "give saved models"),
        (["nowhere"], "neither a saved model"),
        (["{suite}", "--rounds", "3"], "3 rounds are too few"),
        (["{suite}", "--tokens", "500"], "500 tokens are more than"),
        (["{suite}", "--model", "{suite}"], "config.json"),
        (["{suite}", "--threads", "4000"], "4000 threads cannot be timed"),
    ),
)
def test_wrong_input_is_one_line(suite, words, says, capsys):
    assert time_models([word.format(suite=suite) for word in words]) in (2, 5)
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and says in error


def test_latency_without_kept_models_is_refused(capsys, tmp_path):
    assert main([*RUN, "--latency", "--results", str(tmp_path)]) == 2
    assert "add --save best" in capsys.readouterr().err


def test_a_form_that_computes_something_else_is_not_recorded(suite, monkeypatch, capsys):
    """Neither by the tool nor by a run, which goes on."""
    real = ways.compact

    def other(model, state=None):
        small = real(model, state)
        for parameter in small.base_model.encoder.parameters():
            torch.nn.init.normal_(parameter)
        return small

    monkeypatch.setattr(ways, "compact", other)
    (result,) = suite.glob("*smp_s*.json")
    before = load_result(result)
    assert time_models([str(result)]) == TrialError.exit_code
    assert "compact differs by" in capsys.readouterr().err
    assert load_result(result) == before
    monkeypatch.setattr(measured, "_has_forms", lambda folder: False)
    assert main([*RUN, "--save", "best", "--latency", "--results", str(suite.parent)]) == 0
    out = capsys.readouterr().out
    assert "not timed: tiny_inference-smp_s" in out and "leaderboard:" in out


def test_a_pruned_model_with_fewer_layers_has_no_metrics_that_are_not_its_own():
    found = list(ways_of(random_classifier("tiny", 0.1), layers=6))
    assert [way.name for way in found if way.reference] == [STOCK]
    assert SHALLOW not in [way.name for way in found]


# Export -----------------------------------------------------------------------------------------


def test_forms_are_written_beside_the_model_and_come_back(suite, tmp_path, capsys):
    from zoo import load_compact

    (result,) = suite.glob("*smp_s*.json")
    assert export([str(result), "--to", "compact,narrow,packed"]) == 0
    assert export([str(result), "--to", "compact", "--least", "5", "--out", str(tmp_path)]) == 0
    folder = suite / "models" / result.stem
    assert {p.name for p in folder.iterdir() if p.is_dir()} == {"compact", "narrow", "packed"}
    lossy = tmp_path / result.stem / "compact_5"
    assert json.loads((lossy / "compact.json").read_text())["least"] == 5
    sizes = [
        sum(p.numel() for p in load_compact(f).parameters()) for f in (folder / "compact", lossy)
    ]
    assert sizes[0] > sizes[1]
    packed = sum(file.stat().st_size for file in (folder / "packed").glob("*.[zs]*"))
    assert packed < 0.05 * (folder / "model.safetensors").stat().st_size
    model = str(Path("tasks/laboratory").resolve())
    assert (
        export(
            ["--unpack", str(folder / "packed"), "--model", model, "--out", str(tmp_path / "again")]
        )
        == 0
    )
    again = (tmp_path / "again" / "model.safetensors").stat().st_size
    assert again == (folder / "model.safetensors").stat().st_size
    out = capsys.readouterr().out
    assert "another model" in out and "its entropy is" in out


def test_a_model_that_was_not_kept_is_named_with_its_command(suite, tmp_path, capsys):
    (result,) = suite.glob("*smp_s*.json")
    other = tmp_path / "high_sparsity" / result.name
    other.parent.mkdir()
    other.write_bytes(result.read_bytes())
    assert export([str(other)]) == 2
    error = capsys.readouterr().err
    command = error.partition("this makes it: ")[2].split()
    assert command[:2] == ["python", "run_benchmark.py"] and "--save all" in error
    assert main([*command[2:], "--executor", "inline", "--results", str(tmp_path)]) == 0
    assert (tmp_path / "high_sparsity" / "models" / result.stem).is_dir()


def test_a_form_that_differs_is_not_written(suite, monkeypatch, capsys):
    from zoo.tools import export as module

    real = module.load_compact

    def other(folder):
        model = real(folder)
        model.classifier.bias.data[0] = values.pop()
        return model

    monkeypatch.setattr(module, "load_compact", other)
    (result,) = suite.glob("*dense*.json")
    values = [5.0, float("nan")]
    while values:
        assert export([str(result), "--to", "compact"]) == 3
        assert "differs by" in capsys.readouterr().err
    assert not (suite / "models" / result.stem / "compact").exists()


def test_onnx_gives_the_same_and_without_its_packages_says_so(suite, capsys):
    from zoo.tools.onnx_file import has_onnx

    (result,) = suite.glob("*smp_s*.json")
    code = export([str(result), "--to", "onnx,onnx_compact"])
    if not has_onnx():
        assert code == 2 and "pip install" in capsys.readouterr().err
        return
    assert code == 0
    folder = suite / "models" / result.stem
    assert (folder / "onnx" / "model.onnx").is_file() and (folder / "onnx_compact").is_dir()
