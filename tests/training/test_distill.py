"""Losses against a teacher, by their formulas; the teacher's modes and gradients."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from graphprune.errors import UsageError  # noqa: E402
from graphprune.training import Teacher, distillation_loss, feature_loss  # noqa: E402

pytestmark = pytest.mark.torch


def test_distillation_loss_is_the_softened_divergence() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 5, requires_grad=True), torch.randn(2, 3, 5, requires_grad=True)
    p, q = ((logits / 4).softmax(-1) for logits in (teacher, student))
    expected = 16 * (p * (p.log() - q.log())).sum(-1).mean()
    loss = distillation_loss(student, teacher)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert student.grad is not None
    assert teacher.grad is None
    assert distillation_loss(teacher, teacher).item() == pytest.approx(0, abs=1e-6)


def test_feature_loss_is_relative_and_picks_kept_channels() -> None:
    torch.manual_seed(0)
    teacher = torch.randn(2, 6, 3)
    keep = torch.tensor([0, 2, 5])
    assert float(feature_loss(teacher[:, keep], teacher, keep)) == 0
    torch.testing.assert_close(feature_loss(torch.zeros(2, 3, 3), teacher, keep), torch.tensor(1.0))
    torch.testing.assert_close(feature_loss(2 * teacher, teacher), torch.tensor(1.0))


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(UsageError, match="differ in shape"):
        distillation_loss(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(UsageError, match="differ in shape"):
        feature_loss(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(UsageError, match="temperature 0"):
        distillation_loss(torch.zeros(2, 3), torch.zeros(2, 3), temperature=0)


def test_a_teacher_evaluates_and_is_put_back() -> None:
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16).eval(), nn.Dropout(0.5))
    before = dense[1].running_mean.clone()
    with Teacher(dense) as teacher:
        first, second = teacher(torch.ones(3, 4)), teacher(torch.ones(3, 4))
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert [part.training for part in dense] == [True, False, True]
    assert torch.equal(dense[1].running_mean, before)
    assert not torch.equal(dense(torch.ones(3, 4)), dense(torch.ones(3, 4)))


def test_a_teacher_is_put_back_after_an_error() -> None:
    dense = nn.Dropout()
    with pytest.raises(ZeroDivisionError), Teacher(dense):
        raise ZeroDivisionError
    assert dense.training
