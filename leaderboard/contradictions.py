"""Results that contradict the others of a board. Each could be true by itself, so that reading it
finds nothing; it is left out of every mean, rank and figure, and named.

Trials of one task and one data set have as many examples, and the same metric is the percentage of
right answers; trials of one method and density with the same hyper-parameters have the same
matrices. What most results say counts; where nothing is said by most, none of them does. No trial
is run again for it: which of several results is wrong, a user must say.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence

from zoo.records.arrays import right_of
from zoo.records.consistent import ROUNDING
from zoo.records.result import Result
from zoo.records.trial import canonical


def contradictions(results: Iterable[Result]) -> dict[str, str]:
    """By trial id what a result and the others disagree about."""
    results = list(results)
    found: dict[str, str] = {}
    for own in _groups(results, _same_data):
        for split in sorted({split for result in own for split in result.correct}):
            having = [result for result in own if split in result.correct]
            found |= _of_numbers(split, having) | _of_shares(split, having)
    for own in _groups(results, _same_method):
        found |= _of_matrices(own)
    return found


def _groups(results: Iterable[Result], key: Callable[[Result], Hashable]) -> Iterable[list[Result]]:
    groups: dict[Hashable, list[Result]] = {}
    for result in results:
        groups.setdefault(key(result), []).append(result)
    return groups.values()


def _same_data(result: Result) -> Hashable:
    """What trials on the same examples have in common; a plugin may define another task."""
    trial = result.trial
    return trial.task, trial.data_sha, trial.choosing, trial.plugin_sha


def _same_method(result: Result) -> Hashable:
    """What trials that prune the same matrices have in common; a method may drop layers."""
    trial = result.trial
    return trial.model_sha, trial.method, trial.plugin_sha, trial.density, canonical(trial.hyper)


def _of_numbers(split: str, results: Sequence[Result]) -> dict[str, str]:
    """Results with another number of examples."""
    numbers = {r.trial.id: right_of(r.correct[split], split)[0] for r in results}
    most = most_say(numbers.values())
    known, task = sorted(set(numbers.values())), results[0].trial.task
    others = {number: ", ".join(str(n) for n in known if n != number) for number in known}
    return {
        id: f"correct.{split} has {number} examples, but other results of {task} {others[number]}"
        for id, number in numbers.items()
        if number != most
    }


def _of_shares(split: str, results: Sequence[Result]) -> dict[str, str]:
    """Results in which the metric that is the percentage of right answers elsewhere is not."""
    rights = {r.trial.id: _percentage(r, split) for r in results}
    # At 0 and at 100 % metrics are equal that are not the same.
    telling = [r for r in results if 0 < rights[r.trial.id] < 100]
    fitting = Counter(name for r in telling for name in r.metrics if _is_share(r, name, rights))
    name, often = next(iter(fitting.most_common(1)), ("", 0))
    told = sum(r.metrics.get(name) is not None for r in telling)
    if often < 2 or 2 * often <= told:
        return {}
    return {
        r.trial.id: f"metrics.{name} is {r.metrics[name]:.10g}, but correct.{split} has"
        f" {rights[r.trial.id]:.10g} % right, which is that metric in {often} other results"
        for r in results
        if r.metrics.get(name) is not None and not _is_share(r, name, rights)
    }


def _percentage(result: Result, split: str) -> float:
    number, right = right_of(result.correct[split], split)
    return 100 * right / number if number else 0.0


def _is_share(result: Result, name: str, rights: dict[str, float]) -> bool:
    metric = result.metrics.get(name)
    return metric is not None and abs(metric - rights[result.trial.id]) <= ROUNDING


def _of_matrices(results: Sequence[Result]) -> dict[str, str]:
    """Results of a method with other matrices."""
    matrices = {
        r.trial.id: tuple(
            (n, m.total, m.layer, m.role, len(m.attention_heads))
            for n, m in sorted(r.remaining.matrices.items())
        )
        for r in results
    }
    most = most_say(matrices.values())
    return {
        id: f"remaining.matrices are not those of other results of {results[0].trial.method}"
        for id, own in matrices.items()
        if own != most
    }


def most_say(values: Iterable[Hashable]) -> Hashable:
    """What more values say than say any other; None where no value is more frequent."""
    first, *others = Counter(values).most_common(2)
    return None if others and others[0][1] == first[1] else first[0]
