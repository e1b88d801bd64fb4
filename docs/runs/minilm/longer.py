"""What the dense model reaches when it trains as usual: SST-2, three epochs of batch 32.

    python run_benchmark.py --plugin docs/runs/minilm/longer.py --suite longer \\
        --model DIR --data-dir DIR
"""

from zoo import Cell, register_suite

VALUES = (
    ("batch", 32),
    ("max_length", 64),
    ("lr_weights", 1e-4),
    ("lr_head", 1e-4),
    ("epochs", 3),
)


@register_suite("longer")
def longer(
    scale, tasks=("sst2",), methods=("dense",), densities=(1.0,), seeds=(0,), distill=(False,)
):
    """Dense SST-2, three epochs of batch 32 at 1e-4."""
    return [Cell("dense", task, 1.0, False, seed, VALUES) for seed in seeds for task in tasks]
