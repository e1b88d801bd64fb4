"""One forward pass of what a trial would train, before any trial: configuration, tensors, tokeniser
and head together."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from zoo.errors import BenchmarkError, ConfigError, cause_of
from zoo.inputs.batches import Encoded, collate
from zoo.inputs.checkpoint import Checkpoint
from zoo.inputs.task import Task
from zoo.inputs.tokeniser import load_tokenizer
from zoo.parts.calibration import GateCalibration
from zoo.parts.depth import LayersByData, check_layers
from zoo.parts.heads import Head, Network
from zoo.parts.method import Method
from zoo.parts.patterns import check_shapes
from zoo.parts.units import Matrix, UnitGroup, checked_groups, prunable

PAIR = ("A text that stands first.", "And another one.")


@dataclass(frozen=True)
class Rehearsed:
    """What an encoder has to prune: its matrices, layers, attention heads of each, and its
    configuration; and whether a LayerNorm stands behind each sub-layer."""

    matrices: tuple[Matrix, ...] = ()
    layers: int = 0
    heads: int = 0
    config: Any = None
    norms: bool = True

    def check(self, method: Method) -> dict[str, tuple[int, ...]]:
        """The shapes of what a method masks: matrices, or groups of units. Raises ConfigError for a
        pattern, units or layers that do not fit the encoder."""
        for stay in filter(None, (method.layers, method.layers_at_end)):
            by_data = isinstance(stay, LayersByData)  # which may choose the last ones
            check_layers(self.config, [-1] if by_data else stay(self.layers))
        if method.skips:
            check_layers(self.config, [-1])
        if method.units is not None:
            groups = checked_groups(method.units, self.matrices, self.heads)
            if isinstance(method.calibration, GateCalibration):
                self._check_gates(method.calibration, groups)
            return {name: group.shape for name, group in groups.items()}
        shapes: dict[str, tuple[int, ...]] = {m.name: m.shape for m in self.matrices}
        check_shapes(method.mask, shapes)
        return shapes

    def _check_gates(self, calibration: GateCalibration, groups: Mapping[str, UnitGroup]) -> None:
        """Raise ConfigError for units without an output, or scales without a LayerNorm."""
        for group in groups.values():
            _ = group.gated
        if calibration.rescaling is not None and not self.norms:
            raise ConfigError(
                f"outputs of units of {self.config.model_type} cannot be scaled, since no LayerNorm"
                " stands behind its sub-layers: choose another method, or another encoder"
            )


def rehearse(checkpoint: Checkpoint, task: Task, head: Head, max_length: int) -> Rehearsed:
    """Build the network of a head, and read a pair of texts and an input of `max_length` tokens;
    returns what there is to prune.

    Raises ConfigError where the parts of the checkpoint do not fit each other, the task or the
    head; whatever a user's own head raises is raised as it is. Tasks that differ in their words
    alone are rehearsed once.
    """
    head.check(checkpoint, task)
    if task.output.per_token and not load_tokenizer(checkpoint).is_fast:
        raise ConfigError(
            f"model {checkpoint.name}: its tokeniser has no fast form, which task {task.name} needs"
            " to know where tokens are; save a tokenizer.json"
        )
    problem, found = _rehearse(checkpoint, head, max_length, _Like(task))
    if problem:
        raise ConfigError(problem)
    return found


class _Like:
    """A task, equal to others of the same output and number of logits."""

    def __init__(self, task: Task):
        self.task = task
        self.key = task.output, task.logits

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Like) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@cache
def _rehearse(
    checkpoint: Checkpoint, head: Head, max_length: int, like: _Like
) -> tuple[str, Rehearsed]:
    """What does not fit, or '', and what there is to prune; not raised, so that many trials of a
    wrong model ask once."""
    state = torch.get_rng_state()
    try:
        network = head.build(checkpoint, like.task).eval()
        with torch.no_grad():
            _check_finite(checkpoint, network)
            for rows in _inputs(checkpoint, max_length):
                _check(checkpoint, network, rows, like.task)
        encoder, architecture = network.encoder, network.architecture
        matrices = prunable(architecture, dict(architecture.matrices(encoder)))
        layers, heads = len(architecture.layers_of(encoder)), architecture.attention_heads(encoder)
        return "", Rehearsed(matrices, layers, heads, encoder.config, all(architecture.norms))
    except ConfigError as error:
        return str(error), Rehearsed()
    finally:
        torch.set_rng_state(state)


def _check_finite(checkpoint: Checkpoint, network: Network) -> None:
    """Raise ConfigError for a parameter that is not finite everywhere."""
    for name, parameter in network.named_parameters():
        if not parameter.isfinite().all():
            raise ConfigError(
                f"model {checkpoint.name}: {name.removeprefix('encoder.')} has entries that are not"
                " finite; its weights are damaged"
            )


def _inputs(checkpoint: Checkpoint, max_length: int) -> list[Encoded]:
    """A pair of texts, and as many tokens as an input may have."""
    tokenizer = load_tokenizer(checkpoint)
    pair = tokenizer(*PAIR, truncation=True, max_length=max_length)
    types = pair.get("token_type_ids") or [0] * len(pair["input_ids"])
    first, *_, last = pair["input_ids"]
    middle = [number for number in range(checkpoint.vocabulary) if number != checkpoint.pad]
    long = [first, *np.resize(middle, max_length - 2).tolist(), last]
    return [_encoded(pair["input_ids"], types), _encoded(long, [0] * len(long))]


def _encoded(tokens: list[int], types: list[int]) -> Encoded:
    return Encoded(
        np.asarray(tokens, np.int32),
        np.asarray(types, np.uint8),
        bounds=np.asarray([0, len(tokens)]),
        labels=np.zeros(1, np.int64),
    )


def _check(checkpoint: Checkpoint, network: Network, rows: Encoded, task: Task) -> None:
    """Raise ConfigError unless the logits of one example have their shape and are finite."""
    batch = collate(rows, [0], network.pad, torch.device("cpu"))
    what = f"model {checkpoint.name}: an input of {len(rows.tokens)} tokens"
    try:
        logits, _ = network(batch)
    except BenchmarkError:
        raise
    except Exception as error:  # whatever stock code raises for parts that do not fit
        raise ConfigError(f"{what} cannot be computed: {cause_of(error)}") from error
    shape = (1, len(rows.tokens), task.logits) if task.output.per_token else (1, task.logits)
    if tuple(logits.shape) != shape:
        raise ConfigError(f"{what} gives logits of shape {tuple(logits.shape)}, expected {shape}")
    if not logits.isfinite().all():
        raise ConfigError(f"{what} gives outputs that are not finite; its weights are damaged")
