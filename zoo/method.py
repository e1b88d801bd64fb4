"""What a pruning method is: a frozen dataclass of parts, each a plain function or a small part.

The defaults are plain fine-tuning. A registered factory `(density, **hyper) -> Method` composes
the parts; most methods are one `dataclasses.replace` of another. A masked matrix W, its score S,
mask M, gate and working weight W' = W * gate are all (out, in), as in torch.nn.Linear.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from zoo.errors import ConfigError
from zoo.gates import Gate, hard
from zoo.heads import Head, trained
from zoo.losses import Distillation, LossTerm, Penalty, task_loss
from zoo.masks import MaskFn, topk_local
from zoo.schedules import Schedule, never
from zoo.scores import Score


def everything(name: str) -> bool:
    """All pre-trained parameters train."""
    return True


def all_but_embeddings(name: str) -> bool:
    """Embeddings and their LayerNorm stay (the released code of Sanh 2020)."""
    return not name.startswith("embeddings.")


def nothing(name: str) -> bool:
    """Every pre-trained parameter stays."""
    return False


def at_density(sizes: Mapping[str, int], level: float) -> float:
    """Most weights that may be kept in all: `level` of them, and at least one per matrix."""
    return max(level * sum(sizes.values()), len(sizes))


def pretrained(encoder: nn.Module) -> None:
    """The checkpoint's weights stay as they are."""


def from_random_weights(encoder: Any) -> None:
    """Draw all weights anew: those of a new encoder of the same configuration.

    Not by `_init_weights`, which passes over parameters that were loaded from a checkpoint.
    """
    new = type(encoder)(encoder.config).state_dict()
    encoder.load_state_dict({name: new[name] for name in encoder.state_dict()})


@dataclass(frozen=True)
class Method:
    """A pruning method as orthogonal parts; the defaults are plain fine-tuning.

    `score`, `mask`, `level`, `gate` say what multiplies W; without a score nothing is masked.
    `budget` gives the most weights that may be kept at a level, None for methods that drive a
    threshold or a penalty: their rows stand at the measured remaining weights. `trains` says which
    pre-trained parameters train, by their names in the encoder; new ones (a fresh head) always do.
    `start` prepares the encoder's weights before the first step.
    """

    losses: tuple[LossTerm, ...] = (LossTerm(task_loss),)
    score: Score | None = None
    mask: MaskFn = topk_local
    level: Schedule = never
    gate: Gate = hard
    budget: Callable[[Mapping[str, int], float], float] | None = at_density
    penalty: Penalty | None = None
    trains: Callable[[str], bool] = everything
    head: Head = trained
    start: Callable[[Any], None] = pretrained

    @property
    def needs(self) -> frozenset[str]:
        """Frozen outputs over the training set that the losses read."""
        return frozenset().union(*(term.needs for term in self.losses))


def with_distillation(
    method: Method, *, task_weight: float, teacher_weight: float, temperature: float
) -> Method:
    """The method with its task loss mixed with distillation from a teacher's logits.

    Raises ConfigError if none of its losses is `task_loss`, whose weight changes then.
    """
    if all(term.value is not task_loss for term in method.losses):
        raise ConfigError(
            "distillation gives the task's loss another weight, and none of the method's losses is"
            " zoo.losses.task_loss: keep it among them, or run the method without distillation"
        )
    mixed = tuple(
        replace(term, weight=task_weight) if term.value is task_loss else term
        for term in method.losses
    )
    teacher = LossTerm(Distillation(temperature), teacher_weight, frozenset({"teacher"}))
    return replace(method, losses=(*mixed, teacher))
