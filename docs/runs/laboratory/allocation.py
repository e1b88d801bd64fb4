"""How density is shared between matrices, in the laboratory: the same in all, or by outliers of the
inputs (OWL), for Wanda and SparseGPT at 50 and 30 %, five calibration seeds, without retraining.

    python run_benchmark.py --plugin docs/runs/laboratory/allocation.py --suite allocation
"""

from zoo import Cell, register_suite


@register_suite("allocation")
def allocation(
    scale,
    tasks=("tiny_span", "tiny_inference", "tiny_paraphrase"),
    methods=("wanda", "sparsegpt"),
    densities=(0.5, 0.3),
    seeds=(0, 1, 2, 3, 4),
    distill=(False,),
):
    """The dense model of seed 0 pruned at once, uniformly and by OWL."""
    pruned = (("dense_seed", 0),)
    cells = [Cell("dense", task, 1.0, False, 0) for task in tasks]
    for seed in seeds:
        for task in tasks:
            for method in methods:
                for own in (pruned, (*pruned, ("allocation", "owl"))):
                    cells += [Cell(method, task, one, False, seed, own) for one in densities]
    return cells
