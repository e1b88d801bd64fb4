"""Every method a second time: slow, in plain autograd, written from the papers' equations.

Nothing of zoo/ is used here. Masks are in the graph as M + S - S.detach(), penalties and gates are
differentiated by autograd, top-k is a stable sort, Adam and its clipping are written out, and the
models are the stock ones of transformers. All randomness (data order, dropout, noise) is passed in,
so that a run can be compared number by number.
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
    """One run: a stock model before its first step, the numbers of its recipe, and all randomness.

    `pick` turns the outputs of `model` into logits with an entry per output on the last axis;
    `start` holds all its parameters, `fresh` the names of those that no checkpoint gave. `batches`
    are (rows, model inputs, labels); `seeds` are those of dropout at each step. `generator` and
    `draws` are the streams of random numbers for first scores and for losses, `noise` draws
    that of the gate of a matrix at a step, in the shape of its score, `uniform` so many numbers for a group of units. `teacher` and `banks` are frozen outputs by row, spans
    padded with -1e4. `calibration` are the model inputs of calibration, batch by batch, `gradients` those and labels
    of the mini-batches of a calibration before a step. `dense` are the parameters of a dense trial, where
    training does not start from them. `runs` are the layers that a step does not skip.
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
    noise: Callable[[int, str, Tensor], Tensor]
    draws: torch.Generator
    classes: Tensor
    teacher: Tensor | None = None
    banks: Mapping[str, Tensor] = field(default_factory=dict)
    dense: Named = field(default_factory=dict)
    uniform: Callable[[str, int], Tensor] = lambda group, many: torch.rand(many)
    calibration: Sequence[Mapping[str, Tensor]] = ()
    runs: Callable[[int], Sequence[int]] = lambda t: ()
    gradients: Callable[[int], Iterator[tuple[Mapping[str, Tensor], Tensor]]] | None = None

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
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


def few_steps(s: Setting) -> dict[int, float]:
    """The steps of pruning and their densities in oBERT's recipe: sparsity rises from 1 - first at
    `start` on a cubic curve to the target at `stop`."""
    first, last = 1 - max(s.hyper["first"], s.density), 1 - s.density
    begin, end, every = (s.hyper[name] for name in ("start", "stop", "every"))
    found = {}
    for i in range(round((end - begin) / every) + 1):
        passed = i * every / (end - begin)
        found[round((begin + i * every) * s.steps)] = 1 - (
            last + (first - last) * (1 - passed) ** 3
        )
    return found


def rounds(s: Setting) -> dict[int, float]:
    """The ends of IMP's rounds: a tenth of the original count each, the target at last; one more
    training of the same length follows."""
    left = [1 - r / 10 for r in range(1, 10) if 1 - r / 10 > s.density + 1e-9] + [s.density]
    each = 1 / (len(left) + 1)
    return {round((i + 1) * each * s.steps): density for i, density in enumerate(left)}


def to_zero(s: Setting, t: int) -> float:
    """Linear to 0 in each of IMP's trainings."""
    edges = sorted({0, *rounds(s), s.steps})
    begin = max(edge for edge in edges if edge <= t)
    return 1 - (t - begin) / (min(edge for edge in edges if edge > t) - begin)


def cycle(s: Setting, t: int) -> float:
    """Linear to `last_rate` between two steps of pruning."""
    edges = sorted({0, *few_steps(s), s.steps})
    begin = max(edge for edge in edges if edge <= t)
    end = min(edge for edge in edges if edge > t)
    return 1 + (s.hyper["last_rate"] - 1) * (t - begin) / (end - begin)


def rate(t: int, steps: int, warmup: float) -> float:
    """Linear warm-up, then linear decay to 0."""
    rise = round(steps * warmup)
    return t / rise if t < rise else 1 - (t - rise) / (steps - rise)


# Masks ----------------------------------------------------------------------------------------


def best(scores: Tensor, number: int) -> Tensor:
    """1 at the `number` largest entries; among equals the first in memory."""
    flat = scores.detach().reshape(-1)
    order = np.argsort(-flat.cpu().numpy(), kind="stable")
    mask = torch.zeros_like(flat)
    mask[torch.from_numpy(order[:number]).to(flat.device)] = 1
    return mask.reshape(scores.shape)


def local(scores: Named, density: float) -> Named:
    """Each matrix keeps int(density * entries)."""
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
    """One ranking of all entries keeps int(n density) + 1, and at least 0.5 % of each matrix."""
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
    """1 where sigmoid(S) > tau, and at int(0.5 %) + 1 entries of a matrix at least."""
    result = {}
    for name, s in scores.items():
        mask = (1 / (1 + torch.exp(-s.detach())) > tau).to(s.dtype)
        least = int(0.005 * s.numel()) + 1
        result[name] = best(s, least) if mask.sum() < least else mask
    return result


def evaluated(method: "Equations", scores: Named, masks: Named) -> Named:
    """What multiplies W in evaluation: the mask, or L0's clipped gate without noise."""
    if not method.concrete:
        return masks
    return {n: torch.clamp(torch.sigmoid(s) * 1.2 - 0.1, 0, 1) for n, s in scores.items()}


# Units ----------------------------------------------------------------------------------------


def units(s: Setting, kinds: str, block: int = 0) -> dict[str, Named]:
    """Groups of units: by group, the number of the unit that each weight of a matrix belongs to.
    `kinds` names the groups of a layer, one word each."""
    found: dict[str, Named] = {}
    config = s.model.config
    size = config.hidden_size // config.num_attention_heads
    shapes = {n: s.model.get_parameter(n).shape for n in matrices(s.model)}
    for name, (out, width) in shapes.items():
        layer = ".".join(name.split(".")[: name.split(".").index("layer") + 2])
        kind = name[len(layer) + 1 : -len(".weight")]
        row = torch.arange(out)[:, None].expand(out, width)
        column = torch.arange(width)[None].expand(out, width)
        number, group = {
            "attention.self.query": (row, "query_key"),
            "attention.self.key": (row, "query_key"),
            "attention.self.value": (row, "value_output"),
            "attention.output.dense": (column, "value_output"),
            "intermediate.dense": (row, "neurons"),
            "output.dense": (column, "neurons"),
        }[kind]
        if group == "neurons" and "feed_forward" in kinds:
            number, group = torch.zeros_like(number), "feed_forward"
        elif group != "neurons" and "heads" in kinds:
            number, group = number // size, "heads"
        elif group != "neurons" and "blocks" in kinds:
            number, group = row // block * (width // block) + column // block, kind
        found.setdefault(f"{layer}.{group}.weight", {})[name] = number
    return found


def spread(groups: Mapping[str, Named], values: Named) -> Named:
    """The value of each weight's unit, by matrix."""
    return {
        name: values[group].reshape(-1)[number]
        for group, own in groups.items()
        for name, number in own.items()
    }


def in_group(own: Named) -> int:
    """How many units a group has."""
    return 1 + max(int(number.max()) for number in own.values())


def of_gates(s: Setting, weights: Named, groups: Mapping[str, Named]) -> Iterator[Named]:
    """The gradients (positions, units) of gates of 1 on what O and D read, or on what D puts out for
    a whole sub-layer, by autograd, example by example."""
    was_training = s.model.training
    s.model.eval()
    for inputs, labels in s.gradients(0):
        gates, handles, many = {}, [], inputs["input_ids"].shape[1]
        for group, own in groups.items():
            last = next(n for n in own if n.endswith("output.dense.weight"))
            gate = torch.ones(many, in_group(own), dtype=torch.float64, requires_grad=True)
            gates[group] = gate

            def scale(module: Any, args: Any, gate: Tensor = gate) -> Any:
                return (args[0] * gate.repeat_interleave(args[0].shape[-1] // gate.shape[1], 1),)

            def scale_all(module: Any, args: Any, output: Tensor, gate: Tensor = gate) -> Any:
                return output * gate

            module = s.model.get_submodule(last.removesuffix(".weight"))
            whole = group.endswith("feed_forward.weight")
            handles.append(
                module.register_forward_hook(scale_all)
                if whole
                else module.register_forward_pre_hook(scale)
            )
        out = s.pick(torch.func.functional_call(s.model, weights, kwargs=dict(inputs)))
        found = torch.autograd.grad(cross_entropy(out, labels), list(gates.values()))
        for handle in handles:
            handle.remove()
        yield dict(zip(gates, found, strict=True))
    s.model.train(was_training)


def by_tickets(s: Setting, weights: Named, density: float, *_: Any) -> tuple[Named, Named]:
    """Liang 2021: heads and feed-forward sub-layers by sizes of gradients at each position, batches of
    32 after each other; the best head of a layer stays. Training begins with the checkpoint."""
    groups, batches = units(s, "heads feed_forward"), []
    for number, found in enumerate(of_gates(s, s.dense, groups)):
        if number % 32 == 0:
            batches.append([])
        batches[-1].append({group: x.abs().sum(0) for group, x in found.items()})
    means = [{g: sum(one[g] for one in b) / len(b) for g in groups} for b in batches]
    sums = {g: sum(mean[g] for mean in means) for g in groups}
    last = [g for g in groups if g.endswith("feed_forward.weight")]
    heads = [g for g in groups if g not in last]
    whole = math.sqrt(sum(float(sums[g]) ** 2 for g in last))
    masks = {g: torch.ones_like(x) for g, x in sums.items()}
    ranked = sorted(
        (float(sums[g][i] / torch.linalg.vector_norm(sums[g])), n, g, i)
        for n, g in enumerate(heads)
        for i in range(len(sums[g]))
        if i != int(sums[g].argmax())
    )
    gone = int((1 - density) * sum(len(sums[g]) for g in heads) + 1e-6)
    for _, _, group, i in ranked[:gone]:
        masks[group][i] = 0
    least = sorted(last, key=lambda g: float(sums[g]) / whole)
    for group in least[: int((1 - density) * len(last) * 10 / 12 + 1e-6)]:
        masks[group][0] = 0
    gates = spread(groups, masks)
    for group in last:
        bias = next(n for n in groups[group] if ".output" in n).replace("weight", "bias")
        gates[bias] = masks[group].expand(len(s.start[bias])).clone()
    return {n: x * gates.get(n, 1) for n, x in s.start.items()}, gates


def by_budget(s: Setting, weights: Named, density: float, *_: Any) -> tuple[Named, Named]:
    """Kwon 2022: the best heads and neurons within a budget, exchanged, and scaled one sub-layer after
    the other by least squares over all that each kept unit gives at every token."""
    groups, batches = units(s, "heads neurons"), []
    for number, found in enumerate(of_gates(s, weights, groups)):
        if number % 32 == 0:
            batches.append([])
        batches[-1].append({group: x.sum(0) for group, x in found.items()})
    g = {n: torch.stack([sum(one[n] for one in b) / len(b) for b in batches]) for n in groups}
    lengths = [x["input_ids"].shape[1] for x, _ in s.gradients(0)]
    mean = sum(lengths) / len(lengths)
    width = s.model.config.hidden_size
    size = width // s.model.config.num_attention_heads
    costs = {"heads": 4 * mean * width * size + 2 * mean**2 * size, "neurons": 2 * mean * width}
    masks = exchanged(g, cheapest(g, costs, density))
    teacher, gates = spread(groups, cheapest(g, costs, density**0.5)), spread(groups, masks)
    larger = weights | {n: weights[n] * mask for n, mask in teacher.items()}
    smaller = weights | {n: weights[n] * mask for n, mask in gates.items()}
    for place, group in enumerate(groups):
        if place and masks[group].any():
            last = next(n for n in groups[group] if n.endswith("output.dense.weight"))
            first_token = place == len(groups) - 1
            scales = least_squares(s, larger, smaller, last, masks[group], first_token)
            if scales.abs().max() > 10:
                break
            smaller[last] = smaller[last] * scales[groups[group][last]]
    return smaller, gates


def cheapest(g: Named, costs: Mapping[str, float], density: float) -> Named:
    """The heads and neurons with most squared gradients whose cost is within the budget."""
    kinds: dict[str, list[tuple[float, str, int]]] = {"heads": [], "neurons": []}
    for group, own in g.items():
        squares = [float((own[:, i] ** 2).sum()) for i in range(own.shape[1])]
        kinds[group.split(".")[-2]] += [(-x, group, i) for i, x in enumerate(squares)]
    for own in kinds.values():
        own.sort()
    budget = density * sum(costs[kind] * len(own) for kind, own in kinds.items())
    best_sum, chosen = -1.0, []
    for h in range(len(kinds["heads"]) + 1):
        left = (budget - h * costs["heads"]) / costs["neurons"]
        if left < -1e-9:
            break
        some = kinds["heads"][:h] + kinds["neurons"][: int(left + 1e-9)]
        if -sum(x for x, _, _ in some) > best_sum * (1 + 1e-12):
            best_sum, chosen = -sum(x for x, _, _ in some), some
    masks = {group: torch.zeros(own.shape[1], dtype=torch.float64) for group, own in g.items()}
    for _, group, i in chosen:
        masks[group][i] = 1
    return masks


def exchanged(g: Named, masks: Named) -> Named:
    """In each group every unit by rising squares may take the place of one that is pruned."""
    found = {}
    for group, mask in masks.items():
        columns = [g[group][:, i] for i in range(len(mask))]
        order = sorted(range(len(mask)), key=lambda i: float((columns[i] ** 2).sum()))
        many = int((mask == 0).sum())
        pruned = order[:many]
        for unit in order[many:] if many else []:
            trial = [*pruned, unit]
            loss = [float((sum(columns[i] for i in trial if i != j) ** 2).sum()) for j in trial]
            if min(loss) < loss[-1]:
                pruned = [i for i in trial if i != trial[loss.index(min(loss))]]
        found[group] = torch.tensor([float(i not in pruned) for i in range(len(mask))]).double()
    return found


def least_squares(
    s: Setting, larger: Named, smaller: Named, last: str, mask: Tensor, first_token: bool
) -> Tensor:
    """The factors of units that bring what enters the LayerNorm behind a matrix nearest to that of the
    larger model."""
    module = s.model.get_submodule(last.removesuffix(".weight"))
    norm = s.model.get_submodule(last.removesuffix("dense.weight") + "LayerNorm")
    columns, rest = [], []
    was_training = s.model.training
    s.model.eval()
    for inputs, _ in s.gradients(0):
        seen: list[Tensor] = []
        hooks = [
            x.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0][0]))
            for x in (norm, module)
        ]
        with torch.no_grad():
            for values in (larger, smaller):
                torch.func.functional_call(s.model, values, kwargs=dict(inputs))
        for hook in hooks:
            hook.remove()
        _, wanted, read, given = seen
        tokens = slice(0, 1) if first_token else slice(None)
        parts = read[tokens].reshape(len(read[tokens]), len(mask), -1)
        w = smaller[last].reshape(len(given[0]), len(mask), -1)
        gives = torch.einsum("tui,oui->tou", parts, w).reshape(-1, len(mask))
        columns.append(gives[:, mask.bool()])
        rest.append((wanted - given)[tokens].reshape(-1))
    s.model.train(was_training)
    a, r = torch.cat(columns), torch.cat(rest)
    if ".attention." in last:
        a = torch.cat([a, torch.ones(len(a), 1, dtype=a.dtype)], 1)
    stacked = torch.cat([a.T @ a, torch.eye(a.shape[1], dtype=a.dtype)])
    right = torch.cat([a.T @ r, torch.zeros(a.shape[1], dtype=a.dtype)])
    d = torch.linalg.lstsq(stacked, right[:, None]).solution[:, 0]
    scales = torch.ones_like(mask)
    scales[mask.bool()] += d[: int(mask.sum())]
    return scales


def by_gates(s: Setting, weights: Named, density: float, *_: Any) -> tuple[Named, Named]:
    """Michel 2019: sizes of the gradients of examples; heads, and neurons, of all layers are ranked
    together after a division by the layer's norm."""
    groups = units(s, "heads neurons")
    sums: Named = {}
    for found in of_gates(s, weights, groups):
        for group, gradient in found.items():
            sums[group] = sums.get(group, 0) + gradient.sum(0).abs()
    scores = {g: x / torch.linalg.vector_norm(x) for g, x in sums.items()}
    masks: Named = {}
    for kind in ("heads.weight", "neurons.weight"):
        own = {g: x for g, x in scores.items() if g.endswith(kind)}
        flat = torch.cat(list(own.values()))
        kept = best(flat, int(density * len(flat))).split([len(x) for x in own.values()])
        masks |= dict(zip(own, kept, strict=True))
    gone = spread(groups, masks)
    return weights | {n: weights[n] * mask for n, mask in gone.items()}, gone


def by_drawing(s: Setting, weights: Named, density: float, *_: Any) -> tuple[Named, Named]:
    """A race: the int(density * n) units with the smallest -log(u) / p of each head, and of each
    layer's neurons; p is the product of the norms of a unit's rows or columns, biases included, for
    neurons max |D| * gelu(|row of U|)."""
    groups = units(s, "dimensions neurons")
    heads = s.model.config.num_attention_heads
    masks: Named = {}
    for group, own in groups.items():
        first, second = own
        a = torch.cat([weights[first], weights[first.replace("weight", "bias")][:, None]], 1)
        chance = torch.linalg.vector_norm(a, dim=1)
        if group.endswith("neurons.weight"):
            chance = weights[second].abs().amax(0) * torch.nn.functional.gelu(chance)
            ways = 1
        else:
            b = weights[second].T
            if "query_key" in group:
                b = torch.cat(
                    [weights[second], weights[second.replace("weight", "bias")][:, None]], 1
                )
            chance, ways = chance * torch.linalg.vector_norm(b, dim=1), heads
        race = (-s.uniform(group, len(chance)).log() / chance).reshape(ways, -1)
        kept = [best(-row, int(density * len(row))) for row in race]
        masks[group] = torch.cat(kept)
    gone = spread(groups, masks)
    return weights | {n: weights[n] * mask for n, mask in gone.items()}, gone


# Calibration ----------------------------------------------------------------------------------


def inputs_of(s: Setting, weights: Named, names: Sequence[str]) -> Named:
    """What matrices read at real tokens, (tokens, in), in a whole forward pass without dropout."""
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    handles, was_training = [], s.model.training
    s.model.eval()
    attention: list[Tensor] = []
    for name in names:

        def see(module: Any, args: Any, name: str = name) -> None:
            found[name].append(args[0].detach()[attention[-1].bool()])

        module = s.model.get_submodule(name.removesuffix(".weight"))
        handles.append(module.register_forward_pre_hook(see))
    with torch.no_grad():
        for inputs in s.calibration:
            attention.append(inputs["attention_mask"])
            torch.func.functional_call(s.model, weights, kwargs=dict(inputs))
    for handle in handles:
        handle.remove()
    s.model.train(was_training)
    return {name: torch.cat(parts) for name, parts in found.items()}


def layer_by_layer(prune: Callable[[Setting, Tensor, Tensor, float], tuple[Tensor, Tensor]]) -> Any:
    """Prune layer after layer with (setting, W, inputs, density) -> mask, W; inputs are those of
    the network in which the layers before are pruned."""

    def run(s: Setting, weights: Named, density: float, *_: Any) -> tuple[Named, Named]:
        weights, masks, layers = dict(weights), {}, {}
        for name in matrices(s.model):
            layers.setdefault(int(name.split(".layer.")[1].split(".")[0]), []).append(name)
        for names in layers.values():
            read = inputs_of(s, weights, names)
            for name in names:
                mask, new = prune(s, weights[name], read[name], density)
                masks[name], weights[name] = mask, new * mask
        return weights, masks

    return run


def in_rows(scores: Tensor, density: float) -> Tensor:
    """Each row keeps int(density * inputs)."""
    return torch.stack([best(row, int(density * len(row))) for row in scores])


def wanda(s: Setting, weight: Tensor, read: Tensor, density: float) -> tuple[Tensor, Tensor]:
    """Sun 2024, Eq. 1: abs(W_ij) times the norm of X_j, per output."""
    return in_rows(weight.abs() * torch.linalg.vector_norm(read, dim=0), density), weight


def rows_of_weights(s: Setting, weights: Named, density: float, *_: Any) -> tuple[Named, Named]:
    """abs(W_ij), per output."""
    masks = {name: in_rows(weights[name].abs(), density) for name in matrices(s.model)}
    return weights | {name: weights[name] * mask for name, mask in masks.items()}, masks


def largest_of_all(s: Setting, weights: Named, density: float, *_: Any) -> tuple[Named, Named]:
    """abs(W), over all matrices: exactly int(density * n) stay."""
    return keep_of_all(s, weights, {n: weights[n].abs() for n in matrices(s.model)}, density)


def as_it_is(s: Setting, weights: Named, density: float, *_: Any) -> tuple[Named, Named]:
    """What is 0 is masked."""
    return weights, {n: (weights[n] != 0).to(weights[n]) for n in matrices(s.model)}


def keep_of_all(s: Setting, weights: Named, scores: Named, density: float) -> tuple[Named, Named]:
    """The int(density * n) highest of all scores stay."""
    flat = torch.cat([score.reshape(-1) for score in scores.values()])
    kept = best(flat, int(density * len(flat))).split([x.numel() for x in scores.values()])
    masks = {n: part.reshape(scores[n].shape) for n, part in zip(scores, kept, strict=True)}
    return weights | {n: weights[n] * mask for n, mask in masks.items()}, masks


def admm(s: Setting, weight: Tensor, read: Tensor, density: float) -> tuple[Tensor, Tensor]:
    """Boza 2024, row by row with the mask of all rows: inputs of norm 1, rho 1, a cubic ramp."""
    scale = torch.linalg.vector_norm(read, dim=0) / len(read) ** 0.5 + 1e-8
    unit = read / scale / len(read) ** 0.5
    hessian = unit.T @ unit
    hessian = hessian + s.hyper["damping"] * torch.eye(len(scale)).to(hessian) * hessian.trace() / (
        len(scale)
    )
    start = weight * scale
    w, y = start.clone(), torch.zeros_like(start)
    for t in range(s.hyper["iterations"]):
        if t < s.hyper["ramp"]:
            sparsity = (1 - density) * (1 - (1 - (t + 1) / s.hyper["ramp"]) ** 3)
            mask = best((w + y).abs(), int((1 - sparsity) * w.numel()))
        z = (w + y) * mask
        y = y + w - z
        right = start @ hessian + z - y
        w = torch.linalg.solve(hessian + torch.eye(len(scale)).to(hessian), right.T).T
    return mask, (w + y) * mask / scale


def block_fisher(
    s: Setting, weights: Named, density: float, masks: Named, t: int
) -> tuple[Named, Named]:
    """Kurtic 2022: F of every block of weights in full, from all gradients, and its inverse; rounds
    of equal parts of the density, each with fresh gradients."""
    names, size, many = matrices(s.model), s.hyper["block"], s.hyper["gradients"]
    batches = s.gradients(t)
    before = min((d for step, d in few_steps(s).items() if step < t), default=1.0) if t else 1.0
    rounds = s.hyper.get("recomputations", 1)
    for r in range(1, rounds + 1):
        taken = [gradients_of(s, weights, names, *next(batches)) for _ in range(many)]
        scores, inverses = {}, {}
        for n in names:
            g = torch.stack([one[n] * masks[n] for one in taken]).reshape(many, -1)
            w, found = weights[n].reshape(-1), []
            for begin in range(0, w.numel(), size):
                own = g[:, begin : begin + size]
                f = s.hyper["damping"] * torch.eye(own.shape[1], dtype=w.dtype) + own.T @ own / many
                found.append(torch.linalg.inv(f))
            inverses[n] = found
            diagonal = torch.cat([v.diagonal() for v in found])
            score = (w**2 / (2 * diagonal)).reshape(weights[n].shape)
            scores[n] = score.masked_fill(masks[n] == 0, -math.inf)
        _, kept = keep_of_all(s, weights, scores, before + (density - before) * r / rounds)
        for n in names:
            w, gone = weights[n].reshape(-1).clone(), ((masks[n] - kept[n]) > 0).reshape(-1)
            for number, v in enumerate(inverses[n]):
                here = slice(number * size, number * size + len(v))
                own = w[here].clone()
                for q in gone[here].nonzero().flatten().tolist():
                    w[here] -= own[q] / v[q, q] * v[:, q]
            weights = weights | {n: w.reshape(weights[n].shape) * kept[n]}
        masks = kept
    return weights, masks


def gradients_of(
    s: Setting, weights: Named, names: Sequence[str], inputs: Mapping[str, Tensor], labels: Tensor
) -> Named:
    """The gradients of the task's loss without dropout."""
    leaves = {n: weights[n].clone().requires_grad_() for n in names}
    s.model.eval()
    out = torch.func.functional_call(s.model, {**weights, **leaves}, kwargs=dict(inputs))
    cross_entropy(s.pick(out), labels).backward()
    s.model.train()
    return {n: leaf.grad for n, leaf in leaves.items()}


def platon(s: Setting, past: Sequence[Tensor]) -> Tensor:
    """Zhang 2022, from all sensitivities since the first step: I and U move at multiples of the
    window by the mean of the window before, whose first has a 0 in place of step 0."""
    window, b1, b2 = s.hyper["window"], s.hyper["beta1"], s.hyper["beta2"]
    with_zero = [torch.zeros_like(past[0]), *past]
    importance = uncertainty = torch.zeros_like(past[0])
    for end in range(window, len(with_zero), window):
        mean = sum(with_zero[end - window : end]) / window
        importance = b1 * importance + (1 - b1) * mean
        uncertainty = b2 * uncertainty + (1 - b2) * (mean - importance).abs()
    return importance * uncertainty


def proximal(s: Setting, weight: Tensor, alpha: Tensor, eta: float) -> Tensor:
    """Soft thresholding: the minimiser of (u - w)^2 / 2 + eta gamma alpha abs(u), by its three cases."""
    most = eta * s.hyper["penalty"] / 1000 * alpha
    zero = torch.zeros_like(weight)
    return torch.where(
        weight > most, weight - most, torch.where(weight < -most, weight + most, zero)
    )


def platon_density(s: Setting, t: int) -> float | None:
    """Every `window` steps of the ramp, and every step after it."""
    begin, end = _window(s)
    if t <= begin or (t < end and t % s.hyper["window"]):
        return None
    return sanh(t, 1.0, s.density, begin, end)


def sparsegpt(s: Setting, weight: Tensor, read: Tensor, density: float) -> tuple[Tensor, Tensor]:
    """Frantar 2023, for matrices of a single block: w^2 / [(H_{j..})^-1]_00 over the whole matrix;
    the columns behind each are then the solution of damped least squares, given those before."""
    hessian, many = read.T @ read / len(read), weight.shape[1]
    assert many <= s.hyper["block"]
    damping = s.hyper["damping"] * hessian.diagonal().mean()
    hessian = hessian + damping * torch.eye(many, dtype=hessian.dtype)
    behind = [torch.linalg.inv(hessian[j:, j:]) for j in range(many)]
    mask = best(
        weight**2 / torch.stack([inverse[0, 0] for inverse in behind]),
        int(density * weight.numel()),
    )
    now = weight.clone()
    for j in range(many):
        now[:, j] = now[:, j] * mask[:, j]
        if j + 1 < many:
            moved = (now - weight)[:, : j + 1] @ hessian[: j + 1, j + 1 :]
            now[:, j + 1 :] = weight[:, j + 1 :] - moved @ behind[j + 1]
    return mask, now


# Losses ---------------------------------------------------------------------------------------


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Minus the log-probability of the label; over the places of a span for start and end."""
    if labels.dtype.is_floating_point:
        return ((logits[:, 0] - labels) ** 2).mean()
    if logits.dim() == 3:
        ends = [cross_entropy(logits[..., side], labels[:, side]) for side in (0, 1)]
        return (ends[0] + ends[1]) / 2
    log_p = logits - torch.logsumexp(logits, -1, keepdim=True)
    return -log_p.gather(1, labels[:, None]).mean()


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
    order = torch.randperm(
        len(setting.classes), generator=setting.draws, device=setting.draws.device
    ).tolist()
    extra = [i for i in order if i not in rows.tolist()][: setting.hyper.get("extras", 4096)]
    unit = anchors / anchors.norm(dim=-1, keepdim=True)
    names = [*rows.tolist(), *rows.tolist(), *extra]
    total = anchors.new_zeros(())
    for vectors in setting.banks.values():
        columns = torch.cat([unit.detach(), vectors[[*rows.tolist(), *extra]].to(unit.dtype)])
        weighted, positives = anchors.new_zeros(()), 0
        for i, row in enumerate(rows.tolist()):
            others = [j for j in range(len(names)) if j != i]
            likeness = columns @ unit[i] / 0.1
            norm = torch.logsumexp(likeness[others], 0)
            label = setting.classes[row]
            same = [
                j
                for j in others
                if (setting.classes[names[j]] == label if supervised else names[j] == row)
            ]
            if same:
                weighted = weighted + (likeness[same] - norm).sum() / len(same)
            positives += len(same)
        total = total - weighted / max(positives, 1)
    return total


# Methods --------------------------------------------------------------------------------------

GAMMA, ZETA, BETA = -0.1, 1.1, 2 / 3


def all_but_embeddings(name: str) -> bool:
    """Embeddings do not train."""
    return ".embeddings." not in name


def everything(name: str) -> bool:
    """All pre-trained parameters train."""
    return True


def nothing(name: str) -> bool:
    """No pre-trained parameter trains."""
    return False


@dataclass(frozen=True)
class Equations:
    """The equations of a method.

    `trains` says which pre-trained parameters train, by name. `score` is "none", "weight" (its
    magnitude), "noise" (fixed) or "learned", and `first` is where a learned score starts.
    `masks` gives the masks of (setting, scores, t). The penalty has the weight lambda = `weight` of
    (setting, t) and the shift `shift`. `concrete` means hard-concrete gates instead of masks,
    `contrast` the losses of CAP. `prune` makes weights and masks of (setting, weights, density, masks
    before, t) at the steps that `moments` gives a density; masks stay until the next, masked weights are 0.
    Learning rates follow `rate`. `rewinds` says that then all weights but the head's return to
    their start, and Adam's moments to 0. `gradual` is PLATON's density of (setting, t), None where it does
    not mask; it has Adamax if the hyper-parameter `optimiser` says so. `groups` of (setting) are those of
    units that share a learned score; with `kinds` the penalty is the mean of that of neurons and that of
    the others. `shrinks` is the proximal step of RPP, of
    (setting, W, alpha, learning rate).
    `skips` says that layers outside `Setting.runs` hand on what they are given.
    """

    trains: Callable[[str], bool]
    score: str = "none"
    first: float = 0.0
    masks: Callable[[Setting, Named, int], Named] | None = None
    weight: Callable[[Setting, int], float] | None = None
    shift: float = 0.0
    concrete: bool = False
    contrast: bool = False
    prune: Callable[[Setting, Named, float, Named, int], tuple[Named, Named]] | None = None
    moments: Callable[[Setting], Mapping[int, float]] = lambda s: {0: s.density}
    rewinds: bool = False
    groups: Callable[[Setting], dict[str, Named]] | None = None
    kinds: bool = False
    skips: bool = False
    gradual: Callable[[Setting, int], float | None] | None = None
    shrinks: Callable[[Setting, Tensor, Tensor, float], Tensor] | None = None
    rate: Callable[[Setting, int], float] = lambda s, t: rate(t, s.steps, s.train["warmup"])


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


def _global(s: Setting, scores: Named, t: int) -> Named:
    return across(scores, _sanh_density(s, t))


def _smp_tau(s: Setting, t: int) -> float:
    left = 1 - min(t / round(s.hyper["stop"] * s.steps), 1)
    return 0.1 * (1 - left ** s.hyper["power"])


DENSE = Equations(everything)
MAGNITUDE = Equations(
    all_but_embeddings, "weight", masks=lambda s, scores, t: local(scores, _sanh_density(s, t))
)


MOVEMENT = Equations(all_but_embeddings, "learned", masks=MAGNITUDE.masks)
SMP_L = Equations(
    nothing,
    "learned",
    masks=lambda s, scores, t: local(scores, _smp_density(s, t)),
    weight=_smp_lambda,
)
SMP_S = Equations(
    nothing,
    "learned",
    masks=lambda s, scores, t: by_type(scores, _smp_density(s, t), s.hyper["score_temperature"]),
    weight=_smp_lambda,
)
DEPTH: Mapping[str, Callable[[int, float], Sequence[int]]] = {
    "first_half": lambda layers, density: [i for i in range(layers) if 2 * i < layers],
    "drop_layers": lambda layers, density: [
        i for i in range(layers) if i < max(1, density * layers // 1)
    ],
}
"""Which layers are left, by (layers, density), where some are removed before the first step."""

METHODS = {
    "dense": DENSE,
    "scratch": DENSE,
    "layerdrop": replace(DENSE, skips=True),
    "first_half": DENSE,
    "drop_layers": DENSE,
    "head_only": Equations(nothing),
    "random": Equations(all_but_embeddings, "noise", masks=MAGNITUDE.masks),
    "magnitude": MAGNITUDE,
    "magnitude_global": replace(MAGNITUDE, masks=_global),
    "movement": MOVEMENT,
    "movement_global": replace(MOVEMENT, masks=_global),
    "soft_movement": Equations(
        all_but_embeddings,
        "learned",
        masks=lambda s, scores, t: above(scores, _tau(s, t)),
        weight=lambda s, t: s.hyper["penalty"] * _tau(s, t) / 0.1,
    ),
    "l0": Equations(
        all_but_embeddings,
        "learned",
        first=2.197,
        weight=lambda s, t: s.hyper["penalty"],
        shift=BETA * math.log(-GAMMA / ZETA),
        concrete=True,
    ),
    "cap_lite": Equations(all_but_embeddings, "learned", masks=MAGNITUDE.masks, contrast=True),
    "magnitude_row": Equations(everything, prune=rows_of_weights),
    "admm": Equations(everything, prune=layer_by_layer(admm)),
    "obert": Equations(everything, prune=block_fisher, moments=few_steps, rate=cycle),
    "obert_one_shot": Equations(everything, prune=block_fisher),
    "imp": Equations(everything, prune=largest_of_all, moments=rounds, rate=to_zero, rewinds=True),
    "sparse_transfer": Equations(
        everything,
        prune=as_it_is,
        rate=lambda s, t: 1 - (1 - s.hyper["last_rate"]) * t / s.steps,
    ),
    "platon": Equations(everything, gradual=platon_density),
    "rpp": Equations(
        all_but_embeddings,
        prune=as_it_is,
        moments=lambda s: {round(s.hyper.get("fixed", 2 / 3) * s.steps): 1.0},
        shrinks=proximal,
    ),
    "gmp_star": Equations(everything, prune=largest_of_all, moments=few_steps, rate=cycle),
    "wanda": Equations(everything, prune=layer_by_layer(wanda)),
    "sparsegpt": Equations(everything, prune=layer_by_layer(sparsegpt)),
    "smp_l": SMP_L,
    "smp_l_new_head": SMP_L,
    "smp_l_no_penalty": replace(SMP_L, weight=None),
    "smp_s": SMP_S,
    "smp_s_shuffled": SMP_S,
    "smp_g": Equations(
        nothing,
        "learned",
        masks=lambda s, scores, t: across(scores, _smp_density(s, t)),
        weight=_smp_lambda,
    ),
    "smp_structured": replace(SMP_L, groups=lambda s: units(s, "blocks neurons", s.hyper["block"])),
    "taylor": Equations(everything, prune=by_gates),
    "movement_blocks": Equations(
        everything,
        "learned",
        masks=lambda s, scores, t: above(scores, _tau(s, t)),
        weight=lambda s, t: s.hyper["penalty"] * _tau(s, t) / 0.1,
        groups=lambda s: units(s, "blocks neurons", s.hyper["block"]),
        kinds=True,
    ),
    "kwon": Equations(everything, prune=by_budget),
    "supertickets": Equations(everything, prune=by_tickets),
    "coreset": Equations(everything, prune=by_drawing),
    "smp_t": Equations(
        nothing,
        "learned",
        masks=lambda s, scores, t: above(scores, _smp_tau(s, t)),
        weight=_smp_lambda,
    ),
}
"""By name; tests/test_second_implementation.py fails for a registered method that is missing."""


# The loop -------------------------------------------------------------------------------------


@dataclass
class State:
    """After a step: all parameters, scores and the masks for the next step; and the norm of the
    step's gradients before they were clipped."""

    parameters: Named
    scores: Named
    masks: Named
    norm: float


def train(method: Equations, s: Setting) -> Iterator[State]:
    """Train and yield the state after every step."""
    names = matrices(s.model)
    weights = {n: p.clone() for n, p in s.start.items()}
    trained = [n for n in weights if method.trains(n) or n in s.fresh]
    scores: Named = {}
    if method.score == "learned" and method.groups:
        many = {group: in_group(own) for group, own in method.groups(s).items()}
        scores = {group: torch.zeros(n, dtype=torch.float64) for group, n in many.items()}
    elif method.score == "learned":
        scores = {n: torch.full_like(weights[n], method.first) for n in names}
    elif method.score == "noise":
        scores = {
            n: torch.rand(weights[n].shape, generator=s.generator).to(weights[n]) for n in names
        }
    learned = list(scores) if method.score == "learned" else []
    moments: dict[str, tuple[Tensor, Tensor]] = {}
    taken: dict[str, int] = {}
    ones = {n: torch.ones_like(weights[n]) for n in names}
    fixed, history = ones if method.prune else {}, {}
    alphas: Named = {}
    if method.prune and 0 in method.moments(s):
        weights, fixed = method.prune(s, weights, method.moments(s)[0], fixed, 0)
    gates = fixed or _gates(method, s, weights, scores, 0)
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
            if s.hyper.get("optimiser") == "adamax":
                m = 0.9 * m + 0.1 * shrink * gradient
                v = torch.maximum(0.999 * v, (shrink * gradient).abs() + s.train["epsilon"])
                moments[n] = m, v
                target -= peak * method.rate(s, t) * m / (v + s.train["epsilon"])
                continue
            m = 0.9 * m + 0.1 * shrink * gradient
            v = 0.999 * v + 0.001 * (shrink * gradient) ** 2
            moments[n] = m, v
            own = taken[n] = taken.get(n, 0) + 1  # steps with a gradient
            unbiased = (v / (1 - 0.999**own)).sqrt() + 1e-8
            step = (m / (1 - 0.9**own)) / unbiased
            target -= peak * method.rate(s, t) * step
        end = max(method.moments(s)) if method.shrinks else 0
        if method.shrinks and t < end:  # before the mask is fixed
            alphas = alphas or {n: torch.ones_like(weights[n]) for n in names}
            eta = s.train["lr_weights"] * method.rate(s, t)
            weights |= {n: method.shrinks(s, weights[n], alphas[n], eta) for n in names}
            if t + 1 in {round(i * end / s.hyper["rounds"]) for i in range(1, s.hyper["rounds"])}:
                alphas = {n: 1 / (weights[n].abs() + 1e-3) for n in names}
        if method.gradual:
            small = {n: shrink * g for n, g in gradients.items() if n in names}
            for n, gradient in small.items():
                history.setdefault(n, []).append((weights[n] * gradient).abs())
            density = method.gradual(s, t + 1)
            if density is not None:
                scores = {n: platon(s, past) for n, past in history.items()}
                weights, kept = keep_of_all(s, weights, scores, density)
                fixed = kept
            yield State(weights, scores, fixed or ones, norm)
            continue
        if method.prune:
            weights |= {n: weights[n] * mask for n, mask in fixed.items()}
            if t + 1 in method.moments(s):
                density = method.moments(s)[t + 1]
                weights, fixed = method.prune(s, weights, density, fixed, t + 1)
                if method.rewinds:
                    own = {n for n in weights if ".encoder." in n or ".embeddings." in n}
                    own |= {n for n in weights if ".pooler." in n}
                    weights |= {n: s.start[n] * fixed.get(n, 1) for n in own}
                    moments, taken = {}, {}
        gates = fixed or _gates(method, s, weights, scores, t + 1)
        yield State(weights, scores, gates, norm)


def _gates(method: Equations, s: Setting, weights: Named, scores: Named, t: int) -> Named:
    """Masks of step t; for hard concrete the noise u of step t."""
    if method.concrete:
        return {n: s.noise(t, n, x) for n, x in scores.items()}
    if method.masks is None:
        return {}
    if method.score == "weight":
        scores = {n: weights[n].abs() for n in matrices(s.model)}
    masks = method.masks(s, scores, t)
    return spread(method.groups(s), masks) if method.groups else masks


def _loss(
    method: Equations,
    s: Setting,
    t: int,
    values: Named,
    gates: Named,
    rows: Tensor,
    inputs: Mapping[str, Tensor],
    labels: Tensor,
) -> Tensor:
    scores = {n[2:]: v for n, v in values.items() if n.startswith("S ")}
    own = scores
    if method.groups:
        scores = spread(method.groups(s), scores)
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
    skipped = [
        layer
        for number, layer in enumerate(s.model.base_model.encoder.layer)
        if method.skips and number not in s.runs(t)
    ]
    for layer in skipped:
        layer.forward = lambda hidden, *args, **kwargs: hidden
    logits = s.pick(torch.func.functional_call(s.model, effective, kwargs=dict(inputs)))
    for layer in skipped:
        del layer.forward
    if pooler is not None:
        hook.remove()
    loss = cross_entropy(logits, labels)
    if s.teacher is not None:
        teacher = s.teacher[rows, : logits.shape[1]]
        distilled = divergence(logits, teacher, s.train["temperature"])
        loss = s.train["task_weight"] * loss + s.train["teacher_weight"] * distilled
    if method.contrast:
        loss = loss + s.hyper["unsupervised"] * contrast(s, rows, pooled[0], False)
        loss = loss + s.hyper["supervised"] * contrast(s, rows, pooled[0], True)
    if method.weight is not None:
        parts = [own]
        if method.kinds:
            neurons = {n: x for n, x in own.items() if n.endswith("neurons.weight")}
            parts = [{n: x for n, x in own.items() if n not in neurons}, neurons]
        mean = sum(penalty(part, method.shift) for part in parts) / len(parts)
        loss = loss + method.weight(s, t) * mean
    return loss
