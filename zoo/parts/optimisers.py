"""Optimisers: functions that make one for the parameter groups of a trial."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from zoo.records.trial import Training

Group = dict[str, Any]
"""Parameters that share values, as torch.optim takes them: `params`, `lr` (the peak),
`weight_decay`, and `kind`, which is "weights", "head" or "scores"."""

Optimiser = Callable[[Sequence[Group], Training], torch.optim.Optimizer]
"""(groups, training values) -> optimiser. The loop scales every group's learning rate."""


def adamw(groups: Sequence[Group], train: Training) -> torch.optim.Optimizer:
    """AdamW with bias correction and decoupled weight decay (Loshchilov and Hutter 2019).

    >>> import torch
    >>> from types import SimpleNamespace
    >>> from zoo import adamw
    >>> group = {"params": [torch.nn.Parameter(torch.ones(2))], "lr": 1e-3, "weight_decay": 0.0}
    >>> train = SimpleNamespace(betas=(0.9, 0.999), epsilon=1e-8)
    >>> adamw([group], train).param_groups[0]["lr"]
    0.001
    """
    beta1, beta2 = train.betas
    return torch.optim.AdamW(groups, betas=(beta1, beta2), eps=train.epsilon, fused=True)
