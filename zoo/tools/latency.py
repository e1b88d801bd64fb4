"""How fast a saved model is in every form, beside the dense model, in one process.

    python -m zoo.tools.latency results/high_sparsity
    python -m zoo.tools.latency results/high_sparsity/models/TRIAL --batches 1,8 --tokens 128
    python -m zoo.tools.latency --random base --densities 0.1,0.03

Every form is timed in every round, in an order drawn anew; a speed-up is the median over rounds of
dense / form, with a 99 % interval. Where that interval holds 1 no speed-up is printed. Threads are
pinned to as many cores. Bytes, times and the metrics of forms that are not exact go into the
trial's result, whose id they do not change.
"""

if __name__ == "__main__":  # first: the imports below take seconds
    from zoo.ends import end_at_once

    end_at_once()

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

import torch
from tabulate import tabulate

from zoo.ends import command, leave
from zoo.engine.compact import THIN
from zoo.errors import ConfigError
from zoo.inputs.kinds import prunable
from zoo.records.forms import STOCK, Form, Timing
from zoo.records.result import Result
from zoo.runs.command import DENSITIES, WHOLE, several
from zoo.runs.plan import check_density
from zoo.tools.compared import example
from zoo.tools.kept import folders_of, load_kept
from zoo.tools.measured import BATCHES, TOKENS, Measurement, Shape, measure, one_for_each, title
from zoo.tools.onnx_file import INSTALL, has_onnx
from zoo.tools.synthetic import SIZES, random_classifier
from zoo.tools.timing import ROUNDS, compare, order_statistics, pinned
from zoo.tools.ways import ways_of


def table(forms: Sequence[Form]) -> str:
    """Forms as a pipe table."""
    whole = next(form.bytes for form in forms if form.name == STOCK)
    header = ["Form", "MB", "% of stock", "First metric"]
    header += ["Batch x tokens", "Threads", "MMACs", "ms", "Speed-up (99 %)"]
    body = []
    for form in forms:
        first = next(iter(form.metrics.values()), None)
        start = [form.label, f"{form.bytes / 1e6:.2f}", f"{100 * form.bytes / whole:.1f}"]
        start.append("-" if first is None else f"{first:.2f}")
        for one in form.timings:
            at = [f"{one.batch} x {one.tokens}", one.threads]
            at += ["-" if one.macs is None else f"{one.macs / 1e6:.2f}"]
            at += [f"{1000 * one.seconds:.2f}"]
            body.append([*start, *at, "-" if form.name == STOCK else said(one)])
            start = [""] * 4
        if not form.timings:
            body.append([*start, *[""] * 5])
    align = ["left", *["right"] * 8]
    return tabulate(body, header, "pipe", disable_numparse=True, colalign=align)


def said(one: Timing) -> str:
    """'1.37 (1.31 to 1.42)', or that no difference was measured."""
    if not one.tells:
        return "no difference"
    return f"{one.speedup:.2f} ({one.low:.2f} to {one.high:.2f})"


def random_models(options: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """Classifiers with random weights and random masks, and what each is."""
    for density in options.densities:
        name = f"{options.random} geometry, random masks that keep {100 * density:g} %"
        yield name, random_classifier(options.random, density)


def same_twice(options: argparse.Namespace, shape: Shape) -> int:
    """Compare a model with itself so many times; returns how often the interval held 1."""
    model = random_classifier(options.random or "tiny", 1.0)
    inputs = example(model, *shape)
    work = partial(model, **inputs)
    held = 0
    for number in range(options.same):
        with torch.inference_mode():
            found = compare({"one": work, "other": partial(model, **inputs)}, "one", options.rounds)
        held += found["other"].low <= 1 <= found["other"].high
        print(f"\r{held} of {number + 1} intervals hold 1", end="", flush=True)
    print()
    return held


COUNTS = several(int, "whole numbers such as 1,8")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m zoo.tools.latency",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("models", nargs="*", help="saved models, results, or folders of suites")
    made.add_argument("--one-each", action="store_true", help="of each method and target one model")
    made.add_argument("--batches", type=COUNTS, default=BATCHES, help="examples of a call: 1,8")
    tokens = f"tokens of an example: 32,128 (default: the trial's longest, at most {TOKENS})"
    made.add_argument("--tokens", type=COUNTS, help=tokens)
    made.add_argument("--threads", type=WHOLE, default=1, help="CPU threads, and cores")
    made.add_argument("--rounds", type=int, default=ROUNDS, help="rounds that count")
    least = f"drop rows with fewer weights in the form that is not exact (default {THIN}; 0: none)"
    made.add_argument("--least", type=int, default=THIN, help=least)
    made.add_argument("--onnx", action="store_true", help="onnxruntime too, an extra")
    made.add_argument("--model", help="the base model, if it is not the scale's")
    made.add_argument("--data-dir", help="the data of the trials, if they are not the scale's")
    made.add_argument("--random", choices=SIZES, help="random weights and masks of this geometry")
    made.add_argument("--densities", type=DENSITIES, default=(0.1, 0.03), help="of random masks")
    made.add_argument("--same", type=int, default=0, help="compare one model with itself N times")
    return made


@command
def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = parser().parse_args(argv)
    check(options)
    given = {field.name: getattr(options, field.name) for field in fields(Measurement)}
    with pinned(options.threads):
        return run(options, Measurement(**given))


def run(options: argparse.Namespace, how: Measurement) -> int:
    """Measure and print."""
    shapes = how.shapes(TOKENS)
    if options.same:
        return 0 if same_twice(options, shapes[0]) >= 0.95 * options.same else 1
    for name, model in random_models(options) if options.random else ():
        ways = list(ways_of(model, how.least, onnx=how.onnx))
        found = measure(ways, shapes, how.threads, how.rounds, lambda way: {})
        print(f"{name}\n{table(found)}\n", flush=True)
    folders = folders_of(options.models)
    for kept in map(load_kept, one_for_each(folders) if options.one_each else folders):
        share = _share(kept.result, kept.model)
        print(f"{title(kept)}, {share:.2f} % of the weights", flush=True)
        print(f"{table(how.measure(kept))}\n", flush=True)
    return 0


def _share(result: Result | None, model: Any) -> float:
    """The remaining weights of a saved model in percent."""
    if result is not None:
        return 100 * result.remaining.density
    weights = [linear.weight for linear in prunable(model.base_model).values()]
    kept = sum(int(weight.count_nonzero()) for weight in weights)
    return 100 * kept / sum(weight.numel() for weight in weights)


def check(options: argparse.Namespace) -> None:
    """Raise ConfigError for options that do not fit each other."""
    if not (options.models or options.random or options.same):
        raise ConfigError("give saved models, results or a suite's folder, or --random base")
    if options.least < 0 or min((*options.batches, *(options.tokens or (1,)))) < 1:
        raise ConfigError("--least must be at least 0, --batches and --tokens at least 1")
    for density in options.densities:
        check_density(density)
    if options.onnx and not has_onnx():
        raise ConfigError(INSTALL)
    try:
        order_statistics(options.rounds)
    except ValueError as error:
        raise ConfigError(f"--rounds: {error}") from None


if __name__ == "__main__":
    leave(main())
