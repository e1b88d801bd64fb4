"""One-shot pruning of a real model on real data: a dense model is trained once by the recipe
and pruned without retraining at 80, 70, 60 and 50 % and 2:4, by five calibration seeds.

At most 64 tokens; everything else is from the recipes.

    python run_benchmark.py --plugin docs/runs/minilm/one_shot.py --suite one_shot_real \\
        --model DIR --data-dir DIR
"""

from zoo import Cell, register_suite


@register_suite("one_shot_real")
def one_shot_real(
    scale,
    tasks=("mrpc", "sst2"),
    methods=("magnitude_row", "wanda", "sparsegpt"),
    densities=(0.8, 0.7, 0.6, 0.5),
    seeds=(0, 1, 2, 3, 4),
    distill=(False,),
):
    """What three methods make of the dense model of seed 0 of each task."""
    short = (("max_length", 64),)
    pruned = (*short, ("dense_seed", 0))
    cells = [Cell("dense", task, 1.0, False, 0, short) for task in tasks]
    for seed in seeds:
        for task in tasks:
            for method in methods:
                cells += [Cell(method, task, density, False, seed, pruned) for density in densities]
                half = (*pruned, ("pattern", "2:4"))
                cells.append(Cell(method, task, 0.5, False, seed, half))
    return cells
