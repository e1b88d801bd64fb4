"""SMP: pruning without any training of weights (Static Model Pruning, ACL 2023).

Only scores learn, through the mask (Eq. 3); weights, biases, LayerNorm, embeddings and head keep
their pre-trained values. Logits are those of label words. Differs from the paper where the
`released` recipe says so; docs/conflicts.md lists the differences.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from methods.published import (
    DRIVEN,
    LARGE,
    PAPER_STEPS,
    SCORES,
    SMP_CODE,
    SMP_PAPER,
    SMP_STEPS,
    common,
    distillation,
    rates,
    smp_epochs,
)
from zoo import (
    OURS,
    ConfigError,
    Method,
    Penalty,
    Ramp,
    Request,
    Times,
    Value,
    Values,
    above_threshold,
    label_words,
    learned,
    mean_sigmoid,
    mean_sigmoid_gradient,
    mlm_label_words,
    nothing,
    permuted_in_evaluation,
    register_method,
    share,
    straight_through,
    topk_by_type,
    topk_global,
    trained,
)
from zoo.errors import unknown

FAMILY = "static model pruning"
PENALTY = {**SCORES, "penalty": Times(0.25, 4)}
"""What `--tune` searches of methods whose penalty decides which weights remain, not how many."""
HEADS = {head.name: head for head in (label_words, mlm_label_words)}
TAU = 0.1
"""Final threshold of SMP-T; the paper gives none, this is soft movement's."""
NO_MLM_HEAD = "SMP, section 4.2: this checkpoint has no MLM head for the released one"
"""The source of the head where the released one cannot be used."""
FALLBACK = "has no MLM head; the head is the paper's label_words, not the released mlm_label_words"


def smp_recipe(request: Request) -> tuple[Values, Values]:
    """SMP's released code, or the text of its section 5.2."""
    paper, squad = request.version == "paper", request.task == "squad"
    shared = common(request, evaluation=SMP_CODE)
    large, sparse_squad = request.task in LARGE, squad and request.density <= 0.03
    epochs, batch = smp_epochs(request.task), 64 if large and not squad else 32
    epochs = 20 if sparse_squad else epochs
    if paper:
        epochs, batch = {"squad": 10}.get(request.task, 12 if large else 60), 64
    source = SMP_PAPER if paper else SMP_CODE
    train = {
        "batch": Value(batch, source),
        "epochs": Value(epochs, source),
        "warmup": Value(0.0, SMP_CODE),
    }
    stop, power = _stop(request, epochs), _power(request)
    horizon = Value(stop.value, "SMP, Eq. 6: lambda follows the sparsity")
    slope = Value(power.value, "SMP, Eq. 6: lambda follows the sparsity")
    if not paper:
        horizon = Value(1.0, f"{SMP_CODE}: lambda rises over the whole run")
        slope = Value(3, SMP_CODE)
        if sparse_squad:
            horizon = share(27660, 55340, SMP_CODE)
    hyper = {
        "stop": stop,
        "penalty": Value(400.0, SMP_PAPER),
        "penalty_stop": horizon,
        "power": power,
        "penalty_power": slope,
        "head": _head(request),
    }
    own = rates(source, None, 2e-2)
    own["lr_head"] = Value(3e-5, "SMP, section 6.2: where its head trains")
    return shared | train | own | _distillation(request), hyper


def _stop(request: Request, epochs: int) -> Value:
    """When the density reaches its target.

    The paper has high and low sparsity the wrong way round (section 5.2): its code ends the ramp
    after 3,500 to 5,250 steps where many weights remain, and 30,000 (SQuAD 5,000) steps before the
    end where few do. `paper` follows the sentence, `released` the code.
    """
    squad, many = request.task == "squad", request.density >= 0.7
    if request.version == "paper":
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


def _power(request: Request) -> Value:
    if request.model_type == "roberta":
        return Value(1, "SMP, section 5.2: linear for RoBERTa (its script does not pass it)")
    return Value(3, "SMP, Eq. 5")


def _head(request: Request) -> Value:
    if request.version == "paper":
        return Value("label_words", "SMP, section 4.2")
    if request.has_mlm_head:
        return Value("mlm_label_words", f"{SMP_CODE}: modeling_bert_smp.py")
    return Value("label_words", NO_MLM_HEAD, FALLBACK)


def _distillation(request: Request) -> Values:
    if request.version == "paper":
        return distillation(request, 1.0, 1.0, "SMP, Eq. 6 and 7: added to the loss")
    return distillation(request, 0.5, 0.5, f"{SMP_CODE}: argparse defaults")


@register_method("smp_l", recipe=smp_recipe, ranges=PENALTY, family=FAMILY, order=60)
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
    `stop` of the run; lambda rises to `penalty` at `penalty_stop`, with `penalty_power`. Raises
    ConfigError for an unknown `head`.
    """
    if head not in HEADS:
        raise ConfigError(unknown("head", head, HEADS))
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


@register_method(
    "smp_l_new_head",
    recipe="smp_l",
    ranges={**PENALTY, "lr_head": Times(0.25, 4)},
    label="SMP-L, head from scratch",
    family=FAMILY,
    order=61,
)
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
    return replace(base, head=trained)


@register_method(
    "smp_l_no_penalty",
    recipe="smp_l",
    ranges=SCORES,
    label="SMP-L, without R",
    family=FAMILY,
    order=62,
)
def smp_l_no_penalty(
    density: float, *, stop: float, power: int = 3, head: str = "label_words"
) -> Method:
    """SMP-L without the penalty on scores (SMP, Table 5)."""
    base = smp_l(density, stop=stop, penalty=0.0, power=power, head=head)
    return replace(base, penalty=None)


def smp_s_recipe(request: Request) -> tuple[Values, Values]:
    """SMP-L's recipe, and the temperature of Eq. 4 that the released scripts pass."""
    train, hyper = smp_recipe(request)
    if request.version == "paper":
        return train, hyper | {"score_temperature": Value(1.0, "SMP, Eq. 4")}
    half = request.density == 0.5 and not request.distill
    temperature = 4.0 if request.density >= 0.7 else 1.0
    if half and request.task in ("squad", "mnli"):
        temperature = 4.0 if request.task == "squad" else 3.0
    if half and request.task == "squad":
        hyper["stop"] = share(5000, SMP_STEPS["squad"], SMP_CODE)
    source = f"{SMP_CODE}; not in the paper"
    return train, hyper | {"score_temperature": Value(temperature, source)}


@register_method("smp_s", recipe=smp_s_recipe, ranges=PENALTY, family=FAMILY, order=63)
def smp_s(
    density: float, *, score_temperature: float = 1.0, redistribute: bool = False, **hyper: Any
) -> Method:
    """SMP-S: layers share the density of a matrix type by their scores (SMP, Eq. 4).

    Reproduces the SMP-S rows of SMP, Tables 1 and 3. `score_temperature` divides the scores in
    Eq. 4, as in the released code; the paper does not mention it. `redistribute` passes the part of
    a share above 1 on to the other layers, which neither the paper nor the code does.
    """
    by_type = partial(topk_by_type, temperature=score_temperature, redistribute=redistribute)
    return replace(smp_l(density, **hyper), mask=by_type)


@register_method(
    "smp_s_shuffled",
    recipe="smp_s",
    ranges=PENALTY,
    label="SMP-S, mask shuffled",
    family=FAMILY,
    order=64,
    control=True,
)
def smp_s_shuffled(density: float, **hyper: Any) -> Method:
    """SMP-S with masks that are shuffled for evaluation: what the choice of weights is worth.

    A control: the densities of all matrices are SMP-S's own, the choice of weights is random. If
    its metrics are like SMP-S's, only the allocation matters. Differs from the shuffles of Su et
    al. 2020 and Frankle et al. 2021, which train afterwards: here no weight ever trains, the mask
    is what is learned.
    """
    return replace(smp_s(density, **hyper), gate=permuted_in_evaluation)


@register_method("smp_g", recipe=smp_recipe, ranges=PENALTY, family=FAMILY, order=65)
def smp_g(density: float, **hyper: Any) -> Method:
    """SMP-G: one threshold over all matrices, computed at every step (SMP, section 6.1).

    Reproduces the SMP-G row of SMP, Table 3. The released code cannot run it; this is what its
    parts would do: int(density n) + 1 weights in all, at least 0.5 % of each matrix.
    """
    return replace(smp_l(density, **hyper), mask=topk_global, budget=None)


def smp_t_recipe(request: Request) -> tuple[Values, Values]:
    """SMP gives neither a threshold nor a schedule: as in soft movement, tau and lambda rise
    together."""
    train, hyper = smp_recipe(request)
    source = f"{OURS}: SMP gives none; tau and lambda rise together, as in soft movement,"
    hyper["stop"] = Value(
        hyper["stop"].value, f"{source} until SMP-L's density would reach its target"
    )
    hyper["penalty_stop"] = Value(hyper["stop"].value, f"{source} on one ramp")
    hyper["penalty_power"] = Value(hyper["power"].value, f"{source} on one ramp")
    hyper["penalty"] = Value(400.0, f"{OURS}: SMP-L's, SMP gives none for this")
    return train, hyper


@register_method(
    "smp_t",
    recipe=smp_t_recipe,
    ranges={**SCORES, **DRIVEN},
    family=FAMILY,
    order=66,
    drives="penalty",
)
def smp_t(density: float, **hyper: Any) -> Method:
    """SMP-T: scores above a rising threshold stay; the density is measured (SMP, section 6.1).

    tau rises from 0 to 0.1 on the ramp that SMP-L's density falls on. SMP, Table 3, reports no
    convergence; the released code evaluates it with a wrong threshold.
    """
    base = smp_l(density, **hyper)
    tau = Ramp(0.0, TAU, 0.0, hyper["stop"], hyper.get("power", 3))
    return replace(base, mask=above_threshold, level=tau, budget=None)
