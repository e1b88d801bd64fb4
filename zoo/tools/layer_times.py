"""How long a layer takes by the attention heads and neurons that it has left, for a search by
latency.

    python -m zoo.tools.layer_times --model DIR --batch 8 --tokens 64
    python -m zoo.tools.layer_times --random base --batch 1 --tokens 128 --threads 2

Compact layers with some heads and no neurons, and with some neurons and no heads, are timed in one
process, in an order drawn anew in every round, less one with neither. A line that is flat up to
some number and rises from there is fitted to the medians of each kind. The last lines are values
for a suite.
"""

if __name__ == "__main__":  # first: the imports below take seconds
    from zoo.ends import end_at_once

    end_at_once()

import argparse
import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from tabulate import tabulate

from zoo.ends import command, leave
from zoo.engine.compact import CompactLayer, compact_layer
from zoo.errors import ConfigError
from zoo.inputs.architecture import Architecture
from zoo.inputs.checkpoint import find_checkpoint, load_encoder
from zoo.inputs.kinds import architecture_of
from zoo.parts.units import UnitCost
from zoo.runs.command import WHOLE
from zoo.tools.compared import check_tokens
from zoo.tools.synthetic import SIZES, random_classifier
from zoo.tools.timing import ROUNDS, compare, order_statistics, pinned

POINTS = 12
"""Numbers of neurons that are timed, beside none."""
HEADS, NEURONS = "heads", "neurons"


SHARE = 0.05
"""Share of the longest time below which times are as good as each other: noise may leave next to
nothing of a short one."""


def fitted(times: Mapping[int, float], kind: str = "units") -> UnitCost:
    """The line with the least squares of errors, each over its time or SHARE of the longest, among
    those that bend at a number of units that was timed, by number of units from 1 on; of a single
    number, its time. Raises ConfigError where times do not rise.

    >>> fitted({1: 5.0, 2: 5.0, 3: 7.0, 4: 9.0}).flat
    2
    """
    units, seconds = np.array(list(times)), np.array(list(times.values()))
    if len(units) == 1:
        return UnitCost(float(seconds[0]), int(units[0]), float(seconds[0]))
    best: tuple[float, UnitCost] | None = None
    weight = np.maximum(seconds, SHARE * seconds.max()) ** -0.5
    for flat in units[:-1].tolist():
        columns = np.stack([np.ones(len(units)), np.maximum(units - flat, 0)], 1)
        (least, each), *_ = np.linalg.lstsq(columns * weight[:, None], seconds * weight)
        error = float(np.square((columns @ (least, each) - seconds) * weight).sum())
        if least > 0 and each > 0 and (best is None or error < best[0] * (1 - 1e-9)):
            best = error, UnitCost(float(each), int(flat), float(least))
    if best is None:
        raise ConfigError(f"more {kind} take no longer here: time more tokens or more rounds")
    return best[1]


def layer_with(layer: Any, architecture: Architecture, heads: int, units: Mapping[str, int]) -> Any:
    """The compact form of a stock layer of so many attention heads with some units left. Its own
    weights do not count: those of a pruned model would leave fewer."""
    own = copy.deepcopy(layer)
    of = {role: own.get_submodule(path).weight for role, path in architecture.roles.items()}
    size = of["O"].shape[1] // heads
    with torch.no_grad():
        for weight in of.values():
            weight.fill_(1 / weight.shape[1])
        of["V"][size * units[HEADS] :] = 0
        of["O"][:, size * units[HEADS] :] = 0
        of["D"][:, units[NEURONS] :] = 0
        of["U"][units[NEURONS] :] = 0
    return compact_layer(own, architecture, heads).eval()


def timed(encoder: Any, shape: tuple[int, int], rounds: int) -> dict[str, dict[int, float]]:
    """Seconds that a layer takes beyond one without heads and neurons, by number of each. Raises
    ConfigError for an encoder that cannot be compacted, or has fewer positions."""
    architecture = architecture_of(encoder)
    if not architecture.compacts:
        raise ConfigError(f"an encoder of the kind {encoder.config.model_type} cannot be compacted")
    check_tokens(encoder, shape[1])
    heads = architecture.attention_heads(encoder)
    sizes = architecture.read_sizes(encoder.config.to_dict())
    steps = np.unique(np.linspace(1, sizes.intermediate, POINTS).round().astype(int)).tolist()
    asked = {HEADS: range(1, heads + 1), NEURONS: steps}
    layer = architecture.layers_of(encoder)[0]
    draws = torch.Generator().manual_seed(0)
    hidden = torch.randn(*shape, sizes.hidden, generator=draws)
    none = {HEADS: 0, NEURONS: 0}
    layers: dict[str, CompactLayer] = {"": layer_with(layer, architecture, heads, none)}
    for kind, many in asked.items():
        for n in many:
            layers[f"{kind} {n}"] = layer_with(layer, architecture, heads, {**none, kind: n})
    with torch.inference_mode():
        arms = {name: partial(one, hidden) for name, one in layers.items()}
        found = compare(arms, "", rounds)
    empty = found[""].seconds
    return {
        kind: {n: max(found[f"{kind} {n}"].seconds - empty, 1e-9) for n in many}
        for kind, many in asked.items()
    }


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m zoo.tools.layer_times",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--model", help="the model, a name of the hub or a folder")
    made.add_argument("--random", choices=SIZES, help="a layer of random weights of this geometry")
    made.add_argument("--batch", type=WHOLE, default=8, help="examples of a call")
    made.add_argument("--tokens", type=WHOLE, default=128, help="tokens of an example")
    made.add_argument("--threads", type=WHOLE, default=1, help="CPU threads, and cores")
    made.add_argument("--rounds", type=int, default=ROUNDS, help="rounds that count")
    return made


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = parser().parse_args(argv)
    if (options.model is None) == (options.random is None):
        raise ConfigError("give --model DIR or --random base")
    try:
        order_statistics(options.rounds)
    except ValueError as error:
        raise ConfigError(f"--rounds: {error}") from None
    if options.random:
        encoder = random_classifier(options.random, 1.0).base_model
    else:
        encoder = load_encoder(find_checkpoint(options.model), pooler=False)[0].eval()
    with pinned(options.threads):
        found = timed(encoder, (options.batch, options.tokens), options.rounds)
    lines = {kind: fitted(own, kind) for kind, own in found.items()}
    threads = f"{options.threads} thread{'s' * (options.threads > 1)}"
    print(f"one layer, {options.batch} x {options.tokens} tokens, {threads}\n")
    body = [
        [kind, n, f"{1e3 * seconds:.3f}", f"{1e3 * float(lines[kind].of(torch.tensor(n))):.3f}"]
        for kind, own in found.items()
        for n, seconds in own.items()
    ]
    print(tabulate(body, ["Units", "Left", "ms", "Line"], "pipe", disable_numparse=True))
    print('\n("constraint", "latency"),')
    for kind, line in lines.items():
        print(f'("{kind}_each", {1e3 * line.each:.4g}), ("{kind}_flat", {line.flat}),', end=" ")
        print(f'("{kind}_least", {1e3 * line.least:.4g}),')
    return 0


if __name__ == "__main__":
    leave(main())
