"""Agreement of two PyTorch callables that should be one: a slim graph, and the module that it was carried back to."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from graphprune.proof.torch_proof import differences
from graphprune.proof.torch_run import seeded

__all__ = ["AGREEMENT", "HALF_AGREEMENT", "disagreement"]

AGREEMENT = 1e-4
"""Scaled difference up to which results agree: the same operators on the same numbers, perhaps in other kernels."""

HALF_AGREEMENT = 3e-2
"""The same for half precision, which rounds to one part in 256 or 2048 at each operator."""


def disagreement(
    first: Callable[..., Any],
    second: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> str | None:
    """How the results of two callables on the same arguments differ; None where they agree.

    Both are run as they are, without gradients, with the same random numbers and each on a copy of the arguments; what
    they do to their own buffers (running statistics, counters) is undone. Both should be in the same mode.
    """
    leaves = [each for each in pytree.tree_leaves((args, dict(kwargs or {}))) if isinstance(each, torch.Tensor)]
    results = []
    for what, each in (("first", first), ("second", second)):
        try:
            results.append(_results(each, args, kwargs or {}, leaves, seed))
        except Exception as error:  # whatever a module raises
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            return f"the {what} cannot be run: {reason}"
    one, other = results
    if len(one) != len(other):
        return f"{len(one)} results of the first and {len(other)} of the second"
    gaps = differences([f"result {number}" for number in range(len(one))], one, other)
    worst = max(gaps, key=lambda gap: gap.error, default=None)
    if worst is None or worst.error <= _allowed([*leaves, *one]):
        return None
    return f"{worst.name} {worst.note or f'differs by {worst.error:.2g} of its scale'}"


def _results(
    callable_: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], leaves: list[Any], seed: int
) -> list[Any]:
    device = next((leaf.device for leaf in leaves), None)
    with torch.no_grad(), seeded(seed, device), _restored(callable_):
        args, kwargs = copy.deepcopy((tuple(args), dict(kwargs)))
        return [_kept(leaf) for leaf in pytree.tree_leaves(callable_(*args, **kwargs))]


def _kept(leaf: Any) -> Any:
    """A result that the module does not write to when its buffers are put back."""
    return leaf.clone() if isinstance(leaf, torch.Tensor) else leaf


@contextmanager
def _restored(callable_: Callable[..., Any]) -> Iterator[None]:
    """Undo what a module does to its buffers."""
    buffers = list(callable_.buffers()) if isinstance(callable_, nn.Module) else []
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)


def _allowed(tensors: Sequence[Any]) -> float:
    halves = (torch.float16, torch.bfloat16)
    half = any(isinstance(each, torch.Tensor) and each.dtype in halves for each in tensors)
    return HALF_AGREEMENT if half else AGREEMENT
