"""What the figures of trained models show: quality against latency, multiply-accumulates or bytes,
and which forms nothing else beats in both."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from statistics import fmean, median

from leaderboard.beside import short
from leaderboard.looks import Look
from leaderboard.measured import Measured, Shape, measured, shapes
from leaderboard.series import Series
from zoo.records.forms import STOCK, Timing


@dataclass(frozen=True)
class Spot:
    """A form of a row on a task, the mean over the seeds that were measured: its cost `x`, from
    `low` to `high`, its first metric `y`, and what the trained model keeps in percent. `name` and
    `label` are the method's, `kind` and `words` the form's; `exact` if it loses nothing."""

    name: str
    label: str
    target: float
    kept: float
    kind: str
    words: str
    exact: bool
    x: float
    low: float
    high: float
    y: float

    @property
    def rest(self) -> str:
        """' 2.99 %', or nothing where nothing is pruned."""
        return "" if self.target == 1 else f" {self.kept:.3g} %"


@dataclass(frozen=True)
class Front:
    """A task's spots; `steps` are the places of those on the Pareto front, by their cost, equal
    ones together. `dense` is the cost of the dense model, None for bytes."""

    title: str
    spots: Sequence[Spot]
    steps: Sequence[Sequence[int]]
    dense: float | None = None


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """The places of the points (cost, quality) on the Pareto front, by cost: no other point has a
    cost as low and a quality as high, and is better in one of them."""

    def beaten(x: float, y: float) -> bool:
        return any(a <= x and b >= y and (a, b) != (x, y) for a, b in points)

    best = [place for place, (x, y) in enumerate(points) if not beaten(x, y)]
    return sorted(best, key=lambda place: points[place])


def found_forms(series: Series) -> list[Measured]:
    """The forms of a table, and on its tasks those of rows that prune nothing in its table without
    distillation, and of other checkpoints."""
    own, plain = list(measured(series.table)), series.board.without_distillation(series.table)
    tasks = {one.task for one in own}
    beside = [m for other in series.others for m in other.forms(list(tasks))]
    unpruned = measured(plain) if plain else ()
    return [*(m for m in unpruned if m.row.density == 1 and m.task in tasks), *own, *beside]


def latency_shapes(series: Series) -> list[Shape]:
    """The shapes for which a figure of latency can be drawn, most timings first."""
    return shapes(one for one in found_forms(series) if one.value is not None)


def latency_fronts(series: Series, shape: Shape) -> list[Front]:
    """By task, quality against milliseconds of a call: the median of all timings of the dense
    model, over the speed-up of each form, so that a machine's slow hours cancel. They do not
    between two checkpoints, each of which has a dense model of its own."""
    fronts = []
    for task, found in _by_task(found_forms(series)).items():
        seconds: dict[str, list[float]] = {}
        for one in found:
            own = [timing.dense_seconds for timing in one.timings(shape)]
            seconds.setdefault(one.other, []).extend(own)
        dense = {other: 1000 * median(own) for other, own in seconds.items() if own}
        if "" not in dense:
            continue

        def cost(
            one: Measured, dense: Mapping[str, float] = dense
        ) -> tuple[float, float, float] | None:
            own = one.timings(shape)
            return _milliseconds(own, dense[one.other]) if own else None

        fronts.append(_front(f"{task}: {found[0].metric}", found, cost, dense[""]))
    return [front for front in fronts if front.spots]


def _milliseconds(timings: Sequence[Timing], dense: float) -> tuple[float, float, float]:
    speed = prod(timing.speedup for timing in timings) ** (1 / len(timings))
    low, high = max(t.high for t in timings), min(t.low for t in timings)
    return dense / speed, dense / low, dense / high


def mac_fronts(series: Series, tokens: int) -> tuple[list[Front], str]:
    """By task, quality against the multiply-accumulates for an example of so many tokens, and their
    unit: MMACs, or GMACs for large models; no fronts where none were counted."""
    forms = [one for one in found_forms(series) if one.macs(tokens)]
    large = max((one.macs(tokens) or 0 for one in forms), default=0) >= 1e9
    unit = 1e9 if large else 1e6

    def cost(one: Measured) -> tuple[float, float, float]:
        count = (one.macs(tokens) or 0) / unit
        return count, count, count

    fronts = []
    for task, found in _by_task(forms).items():
        stock = [cost(one)[0] for one in forms if one.task == task and one.form.name == STOCK]
        dense = median(stock) if stock else None
        fronts.append(_front(f"{task}: {found[0].metric}", found, cost, dense))
    return fronts, "GMACs" if large else "MMACs"


def byte_fronts(series: Series) -> tuple[list[Front], str]:
    """By task, quality against size on disk, and the size's unit: MB, or kB for small models."""
    forms = [one for one in found_forms(series) if one.form.bytes]
    small = max((one.form.bytes for one in forms), default=0) < 1e6

    def cost(one: Measured) -> tuple[float, float, float]:
        size = one.form.bytes / (1e3 if small else 1e6)
        return size, size, size

    by_task = _by_task(forms)
    fronts = [_front(f"{t}: {found[0].metric}", found, cost) for t, found in by_task.items()]
    return fronts, "kB" if small else "MB"


def _by_task(found: Iterable[Measured]) -> dict[str, list[Measured]]:
    by_task: dict[str, list[Measured]] = {}
    for one in found:
        if one.value is not None:
            by_task.setdefault(one.task, []).append(one)
    return dict(sorted(by_task.items()))


Cost = Callable[[Measured], tuple[float, float, float] | None]
"""Gives the cost of a form and its interval; None if it was not measured."""


def _front(title: str, found: Sequence[Measured], cost: Cost, dense: float | None = None) -> Front:
    """Spots of rows and forms, and which are on the front."""
    groups: dict[tuple[object, str], list[tuple[Measured, tuple[float, float, float]]]] = {}
    for one in found:
        costs = cost(one)
        if costs is not None:
            row = one.other or one.row
            groups.setdefault((row, one.form.label), []).append((one, costs))
    spots = [_spot(own) for own in groups.values()]
    points = [(spot.x, spot.y) for spot in spots]
    steps: dict[tuple[float, float], list[int]] = {}
    for place in pareto(points):
        steps.setdefault(points[place], []).append(place)
    return Front(title, spots, list(steps.values()), dense)


def _spot(own: Sequence[tuple[Measured, tuple[float, float, float]]]) -> Spot:
    first, _ = own[0]
    xs, lows, highs = zip(*(costs for _, costs in own), strict=True)
    return Spot(
        name=first.other or first.row.name,
        label=short(first.other) or first.label,
        target=first.row.density,
        kept=fmean(one.kept for one, _ in own),
        kind=first.form.name,
        words=first.form.label,
        exact=all(one.exact for one, _ in own),
        x=prod(xs) ** (1 / len(xs)),
        low=min(lows),
        high=max(highs),
        y=fmean(one.value for one, _ in own if one.value is not None),
    )


def looks_in(series: Series, fronts: Sequence[Front]) -> dict[str, Look | None]:
    """By label the look of each method in some fronts, None for rows that prune nothing."""
    spots = [spot for front in fronts for spot in front.spots]
    order = {name: place for place, name in enumerate(series.looks)}
    spots = sorted(spots, key=lambda spot: order.get(spot.name, -1))
    return {spot.label: series.looks.get(spot.name) for spot in spots}
