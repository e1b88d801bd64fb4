"""Losses and penalties against other routes: autograd, sums by hand, published figures."""

import math

import pytest
import torch
from torch.nn import functional as F

from zoo.losses import (
    Bank,
    Contrast,
    Step,
    divergence,
    expected_l0,
    expected_l0_gradient,
    mean_sigmoid,
    mean_sigmoid_gradient,
    same_class,
    same_example,
)
from zoo.task import (
    CLASSES,
    classification_loss,
    regression_distillation,
    regression_loss,
    span_distillation,
    span_loss,
)

SIZES = {"query": (768, 768), "intermediate": (3072, 768)}


def bert_scores() -> dict[str, torch.Tensor]:
    """All 72 score matrices of BERT-base at 0, without their memory."""
    zero = torch.zeros(1)
    found = {f"a{i}": zero.expand(768, 768) for i in range(48)}
    return found | {f"f{i}": zero.expand(3072, 768) for i in range(24)}


def test_the_penalty_is_a_mean_of_means():
    assert mean_sigmoid(bert_scores()).item() == 0.5


def test_its_gradient_is_four_times_larger_in_attention():
    attention = mean_sigmoid_gradient(torch.zeros(768, 768), 72)[0, 0].item()
    inner = mean_sigmoid_gradient(torch.zeros(3072, 768), 72)[0, 0].item()
    assert attention == pytest.approx(0.25 / (72 * 589_824), rel=1e-6)
    assert attention / inner == pytest.approx(4.0)
    assert 400 * attention == pytest.approx(2.355e-6, rel=1e-3)


@pytest.mark.parametrize(
    ("value", "gradient"),
    [(mean_sigmoid, mean_sigmoid_gradient), (expected_l0, expected_l0_gradient)],
)
def test_closed_forms_equal_autograd(value, gradient):
    torch.manual_seed(0)
    scores = {
        "a": torch.randn(5, 7, dtype=torch.float64, requires_grad=True),
        "b": torch.randn(11, 3, dtype=torch.float64, requires_grad=True),
    }
    value(scores).backward()
    for s in scores.values():
        assert torch.allclose(gradient(s.detach(), 2), s.grad, rtol=1e-12)


def test_expected_l0_at_its_start():
    assert expected_l0({"a": torch.full((4, 4), 2.197)}).item() == pytest.approx(0.978024, abs=1e-6)


def test_divergence_is_from_the_teacher():
    """KL(p_t || p_s) with p_t = (.9, .1), p_s = (.5, .5); the reverse would be 0.510826."""
    teacher = torch.tensor([[0.9, 0.1]]).log()
    student = torch.tensor([[0.5, 0.5]]).log()
    assert divergence(student, teacher, 1.0).item() == pytest.approx(0.368064, abs=1e-6)


def test_divergence_is_scaled_by_the_square_of_the_temperature():
    torch.manual_seed(0)
    student, teacher = torch.randn(4, 3), torch.randn(4, 3)
    once = divergence(student, teacher, 1.0)
    assert divergence(2 * student, 2 * teacher, 2.0).item() == pytest.approx(
        4 * once.item(), rel=1e-5
    )


def test_a_span_loss_is_the_mean_of_start_and_end():
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 7, 2), torch.tensor([[1, 2], [0, 0], [3, 6]])
    start, end = (F.cross_entropy(logits[..., i], labels[:, i]) for i in (0, 1))
    assert span_loss(logits, labels).item() == pytest.approx(((start + end) / 2).item())
    teacher = torch.randn(3, 7, 2)
    parts = [divergence(logits[..., i], teacher[..., i], 2.0).item() for i in (0, 1)]
    assert span_distillation(logits, teacher, 2.0).item() == pytest.approx(sum(parts) / 2)


def test_regression_learns_from_its_teacher():
    student = torch.tensor([[1.0], [2.0]], requires_grad=True)
    regression_distillation(student, torch.tensor([[2.0], [2.0]]), 2.0).backward()
    assert student.grad.tolist() == [[-1.0], [0.0]]
    assert regression_loss(student, torch.tensor([1.0, 4.0])).item() == 2.0


def test_cross_entropy():
    logits = torch.tensor([[math.log(3.0), 0.0]])
    assert classification_loss(logits, torch.tensor([0])).item() == pytest.approx(math.log(4 / 3))


def step(rows: torch.Tensor, vectors: torch.Tensor, classes: torch.Tensor) -> Step:
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


@pytest.mark.parametrize(
    ("same", "classes", "expected"),
    [
        (same_example, [0, 1], 9.0796e-5),
        (same_class, [0, 0], 2.2222525),
        (same_class, [0, 1], 9.0796e-5),
    ],
)
def test_contrast_against_the_figures_of_the_released_reduction(same, classes, expected):
    """two examples on orthogonal axes, student and bank equal, no extras."""
    one = step(torch.tensor([0, 1]), torch.eye(2), torch.tensor(classes))
    assert Contrast(same, banks=("b",), extras=0)(one).item() == pytest.approx(expected, rel=1e-3)


def test_the_own_column_is_left_out():
    one = step(torch.tensor([0]), torch.eye(1), torch.tensor([0]))
    assert Contrast(same_example, banks=("b",), extras=0)(one).item() == 0.0


def test_contrast_against_loops():
    """Another route: loops over anchors and columns, with extras from outside the batch."""
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
        likes = {
            j: math.exp((vectors[anchor] @ vectors[c]).item() / 0.1)
            for j, c in enumerate(columns)
            if j != i
        }
        same = [j for j in likes if classes[columns[j]] == classes[anchor]]
        total += sum(math.log(likes[j] / sum(likes.values())) for j in same) / len(same)
        positives += len(same)
    assert got == pytest.approx(-total / positives, rel=1e-4)
