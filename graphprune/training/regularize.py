"""Penalties that make whole groups small while a network trains, so that cutting them costs little.

With ``s[k]`` the squared norm of everything that goes with position k (:func:`~graphprune.training.group_norms`) and
``n[k]`` the number of its weights:

- :func:`group_lasso`: ``strength * sum_k sqrt(n[k] s[k])``, and :func:`proximal_step`, the step that it stands for.
- :func:`scaled_penalty`: ``strength * sum_k gamma[k] s[k]``, strongest where ``s[k]`` is least in its group.
- :func:`growing_penalty`: ``sum_k factor[k] s[k] / 2`` with factors that grow.
- :func:`batch_norm_penalty`: ``strength * sum |scale|`` of BatchNorms.

Every penalty is a scalar to add to a loss. Under mixed precision, call them on the master weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from graphprune.errors import UsageError
from graphprune.training.groups import TrainingGroups

__all__ = [
    "Growth",
    "batch_norm_penalty",
    "group_lasso",
    "growing_penalty",
    "proximal_step",
    "scaled_penalty",
    "weakest",
]

_TINY = 1e-12  # under the root: the gradient of a position that is zero is zero, not infinite


def group_lasso(groups: TrainingGroups, module: nn.Module, strength: float = 1e-3) -> Tensor:
    """``strength * sum_k sqrt(n[k]) ||w[k]||_2``, a scalar: it pulls all weights of a position to zero together.

    Wen et al. 2016, https://arxiv.org/abs/1608.03665; the root of the number of weights makes positions of different
    size comparable (Yuan and Lin 2006).
    """
    squares = groups.squares(module)
    elements = groups.on(squares.device)[2]
    return strength * (elements * squares + _TINY).sqrt().sum()


def proximal_step(groups: TrainingGroups, module: nn.Module, threshold: float) -> None:
    """Shrink in place, ``w[k] <- max(0, 1 - threshold sqrt(n[k]) / ||w[k]||) w[k]``: the group soft threshold.

    Call it after ``optimizer.step()`` with the learning rate times the strength, instead of adding
    :func:`group_lasso` to the loss: positions then become exactly zero. A weight in a row of one group and in a column
    of another is multiplied by the factors of both. Parameters that need no gradient are left alone.
    """
    with torch.no_grad():
        squares = groups.squares(module)
        index, number, elements, _ = groups.on(squares.device)
        factors = (1 - threshold * (elements / squares.clamp_min(_TINY)).sqrt()).clamp_min(0)
        ones = torch.ones(sum(groups.extents), dtype=factors.dtype, device=factors.device)
        along = ones.scatter_reduce(0, index, factors[number], "prod").split(list(groups.extents))
        parameters = groups.parameters(module)
        for place, extent, factor in zip(groups.slices, groups.extents, along, strict=True):
            parameter = parameters[place.tensor]
            if parameter.requires_grad:
                shape = [extent if dim == place.dim else 1 for dim in range(parameter.dim())]
                parameter.mul_(factor.reshape(shape).to(parameter.device, parameter.dtype))


def scaled_penalty(groups: TrainingGroups, module: nn.Module, strength: float = 1e-4, alpha: float = 4.0) -> Tensor:
    """``strength * sum_k gamma[k] s[k]`` with ``gamma[k] = 2^(alpha (max s - s[k]) / (max s - min s))``, a scalar.

    Maximum and minimum are those of a position's group, and no gradient flows through ``gamma``: it is between 1 for
    the largest position and ``2^alpha`` for the least. DepGraph's sparse training (Fang et al. 2023,
    https://arxiv.org/abs/2301.12900).
    """
    squares = groups.squares(module)
    owner = groups.on(squares.device)[3]
    own = squares.detach()
    empty = torch.zeros(len(groups.sizes), dtype=own.dtype, device=own.device)
    highest = empty.scatter_reduce(0, owner, own, "amax", include_self=False)[owner]
    lowest = empty.scatter_reduce(0, owner, own, "amin", include_self=False)[owner]
    spread = (highest - lowest).clamp_min(torch.finfo(own.dtype).tiny)
    gamma = torch.exp2(alpha * (highest - own) / spread)
    return strength * (gamma * squares).sum()


def batch_norm_penalty(groups: TrainingGroups, module: nn.Module, strength: float = 1e-4) -> Tensor:
    """``strength * sum |scale|`` over the scales of BatchNorms whose channels can go, a scalar.

    Network slimming (Liu et al. 2017, https://arxiv.org/abs/1708.06519). 0 where there is no BatchNorm.
    """
    parameters = groups.parameters(module)
    reached = {place.tensor for place in groups.slices} & groups.scales
    sums = [parameters[name].abs().sum() for name in parameters if name in reached]
    return strength * torch.stack(sums).sum() if sums else torch.zeros(())


def weakest(groups: TrainingGroups, module: nn.Module, ratio: float) -> dict[str, Tensor]:
    """For each group a boolean tensor, shape (size,): True for the ``floor(ratio * size)`` positions of least norm.

    One position of each group stays.

    Raises:
        UsageError: the ratio is not between 0 and 1.
    """
    if not 0 <= ratio <= 1:
        raise UsageError(f"ratio {ratio:g} is out of range: it is the share to remove, between 0 and 1")
    result: dict[str, Tensor] = {}
    for name, squares in groups.split(groups.squares(module).detach()).items():
        count = min(int(ratio * len(squares) + 1e-9), len(squares) - 1)
        result[name] = torch.zeros(len(squares), dtype=torch.bool, device=squares.device)
        result[name][squares.argsort(stable=True)[:count]] = True
    return result


@dataclass
class Growth:
    """How far the factors of :func:`growing_penalty` have grown.

    ``drop``: group name -> which of its positions are to go, boolean, shape (size,); None for all of them. ``rate``:
    what a factor grows by ``every`` so many calls of :meth:`step`, up to ``limit``. Growing Regularization (Wang et
    al. 2021, https://arxiv.org/abs/2012.09243):

    - GReg-1: ``Growth(drop=weakest(groups, module, 0.5))``; prune once ``finished``.
    - GReg-2: ``Growth(limit=low)``, under which magnitudes of unlike curvature drift apart; once ``finished``,
      ``growth.focus(weakest(groups, module, 0.5), limit=high)`` goes on as GReg-1 with those that became weakest.
    """

    drop: Mapping[str, Tensor] | None = None
    rate: float = 1e-4
    every: int = 10
    limit: float = 1.0
    steps: int = 0
    factor: float = field(default=0.0)

    def step(self) -> None:
        """Count one training step."""
        self.steps += 1
        if self.steps % self.every == 0:
            self.factor = min(self.factor + self.rate, self.limit)

    @property
    def finished(self) -> bool:
        """Whether the factors have grown to their limit."""
        return self.factor >= self.limit

    def focus(self, drop: Mapping[str, Tensor], limit: float) -> None:
        """Go on with these positions only, up to another limit; the others are free again."""
        self.drop, self.limit = drop, limit

    def state_dict(self) -> dict[str, Any]:
        """All there is to save in a checkpoint."""
        drop = None if self.drop is None else {name: mask.cpu() for name, mask in self.drop.items()}
        numbers = {"rate": self.rate, "every": self.every, "limit": self.limit}
        return {"drop": drop, **numbers, "steps": self.steps, "factor": self.factor}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Growth:
        """The growth that was saved."""
        return cls(**state)


def growing_penalty(groups: TrainingGroups, module: nn.Module, growth: Growth) -> Tensor:
    """``factor / 2 * sum of s[k]`` over the positions to drop, a scalar; call ``growth.step()`` after each step.

    Raises:
        UsageError: ``growth.drop`` is for other groups.
    """
    squares = groups.squares(module)
    if growth.drop is not None:
        squares = squares * groups.join(growth.drop).to(squares)
    return growth.factor / 2 * squares.sum()
