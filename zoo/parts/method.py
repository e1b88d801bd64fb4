"""What a pruning method is: a frozen dataclass of parts, each a plain function or a small value.

The defaults are plain fine-tuning. A registered factory `(density, **hyper) -> Method` composes
the parts; most methods are one `dataclasses.replace` of another. A masked matrix W, its score S,
mask M, gate and working weight W' = W * gate all have the shape (out, in) of torch.nn.Linear.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from zoo.errors import ConfigError
from zoo.inputs.architecture import Parameter
from zoo.parts.calibration import (
    AnyCalibration,
    Calibration,
    GateCalibration,
    GradientCalibration,
    WeightCalibration,
)
from zoo.parts.depth import Stay
from zoo.parts.gates import Gate, hard, identity_slope, mask_itself
from zoo.parts.heads import Head, trained
from zoo.parts.losses import Distillation, LossTerm, task_loss
from zoo.parts.masks import MaskFn, topk_local
from zoo.parts.optimisers import Optimiser, adamw
from zoo.parts.penalties import Penalty
from zoo.parts.schedules import Rate, Schedule, never, rate
from zoo.parts.scores import Score, stored
from zoo.parts.units import Units


def everything(parameter: Parameter) -> bool:
    """All pre-trained parameters train.

    >>> from zoo import Parameter, everything
    >>> everything(Parameter("embeddings.word_embeddings.weight", "embeddings"))
    True
    """
    return True


def all_but_embeddings(parameter: Parameter) -> bool:
    """Embeddings and their LayerNorm do not train (released code of Sanh et al. 2020).

    >>> from zoo import Parameter, all_but_embeddings
    >>> all_but_embeddings(Parameter("embeddings.word_embeddings.weight", "embeddings"))
    False
    """
    return parameter.part != "embeddings"


def nothing(parameter: Parameter) -> bool:
    """No pre-trained parameter trains.

    >>> from zoo import Parameter, nothing
    >>> nothing(Parameter("encoder.layer.0.output.dense.bias", "layers", 0))
    False
    """
    return False


def at_density(sizes: Mapping[str, int], level: float) -> float:
    """Most weights that may be kept in all: the fraction `level` of them, and at least one in each
    matrix.

    >>> from zoo import at_density
    >>> at_density({"a": 600, "b": 400}, 0.1)
    100.0
    """
    return max(level * sum(sizes.values()), len(sizes))


def pretrained(encoder: nn.Module) -> None:
    """Training starts from the checkpoint's weights.

    >>> from torch import nn
    >>> from zoo import pretrained
    >>> pretrained(nn.Linear(2, 2))
    """


def from_random_weights(encoder: Any) -> None:
    """Draw all weights anew, like those of a new encoder of the same configuration.

    `_init_weights` of transformers is of no use here: it skips loaded parameters.

    >>> from transformers import BertConfig, BertModel
    >>> from zoo import from_random_weights
    >>> encoder = BertModel(BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1,
    ...     num_attention_heads=2, intermediate_size=8))
    >>> before = encoder.embeddings.word_embeddings.weight.clone()
    >>> from_random_weights(encoder)
    >>> bool((encoder.embeddings.word_embeddings.weight == before)[1:].any())
    False
    """
    new = type(encoder)(encoder.config).state_dict()
    encoder.load_state_dict({name: new[name] for name in encoder.state_dict()})


def regrow(level: float | None) -> bool:
    """Masked weights keep their values: they return as they were if a later mask keeps them.

    >>> from zoo import regrow
    >>> regrow(0.5)
    False
    """
    return False


def zero_when_masked(level: float | None) -> bool:
    """Masked weights are set to 0 at each step that makes masks. Masked before the first step, they
    stay 0 exactly: their gradients and moments are 0.

    >>> from zoo import zero_when_masked
    >>> zero_when_masked(0.5), zero_when_masked(None)
    (True, False)
    """
    return level is not None


def stay_zero(level: float | None) -> bool:
    """Masked weights are 0 after every step, whatever momentum and weight decay would make of them.

    >>> from zoo import stay_zero
    >>> stay_zero(None)
    True
    """
    return True


@dataclass(frozen=True)
class FromDense:
    """Training starts from the weights of the dense trial of the same task, its head included: the
    one of the same seed, or of `seed` for trials of all seeds. With `rewinds` they only make the
    first masks: all weights, the head's too, are then those of a new trial.

    >>> from zoo import FromDense
    >>> FromDense().seed is None
    True
    """

    seed: int | None = None
    rewinds: bool = False


@dataclass(frozen=True)
class Method:
    """A pruning method as orthogonal parts; the defaults are plain fine-tuning.

    `losses` are added up, each with its weight; a `penalty` acts on scores that train; `head` makes
    outputs of the encoder's hidden states.
    `score`, `mask`, `level` and `gate` say what multiplies W; without a score nothing is masked.
    `budget` returns the most weights that may be kept at a level; it is None for methods whose
    masks keep no exact number, which are shown at their measured remaining weights. `trains`
    says which pre-trained parameters train; new ones (a fresh head) always do. `start` prepares the
    encoder's weights before the first step, and `dense` takes those of a dense trial instead.
    `calibration` makes masks where `mask` would make them from scores alone. `zeroes` says, by the
    level of a step, whether masked weights are set to 0 after it. `optimiser` makes the optimiser,
    whose learning rates follow `rate`. At the moments `rewinds`, fractions of the run, all weights
    of the encoder return to those before the first step, masked ones excepted, and the optimiser
    starts anew. `units` says which weights stay or go together and share a score; None means each
    weight alone. `layers` says which layers of an encoder of so many stay, None for all; the others
    are taken out before the first step, and count as pruned; those of `layers_at_end` are taken out
    after the last step. `skips` is the chance that a forward pass in training leaves a layer out.
    Raises ConfigError for parts that do not fit each other.

    >>> from dataclasses import replace
    >>> from zoo import Method, Ramp, learned, straight_through, topk_local
    >>> movement = Method(score=learned, mask=topk_local, gate=straight_through,
    ...     level=Ramp(1.0, 0.1, 0.2, 0.8, 3))
    >>> replace(movement, level=Ramp(1.0, 0.5, 0.2, 0.8, 3)).level(90, 100)
    0.5
    """

    losses: tuple[LossTerm, ...] = (LossTerm(task_loss),)
    score: Score | None = None
    mask: MaskFn = topk_local
    level: Schedule = never
    gate: Gate = hard
    budget: Callable[[Mapping[str, int], float], float] | None = at_density
    penalty: Penalty | None = None
    trains: Callable[[Parameter], bool] = everything
    head: Head = trained
    start: Callable[[Any], None] = pretrained
    optimiser: Optimiser = adamw
    dense: FromDense | None = None
    calibration: AnyCalibration | None = None
    zeroes: Callable[[float | None], bool] = regrow
    rate: Rate = rate
    rewinds: tuple[float, ...] = ()
    units: Units | None = None
    layers: Stay | None = None
    layers_at_end: Stay | None = None
    skips: float = 0.0

    def __post_init__(self) -> None:
        self._check_units()
        self._check_layers()
        if self.score is not None and self.gate.slope is not None:
            if self.score.init is None:
                raise ConfigError(
                    "a gate with a slope trains scores, and the method's scores are not stored:"
                    " give its Score an `init`, or use a gate without a slope, such as zoo.hard"
                )
            if self.score.read is not stored:
                raise ConfigError(
                    "trained scores must be read as they are stored, since their gradient is taken"
                    " with respect to the stored ones: use Score(zoo.stored, init), and put"
                    " functions of them into the mask function or the gate"
                )
        if self.calibration is not None and self.score is None:
            raise ConfigError(
                "a calibration makes masks, and the method has no score, so that nothing is masked:"
                " give it the score that stands for its weights, such as zoo.magnitude"
            )
        if self.penalty is not None and not self.learns_scores:
            raise ConfigError(
                "a penalty needs scores that train: give the method a Score with an `init` and a"
                " gate with a slope, such as zoo.straight_through"
            )

    def _check_layers(self) -> None:
        """Raise ConfigError for parts that do not work on layers."""
        if self.layers is not None and self.dense is not None:
            raise ConfigError(
                "layers are taken out of a pre-trained encoder, not of a dense trial's"
            )
        if not 0 <= self.skips < 1:
            raise ConfigError(f"the chance to skip a layer is in [0, 1), got {self.skips:g}")
        if (self.layers_at_end or self.skips) and (self.score or self.layers):
            raise ConfigError(
                "layers that are skipped or leave at the end allow no masks and no other `layers`"
            )

    def _check_units(self) -> None:
        """Raise ConfigError for parts that do not work on units."""
        if self.units is None:
            if isinstance(self.calibration, WeightCalibration | GateCalibration):
                raise ConfigError("a calibration by weights, or by gates, needs units")
            return
        if self.score is None or self.score.observe or self.score.after:
            raise ConfigError("units need a score, one that does not watch single matrices")
        if self.score.init is not None and self.score.read is not stored:
            raise ConfigError(
                "scores of units are read as they are stored, by zoo.stored, or made of W alone,"
                " without an `init`"
            )
        plain = self.gate.value is mask_itself and self.gate.slope in (None, identity_slope)
        if not plain or self.gate.draw or self.gate.test:
            raise ConfigError(
                "units need a gate that is the mask: zoo.hard, or zoo.straight_through for scores"
                " that learn"
            )
        if isinstance(self.calibration, Calibration | GradientCalibration):
            raise ConfigError(
                "units cannot be calibrated matrix by matrix, only by their weights or their gates"
            )

    @property
    def needs(self) -> frozenset[str]:
        """What a trial reads of frozen models: outputs over the training set that the losses read,
        and the weights of a dense trial."""
        weights = {"weights"} if self.dense else set()
        return frozenset(weights).union(*(term.needs for term in self.losses))

    @property
    def untrained(self) -> bool:
        """Whether nothing trains, so that a trial takes no step: it is pruned and evaluated."""
        return self.dense is not None and self.trains is nothing and not self.learns_scores

    def steps(self, planned: int) -> int:
        """Optimiser steps of a trial whose training values say `planned`."""
        return 0 if self.untrained else planned

    @property
    def learns_scores(self) -> bool:
        """Whether the optimiser updates scores: they are stored, and the gate has a slope."""
        has_stored = self.score is not None and self.score.init is not None
        return has_stored and self.gate.slope is not None

    @property
    def constant_scores(self) -> bool:
        """Whether scores never change, so that masks depend on the level alone."""
        score = self.score
        if score is None or score.observe or score.after or self.learns_scores:
            return False
        return score.read is stored


def with_distillation(
    method: Method, *, task_weight: float, teacher_weight: float, temperature: float
) -> Method:
    """The method with its task loss mixed with distillation from a teacher's logits.

    Raises ConfigError if none of its losses is `task_loss`, the one whose weight changes.

    >>> from zoo import Method, with_distillation
    >>> student = with_distillation(Method(), task_weight=0.1, teacher_weight=0.9, temperature=2.0)
    >>> [term.weight for term in student.losses]
    [0.1, 0.9]
    """
    if all(term.value is not task_loss for term in method.losses):
        raise ConfigError(
            "distillation changes the weight of the task's loss, and none of the method's losses is"
            " zoo.task_loss: keep it among them, or run the method without distillation"
        )
    mixed = tuple(
        replace(term, weight=task_weight) if term.value is task_loss else term
        for term in method.losses
    )
    teacher = LossTerm(Distillation(temperature), teacher_weight, frozenset({"teacher"}))
    return replace(method, losses=(*mixed, teacher))
