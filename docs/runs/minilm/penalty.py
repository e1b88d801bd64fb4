"""Does the penalty on scores hold a short run together? Four methods, two by two.

Movement and SMP-L at 50 % of SST-2, each with SMP's penalty and without it, nothing else changed;
steps and learning rates are those of short_real.py, evaluated four times on the way.

    python run_benchmark.py --plugin docs/runs/minilm/penalty.py --suite penalty \\
        --model DIR --data-dir DIR
"""

from dataclasses import replace

from methods.movement import movement
from zoo import (
    Cell,
    Penalty,
    Ramp,
    mean_sigmoid,
    mean_sigmoid_gradient,
    register_method,
    register_suite,
)

SHORT = (
    ("batch", 16),
    ("max_length", 64),
    ("lr_weights", 1e-4),
    ("lr_head", 1e-4),
    ("steps", 1000),
    ("evaluate_every", 250),
)
METHODS = ("movement", "movement_penalty", "smp_l", "smp_l_no_penalty")


@register_method(
    "movement_penalty", label="movement, with SMP's R", recipe="movement", family="movement"
)
def movement_penalty(density, *, start, stop, power=3):
    """Movement with the penalty of SMP-L: lambda rises to 400 over the run (SMP, Eq. 6)."""
    rising = Ramp(0.0, 400.0, 0.0, 1.0, 3)
    base = movement(density, start=start, stop=stop, power=power)
    return replace(base, penalty=Penalty(mean_sigmoid, mean_sigmoid_gradient, rising))


@register_suite("penalty")
def penalty(
    scale, tasks=("sst2",), methods=METHODS, densities=(0.5,), seeds=(0,), distill=(False,)
):
    """Movement and SMP-L with and without SMP's penalty: SST-2, 50 %, 1,000 steps of batch 16."""
    return [
        Cell(method, task, density, False, seed, SHORT)
        for seed in seeds
        for task in tasks
        for density in densities
        for method in methods
    ]
