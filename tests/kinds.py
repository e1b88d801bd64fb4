"""Encoders of every kind, small and in float64: their copies, and what they give."""

from typing import Any

import torch

KINDS = ("bert", "roberta", "distilbert", "electra", "xlm-roberta", "camembert", "mpnet")
KINDS += ("deberta-v2", "modernbert")
COMPACTS = ("bert", "roberta", "distilbert", "electra")
TOKENS = torch.tensor([[2, 9, 12, 8, 3, 5], [2, 15, 13, 7, 5, 3]])
HEADS = 4


def fresh(encoders: dict[str, Any], kind: str) -> Any:
    """A copy of an encoder."""
    same = type(encoders[kind])(encoders[kind].config).double().eval()
    same.load_state_dict(encoders[kind].state_dict())
    return same


def states(encoder: Any) -> torch.Tensor:
    """Hidden states, without gradients."""
    with torch.no_grad():
        return encoder(TOKENS).last_hidden_state
