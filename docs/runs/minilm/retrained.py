"""Pruning of a real model on real data with retraining under a fixed mask: MRPC, at 50 % and 2:4,
three seeds, all from one dense model.

At most 64 tokens and one epoch of retraining, where the recipe has three; everything else is from
the recipes.

    python run_benchmark.py --plugin docs/runs/minilm/retrained.py --suite retrained_real \\
        --model DIR --data-dir DIR
"""

from zoo import Cell, register_suite


@register_suite("retrained_real")
def retrained_real(
    scale,
    tasks=("mrpc",),
    methods=("magnitude_row", "wanda", "sparsegpt"),
    densities=(0.5,),
    seeds=(0, 1, 2),
    distill=(False,),
):
    """What three methods reach when what they keep trains again."""
    short = (("max_length", 64),)
    pruned = (*short, ("dense_seed", 0), ("retrain", True), ("epochs", 1))
    cells = [Cell("dense", task, 1.0, False, 0, short) for task in tasks]
    for seed in seeds:
        for task in tasks:
            for method in methods:
                cells += [Cell(method, task, density, False, seed, pruned) for density in densities]
                half = (*pruned, ("pattern", "2:4"))
                cells.append(Cell(method, task, 0.5, False, seed, half))
    return cells
