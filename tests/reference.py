"""Every method a second time: slow, in plain autograd, written from the papers' equations.

Nothing of zoo/ is used here. Masks stand in the graph as M + S - S.detach(), penalties and gates
are differentiated by autograd, top-k is a stable sort, Adam and its clipping are written out, and
the models are the stock ones of transformers. What chance decides (data order, dropout, noise) is
handed in, so that a run can be compared number by number.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

TYPES = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
Named = dict[str, Tensor]


@dataclass
class Setting:
    """One run: a stock model at its start, numbers of its recipe, and everything random.

    `model` gives outputs with `logits`, whose last axis has an entry per output once `pick` has
    chosen; `start` holds all its parameters, `fresh` the names that no checkpoint gave. `batches`
    are (rows, model inputs, labels). `generator` and `draws` are the streams of random numbers for
    masks and for losses. `teacher` and `banks` are frozen outputs by row, spans padded with -1e4.
    """

    model: Any
    pick: Callable[[Any], Tensor]
    start: Named
    fresh: frozenset[str]
    batches: Sequence[tuple[Tensor, Mapping[str, Tensor], Tensor]]
    seeds: Sequence[int]
    density: float
    hyper: Mapping[str, Any]
    train: Mapping[str, Any]
    generator: torch.Generator
    draws: torch.Generator
    classes: Tensor
    teacher: Tensor | None = None
    banks: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        return len(self.batches)


def matrices(model: Any) -> list[str]:
    """Names of the weights that are masked: Q, K, V, O, U, D, layer by layer."""
    ends = tuple(f"{kind}.weight" for kind in TYPES)
    names = [name for name, _ in model.named_parameters()]
    return [name for name in names if "encoder.layer." in name and name.endswith(ends)]


# Schedules ------------------------------------------------------------------------------------


def sanh(t: int, first: float, last: float, begin: int, end: int) -> float:
    """Sanh 2020, Eq. 5, with i w = begin and T - f w = end."""
    if t <= begin:
        return first
    if t > end:
        return last
    return last + (first - last) * (1 - (t - begin) / (end - begin)) ** 3


def smp(t: int, last: float, n: int, power: int) -> float:
    """SMP, Eq. 5, as kept fraction: the sparsity grows from 0 to 1 - last in n steps."""
    gone = (1 - last) * (1 - (1 - min(t, n) / n) ** power)
    return 1 - gone


def rate(t: int, steps: int, warmup: float) -> float:
    """Linear warm-up, then linear decay to 0."""
    rise = round(steps * warmup)
    return t / rise if t < rise else 1 - (t - rise) / (steps - rise)


# Masks ----------------------------------------------------------------------------------------


def best(scores: Tensor, number: int) -> Tensor:
    """1 at the `number` largest entries; among equals the first in memory."""
    flat = scores.detach().reshape(-1)
    order = np.argsort(-flat.numpy(), kind="stable")
    mask = torch.zeros_like(flat)
    mask[torch.from_numpy(order[:number])] = 1
    return mask.reshape(scores.shape)


def local(scores: Named, density: float) -> Named:
    return {name: best(s, int(density * s.numel())) for name, s in scores.items()}


def by_type(scores: Named, density: float, temperature: float) -> Named:
    """SMP, Eq. 4: sums of sigmoid(S / p) over a layer's matrix, shared within its type."""
    sums = {n: torch.sigmoid(s.detach() / temperature).sum().item() for n, s in scores.items()}
    result = {}
    for name, s in scores.items():
        kind = name.split(".layer.")[1].split(".", 1)[1]
        group = [v for n, v in sums.items() if n.split(".layer.")[1].split(".", 1)[1] == kind]
        share = density * len(group) * sums[name] / sum(group)
        result[name] = best(s, int(share * s.numel()))
    return result


def across(scores: Named, density: float) -> Named:
    """One ranking of all entries: int(n density) + 1 stay, and at least 0.5 % of a matrix."""
    flat = torch.cat([s.detach().reshape(-1) for s in scores.values()])
    chosen = best(flat, int(len(flat) * density) + 1)
    result, at = {}, 0
    for name, s in scores.items():
        mask = chosen[at : at + s.numel()].reshape(s.shape)
        at += s.numel()
        least = int(0.005 * s.numel())
        result[name] = best(s, least) if mask.sum() < least else mask
    return result


def above(scores: Named, tau: float) -> Named:
    result = {}
    for name, s in scores.items():
        mask = (1 / (1 + torch.exp(-s.detach())) > tau).to(s.dtype)
        least = int(0.005 * s.numel()) + 1
        result[name] = best(s, least) if mask.sum() < least else mask
    return result


def evaluated(method: "Reference", scores: Named, masks: Named) -> Named:
    """What multiplies W in evaluation: the mask, or L0's clipped mean without noise."""
    if not method.concrete:
        return masks
    return {n: torch.clamp(torch.sigmoid(s) * 1.2 - 0.1, 0, 1) for n, s in scores.items()}


# Losses ---------------------------------------------------------------------------------------


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Minus the log-probability of the label; over the places of a span for start and end."""
    if labels.dtype.is_floating_point:
        return ((logits[:, 0] - labels) ** 2).mean()
    if logits.dim() == 3:
        ends = [cross_entropy(logits[..., side], labels[:, side]) for side in (0, 1)]
        return (ends[0] + ends[1]) / 2
    log_p = logits - torch.logsumexp(logits, -1, keepdim=True)
    return -log_p[torch.arange(len(labels)), labels].mean()


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 sum_k p_t (ln p_t - ln p_s), mean over the batch; over start and end for spans."""
    if student.dim() == 3:
        sides = [divergence(student[..., i], teacher[..., i], temperature) for i in (0, 1)]
        return (sides[0] + sides[1]) / 2
    if student.shape[-1] == 1:
        return ((student - teacher) ** 2).mean()
    p = torch.softmax(teacher / temperature, -1)
    difference = torch.log_softmax(teacher / temperature, -1) - torch.log_softmax(
        student / temperature, -1
    )
    return temperature**2 * (p * difference).sum(-1).mean()


def penalty(scores: Named, shift: float) -> Tensor:
    """Mean over matrices of the mean of sigmoid(S - shift)."""
    means = [(1 / (1 + torch.exp(shift - s))).mean() for s in scores.values()]
    return sum(means[1:], means[0]) / len(means)


def contrast(setting: Setting, rows: Tensor, anchors: Tensor, supervised: bool) -> Tensor:
    """CAP: anchors against the batch, the batch's bank vectors and extra examples, per bank."""
    order = torch.randperm(len(setting.classes), generator=setting.draws).tolist()
    extra = [i for i in order if i not in rows.tolist()][: setting.hyper.get("extras", 4096)]
    unit = anchors / anchors.norm(dim=-1, keepdim=True)
    names = [*rows.tolist(), *rows.tolist(), *extra]
    total = anchors.new_zeros(())
    for vectors in setting.banks.values():
        columns = torch.cat([unit.detach(), vectors[[*rows.tolist(), *extra]].to(unit.dtype)])
        weighted, positives = anchors.new_zeros(()), 0
        for i, row in enumerate(rows.tolist()):
            there = [j for j in range(len(names)) if j != i]
            likeness = columns @ unit[i] / 0.1
            norm = torch.logsumexp(likeness[there], 0)
            label = setting.classes[row]
            same = [
                j
                for j in there
                if (setting.classes[names[j]] == label if supervised else names[j] == row)
            ]
            if same:
                weighted = weighted + (likeness[same] - norm).sum() / len(same)
            positives += len(same)
        total = total - weighted / max(positives, 1)
    return total


# Methods --------------------------------------------------------------------------------------

GAMMA, ZETA, BETA = -0.1, 1.1, 2 / 3


def embeddings_stay(name: str) -> bool:
    return ".embeddings." not in name


def all_train(name: str) -> bool:
    return True


def none_train(name: str) -> bool:
    return False


@dataclass(frozen=True)
class Reference:
    """One method's equations: what trains, its scores, masks and penalty, each of (setting, t)."""

    trains: Callable[[str], bool]
    score: str = "none"  # none, weight (its magnitude), noise (fixed), learned
    first: float = 0.0  # of a learned score
    masks: Callable[[Setting, Named, int], Named] | None = None
    weight: Callable[[Setting, int], float] | None = None  # lambda(t)
    shift: float = 0.0  # of the penalty
    concrete: bool = False  # hard-concrete gates in place of masks
    contrast: bool = False


def _window(s: Setting) -> tuple[int, int]:
    return round(s.hyper["start"] * s.steps), round(s.hyper["stop"] * s.steps)


def _sanh_density(s: Setting, t: int) -> float:
    return sanh(t, 1.0, s.density, *_window(s))


def _tau(s: Setting, t: int) -> float:
    return sanh(t, 0.0, 0.1, *_window(s))


def _smp_density(s: Setting, t: int) -> float:
    return smp(t, s.density, round(s.hyper["stop"] * s.steps), s.hyper.get("power", 3))


def _smp_lambda(s: Setting, t: int) -> float:
    horizon = round(s.hyper["penalty_stop"] * s.steps)
    return s.hyper["penalty"] * (1 - (1 - min(t, horizon) / horizon) ** s.hyper["penalty_power"])


def _smp_tau(s: Setting, t: int) -> float:
    left = 1 - min(t / round(s.hyper["stop"] * s.steps), 1)
    return 0.1 * (1 - left ** s.hyper["power"])


DENSE = Reference(all_train)
MAGNITUDE = Reference(
    embeddings_stay, "weight", masks=lambda s, scores, t: local(scores, _sanh_density(s, t))
)


def GLOBAL(s: Setting, scores: Named, t: int) -> Named:
    return across(scores, _sanh_density(s, t))


MOVEMENT = Reference(embeddings_stay, "learned", masks=MAGNITUDE.masks)
SMP_L = Reference(
    none_train,
    "learned",
    masks=lambda s, scores, t: local(scores, _smp_density(s, t)),
    weight=_smp_lambda,
)
SMP_S = Reference(
    none_train,
    "learned",
    masks=lambda s, scores, t: by_type(scores, _smp_density(s, t), s.hyper["score_temperature"]),
    weight=_smp_lambda,
)
REFERENCES = {
    "dense": DENSE,
    "scratch": DENSE,
    "head_only": Reference(none_train),
    "random": Reference(embeddings_stay, "noise", masks=MAGNITUDE.masks),
    "magnitude": MAGNITUDE,
    "magnitude_global": replace(MAGNITUDE, masks=GLOBAL),
    "movement": MOVEMENT,
    "movement_global": replace(MOVEMENT, masks=GLOBAL),
    "soft_movement": Reference(
        embeddings_stay,
        "learned",
        masks=lambda s, scores, t: above(scores, _tau(s, t)),
        weight=lambda s, t: s.hyper["penalty"] * _tau(s, t) / 0.1,
    ),
    "l0": Reference(
        embeddings_stay,
        "learned",
        first=2.197,
        weight=lambda s, t: s.hyper["penalty"],
        shift=BETA * math.log(-GAMMA / ZETA),
        concrete=True,
    ),
    "cap_lite": Reference(embeddings_stay, "learned", masks=MAGNITUDE.masks, contrast=True),
    "smp_l": SMP_L,
    "smp_l_new_head": SMP_L,
    "smp_l_no_penalty": replace(SMP_L, weight=None),
    "smp_s": SMP_S,
    "smp_s_shuffled": SMP_S,
    "smp_g": Reference(
        none_train,
        "learned",
        masks=lambda s, scores, t: across(scores, _smp_density(s, t)),
        weight=_smp_lambda,
    ),
    "smp_t": Reference(
        none_train,
        "learned",
        masks=lambda s, scores, t: above(scores, _smp_tau(s, t)),
        weight=_smp_lambda,
    ),
}
"""Every registered method; one that is missing here fails tests/test_reference.py."""


# The loop -------------------------------------------------------------------------------------


@dataclass
class State:
    """What stands after a step: all parameters, scores, the masks for the next step; and the norm
    of the step's gradients before it was clipped."""

    parameters: Named
    scores: Named
    masks: Named
    norm: float


def train(method: Reference, s: Setting) -> Iterator[State]:
    """Train and yield the state after every step."""
    names = matrices(s.model)
    weights = {n: p.clone() for n, p in s.start.items()}
    trained = [n for n in weights if method.trains(n) or n in s.fresh]
    scores: Named = {}
    if method.score == "learned":
        scores = {n: torch.full_like(weights[n], method.first) for n in names}
    elif method.score == "noise":
        scores = {
            n: torch.rand(weights[n].shape, generator=s.generator).to(weights[n]) for n in names
        }
    learned = list(scores) if method.score == "learned" else []
    moments: dict[str, tuple[Tensor, Tensor]] = {}
    gates = _gates(method, s, weights, scores, 0)
    for t, (rows, inputs, labels) in enumerate(s.batches):
        leaves = {n: weights[n].clone().requires_grad_() for n in trained}
        leaves |= {"S " + n: scores[n].clone().requires_grad_() for n in learned}
        loss = _loss(method, s, t, {**weights, **leaves}, gates, rows, inputs, labels)
        loss.backward()
        gradients = {n: leaf.grad for n, leaf in leaves.items() if leaf.grad is not None}
        norm = math.sqrt(sum((g**2).sum().item() for g in gradients.values()))
        shrink = min(1.0, s.train["clip"] / (norm + 1e-6))
        for n, gradient in gradients.items():
            target = scores[n[2:]] if n.startswith("S ") else weights[n]
            peak = s.train[
                "lr_scores" if n.startswith("S ") else "lr_head" if n in s.fresh else "lr_weights"
            ]
            zero = torch.zeros_like(target)
            m, v = moments.get(n, (zero, zero))
            m = 0.9 * m + 0.1 * shrink * gradient
            v = 0.999 * v + 0.001 * (shrink * gradient) ** 2
            moments[n] = m, v
            unbiased = (v / (1 - 0.999 ** (t + 1))).sqrt() + 1e-8
            step = (m / (1 - 0.9 ** (t + 1))) / unbiased
            target -= peak * rate(t, s.steps, s.train["warmup"]) * step
        gates = _gates(method, s, weights, scores, t + 1)
        yield State(weights, scores, gates, norm)


def _gates(method: Reference, s: Setting, weights: Named, scores: Named, t: int) -> Named:
    """Masks of step t; for hard concrete the noise u of step t."""
    if method.concrete:
        return {
            n: torch.rand(x.shape, generator=s.generator).clamp(1e-4, 1 - 1e-4).to(x)
            for n, x in scores.items()
        }
    if method.masks is None:
        return {}
    if method.score == "weight":
        scores = {n: weights[n].abs() for n in matrices(s.model)}
    return method.masks(s, scores, t)


def _loss(
    method: Reference,
    s: Setting,
    t: int,
    values: Named,
    gates: Named,
    rows: Tensor,
    inputs: Mapping[str, Tensor],
    labels: Tensor,
) -> Tensor:
    scores = {n[2:]: v for n, v in values.items() if n.startswith("S ")}
    effective = {n: v for n, v in values.items() if not n.startswith("S ")}
    for n, mask in gates.items():
        gate = mask
        if method.concrete:
            soft = torch.sigmoid((torch.log(mask) - torch.log(1 - mask) + scores[n]) / BETA)
            gate = torch.clamp(soft * (ZETA - GAMMA) + GAMMA, 0, 1)
        elif n in scores:
            gate = mask + scores[n] - scores[n].detach()
        effective[n] = effective[n] * gate
    pooled: list[Tensor] = []
    pooler = getattr(s.model.base_model, "pooler", None)
    if pooler is not None:
        hook = pooler.register_forward_hook(lambda module, args, out: pooled.append(out))
    torch.manual_seed(s.seeds[t])
    logits = s.pick(torch.func.functional_call(s.model, effective, kwargs=dict(inputs)))
    if pooler is not None:
        hook.remove()
    loss = cross_entropy(logits, labels)
    if s.teacher is not None:
        teacher = s.teacher[rows, : logits.shape[1]]
        taught = divergence(logits, teacher, s.train["temperature"])
        loss = s.train["task_weight"] * loss + s.train["teacher_weight"] * taught
    if method.contrast:
        loss = loss + s.hyper["unsupervised"] * contrast(s, rows, pooled[0], False)
        loss = loss + s.hyper["supervised"] * contrast(s, rows, pooled[0], True)
    if method.weight is not None:
        loss = loss + method.weight(s, t) * penalty(scores, method.shift)
    return loss


# Methods that the zoo lacks ---------------------------------------------------------------------
# Their equations stand ready: whoever adds one compares it with these.


def head_importance(context: Tensor, gradient: Tensor, size: int) -> Tensor:
    """SuperTickets (Liang et al. 2021): per head the sum over examples and positions of
    abs(sum over its dimensions of context * dL/dcontext); both (B, tokens, heads * size)."""
    product = (context * gradient).unflatten(-1, (-1, size)).sum(-1)
    return product.abs().sum((0, 1))


def ticket(heads: Tensor, blocks: Tensor, level: int) -> tuple[Tensor, Tensor]:
    """SuperTickets' one-shot masks at a level 1 to 8: of heads (layers, heads) the floor(n level /
    10) least important go, never a layer's best; of feed-forward blocks (layers,) the `level` least
    important. True = kept."""
    protected = heads.clone()
    protected[torch.arange(len(heads)), heads.argmax(1)] = math.inf
    gone = protected.flatten().argsort()[: heads.numel() * level // 10]
    kept = torch.ones(heads.numel(), dtype=torch.bool)
    kept[gone] = False
    alive = torch.ones(len(blocks), dtype=torch.bool)
    alive[blocks.argsort()[:level]] = False
    return kept.view(heads.shape), alive


def coreset(
    query: Tensor, key: Tensor, number: int, draw: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Coreset pruning of one head: `number` dimensions drawn with p_d in proportion to
    |K_d| |Q_d|, the same for both, and K scaled by 1 / (number p_d), so that the expectation of
    Q_c^T K_c is Q^T K."""
    p = probabilities(query, key)
    chosen = torch.multinomial(p, number, replacement=True, generator=draw)
    return query[chosen], key[chosen] / (number * p[chosen, None])


def probabilities(query: Tensor, key: Tensor) -> Tensor:
    """p_d of coreset pruning: the products of row norms, summing to 1."""
    weights = query.norm(dim=1) * key.norm(dim=1)
    return weights / weights.sum()


def layers_run(layers: int, drop: float, training: bool, draw: torch.Generator) -> int:
    """LayerDrop (Fan et al. 2020): each layer is skipped with probability `drop` in training, none
    in evaluation; nothing is rescaled."""
    if not training:
        return layers
    return int((torch.rand(layers, generator=draw) > drop).sum())
