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


def adamax(groups: Sequence[Group], train: Training) -> torch.optim.Optimizer:
    """Adamax without bias correction and with decoupled weight decay, as the code of Liang et al.
    2021 and Zhang et al. 2022 has it: m <- b1 m + (1 - b1) g, u <- max(b2 u, abs(g) + epsilon), W
    <- W - lr (m / (u + epsilon) + decay W).

    >>> import torch
    >>> from types import SimpleNamespace
    >>> from zoo import adamax
    >>> weight = torch.nn.Parameter(torch.ones(1))
    >>> group = {"params": [weight], "lr": 0.1, "weight_decay": 0.0}
    >>> optimizer = adamax([group], SimpleNamespace(betas=(0.9, 0.999), epsilon=1e-6))
    >>> weight.grad = torch.ones(1)
    >>> optimizer.step()
    >>> round(weight.item(), 4)
    0.99
    """
    return Adamax(groups, {"betas": tuple(train.betas), "eps": train.epsilon})


class Adamax(torch.optim.Optimizer):
    """See `adamax`."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take a step with the gradients that are there."""
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["mean"] = torch.zeros_like(parameter)
                    state["most"] = torch.zeros_like(parameter)
                mean, most = state["mean"], state["most"]
                mean.mul_(beta1).add_(parameter.grad, alpha=1 - beta1)
                torch.maximum(most.mul_(beta2), parameter.grad.abs() + group["eps"], out=most)
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.addcdiv_(mean, most + group["eps"], value=-group["lr"])
