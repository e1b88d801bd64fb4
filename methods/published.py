"""What the papers, their authors' code and their run logs say about training: the common ground of
the recipes beside the methods."""

from dataclasses import dataclass

from zoo import OURS, ConfigError, Request, Times, Value, Values
from zoo.errors import unknown

LOG = "Movement run log (nn_pruning, mvmt_pruning.xlsx, seed 92)"
SMP_CODE = "SMP released code (run.sh, run_squad.sh, smp_trainer.py)"
SMP_PAPER = "SMP, section 5.2"
CODE = "released code of Movement, CAP and SMP"
CAP_CODE = "CAP released scripts"


@dataclass(frozen=True)
class PublishedRun:
    """A published training: examples per step, epochs, and moments in optimiser steps.

    The density begins to change after `initial` warm-ups and reaches its target `final` warm-ups
    before the end.
    """

    batch: int
    epochs: int
    steps: int
    warmup: int = 0
    initial: int = 0
    final: int = 0
    lr_weights: float = 3e-5


SMP_EPOCHS = {"mnli": 12, "qqp": 12, "qnli": 12, "sst2": 12, "squad": 10, "rte": 100}
"""Epochs of SMP's released scripts; 60 on other tasks."""
SMP_STEPS = {"mnli": 73632, "qqp": 68232, "qnli": 19644, "sst2": 12636, "mrpc": 6900}
SMP_STEPS |= {"cola": 16080, "stsb": 10800, "rte": 7800, "squad": 27670}
"""Steps of SMP's released scripts. Its tasks are the ones that recipes know."""
PAPER_STEPS = SMP_STEPS | {"mrpc": 3480, "cola": 8040, "stsb": 5400, "rte": 2340, "squad": 13840}
"""Steps of the runs that SMP's text describes: batch 64, 12 epochs, small tasks 60, SQuAD 10."""
LARGE = ("mnli", "qqp", "qnli", "sst2", "squad")
"""Tasks that SMP evaluates every 1,000 steps."""


WEIGHTS = {"lr_weights": Times(0.25, 4), "lr_head": Times(0.25, 4)}
"""What `--tune` searches of weights, beside other ranges; without any it is the default."""
SCORES = {"lr_scores": Times(0.125, 8)}
"""What `--tune` searches of methods that learn nothing but scores."""
DRIVEN = {"penalty": Times(0.8, 1.6)}
"""What `--tune` searches of a penalty that decides how many weights remain: near the one that
leaves the target."""


def check_task(request: Request) -> None:
    """Raise ConfigError unless the papers train on the task."""
    if request.task not in SMP_STEPS:
        raise ConfigError(
            f"{unknown('recipe for task', request.task, SMP_STEPS)}; name one of them in"
            " register_task(..., recipes_of=NAME)"
        )


def smp_epochs(task: str) -> int:
    """Epochs of SMP's released scripts."""
    return SMP_EPOCHS.get(task, 60)


def common(
    request: Request, *, code: str = CODE, evaluation: str = f"{OURS}, as {SMP_CODE}"
) -> Values:
    """Values that all methods share; `code` and `evaluation` are their sources for the method."""
    check_task(request)
    squad, paper = request.task == "squad", request.version == "paper"
    small = (PAPER_STEPS[request.task] // 60) if paper else SMP_STEPS[request.task]
    small = small if paper else small // smp_epochs(request.task)
    every = Value(1000, f"{evaluation}: 1000 steps on large tasks")
    if request.task not in LARGE:
        every = Value(small, f"{evaluation}: each of SMP's epochs on small tasks")
    return {
        "max_length": Value(384 if squad else 128, code),
        "clip": Value(1.0, code),
        "betas": Value([0.9, 0.999], f"{code}: AdamW, with bias correction"),
        "epsilon": Value(1e-8, f"{code}: AdamW"),
        "weight_decay": Value(0.0, f"{code}: AdamW; scores have none in any code"),
        "evaluate_every": every,
    }


def rates(source: str, weights: float | None, scores: float | None = None) -> Values:
    """Learning rates; 0 with a note for what a method does not train."""
    none = Value(0.0, "nothing of this kind trains")
    return {
        "lr_weights": none if weights is None else Value(weights, source),
        "lr_head": none if weights is None else Value(weights, source),
        "lr_scores": none if scores is None else Value(scores, source),
    }


def distillation(request: Request, task: float, teacher: float, source: str) -> Values:
    """The weights of the two losses and the temperature; nothing without distillation."""
    if not request.distill:
        return {}
    return {
        "task_weight": Value(task, source),
        "teacher_weight": Value(teacher, source),
        "temperature": Value(2.0, CODE),
    }
