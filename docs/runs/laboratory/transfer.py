"""Sparse transfer in the laboratory: its model with the half of each matrix that is smallest set to
zero, without any training in between, then fine-tuned with those zeros fixed; beside the same
checkpoint fine-tuned whole, zeros free to return.

    python run_benchmark.py --plugin docs/runs/laboratory/transfer.py --suite transfer \\
        --scale tiny --model DIR
"""

from zoo import Cell, register_suite


@register_suite("transfer")
def transfer(
    scale,
    tasks=("tiny_span", "tiny_inference", "tiny_paraphrase"),
    methods=("dense", "sparse_transfer"),
    densities=(0.5,),
    seeds=(0, 1, 2, 3, 4),
    distill=(False,),
):
    """One pruned checkpoint, with its zeros fixed and without."""
    cells = [Cell("dense", task, 1.0, False, seed) for seed in seeds for task in tasks]
    for seed in seeds:
        for task in tasks:
            cells += [Cell("sparse_transfer", task, one, False, seed) for one in densities]
    return cells
