"""Attention pruned without data, as in a talk on coresets for BERT: columns of SST-2's dense model
are drawn at 90, 70, 50 and 30 %, five times each, left as they are or trained again for 150 steps,
and its heads and neurons chosen by gradients.

At most 64 tokens; everything else is from the recipes.

    python run_benchmark.py --plugin docs/runs/minilm/coreset.py --suite coreset_real \\
        --model DIR --data-dir DIR
"""

from zoo import Cell, register_suite


@register_suite("coreset_real")
def coreset_real(
    scale,
    tasks=("sst2",),
    methods=("coreset",),
    densities=(0.9, 0.7, 0.5, 0.3),
    seeds=(0, 1, 2, 3, 4),
    distill=(False,),
):
    """What is left of the dense model of seed 0 without and with retraining. Attention has a third
    of the prunable weights."""
    short = (("max_length", 64),)
    pruned = (*short, ("dense_seed", 0))
    cells = [Cell("dense", task, 1.0, False, 0, short) for task in tasks]
    for seed in seeds:
        for task in tasks:
            for density in densities:
                whole, own = round(1 - (1 - density) / 3, 4), (*pruned, ("attention", density))
                again = (*own, ("retrain", True), ("steps", 150))
                for given in (own, again):
                    cells += [Cell(name, task, whole, False, seed, given) for name in methods]
                if seed == 0:
                    cells.append(Cell("taylor", task, density, False, seed, pruned))
    return cells
