"""Judge a trained trial from the files that it handed over, in a process that ran no plugin.

The final metrics, answers, remaining weights and digests of a result are computed here from weights
and evaluation data that are read anew, without the cache that trials share. What the trial claims
must agree with them. It cannot be seen here what a trial was trained on.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from zoo.engine import measure
from zoo.engine.build import Resources, located, make_method, usual_device
from zoo.engine.evaluate import best_constant, best_of, metrics_of, shares
from zoo.engine.evaluation_set import EvaluationSet
from zoo.engine.handover import Handover, read_handover
from zoo.engine.layers import Counts, Inside, take_layers
from zoo.errors import BenchmarkError, TrialError, without_folders
from zoo.inputs.checkpoint import Checkpoint
from zoo.inputs.task import Source, Task
from zoo.inputs.tokenised import check_cached
from zoo.parts.depth import LayersByData, TheseLayers, kept_of
from zoo.parts.heads import BUILT_IN, Network
from zoo.records.packed import pack_bits
from zoo.records.result import Judgement, Result
from zoo.registry import methods, tasks

LEAST, EXAMPLES = 0.5, 4
"""Claimed and judged metrics agree within so many points, or within what so many examples change:
another kind of GPU or another batch may round a logit differently."""


def judge(claim: Result, folder: Path, resources: Resources) -> Result:
    """The result of a trial as its files in `folder` show it.

    Raises TrialError where they contradict what the trial claims. A result whose task, head or
    encoder is a plugin's own stays as it was claimed, and says so. `resources.cache` is a cache
    whose examples are compared with the data, "" for none.
    """
    start, trial = time.monotonic(), claim.trial
    reason = _not_ours(claim)
    if reason:
        return _unjudged(claim, reason)
    torch.set_num_threads(resources.threads)
    task, source, checkpoint = located(trial, resources)
    if resources.cache:
        check_cached(task, source, checkpoint, trial.train.max_length, Path(resources.cache))
    given = _read(folder)
    network, whole = _network(claim, checkpoint, task, given)
    if not _same_shapes(network, given):
        return _unjudged(claim, "its network has other tensors than the checkpoint and its head")
    counts = _counts(network, given, whole)
    _check_claimed(claim, network, given, counts)
    network.encoder.load_state_dict(given.encoder)
    network.head.load_state_dict(given.head)
    claim = _measured(claim, network, given, counts)
    network.to(usual_device())
    examples = _evaluation_set(task, source, checkpoint, trial.train.max_length)
    claim = _evaluated(claim, network, examples)
    seconds = time.monotonic() - start
    return replace(
        claim,
        facts=methods[trial.method].facts if trial.method in methods else claim.facts,
        whole_data=task.is_whole(source),
        cost=replace(claim.cost, judging_seconds=seconds),
    )


def _network(
    claim: Result, checkpoint: Checkpoint, task: Task, given: Handover
) -> tuple[Network, Inside]:
    """The network before training, and what its layers held before some were taken out. First
    values of a fresh head do not matter: the trial's replace them."""
    torch.manual_seed(0)
    network = BUILT_IN[claim.head.name].build(checkpoint, task)
    if claim.trial.method not in methods:
        return network, Inside.of(network.encoder)
    method = make_method(claim.trial)
    method.start(network.encoder)
    if isinstance(method.layers, LayersByData):
        many = len(network.architecture.layers_of(network.encoder))
        method = replace(method, layers=_chosen(given.layers, many, method.layers))
    return network, take_layers(network.encoder, method.layers or method.layers_at_end)


def _chosen(kept: tuple[int, ...] | None, many: int, layers: LayersByData) -> TheseLayers:
    """The layers that a trial says its data chose. Raises TrialError unless they are as many as its
    method keeps, of `many`. That data chose these cannot be seen here."""
    wanted = kept_of(many, layers.density)
    if kept is None or len(kept) != wanted or sorted({*kept} & {*range(many)}) != list(kept):
        raise TrialError(f"it says that layers {kept} stay, which are not {wanted} of {many}")
    return TheseLayers(kept)


def _measured(claim: Result, network: Network, given: Handover, counts: Counts) -> Result:
    """The claim with remaining weights and digests as the files have them."""
    masks = {name: given.masks[name] for name in counts.kept if name in given.masks}  # in order
    digests = measure.digests(masks, (), given.encoder)
    return replace(
        claim,
        remaining=measure.remaining_of(counts, masks, network.encoder),
        digests={n: d if n == "scores" else digests[n] for n, d in claim.digests.items()},
    )


def _evaluated(claim: Result, network: Network, examples: EvaluationSet) -> Result:
    """The claim with metrics and answers as the network gives them."""
    task, data = examples.task, examples.splits
    measured, found = metrics_of(task, network, data)
    metrics = {name: measured.get(name) for name in task.metrics}
    _check_metrics(claim, metrics, sum(map(len, data.values())))
    last = replace(claim.curve[-1], metrics=measured, remaining=claim.remaining.density)
    curve = (*claim.curve[:-1], last)
    return replace(
        claim,
        metrics=metrics,
        best=best_of(task.metrics, curve),
        majority=best_constant(task, data),
        curve=curve,
        correct={s: pack_bits(e.correct) for s, e in found.items() if e.correct is not None},
        shares=shares(found),
        answers=measure.answers(task, found, data),
        judgement=Judgement(apart=True, claims=claim.metrics),
    )


def _not_ours(claim: Result) -> str:
    """Why a result cannot be judged without a plugin's code; "" if it can."""
    if claim.trial.task not in tasks:
        return "its task is a plugin's own code"
    return "" if claim.head.name in BUILT_IN else "its head is a plugin's own code"


def _unjudged(claim: Result, reason: str) -> Result:
    return replace(claim, judgement=Judgement(apart=False, claims=claim.metrics, reason=reason))


def _read(folder: Path) -> Handover:
    try:
        return read_handover(folder)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise TrialError(f"it handed over no model: {error}") from None


@lru_cache(maxsize=4)
def _known_set(task: str, data: str, model: str, length: int) -> list[EvaluationSet]:
    """A place for the evaluation set of a task, which is tokenised once for many trials."""
    return []


def _evaluation_set(
    task: Task, source: Source, checkpoint: Checkpoint, length: int
) -> EvaluationSet:
    place = _known_set(task.name, source.fingerprint, checkpoint.sha, length)
    if not place:
        place.append(EvaluationSet(task, source, checkpoint, length))
    return place[0]


def _same_shapes(network: Network, given: Handover) -> bool:
    """Whether the tensors are those of the network, by name and shape."""
    pairs = ((network.encoder, given.encoder), (network.head, given.head))
    return all(
        {name: t.shape for name, t in module.state_dict().items()}
        == {name: t.shape for name, t in state.items()}
        for module, state in pairs
    )


def _counts(network: Network, given: Handover, whole: Inside) -> Counts:
    """Remaining weights by the masks. Raises TrialError if a pruned weight is not zero."""
    inside = Inside.of(network.encoder)
    if not set(given.masks) <= set(inside.sizes):
        raise TrialError("it handed over masks of matrices that are not prunable")
    kept = {n: int(mask.count_nonzero()) for n, mask in given.masks.items()}
    kept = {**inside.sizes, **kept}
    for name, mask in given.masks.items():
        more = int((given.encoder[f"{name}.weight"] != 0).logical_and_(~mask).count_nonzero())
        if more:
            raise TrialError(
                f"claims {kept[name]:,} weights of {name}, its model has {more:,} more that are"
                " not zero"
            )
    return inside.count(kept, whole)


def _check_claimed(claim: Result, network: Network, given: Handover, counts: Counts) -> None:
    """Raise TrialError if the files keep another number of weights than the trial claims, or if
    more parameters differ from the checkpoint's than the trial says it trained."""
    kept = sum(counts.kept.values())
    claimed = sum(matrix.kept for matrix in claim.remaining.matrices.values())
    if kept != claimed:
        raise TrialError(f"claims {claimed:,} remaining weights, judged {kept:,}")
    values, other = _changed(network, given, counts)
    told = claim.parameters
    if values > told.values or other > told.other:
        raise TrialError(
            f"claims {told.values:,} trained values in matrices and {told.other:,} others; judged"
            f" {values:,} and {other:,} that differ from the checkpoint's"
        )


def _changed(network: Network, given: Handover, counts: Counts) -> tuple[int, int]:
    """Parameters that differ from the checkpoint's: remaining weights of matrices, and others."""
    values = other = 0
    for name, before in network.encoder.named_parameters():
        after, matrix = given.encoder[name], name.removesuffix(".weight")
        mask = given.masks.get(matrix)
        if _equal(before.detach(), after, mask):
            continue
        if name == f"{matrix}.weight" and matrix in counts.kept:
            values += counts.kept[matrix]
        else:
            other += before.numel()
    for name, before in network.head.named_parameters():
        other += 0 if _equal(before.detach(), given.head[name], None) else before.numel()
    return values, other


def _equal(before: Tensor, after: Tensor, mask: Tensor | None) -> bool:
    """Whether all entries are equal, with a mask all that it keeps."""
    return torch.equal(before if mask is None else before * mask, after)


def _check_metrics(claim: Result, judged: Mapping[str, float | None], examples: int) -> None:
    """Raise TrialError for a metric that is not the claimed one."""
    close = max(LEAST, 100 * EXAMPLES / max(examples, 1))
    for name, value in judged.items():
        said = claim.metrics.get(name)
        if (said is None) != (value is None) or abs((said or 0) - (value or 0)) > close:
            raise TrialError(f"{name}: claims {_shown(said)}, judged {_shown(value)}")


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def reason_of(error: Exception) -> str:
    """Why a trial failed that could not be judged."""
    said = str(error) if isinstance(error, BenchmarkError) else f"the judge: {error!r:.200}"
    return without_folders(said)
