"""Measure the forms of saved models and write them into the results of their trials."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from zoo.engine.compact import THIN, units_of
from zoo.engine.evaluation_set import EvaluationSet
from zoo.engine.macs import macs
from zoo.engine.measure import environment
from zoo.engine.stock import StockNetwork
from zoo.errors import BenchmarkError, TrialError
from zoo.records.forms import COMPACT, ONNX, ONNX_COMPACT, STOCK, Form, Timing
from zoo.records.result import Environment
from zoo.records.storage import UNREADABLE, load_result, save
from zoo.records.trial import Trial
from zoo.tools.compared import CLOSE, CLOSE_ONNX, difference, example
from zoo.tools.kept import (
    Kept,
    base_of,
    examples_of,
    folders_of,
    load_kept,
    result_path_of,
    trial_of,
)
from zoo.tools.timing import ROUNDS, Ratio, compare, pinned
from zoo.tools.ways import Way, packed_way, ways_of

PACKAGES = ("torch", "transformers")
"""Packages that a time depends on."""
BATCHES, TOKENS = (1, 8), 128
"""Examples of a call, and the most tokens of an example, if nothing else is asked for."""


Shape = tuple[int, int]
"""Examples of a call, and tokens of each."""


def timed(ways: Sequence[Way], shape: Shape, rounds: int) -> dict[str, Ratio]:
    """The ratio of each way that runs, by its label; the first is the reference."""
    inputs = example(ways[0].model, *shape)
    calls: dict[str, Callable[[], object]] = {
        way.label: partial(way.model, **inputs) for way in ways if way.model is not None
    }
    with torch.inference_mode():
        return compare(calls, ways[0].label, rounds)


def macs_of(way: Way, tokens: int) -> int | None:
    """The multiply-accumulates of a way that runs, for an example of so many tokens."""
    model = way.model if way.like is None else way.like
    return macs(model, example(model, 1, tokens))


def timing(ratio: Ratio, shape: Shape, about: Environment, counted: int | None) -> Timing:
    """A ratio and multiply-accumulates as they stand in a record."""
    return Timing(
        batch=shape[0],
        tokens=shape[1],
        threads=about.threads,
        dense_seconds=ratio.reference,
        seconds=ratio.seconds,
        speedup=ratio.value,
        low=ratio.low,
        high=ratio.high,
        device=about.device,
        packages={n: v for n, v in about.packages.items() if n in PACKAGES},
        macs=counted,
    )


def measure(
    ways: Sequence[Way],
    shapes: Sequence[Shape],
    threads: int,
    rounds: int,
    metrics: Callable[[Way], Mapping[str, float | None]],
) -> list[Form]:
    """Every form of a model with its timings, multiply-accumulates and units."""
    about = environment(torch.device("cpu"), threads)
    by_shape = {shape: timed(ways, shape, rounds) for shape in shapes}
    found = []
    for way in ways:
        timings = [
            timing(ratios[way.label], shape, about, macs_of(way, shape[1]))
            for shape, ratios in by_shape.items()
            if way.label in ratios
        ]
        units = units_of(way.model) if way.name == COMPACT else ()
        told = metrics(way), tuple(timings), units
        found.append(Form(way.name, way.bytes, way.least, *told))
    return found


@dataclass(frozen=True)
class Measurement:
    """How saved models are measured: batches, tokens of an example (none: the trial's longest),
    CPU threads, rounds, N of the compact form that is not exact, whether in onnxruntime too; where
    the base model and the data are, None for the scale's."""

    batches: Sequence[int] = BATCHES
    tokens: Sequence[int] | None = None
    threads: int = 1
    rounds: int = ROUNDS
    least: int = THIN
    onnx: bool = False
    model: str | None = None
    data_dir: str | None = None

    def shapes(self, longest: int) -> list[Shape]:
        """The shapes that are timed, of models whose trials had at most so many tokens."""
        tokens = self.tokens or (min(TOKENS, longest),)
        return [(batch, many) for batch in self.batches for many in tokens]

    def measure(self, kept: Kept) -> list[Form]:
        """The forms of a saved model, which are written into its result, if that is beside, in
        place of those measured before."""
        base = base_of(kept, self.model)
        ways = list(ways_of(kept.model, self.least, onnx=self.onnx, layers=base.layers))
        ways.append(packed_way(kept, base))
        check(kept.model, ways)
        other = kept.result is not None and any(way.other for way in ways)
        examples = examples_of(kept, base, self.data_dir) if other else None
        shapes = self.shapes(kept.trial.train.max_length)
        metrics = partial(_metrics, kept, examples)
        found = measure(ways, shapes, self.threads, self.rounds, metrics)
        if kept.result is not None:
            path = result_path_of(kept.folder)  # read anew: this may have taken minutes
            save(replace(load_result(path), forms=tuple(found)), path.parent)
        return found


def check(model: Any, ways: Sequence[Way]) -> None:
    """Raise TrialError if a form that should compute what a saved model does differs from it by
    more than rounding."""
    for way in ways:
        if way.model is not None and not (way.other or way.reference):
            worst = difference(model, way.model)
            if not worst <= (CLOSE_ONNX if way.name in (ONNX, ONNX_COMPACT) else CLOSE):
                raise TrialError(f"the form {way.label} differs by {worst:.2g} from the model")


def measure_suite(
    folder: Path, trials: Collection[str], measurement: Measurement, say: Callable[[str], None]
) -> None:
    """Measure a kept model of each row in a suite's folder, of the trials with these ids, unless
    its result has forms already; say how much faster each became, or why it was not measured."""
    kept = [path for path in folders_of([str(folder)]) if path.name in trials]
    with pinned(measurement.threads):
        for path in one_for_each(kept):
            try:
                one = load_kept(path) if not _has_forms(path) else None
                if one is not None:
                    say(f"{title(one)}: {'; '.join(spoken(measurement.measure(one)))}")
            except BenchmarkError as error:
                say(f"not timed: {path.name}: {error}")


def _has_forms(folder: Path) -> bool:
    """Whether the result of a saved model has forms."""
    try:
        return bool(load_result(result_path_of(folder)).forms)
    except UNREADABLE:
        return False


def title(kept: Kept) -> str:
    """What a saved model is, in a few words."""
    trial = kept.trial
    return f"{trial.method} {100 * trial.density:g} % {trial.task} seed {trial.seed}"


def spoken(forms: Sequence[Form]) -> Iterator[str]:
    """'compact 0.31 MB, 1.12 times as fast' of each form, at the last of its shapes."""
    for form in forms:
        last = form.timings[-1] if form.timings and form.name != STOCK else None
        speed = f", {last.speedup:.2f} times as fast" if last and last.tells else ""
        yield f"{form.label} {form.bytes / 1e6:.2f} MB{speed}"


def _metrics(kept: Kept, examples: EvaluationSet | None, way: Way) -> Mapping[str, float | None]:
    """The trial's metrics of an exact form; those of another are measured; none of a reference that
    is not the trained model."""
    if kept.result is None or way.reference or (way.other and examples is None):
        return {}
    if not way.other or examples is None:
        return kept.result.metrics
    return examples.metrics(StockNetwork(way.model, kept.reading, examples.checkpoint.pad))


def one_for_each(folders: Sequence[Path]) -> list[Path]:
    """Of each row of a table the model of the first task and the lowest seed."""
    chosen: dict[str, tuple[Trial, Path]] = {}
    for folder in folders:
        trial = trial_of(folder)
        row = repr((*row_of(trial), trial.train.conditions))
        known = chosen.get(row)
        if known is None or (trial.task, trial.seed) < (known[0].task, known[0].seed):
            chosen[row] = trial, folder
    return [folder for _, folder in chosen.values()]


def row_of(trial: Trial) -> tuple[object, ...]:
    """What the trials of a row have in common, over tasks and seeds."""
    about = (trial.scale, trial.method, trial.density, trial.distill)
    return (*about, trial.recipe, trial.model_sha, trial.plugin_sha)
