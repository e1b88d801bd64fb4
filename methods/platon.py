"""PLATON: sensitivity times its uncertainty (Zhang et al. 2022), written from the paper's equations
and the values of its authors' scripts."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from methods.published import common, distillation, rates
from zoo import (
    OURS,
    Among,
    ConfigError,
    Gate,
    Method,
    Moment,
    Ramp,
    Request,
    Score,
    Value,
    Values,
    adamax,
    adamw,
    every_so_often,
    mask_itself,
    register_method,
    share,
    topk_in_all,
    total,
    zero_when_masked,
)
from zoo.errors import unknown

SCRIPTS = "PLATON's scripts"


@dataclass(frozen=True)
class Script:
    """A published training of PLATON; `beta2` by density, percent that remain."""

    rate: float
    batch: int
    epochs: int
    examples: int
    warmup: int
    initial: int
    final: int
    beta2: dict[int, float]


PLATON = {
    "squad": Script(3e-5, 16, 10, 88_524, 5400, 1, 5, {10: 0.95}),
    "mnli": Script(8e-5, 32, 8, 392_702, 5400, 1, 5, {20: 0.95, 15: 0.90, 10: 0.85}),
    "qqp": Script(1e-4, 32, 10, 363_846, 5400, 1, 5, {20: 0.85}),
    "qnli": Script(1e-4, 32, 10, 104_743, 2000, 1, 6, {10: 0.90}),
    "sst2": Script(8e-5, 32, 6, 67_349, 1000, 1, 5, {10: 0.85}),
    "rte": Script(1e-4, 16, 20, 2_490, 200, 1, 6, {20: 0.95, 15: 0.65, 10: 0.95}),
    "mrpc": Script(1e-4, 8, 10, 3_668, 300, 1, 3, {10: 0.95}),
    "cola": Script(1e-4, 32, 15, 8_551, 500, 1, 3, {10: 0.95}),
    "stsb": Script(1e-4, 16, 15, 5_749, 500, 1, 5, {10: 0.85}),
}
"""What the authors' scripts pass, by task."""


def platon_recipe(request: Request) -> tuple[Values, Values]:
    """The authors' scripts; beta2, which they tune by task and density, of the nearest density."""
    shared, script = common(request, code=SCRIPTS), PLATON[request.task]
    steps = script.epochs * math.ceil(script.examples / script.batch)
    nearest = min(script.beta2, key=lambda percent: abs(percent - 100 * request.density))
    train = {
        "batch": Value(script.batch, SCRIPTS),
        "epochs": Value(script.epochs, SCRIPTS),
        "warmup": share(script.warmup, steps, SCRIPTS),
    }
    end = steps - script.final * script.warmup
    hyper = {
        "start": share(script.initial * script.warmup, steps, SCRIPTS),
        "stop": share(end, steps, SCRIPTS),
        "beta1": Value(0.85, SCRIPTS),
        "beta2": Value(script.beta2[nearest], f"{SCRIPTS}: tuned, at {nearest} %"),
        "window": Value(10, f"{SCRIPTS}: steps"),
        "optimiser": Value("adamw" if request.task == "squad" else "adamax", SCRIPTS),
    }
    if request.task != "squad":
        train["epsilon"] = Value(1e-6, f"{SCRIPTS}: Adamax")
    decay = {"weight_decay": Value(0.0, f"{OURS}: biases and LayerNorm have no group of their own")}
    own = rates(SCRIPTS, script.rate) | distillation(request, 0.1, 0.9, f"{OURS}: as movement")
    return shared | train | own | decay, hyper


def three_zeros(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Importance, uncertainty and the window's sum of sensitivities, (3, out, in), all 0."""
    return weight.new_zeros(3, *weight.shape)


def importance_times_uncertainty(layer: Any) -> Tensor:
    """I * U (Zhang et al. 2022, Eq. 8)."""
    return layer.score[0] * layer.score[1]


@dataclass(frozen=True)
class Sensitivity:
    """After each optimiser step s = abs(W * g), with the new W and the clipped gradient g of it.

    Every `window` steps, with J the mean of the window before: I <- beta1 I + (1 - beta1) J, and U
    <- beta2 U + (1 - beta2) abs(J - I) with the new I (Zhang et al. 2022, Eq. 5 to 7). The first
    window has a 0 for step 0, as released.
    """

    beta1: float
    beta2: float
    window: int

    def __call__(self, layer: Any, moment: Moment) -> None:
        importance, uncertainty, running = layer.score
        sensitivity = (layer.weight.detach() * layer.weight.grad).abs()
        if moment.step % self.window:
            running.add_(sensitivity)
            return
        mean = running / self.window
        importance.mul_(self.beta1).add_(mean, alpha=1 - self.beta1)
        uncertainty.mul_(self.beta2).add_((mean - importance).abs(), alpha=1 - self.beta2)
        running.copy_(sensitivity)


def all_open(score: Tensor, mask: Tensor, noise: Tensor | None) -> Tensor:
    """Ones: in training nothing gates W, so that a weight that was set to 0 may grow again."""
    return torch.ones_like(mask)


open_in_training = Gate(value=all_open, test=mask_itself)
"""Masks set weights to 0 and count in evaluation; gradients pass them by."""
OPTIMISERS = {"adamw": adamw, "adamax": adamax}


@register_method(
    "platon",
    recipe=platon_recipe,
    ranges={"beta2": Among(0.65, 0.75, 0.85, 0.9, 0.95)},
    label="PLATON",
    family="sensitivity",
    order=50,
)
def platon(
    density: float,
    *,
    start: float,
    stop: float,
    beta1: float = 0.85,
    beta2: float = 0.95,
    window: int = 10,
    power: int = 3,
    optimiser: str = "adamw",
) -> Method:
    """PLATON: the highest importance times uncertainty of all weights stay (Zhang 2022).

    Every `window` steps of the ramp from `start` to `stop`, and at every step after it, the lowest
    scores' weights are set to 0; in between they may grow again. Its beta2 is tuned by task and
    density. Differs from the released code: the matrices alone are pruned, not biases; exactly
    int(density * n) weights stay; there is no weight decay. Raises ConfigError for values out of
    range, and another optimiser than adamw and adamax.
    """
    if not 0 <= beta1 < 1 or not 0 <= beta2 < 1 or window < 1:
        raise ConfigError(
            f"beta1 and beta2 must be in [0, 1) and window at least 1, got {beta1:g}, {beta2:g} and"
            f" {window}"
        )
    if optimiser not in OPTIMISERS:
        raise ConfigError(unknown("optimiser", optimiser, OPTIMISERS))
    return Method(
        score=Score(
            importance_times_uncertainty,
            three_zeros,
            after=Sensitivity(beta1, beta2, window),
            together=total,
        ),
        mask=topk_in_all,
        level=every_so_often(Ramp(1.0, density, start, stop, power), window),
        gate=open_in_training,
        zeroes=zero_when_masked,
        optimiser=OPTIMISERS[optimiser],
    )
