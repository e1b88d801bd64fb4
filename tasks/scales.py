"""The scales: the embedded laboratory, and the papers' models and data."""

from pathlib import Path

from zoo import OURS, Scale, Value, register_scale

HERE = Path(__file__).parent
TINY_TASKS = ("tiny_inference", "tiny_paraphrase", "tiny_span")
ABLATION = {"tasks": TINY_TASKS}
"""Ablations run on all three tasks here."""
CAVEAT = (
    "Scale tiny is the embedded laboratory: an artificial language and a very small BERT. Its"
    " metrics compare methods with each other; they say nothing about published numbers. The"
    " learning rates of built-in methods were chosen, among six candidates each, at 5 % remaining"
    " weights on a part of the training set, with other seeds (tasks/laboratory/choices.csv);"
    " ablations and global variants have the values of the method that they vary. Nothing was"
    " chosen for methods of one's own: --tune N gives every method the same number of candidates."
)


@register_scale("tiny")
def tiny() -> Scale:
    """The embedded laboratory; no download, minutes on two CPU cores."""
    return Scale(
        name="tiny",
        tasks=TINY_TASKS,
        model=str(HERE / "laboratory"),
        about="the embedded laboratory: an artificial language and a BERT of half a megabyte; its"
        " metrics compare methods with each other and say nothing about published numbers",
        axes={
            "high_sparsity": {
                "plain": (
                    *("dense", "first_half", "head_only", "random"),
                    *("magnitude", "movement", "soft_movement", "l0"),
                    *("smp_l", "smp_s"),
                ),
                "distilled": (),
                "densities": (0.1, 0.03),
                "seeds": range(3),
            },
            "low_sparsity_glue": ABLATION,
            "masking": {**ABLATION, "densities": (0.5, 0.1, 0.03)},
            "head": ABLATION,
            "regulariser": ABLATION,
            "shuffled": ABLATION,
            "coreset_slides": {"shares": (0.5,)},
            "tuned_baselines": {"gradients": (64,)},
        },
        values={
            "batch": Value(32, OURS),
            "steps": Value(200, OURS),
            "evaluate_every": Value(100, OURS),
            "max_length": Value(64, OURS),
            "lr_head": Value(1e-3, OURS),
        },
        caveat=CAVEAT,
        choices=HERE / "laboratory" / "choices.csv",
        penalties=HERE / "laboratory" / "penalties.csv",
        aim=0.9,
    )


@register_scale("base")
def base() -> Scale:
    """The papers': bert-base-uncased from the hub on MNLI, QQP, SQuAD and GLUE; GPU days."""
    return Scale(
        name="base",
        tasks=("mnli", "qqp", "squad"),
        model="bert-base-uncased",
        about="the papers' scale: real data and a real pre-trained model",
        penalties=HERE.parent / "methods" / "penalties.csv",
    )
