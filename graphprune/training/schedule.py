"""Pruning in rounds: how much at which step, and the loop of pruning and tuning."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from graphprune.errors import UsageError
from graphprune.frontends.torch_program import capture
from graphprune.structure import Structure
from graphprune.training.modes import evaluating

if TYPE_CHECKING:
    from graphprune.torch_api import ModuleResult

__all__ = ["cubic", "iterate"]

Widths = Mapping[tuple[str, ...], int]
"""Sizes of groups, by the names of their slices: these stay the same when the module is pruned."""

_FIXED = ("ratio", "per_group", "macs", "params", "bytes", "pipeline", "inplace", "optimizer", "output", "plan_path")


def cubic(step: int, start: float, end: float, begin: int, steps: int) -> float:
    """The ratio at ``step``: ``end + (start - end) (1 - (step - begin) / steps)^3``, constant before and after.

    Fast at first, when most of what goes is redundant (Zhu and Gupta 2017, https://arxiv.org/abs/1710.01878).

    >>> [round(cubic(step, 0.0, 0.8, begin=10, steps=4), 3) for step in (0, 10, 11, 12, 14, 20)]
    [0.0, 0.0, 0.463, 0.7, 0.8, 0.8]

    Raises:
        UsageError: ``steps`` is below 1.
    """
    if steps < 1:
        raise UsageError(f"steps {steps} is out of range: the ratio needs at least 1 step to change in")
    left = (1 - min(max((step - begin) / steps, 0.0), 1.0)) ** 3
    return start * left + end * (1 - left)


def iterate(
    model: nn.Module,
    args: tuple[Any, ...],
    ratios: Sequence[float],
    tune: Callable[[nn.Module, int], None],
    *,
    kwargs: Mapping[str, Any] | None = None,
    **options: Any,
) -> Iterator[ModuleResult]:
    """Prune, tune, prune again: one round for each of ``ratios``, whose result is given once it is tuned.

    Args:
        model: what to prune; not changed. Each round prunes what the round before has tuned.
        args: the tuple of its example inputs; ``kwargs`` its keyword inputs.
        ratios: rising shares to remove, each of the size of the *original*: after a round with ratio r a group that
            had n positions has ``n - floor(r n)`` left (scope local), or all groups together lost that share (global).
        tune: called with the pruned module, in evaluation mode, and the number of the round, from 0; trains it in
            place.
        options: as for :func:`graphprune.prune`, except for other budgets and what it would write before tuning.

    Each plan is of its own round; ``first.plan.then(second.plan)`` is that of both.

    Raises:
        UsageError: ratios do not rise from 0 to below 1, or an option has no meaning here.
        TargetError, VerificationError: as for :func:`graphprune.prune`.
    """
    if list(ratios) != sorted(ratios) or not all(0 <= ratio < 1 for ratio in ratios):
        raise UsageError(f"ratios {list(ratios)} must rise, each at least 0 and below 1")
    if refused := sorted(set(_FIXED) & set(options)):
        raise UsageError(
            f"iterate takes no {refused[0]}; set it on the single prune, or save a result once it is tuned"
        )
    return _rounds(model, args, ratios, tune, dict(kwargs or {}), options)


def _rounds(
    model: nn.Module,
    args: tuple[Any, ...],
    ratios: Sequence[float],
    tune: Callable[[nn.Module, int], None],
    kwargs: dict[str, Any],
    options: dict[str, Any],
) -> Iterator[ModuleResult]:
    import graphprune

    original: Widths | None = None
    for number, ratio in enumerate(ratios):
        with evaluating(model):
            structure = capture(model, args, kwargs, dynamic_shapes=options.get("dynamic_shapes")).read()
            original = widths(structure) if original is None else original
            result: ModuleResult = graphprune.prune(
                model, args, kwargs, **shares(structure, original, ratio, options.get("scope", "auto")), **options
            )
        result.module.eval()
        tune(result.module, number)
        yield result
        model = result.module


def widths(structure: Structure) -> dict[tuple[str, ...], int]:
    """The sizes of all groups of a program."""
    return {key: group.size for key, group in zip(_keys(structure), structure.groups, strict=True)}


def shares(structure: Structure, original: Widths, ratio: float, scope: str) -> dict[str, Any]:
    """The options of :func:`graphprune.prune` under which ``ratio`` of the original is gone afterwards."""
    groups = structure.groups
    before = [original.get(key, group.size) for key, group in zip(_keys(structure), groups, strict=True)]
    if scope == "global":
        now = sum(group.size for group in groups)
        return {"ratio": _share(sum(original.values()), now, ratio)}
    parts = {group.name: _share(size, group.size, ratio) for group, size in zip(groups, before, strict=True)}
    return {"ratio": max(parts.values(), default=ratio), "per_group": parts}


def _share(before: int, now: int, ratio: float) -> float:
    """Which share of ``now`` positions goes where ``ratio`` of ``before`` shall be gone."""
    keep = before - math.floor(ratio * before + 1e-9)
    return max(now - keep, 0) / now if now else 0.0


def _keys(structure: Structure) -> list[tuple[str, ...]]:
    """A name for each group that it keeps: its slices, and which of those with equal slices it is."""
    seen: Counter[tuple[str, ...]] = Counter()
    keys: list[tuple[str, ...]] = []
    for group in structure.groups:
        key = tuple(str(place) for place in group.slices)
        keys.append((*key, str(seen[key])))
        seen[key] += 1
    return keys
