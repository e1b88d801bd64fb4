"""Single weights against whole units on a real model, by quality and by measured latency: SST-2's
dense model is pruned at once to 70, 50 and 30 %, and some of it trains again for 400 steps.

At most 64 tokens; everything else is from the recipes.

    python run_benchmark.py --plugin docs/runs/minilm/structured.py --suite structured_real \\
        --model DIR --data-dir DIR --save best --latency
"""

from zoo import Cell, register_suite


@register_suite("structured_real")
def structured_real(
    scale,
    tasks=("sst2",),
    methods=("magnitude_row", "wanda", "sparsegpt", "taylor", "coreset", "kwon"),
    densities=(0.7, 0.5, 0.3),
    seeds=(0,),
    distill=(False,),
):
    """What is left of one dense model, without retraining at every density and with it at 50 %.
    Kwon's densities are parts of the computation."""
    short = (("max_length", 64),)
    pruned = (*short, ("dense_seed", 0))
    again = (*pruned, ("retrain", True), ("steps", 400))
    cells = [Cell("dense", task, 1.0, False, 0, short) for task in tasks]
    for seed in seeds:
        for task in tasks:
            for name in methods:
                cells += [Cell(name, task, density, False, seed, pruned) for density in densities]
                cells.append(Cell(name, task, 0.5, False, seed, again))
    return cells
