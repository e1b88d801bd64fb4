"""Losses and penalties against other routes: autograd, sums by hand, published figures."""

import math

import pytest
import torch
from torch.nn import functional as F

from zoo import (
    CLASSES,
    Bank,
    Contrast,
    Step,
    expected_l0,
    expected_l0_gradient,
    mean_sigmoid,
    mean_sigmoid_gradient,
    same_class,
)
from zoo.inputs.task import classification_loss, divergence, span_distillation, span_loss


@pytest.mark.parametrize(
    ("value", "gradient"),
    [(mean_sigmoid, mean_sigmoid_gradient), (expected_l0, expected_l0_gradient)],
)
def test_gradients_in_closed_form_equal_autograd(value, gradient):
    torch.manual_seed(0)
    scores = {
        "a": torch.randn(5, 7, dtype=torch.float64, requires_grad=True),
        "b": torch.randn(11, 3, dtype=torch.float64, requires_grad=True),
    }
    value(scores).backward()
    for s in scores.values():
        assert torch.allclose(gradient(s.detach(), 2), s.grad, rtol=1e-12)


def test_a_span_loss_is_the_mean_of_start_and_end():
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 7, 2), torch.tensor([[1, 2], [0, 0], [3, 6]])
    start, end = (F.cross_entropy(logits[..., i], labels[:, i]) for i in (0, 1))
    assert span_loss(logits, labels).item() == pytest.approx(((start + end) / 2).item())
    teacher = torch.randn(3, 7, 2)
    parts = [divergence(logits[..., i], teacher[..., i], 2.0).item() for i in (0, 1)]
    assert span_distillation(logits, teacher, 2.0).item() == pytest.approx(sum(parts) / 2)


def test_cross_entropy_by_hand():
    logits = torch.tensor([[math.log(3.0), 0.0]])
    assert classification_loss(logits, torch.tensor([0])).item() == pytest.approx(math.log(4 / 3))


def step(rows: torch.Tensor, vectors: torch.Tensor, classes: torch.Tensor) -> Step:
    """A training step in which student and bank have the representations `vectors`."""

    class NoTask:
        output = CLASSES

    return Step(
        task=NoTask(),
        logits=torch.zeros(len(rows), 2),
        labels=classes[rows],
        representation=vectors[rows],
        rows=rows,
        generator=torch.Generator().manual_seed(0),
        classes=classes,
        banks={"b": Bank(vectors)},
    )


def test_contrast_equals_loops_over_anchors_and_columns():
    """With extra examples from outside the batch."""
    torch.manual_seed(1)
    vectors = F.normalize(torch.randn(9, 5), dim=-1)
    classes = torch.tensor([0, 1, 0, 1, 1, 0, 0, 1, 0])
    rows = torch.tensor([4, 2, 7])
    one = step(rows, vectors, classes)
    got = Contrast(same_class, banks=("b",), extras=4)(one).item()
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0)).tolist()
    others = [row for row in order if row not in rows.tolist()][:4]
    columns = [*rows.tolist(), *rows.tolist(), *others]
    total, positives = 0.0, 0
    for i, anchor in enumerate(rows.tolist()):
        likelihood = {
            j: math.exp((vectors[anchor] @ vectors[c]).item() / 0.1)
            for j, c in enumerate(columns)
            if j != i
        }
        same = [j for j in likelihood if classes[columns[j]] == classes[anchor]]
        total += sum(math.log(likelihood[j] / sum(likelihood.values())) for j in same) / len(same)
        positives += len(same)
    assert got == pytest.approx(-total / positives, rel=1e-4)
