"""What tests of the PyTorch host share: small programs, cut at random or where they are told."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import nn

from graphprune.frontends.torch_program import TorchProgram, capture
from graphprune.selection import Selection
from graphprune.structure import Structure

__all__ = ["keeping", "program", "random_selection"]


def program(module: nn.Module, *args: Any, **kwargs: Any) -> TorchProgram:
    """The program of ``module`` on example inputs."""
    return capture(module, args, kwargs)


def random_selection(structure: Structure, seed: int = 0, ratio: float = 0.5) -> Selection:
    """A selection that removes about ``ratio`` of each group's positions, never all."""
    generator = np.random.default_rng(seed)
    keep = {}
    for group in structure.groups:
        mask = generator.random(group.size) >= ratio
        mask[generator.integers(group.size)] = True
        keep[group.leaf] = mask
    return Selection(structure.space, keep)


def keeping(structure: Structure, tensor: str, dim: int, kept: Iterable[int]) -> Selection:
    """A selection that keeps positions ``kept`` of the one leaf of a tensor's dimension, and all else."""
    axis = structure.axis(tensor, dim)
    (leaf,) = structure.leaves(axis)
    assert not leaf.pinned, structure.pins(axis)
    mask = np.zeros(int(leaf.size), dtype=np.bool_)  # type: ignore[arg-type]
    mask[list(kept)] = True
    return Selection(structure.space, {leaf: mask})
