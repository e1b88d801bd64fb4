"""SMP: pruning without any training of weights (Static Model Pruning, ACL 2023).

Only scores learn, through the mask (Eq. 3); weights, biases, LayerNorm, embeddings and head keep
their pre-trained values. Logits are those of label words. Differs from the paper where `released`
recipes say so: see zoo/recipes.py.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from zoo import heads
from zoo.gates import shuffled_at_evaluation, straight_through
from zoo.losses import Penalty, mean_sigmoid, mean_sigmoid_gradient
from zoo.masks import above_threshold, topk_by_type, topk_global
from zoo.method import Method, nothing
from zoo.registry import register_method
from zoo.schedules import Ramp
from zoo.scores import learned

HEADS = {head.name: head for head in (heads.label_words, heads.mlm_label_words)}
TAU = 0.1
"""Final threshold of SMP-T; the paper gives none, this is soft movement's."""


@register_method("smp_l")
def smp_l(
    density: float,
    *,
    stop: float,
    penalty: float,
    penalty_stop: float = 1.0,
    power: int = 3,
    penalty_power: int = 3,
    head: str = "label_words",
) -> Method:
    """SMP-L: frozen weights, learned scores, the same density in every matrix (SMP, section 4.1).

    Reproduces the SMP-L rows of SMP, Tables 1 and 3; Table 2 has, task by task, the better of it
    and SMP-S. The density falls from 1 on a ramp of the power `power` that ends at the fraction
    `stop` of the run; lambda rises to `penalty` at `penalty_stop`, with `penalty_power`.
    """
    return Method(
        score=learned,
        level=Ramp(1.0, density, 0.0, stop, power),
        gate=straight_through,
        penalty=Penalty(
            mean_sigmoid,
            mean_sigmoid_gradient,
            Ramp(0.0, penalty, 0.0, penalty_stop, penalty_power),
        ),
        trains=nothing,
        head=HEADS[head],
    )


@register_method("smp_l_new_head", label="SMP-L, head from scratch", recipe="smp_l")
def smp_l_new_head(
    density: float,
    *,
    stop: float,
    penalty: float,
    penalty_stop: float = 1.0,
    power: int = 3,
    penalty_power: int = 3,
) -> Method:
    """SMP-L with a fresh head that trains, in place of label words (SMP, Table 4).

    Differs from the released code, whose freezing would keep that head at its random start.
    """
    base = smp_l(
        density,
        stop=stop,
        penalty=penalty,
        penalty_stop=penalty_stop,
        power=power,
        penalty_power=penalty_power,
    )
    return replace(base, head=heads.trained)


@register_method("smp_l_no_penalty", label="SMP-L, without R", recipe="smp_l")
def smp_l_no_penalty(
    density: float, *, stop: float, power: int = 3, head: str = "label_words"
) -> Method:
    """SMP-L without the penalty on scores (SMP, Table 5)."""
    base = smp_l(density, stop=stop, penalty=0.0, power=power, head=head)
    return replace(base, penalty=None)


@register_method("smp_s")
def smp_s(
    density: float, *, score_temperature: float = 1.0, redistribute: bool = False, **hyper: Any
) -> Method:
    """SMP-S: layers share the density of a matrix type by their scores (SMP, Eq. 4).

    Reproduces the SMP-S rows of SMP, Tables 1 and 3. `score_temperature` divides the scores in
    Eq. 4, as in the released code; the paper does not mention it. `redistribute` hands a share
    above 1 on to the other layers, which neither the paper nor the code does.
    """
    by_type = partial(topk_by_type, temperature=score_temperature, redistribute=redistribute)
    return replace(smp_l(density, **hyper), mask=by_type)


@register_method("smp_s_shuffled", label="SMP-S, mask shuffled", recipe="smp_s")
def smp_s_shuffled(density: float, **hyper: Any) -> Method:
    """SMP-S judged with its masks shuffled inside each matrix: what the choice of weights is worth.

    A control: the densities of all matrices are SMP-S's own, the places are random. If it scores
    like SMP-S, only the allocation matters. Differs from the shuffles of Su et al. 2020 and Frankle
    et al. 2021, which train afterwards: here no weight ever trains, the mask is what is learned.
    """
    return replace(smp_s(density, **hyper), gate=shuffled_at_evaluation)


@register_method("smp_g")
def smp_g(density: float, **hyper: Any) -> Method:
    """SMP-G: one threshold over all matrices, found anew every step (SMP, section 6.1).

    Reproduces the SMP-G row of SMP, Table 3. The released code cannot run it; this is what its
    parts would do: int(density n) + 1 weights in all, at least 0.5 % of each matrix.
    """
    return replace(smp_l(density, **hyper), mask=topk_global, budget=None)


@register_method("smp_t", drives="penalty")
def smp_t(density: float, **hyper: Any) -> Method:
    """SMP-T: scores above a rising threshold stay; the density is measured (SMP, section 6.1).

    tau rises from 0 to 0.1 on the ramp that SMP-L's density falls on. SMP, Table 3, reports no
    convergence; the released code evaluates it with a wrong threshold.
    """
    base = smp_l(density, **hyper)
    tau = Ramp(0.0, TAU, 0.0, hyper["stop"], hyper.get("power", 3))
    return replace(base, mask=above_threshold, level=tau, budget=None)
