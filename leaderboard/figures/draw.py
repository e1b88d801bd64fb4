"""Which figures a board has, and writing them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from leaderboard.figures import curves, fronts, masks, strips
from leaderboard.figures.style import save, settings
from leaderboard.fronts import (
    byte_fronts,
    latency_fronts,
    latency_shapes,
    looks_in,
    mac_fronts,
)
from leaderboard.panels import panels_of
from leaderboard.series import Series
from zoo.errors import cause_of

Figure = tuple[str, str, Callable[[], Any]]
"""Name, caption and the function that makes it; each is saved and closed before the next is
made."""


FIGURE = (
    r"(seeds|quality|curves|cost|latency(-\d+)?|macs|bytes"
    r"|(matrices|heads|units)-.+|weights|scores|agreement)"
)
"""The names of figures behind the slug, as a regular expression."""
Drawn = Mapping[str, Sequence[tuple[str, Path]]]
"""By a table's slug, captions and paths of its PNGs."""


def draw(series: Iterable[Series], folder: Path) -> tuple[Drawn, str]:
    """Draw all figures as SVG and PNG; says which could not be drawn, "" for none. On a terminal a
    bar appears after two seconds."""
    planned = [
        (one.table.key.slug, name, caption, make)
        for one in series
        for name, caption, make in figures(one)
    ]
    made: dict[str, list[tuple[str, Path]]] = {}
    troubles: list[str] = []
    with settings():
        for slug, name, caption, make in tqdm(
            planned, "figures", delay=2, leave=False, disable=None
        ):
            path = folder / f"{slug}-{name}.png"
            try:
                save(make(), path)
            except Exception as error:  # the others are drawn
                troubles.append(f"{path.stem} ({cause_of(error)})")
            else:
                made.setdefault(slug, []).append((caption, path))
    return made, f"Figures that could not be drawn: {'; '.join(troubles)}" if troubles else ""


def figures(series: Series) -> Iterator[Figure]:
    """The figures of one table."""
    if series.quality and series.pruned:
        what = "Quality against measured remaining weights"
        what += "; other checkpoints at their prunable weights" if series.others else ""
        found = panels_of(series)
        every = "Every seed, by method and target; methods by their mean at the lowest target"
        yield "seeds", every, partial(strips.strips, found, series.labels)
        yield "quality", what, partial(curves.quality, series.quality, series.labels)
    tasks = [task for task in series.tasks if series.lowest[task]]
    target = f"target {series.least:g} %"
    if tasks:
        what = f"Training at {target}: the first metric, means over seeds"
        caption = f"{what}; dots: density, from 100 % at the top"
        by_task = {f"{t}: {series.table.first_metric(t)}": series.curves(t) for t in tasks}
        yield "curves", caption, partial(curves.curves, by_task)
        what = f"Cost against quality at {target}"
        caption = f"{what}: time, memory and trainable parameters, means over tasks and seeds"
        yield "cost", caption, partial(curves.costs, series.costs())
    yield from _of_models(series)
    for task in series.table.tasks:
        uneven, where = series.matrices[task], f"{task}, {target}"
        if uneven:
            caption = f"Remaining weights by layer and matrix ({where}; where they differ)"
            yield f"matrices-{task}", caption, partial(masks.heat_maps, uneven, "")
        if maps := series.attention_heads(task):
            caption = f"Remaining weights by attention head ({where})"
            yield f"heads-{task}", caption, partial(masks.heat_maps, maps, "attention head")
        if maps := series.units(task):
            what = (
                "Attention heads, dimensions of queries and keys and of values over all heads, and"
            )
            caption = f"{what} neurons left in compact models, by layer ({where})"
            left = partial(masks.heat_maps, maps, "layer", "units left (%)")
            yield f"units-{task}", caption, left
    yield from _of_weights(series, target)


def _of_models(series: Series) -> Iterator[Figure]:
    """Quality against the latency, by shape of a call, the multiply-accumulates and the bytes of
    trained models."""
    marks = "steps: the Pareto front, its forms numbered; hollow: the form is not exact"
    marks += "; other checkpoints, dense, by their names" if series.others else ""
    shapes = latency_shapes(series)
    for number, shape in enumerate(shapes, 1):
        found = latency_fronts(series, shape)
        name = "latency" if number == 1 else f"latency-{number}"
        caption = (
            f"Quality against latency of trained models ({shape.words}): the dense model's over the"
            " speed-up, with its 99 % interval"
        )
        looks, below = looks_in(series, found), "ms per call"
        yield name, f"{caption}; {marks}", partial(fronts.fronts, found, looks, below)
    for shape in shapes[:1]:
        found, unit = mac_fronts(series, shape.tokens)
        caption = (
            f"Quality against multiply-accumulates for an example of {shape.tokens} tokens: linear"
            " maps, in CSR nonzero weights, and attention"
        )
        if found:
            looks, below = looks_in(series, found), f"{unit} per example"
            yield "macs", f"{caption}; {marks}", partial(fronts.fronts, found, looks, below)
    found, unit = byte_fronts(series)
    if found:
        caption = f"Quality against the size of files (packed: beside the base model); {marks}"
        looks = looks_in(series, found)
        yield "bytes", caption, partial(fronts.fronts, found, looks, unit, log=True)


def _of_weights(series: Series, target: str) -> Iterator[Figure]:
    """Distributions of weights, and how far masks agree."""
    task, shown = series.distributions(learned=False)
    where = f"{task}, {target}, one seed"
    if shown:
        what = "Weights that remain, by their value, each method to its own height"
        yield "weights", f"{what}; grey: all weights ({where})", partial(masks.weights, shown)
    _, learned = series.distributions(learned=True)
    if learned:
        what = "Weights (across) against learned scores (up), pruned ones too"
        yield "scores", f"{what} ({where})", partial(masks.scores, learned)
    names, cells = series.agreement()
    if names:
        chance = 100 * series.least / (200 - series.least)
        caption = (
            "Agreement between masks: Jaccard index, in percent, between methods at the same task"
            " and seed, on the diagonal between seeds of one method; means over tasks"
            f" ({target}; by chance {chance:.1f})"
        )
        yield "agreement", caption, partial(masks.agreements, names, cells)
