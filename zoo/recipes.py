"""Hyper-parameters per (recipe, method, task, density), each with its source.

Two recipes: `released`, what the authors' public code and run logs do, and `paper`, their text
taken literally. Schedules stand as fractions of the run: a reference's step numbers over the
reference's own number of steps, so a run of that length has exactly those steps. Values that no
source gives are marked "ours". The embedded laboratory follows the recipe of the published task
that each of its tasks mirrors, scaled to its own length; what was chosen for it stands in
LABORATORY.
"""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from zoo.errors import ConfigError

RECIPES = ("released", "paper")
PENALTIES_FILE = Path(__file__).with_name("penalties.csv")
"""Runs of penalty-driven methods: which lambda left how many weights, in percent of the prunable
matrices (the run log counts biases and LayerNorm too; they are taken off)."""
LABORATORY_FILE = Path(__file__).with_name("laboratory.csv")
"""Candidates that were tried for the embedded laboratory, and which were chosen."""

LOG = "Movement run log (nn_pruning, mvmt_pruning.xlsx, seed 92)"
SMP_CODE = "SMP released code (run.sh, run_squad.sh, smp_trainer.py)"
SMP_PAPER = "SMP, section 5.2"
CODE = "released code of Movement, CAP and SMP"
CAP_CODE = "CAP released scripts"
OURS = "ours"
NO_MLM_HEAD = "SMP, section 4.2: this checkpoint has no MLM head for the released one"
UNPUBLISHED = ("scratch", "head_only", "random")
"""Controls of our own."""


@dataclass(frozen=True)
class Value:
    """One hyper-parameter and where it comes from."""

    value: Any
    source: str


def share(steps: int, total: int, source: str) -> Value:
    """A moment as a fraction of the run, with the reference's own steps in its source."""
    whole = f"{total:,} in all (epochs * examples / batch)"
    return Value(steps / total, f"{source}: {steps:,} steps; {whole}")


@dataclass(frozen=True)
class Reference:
    """A published run: batch, epochs, optimiser steps, and its schedule in steps."""

    batch: int
    epochs: int
    steps: int
    warmup: int = 0
    initial: int = 0
    final: int = 0
    lr_weights: float = 3e-5


DENSE = {
    "mnli": Reference(32, 3, 36816, 12000),
    "qqp": Reference(32, 3, 34113, 11300),
    "squad": Reference(16, 3, 16599, 5400),
}
MOVEMENT = {
    "mnli": Reference(32, 6, 73632, 12000, 1, 1),
    "qqp": Reference(32, 10, 113710, 11000, 2, 3, 3e-6),
    "squad": Reference(16, 10, 55330, 5400, 1, 2),
}
"""Steps are epochs times the training set over the batch; the log holds none. SQuAD: 88,524 windows
of the fast tokeniser; the authors' tokeniser made about 55,400 steps."""
L0 = {
    "mnli": Reference(32, 6, 73632, 12000),
    "qqp": Reference(32, 6, 68226, 11000),
    "squad": Reference(16, 10, 55330, 5400),
}
SMP_EPOCHS = {"mnli": 12, "qqp": 12, "qnli": 12, "sst2": 12, "squad": 10, "rte": 100}
SMP_STEPS = {"mnli": 73632, "qqp": 68232, "qnli": 19644, "sst2": 12636, "mrpc": 6900}
SMP_STEPS |= {"cola": 16080, "stsb": 10800, "rte": 7800, "squad": 27670}
PAPER_STEPS = SMP_STEPS | {"mrpc": 3480, "cola": 8040, "stsb": 5400, "rte": 2340, "squad": 13840}
"""Steps of the runs that SMP's text describes: batch 64, 12 epochs, small tasks 60, SQuAD 10."""
LARGE = ("mnli", "qqp", "qnli", "sst2", "squad")


@dataclass(frozen=True)
class Request:
    """What a recipe is asked for. `method` and `task` are names that recipes know, `task_name` is
    the task's own; `given` names values that the suite sets itself."""

    recipe: str
    scale: str
    model_type: str
    has_mlm_head: bool
    method: str
    task: str
    task_name: str
    density: float
    distill: bool
    given: frozenset[str] = frozenset()


Values = dict[str, Value]


class NoPenalty(ConfigError):
    """No known run says which penalty leaves the density that was asked for."""


def resolve(request: Request) -> tuple[Values, Values]:
    """Training values and the method's hyper-parameters. Raises ConfigError where none is known."""
    if request.method not in FAMILIES:
        raise ConfigError(
            f"no recipe for method {request.method!r}; name one of {', '.join(sorted(FAMILIES))}"
            " in register_method(..., recipe=...)"
        )
    if request.task not in SMP_STEPS:
        raise ConfigError(
            f"no recipe for task {request.task!r}; name one of {', '.join(sorted(SMP_STEPS))}"
            " in register_task(..., recipe=...)"
        )
    train, hyper = FAMILIES[request.method](request)
    train = _common(request) | train
    if request.distill:
        train |= _distillation(request)
    driven = request.method in PENALTY_DRIVEN and not _smp_t_of_the_paper(request)
    if driven and "penalty" not in request.given:
        hyper["penalty"] = penalty_for(request)
    if request.scale == "tiny":
        small, own = laboratory(request)
        del train["epochs"]
        return train | small, hyper | own
    return train, hyper


def _smp_t_of_the_paper(request: Request) -> bool:
    """SMP-T has SMP-L's lambda at the papers' scale, whatever density comes out."""
    return request.method == "smp_t" and request.scale != "tiny"


def _common(request: Request) -> Values:
    squad, paper = request.task == "squad", request.recipe == "paper"
    small = (PAPER_STEPS[request.task] // 60) if paper else SMP_STEPS[request.task]
    small = small if paper else small // _smp_epochs(request.task)
    source = SMP_CODE if request.method.startswith("smp") else f"{OURS}, as {SMP_CODE}"
    code = f"{OURS}, as {CODE}" if request.method in UNPUBLISHED else CODE
    every = Value(1000, f"{source}: 1000 steps on large tasks")
    if request.task not in LARGE:
        every = Value(small, f"{source}: each of SMP's epochs on small tasks")
    return {
        "max_length": Value(384 if squad else 128, code),
        "clip": Value(1.0, code),
        "betas": Value([0.9, 0.999], f"{code}: AdamW, with bias correction"),
        "epsilon": Value(1e-8, f"{code}: AdamW"),
        "weight_decay": Value(0.0, f"{code}: AdamW; scores have none in any code"),
        "evaluate_every": every,
    }


def _rates(source: str, weights: float | None, scores: float | None = None) -> Values:
    """Learning rates; 0 and said to be none for what a method does not train."""
    nothing = Value(0.0, "nothing of this kind trains")
    return {
        "lr_weights": nothing if weights is None else Value(weights, source),
        "lr_head": nothing if weights is None else Value(weights, source),
        "lr_scores": nothing if scores is None else Value(scores, source),
    }


def _dense(request: Request) -> tuple[Values, Values]:
    known = request.task in DENSE
    reference = DENSE.get(request.task, DENSE["mnli"])
    source = LOG if known else f"{OURS}: as MNLI"
    if request.method != "dense":
        source = f"{OURS}: as dense"
    epochs = reference.epochs if known or request.task in LARGE else 5
    train = {
        "batch": Value(reference.batch, source),
        "epochs": Value(epochs, source if known else OURS),
        "warmup": share(reference.warmup, reference.steps, source),
    }
    return train | _rates(source, reference.lr_weights), {}


def _head_only(request: Request) -> tuple[Values, Values]:
    train, hyper = _dense(request)
    rates = _rates("", None) | {"lr_head": Value(1e-3, f"{OURS}: a head alone needs a larger step")}
    return train | rates, hyper


def _movement_source(request: Request) -> str:
    """Where the values of Movement and of what builds on it come from for a method and a task."""
    if request.task not in MOVEMENT:
        return f"{OURS}: as MNLI"
    if request.method == "cap_lite":
        return f"{OURS}: as movement" if request.task == "mnli" else CAP_CODE
    return f"{OURS}: as magnitude" if request.method == "random" else LOG


def _movement(request: Request) -> tuple[Values, Values]:
    known = request.task in MOVEMENT
    reference = MOVEMENT.get(request.task, MOVEMENT["mnli"])
    source = _movement_source(request)
    steps, unit = reference.steps, reference.warmup
    epochs = Value(reference.epochs, source)
    if not known:
        half = 2 if request.task in LARGE else 1
        epochs = Value(_smp_epochs(request.task) // half, f"{OURS}: as many steps as SMP's code")
    train = {
        "batch": Value(reference.batch, source),
        "epochs": epochs,
        "warmup": share(unit, steps, source),
    }
    hyper = {
        "start": share(reference.initial * unit, steps, source),
        "stop": share(steps - reference.final * unit, steps, source),
    }
    return train | _rates(source, reference.lr_weights, 1e-2), hyper


def _magnitude(request: Request) -> tuple[Values, Values]:
    train, hyper = _movement(request)
    source = _movement_source(request)
    if request.task == "qqp":
        source += ", by the column and not by the experiment's name, which says 3e-6"
    return train | _rates(source, 3e-5), hyper


def _l0(request: Request) -> tuple[Values, Values]:
    train, _ = _movement(request)
    source = _movement_source(request)
    if request.task in L0:
        reference = L0[request.task]
        train["epochs"] = Value(reference.epochs, source)
        train["warmup"] = share(reference.warmup, reference.steps, source)
    scores = 1e-2 if request.task == "qqp" else 1e-1
    return train | _rates(source, 3e-5, scores), {}


def _cap_lite(request: Request) -> tuple[Values, Values]:
    train, hyper = _movement(request)
    squad, regression = request.task == "squad", request.task == "stsb"
    code = CAP_CODE if request.task in ("qqp", "squad") else f"{OURS}: as QQP, {CAP_CODE}"
    hyper["unsupervised"] = Value(0.5 if squad else 0.1, code)
    hyper["supervised"] = Value(0.0 if squad else 10.0, code)
    if regression:
        hyper["supervised"] = Value(0.0, f"{OURS}: regression has no classes")
    if request.task == "qqp":
        rate = Value(3e-5, f"{code}; movement's log has 3e-6")
        train |= {"lr_weights": rate, "lr_head": rate}
    return train, hyper


def _smp_epochs(task: str) -> int:
    return SMP_EPOCHS.get(task, 60)


def _smp(request: Request) -> tuple[Values, Values]:
    paper = request.recipe == "paper"
    squad = request.task == "squad"
    epochs, batch = _smp_epochs(request.task), 64 if request.task in LARGE and not squad else 32
    if squad and request.density <= 0.03 and not paper:
        epochs = 20
    if paper:
        epochs, batch = {"squad": 10}.get(request.task, 12 if request.task in LARGE else 60), 64
    source = SMP_PAPER if paper else SMP_CODE
    train = {
        "batch": Value(batch, source),
        "epochs": Value(epochs, source),
        "warmup": Value(0.0, SMP_CODE),
    }
    stop, power = _smp_stop(request, epochs), _smp_power(request)
    horizon = Value(stop.value, "SMP, Eq. 6: lambda follows the sparsity")
    slope = Value(power.value, "SMP, Eq. 6: lambda follows the sparsity")
    if not paper:
        horizon = Value(1.0, f"{SMP_CODE}: lambda rises over the whole run")
        slope = Value(3, SMP_CODE)
        if squad and request.density <= 0.03:
            horizon = share(27660, 55340, SMP_CODE)
    hyper = {
        "stop": stop,
        "penalty": Value(400.0, SMP_PAPER),
        "penalty_stop": horizon,
        "power": power,
        "penalty_power": slope,
        "head": _smp_head(request),
    }
    rates = _rates(source, None, 2e-2)
    rates["lr_head"] = Value(3e-5, "SMP, section 6.2: where its head trains")
    return train | rates, hyper


def _smp_t(request: Request) -> tuple[Values, Values]:
    """SMP gives neither a threshold nor a schedule: as soft movement, tau and lambda together."""
    train, hyper = _smp(request)
    source = f"{OURS}: SMP gives none; tau and lambda rise together, as in soft movement,"
    hyper["stop"] = Value(hyper["stop"].value, f"{source} until SMP-L's density would stand")
    hyper["penalty_stop"] = Value(hyper["stop"].value, f"{source} on one ramp")
    hyper["penalty_power"] = Value(hyper["power"].value, f"{source} on one ramp")
    hyper["penalty"] = Value(400.0, f"{OURS}: SMP-L's, SMP gives none for this")
    return train, hyper


def _smp_stop(request: Request, epochs: int) -> Value:
    """Where the density reaches its target.

    The paper has high and low sparsity the wrong way round (section 5.2): its code ends the ramp
    after 3,500 to 5,250 steps where many weights remain, and 30,000 (SQuAD 5,000) steps before the
    end where few do. `paper` follows the sentence, `released` the code.
    """
    squad, many = request.task == "squad", request.density >= 0.7
    if request.recipe == "paper":
        if many:
            return Value(7 / epochs, f"{SMP_PAPER}: N = 7 epochs at low sparsity")
        source, steps = f"{SMP_PAPER}: N at high sparsity", PAPER_STEPS[request.task]
        if 0.9 * steps < 3500:
            return Value(0.9, f"{OURS}: at most 0.9 of the run; {source} is 3,500 steps")
        return share(3500, steps, source)
    total = SMP_STEPS[request.task]
    if squad:
        steps = 5000 if many else 22670
        total = 55340 if request.density <= 0.03 else total
        steps = 22650 if request.density <= 0.03 else steps
    elif many:
        steps = 5250 if request.density < 0.8 else 3500
    elif request.task in ("mnli", "qqp"):
        steps = total - 30000
    else:
        return Value(0.6, f"{OURS}: the released code stops with an error here")
    return share(steps, total, SMP_CODE)


def _smp_power(request: Request) -> Value:
    if request.model_type == "roberta":
        return Value(1, "SMP, section 5.2: linear for RoBERTa (its script does not pass it)")
    return Value(3, "SMP, Eq. 5")


def _smp_head(request: Request) -> Value:
    if request.recipe == "paper":
        return Value("label_words", "SMP, section 4.2")
    if request.has_mlm_head:
        return Value("mlm_label_words", f"{SMP_CODE}: modeling_bert_smp.py")
    return Value("label_words", NO_MLM_HEAD)


def _smp_s(request: Request) -> tuple[Values, Values]:
    train, hyper = _smp(request)
    many = request.density >= 0.7
    squad_half = request.task == "squad" and request.density == 0.5 and not request.distill
    mnli_half = request.task == "mnli" and request.density == 0.5 and not request.distill
    p = 4.0 if many or squad_half else 3.0 if mnli_half else 1.0
    if request.recipe == "paper":
        return train, hyper | {"score_temperature": Value(1.0, "SMP, Eq. 4")}
    if squad_half:
        hyper["stop"] = share(5000, SMP_STEPS["squad"], SMP_CODE)
    return train, hyper | {"score_temperature": Value(p, f"{SMP_CODE}; not in the paper")}


def _distillation(request: Request) -> Values:
    if not request.method.startswith("smp"):
        return _mix(0.1, 0.9, _movement_source(request))
    if request.recipe == "paper":
        return _mix(1.0, 1.0, "SMP, Eq. 6 and 7: added to the loss")
    return _mix(0.5, 0.5, f"{SMP_CODE}: argparse defaults")


def _mix(task: float, teacher: float, source: str) -> Values:
    temperature = Value(2.0, CODE)
    return {
        "task_weight": Value(task, source),
        "teacher_weight": Value(teacher, source),
        "temperature": temperature,
    }


FAMILIES = {
    "dense": _dense,
    "scratch": _dense,
    "head_only": _head_only,
    "random": _magnitude,
    "magnitude": _magnitude,
    "movement": _movement,
    "soft_movement": _movement,
    "l0": _l0,
    "cap_lite": _cap_lite,
    "smp_l": _smp,
    "smp_s": _smp_s,
    "smp_g": _smp,
    "smp_t": _smp_t,
}
OPTIONAL = ("steps",)
"""Training values that a suite may set though few recipes have them: `steps` goes before epochs."""
PENALTY_DRIVEN = ("soft_movement", "l0", "smp_t")


LABORATORY = {
    "batch": Value(32, OURS),
    "steps": Value(250, OURS),
    "evaluate_every": Value(125, OURS),
    "max_length": Value(64, OURS),
}
CALIBRATED = f"{OURS}: python -m zoo.calibrate, with the released recipe"


def laboratory(request: Request) -> tuple[Values, Values]:
    """What the embedded laboratory sets in place of the published values."""
    chosen = laboratory_choices().get(request.method, {})
    train = dict(LABORATORY)
    for name in ("lr_weights", "lr_scores"):
        if name in chosen:
            train[name] = Value(chosen[name], CALIBRATED)
    train["lr_head"] = train.get("lr_weights", Value(1e-3, OURS))
    fixed = "penalty" in chosen and request.method not in PENALTY_DRIVEN
    return train, {"penalty": Value(chosen["penalty"], CALIBRATED)} if fixed else {}


@lru_cache
def laboratory_choices() -> Mapping[str, Mapping[str, float]]:
    """method -> the learning rates (and penalty) that were chosen for it among its candidates."""
    choices = {}
    with LABORATORY_FILE.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["chosen"] == "yes":
                names = ("lr_weights", "lr_scores", "penalty")
                choices[row["method"]] = {n: float(row[n]) for n in names if row[n]}
    return choices


@lru_cache
def penalty_runs() -> Mapping[tuple[str, str, str, bool], list[tuple[float, float]]]:
    """(scale, method, task, distill) -> [(remaining, lambda), ...], most remaining first."""
    runs: dict[tuple[str, str, str, bool], list[tuple[float, float]]] = {}
    with PENALTIES_FILE.open(newline="") as file:
        for row in csv.DictReader(file):
            key = (row["scale"], row["method"], row["task"], row["distill"] == "yes")
            runs.setdefault(key, []).append((float(row["remaining"]) / 100, float(row["penalty"])))
    return {key: sorted(points, reverse=True) for key, points in runs.items()}


def penalty_for(request: Request) -> Value:
    """lambda for a target density, log-linear between the two nearest known runs.

    Raises ConfigError outside the range of the runs, or where there is none.
    """
    scale = "tiny" if request.scale == "tiny" else "base"
    task = request.task_name if scale == "tiny" else request.task
    points = penalty_runs().get((scale, request.method, task, request.distill), [])
    what = (
        f"method {request.method} on {request.task_name}" + " with distillation" * request.distill
    )
    if not points:
        raise NoPenalty(f"{what}: no run is known that gives its penalty; leave it out")
    high, low = points[0][0], points[-1][0]
    if not low <= request.density <= high:
        raise NoPenalty(
            f"{what}: known runs reach from {low:.2%} to {high:.2%} remaining weights, not"
            f" {request.density:.2%}; leave it out there"
        )
    source = f"{LOG}, BERT-base" if scale == "base" else CALIBRATED
    return Value(_between(points, request.density), f"{source}, log-linear between runs")


def _between(points: list[tuple[float, float]], density: float) -> float:
    for (d1, p1), (d2, p2) in pairwise(points):
        if d2 <= density <= d1:
            share = 0.0 if d1 == d2 else (d1 - density) / (d1 - d2)
            if p1 <= 0 or p2 <= 0:
                return p1 + share * (p2 - p1)
            return math.exp(math.log(p1) + share * (math.log(p2) - math.log(p1)))
    return points[0][1]
