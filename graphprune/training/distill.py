"""Losses that compare a slim network with the dense one, and the dense one as a teacher."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphprune.errors import UsageError
from graphprune.training.modes import evaluating

__all__ = ["Teacher", "distillation_loss", "feature_loss"]


def distillation_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 4.0) -> Tensor:
    """``T^2 KL(p_teacher || p_student)`` of the softened distributions, a scalar: the mean over all but the last dim.

    Both have shape (..., classes), with ``p = softmax(logits / T)``; the factor keeps gradients comparable between
    temperatures. No gradient flows to the teacher. Hinton et al. 2015, https://arxiv.org/abs/1503.02531.

    Raises:
        UsageError: the shapes differ, or the temperature is not above 0.
    """
    _check_shapes(student_logits, teacher_logits)
    if temperature <= 0:
        raise UsageError(f"temperature {temperature:g} is out of range: it must be above 0")
    student = functional.log_softmax(student_logits.float() / temperature, dim=-1)
    teacher = functional.log_softmax(teacher_logits.detach().float() / temperature, dim=-1)
    divergence = functional.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)
    return temperature**2 * divergence.mean()


def feature_loss(student: Tensor, teacher: Tensor, keep: Tensor | None = None, dim: int = 1) -> Tensor:
    """The mean squared difference of features, a scalar, relative to the mean square of the teacher's.

    ``keep``, indices of shape (kept,), picks along ``dim`` the teacher's channels that the student still has; a
    student of other channels is brought to the teacher's shape by a layer of your own. No gradient flows to the
    teacher. Romero et al. 2015, https://arxiv.org/abs/1412.6550.

    Raises:
        UsageError: the shapes differ.
    """
    target = teacher.detach()
    if keep is not None:
        target = target.index_select(dim, keep.to(target.device))
    _check_shapes(student, target)
    scale = target.float().square().mean().clamp_min(1e-12)
    return functional.mse_loss(student.float(), target.float()) / scale


class Teacher:
    """The dense network, run in evaluation mode and without gradients.

    >>> dense = nn.Sequential(nn.Linear(4, 3), nn.Dropout())
    >>> with Teacher(dense) as teacher:
    ...     logits = teacher(torch.ones(2, 4))
    >>> logits.requires_grad, dense.training
    (False, True)

    While the context is open the network is in evaluation mode; afterwards each of its modules is in the mode it was
    in before. It may be the very module that a pruned one was copied from.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._open = ExitStack()

    def __enter__(self) -> Teacher:
        self._open.enter_context(evaluating(self.model))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the network makes of these inputs."""
        with torch.no_grad():
            return self.model(*args, **kwargs)


def _check_shapes(student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape:
        raise UsageError(f"student and teacher differ in shape: {tuple(student.shape)} and {tuple(teacher.shape)}")
