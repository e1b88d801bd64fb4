"""Single weights against whole units on a real model, by quality and by measured latency: SST-2's
dense model is pruned at once to 70, 50 and 30 %, and some of it trains again for 400 steps.

At most 64 tokens, and 256 gradients of oBERT, where its recipe has 1,024; everything else is from
the recipes.

    python run_benchmark.py --plugin docs/runs/minilm/structured.py --suite structured_real \\
        --model DIR --data-dir DIR --save best --latency
"""

from zoo import Cell, register_suite

TIMES = (
    ("constraint", "latency"),
    ("heads_each", 0.7184),
    ("heads_flat", 1),
    ("heads_least", 0.9023),
    ("neurons_each", 0.01012),
    ("neurons_flat", 1),
    ("neurons_least", 0.02352),
)
"""What `python -m zoo.tools.layer_times --model DIR --batch 8 --tokens 64` printed."""


@register_suite("structured_real")
def structured_real(
    scale,
    tasks=("sst2",),
    methods=("magnitude_row", "wanda", "sparsegpt", "taylor", "coreset", "kwon"),
    densities=(0.7, 0.5, 0.3),
    seeds=(0,),
    distill=(False,),
):
    """What is left of one dense model, without retraining at every density and with it at 50 %;
    corrected weights and Kwon's search by latency without, fewer layers with it. Kwon's densities
    are parts of the computation, or of the time."""
    short = (("max_length", 64),)
    pruned = (*short, ("dense_seed", 0))
    again = (("retrain", True), ("steps", 400))
    cells = [Cell("dense", task, 1.0, False, 0, short) for task in tasks]
    once = [(name, pruned) for name in (*methods, "admm")]
    once.append(("obert_one_shot", (*pruned, ("gradients", 256))))
    once.append(("kwon", (*pruned, *TIMES)))
    for seed in seeds:
        for task in tasks:
            for name, own in once:
                cells += [Cell(name, task, density, False, seed, own) for density in densities]
            cells += [Cell(n, task, 0.5, False, seed, (*pruned, *again)) for n in methods]
            cells.append(Cell("drop_layers", task, 0.5, False, seed, (*short, ("steps", 400))))
    return cells
