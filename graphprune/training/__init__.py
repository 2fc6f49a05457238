"""Training with pruning in mind: plain functions on PyTorch modules, for any training loop.

- :mod:`~graphprune.training.groups`: what stands or falls together in a module that is being trained.
- :mod:`~graphprune.training.regularize`: penalties to add to a loss, and a step to take after the optimizer's.
- :mod:`~graphprune.training.schedule`: ratios over time, and the loop of pruning and tuning.
- :mod:`~graphprune.training.distill`: losses that compare with the dense network, and the dense network as a teacher.
"""

from graphprune.training.distill import Teacher, distillation_loss, feature_loss
from graphprune.training.groups import TrainingGroups, group_norms, groups_of
from graphprune.training.regularize import (
    Growth,
    batch_norm_penalty,
    group_lasso,
    growing_penalty,
    proximal_step,
    scaled_penalty,
    weakest,
)
from graphprune.training.schedule import cubic, iterate

__all__ = [
    "Growth",
    "Teacher",
    "TrainingGroups",
    "batch_norm_penalty",
    "cubic",
    "distillation_loss",
    "feature_loss",
    "group_lasso",
    "group_norms",
    "groups_of",
    "growing_penalty",
    "iterate",
    "proximal_step",
    "scaled_penalty",
    "weakest",
]
