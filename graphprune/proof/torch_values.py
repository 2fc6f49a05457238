"""Other values for the weights of a PyTorch program, made where they are used and the same for the same seed.

Each is a function from the name of a weight and its value to another value of the same shape: :func:`poison` changes
what a selection removes, :func:`perturb` everything by about the size of rounding, and :func:`reseed` gives weights
that hide a cut (those that were cut, and all that are zero) random values.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch

from graphprune.frontends.torch_slice import kept_part
from graphprune.proof.torch_graphs import attribute
from graphprune.proof.torch_run import Values
from graphprune.rules.call import Axes
from graphprune.selection import Selection
from graphprune.structure import Structure

__all__ = ["chained", "kept", "only_cut", "perturb", "poison", "reseed"]

SMALL = 16
"""Weights of fewer elements are not perturbed: they may be bounds or epsilons, in which an exact number is meant."""

POOL = 4093  # prime, so that repeating it does not align with any dimension
DEEP_POOL = 65521

FAINT = 1e-2
"""A weight that is this small everywhere is one that training starts from (a branch scaled by 1e-6), not a result."""


def chained(*steps: Values) -> Values:
    """One function after the other."""

    def values(name: str, tensor: torch.Tensor) -> torch.Tensor:
        for step in steps:
            tensor = step(name, tensor)
        return tensor

    return values


def poison(structure: Structure, selection: Selection, seed: int = 0) -> Values:
    """Other values at the removed positions of all weights, taken from elsewhere in the same weight and enlarged.

    Such values are ones that the operators accept (a variance stays positive). Integers of more than eight bits stay,
    since they are places in a table.
    """

    def values(name: str, tensor: torch.Tensor) -> torch.Tensor:
        axes = _cut(structure, selection, name)
        if axes is None or not _poisonable(tensor):
            return tensor
        generator = _generator(seed, name)
        flat = tensor.reshape(-1)
        pool = flat[_drawn(generator, flat.numel(), min(flat.numel(), POOL)).to(flat.device)]
        if tensor.is_floating_point():
            grown = pool * (1.5 + 1.5 * torch.rand(pool.shape, generator=generator)).to(pool)
            pool = torch.where(grown.isfinite(), grown, pool)
            pool = torch.where(pool == 0, (0.5 + 0.5 * torch.rand(pool.shape, generator=generator)).to(pool), pool)
        removed = torch.zeros((), dtype=torch.bool)
        for dim, axis in enumerate(axes):
            mask = torch.from_numpy(~selection.mask(axis))
            removed = removed | mask.reshape([-1] + [1] * (len(axes) - 1 - dim))
        return torch.where(removed.to(tensor.device), _repeated(pool, tensor), tensor)

    return values


def perturb(size: float, seed: int = 0) -> Values:
    """Every floating-point weight changed by a relative ``size`` with random sign."""

    def values(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.numel() < SMALL or not tensor.is_floating_point():
            return tensor
        signs = 2.0 * _drawn(_generator(seed, name), 2, POOL) - 1
        return tensor * _repeated((1 + size * signs).to(tensor), tensor)

    return values


def reseed(structure: Structure, selection: Selection, seed: int = 0) -> Values:
    """Random values for every weight that is cut, and for every parameter that is almost zero throughout.

    A layer that starts from zero (a head, the last scale of a residual branch) hides what happens before it.
    """

    def values(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point() or not tensor.numel():
            return tensor
        stored = structure.parameters.get(name)
        faint = stored is not None and stored.counts and float(tensor.abs().max()) < FAINT
        if _cut(structure, selection, name) is None and not faint:
            return tensor
        return _random(tensor, _generator(seed, name), faint)

    return values


def only_cut(structure: Structure, selection: Selection, cut: Values, others: Values) -> Values:
    """The function ``cut`` for weights that are cut, ``others`` for the others."""
    return lambda name, tensor: (others if _cut(structure, selection, name) is None else cut)(name, tensor)


def kept(original: torch.nn.Module, structure: Structure, selection: Selection, values: Values) -> Values:
    """For the weights of a slim program the kept parts of what ``values`` makes of the original's."""

    def part(name: str, tensor: torch.Tensor) -> torch.Tensor:
        axes = structure.tensors.get(name)
        if name not in structure.parameters or axes is None:
            return tensor
        whole = attribute(original, name)
        assert isinstance(whole, torch.Tensor)
        return kept_part(values(name, whole.detach()), axes, selection)

    return part


def _cut(structure: Structure, selection: Selection, name: str) -> Axes | None:
    axes = structure.tensors.get(name) if name in structure.parameters else None
    return axes if any(map(selection.cuts, axes or ())) else None


def _poisonable(tensor: torch.Tensor) -> bool:
    return bool(tensor.is_floating_point() or tensor.is_complex() or tensor.element_size() == 1)


def _random(tensor: torch.Tensor, generator: torch.Generator, faint: bool) -> torch.Tensor:
    """A tensor's own values in another order; where they are equal or faint, values that keep a signal at its scale."""
    flat = tensor.reshape(-1)
    own = flat[:DEEP_POOL]
    if not faint and bool((own != own[0]).any()):
        pool = own[torch.randperm(own.numel(), generator=generator).to(own.device)]
    elif tensor.ndim > 1 and len(tensor) > 1:
        pool = torch.randn(DEEP_POOL, generator=generator) * float(np.sqrt(2 * len(tensor) / tensor.numel()))
    elif faint:
        pool = 0.5 + 0.5 * torch.rand(POOL, generator=generator)
        pool = pool * torch.sign(torch.rand(POOL, generator=generator) - 0.25)
    elif own[0] == 0:
        pool = 0.1 * torch.randn(POOL, generator=generator)
    else:
        pool = own[0].float().cpu() * (0.5 + torch.rand(POOL, generator=generator))
    return _repeated(pool.to(tensor), tensor)


def _repeated(pool: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The values of ``pool`` over and over, in the shape of ``like``."""
    times = -(-like.numel() // max(1, pool.numel()))
    return pool.repeat(times)[: like.numel()].reshape(like.shape)


def _drawn(generator: torch.Generator, below: int, count: int) -> torch.Tensor:
    return torch.randint(0, max(1, below), (count,), generator=generator)


def _generator(seed: int, name: str) -> torch.Generator:
    return torch.Generator().manual_seed(seed + zlib.crc32(name.encode()))
