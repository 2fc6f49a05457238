"""Running a module in evaluation mode for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["evaluating"]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """While the context is open ``module`` is in evaluation mode; then each part of it is in its own mode again.

    >>> part = nn.Sequential(nn.Dropout(), nn.Linear(2, 2).eval())
    >>> with evaluating(part):
    ...     part[0].training
    False
    >>> part[0].training, part[1].training
    (True, False)
    """
    modes = [(each, each.training) for each in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for each, training in modes:
            each.training = training
