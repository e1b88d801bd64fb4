"""A suite for a CPU: real data and a real pre-trained model, in hours and not in GPU days.

Hundreds of steps of batch 16, at most 64 tokens and 1e-4 for weights in place of the recipes'
values; everything else is from the recipes. L0 and soft movement get penalties by hand, and a
larger learning rate for their scores, which could otherwise not reach the threshold in so few
steps. No run says which penalty leaves how many weights here, so their rows show what was measured.

    python run_benchmark.py --plugin docs/runs/minilm/short_real.py --suite short_real \\
        --model DIR --data-dir DIR
"""

from zoo import Cell, register_suite

SHORT = (("batch", 16), ("max_length", 64), ("lr_weights", 1e-4), ("lr_head", 1e-4))
STEPS = {"sst2": 1000, "mrpc": 400, "mnli": 400}
LONG = {"soft_movement": {0.5: 50.0, 0.1: 400.0}, "l0": {0.5: 10.0, 0.1: 60.0}}
BRIEF = {"soft_movement": {0.5: 150.0, 0.1: 600.0}, "l0": {0.5: 40.0, 0.1: 200.0}}
"""lambda by method and density, for 1,000 and for 400 steps."""
METHODS = ("random", "magnitude", "movement", "soft_movement", "l0", "smp_l", "smp_s")


@register_suite("short_real")
def short_real(
    scale,
    tasks=("sst2", "mrpc", "mnli"),
    methods=METHODS,
    densities=(0.5, 0.1),
    seeds=(0,),
    distill=(False,),
):
    """Dense and seven methods at 50 and 10 % on a CPU: batch 16, hundreds of steps."""
    cells = []
    for seed in seeds:
        for task in tasks:
            values = (*SHORT, ("steps", STEPS.get(task, 400)))
            cells.append(Cell("dense", task, 1.0, False, seed, values))
            for density in densities:
                for method in methods:
                    penalty = (LONG if task == "sst2" else BRIEF).get(method, {}).get(density)
                    driven = (("penalty", penalty), ("lr_scores", 0.05)) if penalty else ()
                    cells.append(Cell(method, task, density, False, seed, (*values, *driven)))
    return cells
