"""Runs that may collapse: what is said of hard movement in few steps (docs/certificates.md)."""

from zoo.parts.method import Method, nothing
from zoo.parts.scores import zeros

SHORT = 10_000
"""Optimiser steps below which `may_collapse` warns; the published runs have 34,000 and more."""


def learns_ranks_alone(method: Method) -> bool:
    """Whether scores start equal and learn without a penalty. Their learning rate then scales them
    and changes no rank, since AdamW without decay is linear in it (docs/certificates.md)."""
    equal = method.score is not None and method.score.init is zeros and method.learns_scores
    return equal and method.penalty is None


def may_collapse(method: Method, steps: int) -> bool:
    """Whether a run this short is of the kind that collapsed in the authors' code too: scores that
    learn ranks alone, and weights that train (docs/certificates.md)."""
    return learns_ranks_alone(method) and method.trains is not nothing and steps < SHORT


COLLAPSES = (
    "scores that start equal and learn without a penalty can fall to one class in runs this short;"
    " movement did, in its authors' code too, and soft movement or a penalty helped:"
    " docs/certificates.md"
)
