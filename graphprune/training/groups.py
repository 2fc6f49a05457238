"""The groups of a module that is being trained, as index arrays over its live parameters.

A module is captured once; afterwards each norm is a few tensor operations on the parameters that the optimizer sees,
differentiable, on whichever device they are. All positions of all groups are numbered in one sequence: with ``S`` the
sums of squares along every dimension that a group has a part in, one after the other,

    ``s[number[j]] += S[index[j]]``   for all j

gives the squared norm of what goes with each position. A position that stands at several places of a dimension (after a
flattening, or in a concatenation) occurs several times. A weight that lies in a row of one group and in a column of
another counts for both.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graphprune.errors import ModelError, TargetError, UsageError
from graphprune.frontends.torch_program import capture, unwrapped
from graphprune.score.positions import Indices, Positions
from graphprune.structure import Slice, Structure
from graphprune.training.modes import evaluating

__all__ = ["TrainingGroups", "group_norms", "groups_of"]


@dataclass(frozen=True)
class TrainingGroups:
    """Which slices of which parameters stand or fall together.

    ``sizes``: group name -> number of its positions, as :func:`graphprune.inspect` names and orders them.
    ``slices``: the dimensions of parameters that groups have a part in, and ``extents`` their sizes.
    ``index`` and ``number``: what the module's docstring says. ``elements``: for each position how many weights go with
    it. ``scales``: names of the parameters that are scales of a BatchNorm.
    """

    sizes: Mapping[str, int]
    slices: tuple[Slice, ...]
    extents: tuple[int, ...]
    index: Indices
    number: Indices
    elements: Indices
    scales: frozenset[str]
    _tensors: dict[torch.device, tuple[Tensor, Tensor, Tensor, Tensor]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def total(self) -> int:
        """How many positions all groups have."""
        return len(self.elements)

    @property
    def owner(self) -> Indices:
        """For each position the number of its group."""
        return np.repeat(np.arange(len(self.sizes)), list(self.sizes.values()))

    def on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``index``, ``number``, ``elements`` and ``owner`` on a device."""
        if device not in self._tensors:
            arrays = (self.index, self.number, self.elements, self.owner)
            index, number, elements, owner = (torch.from_numpy(array).to(device) for array in arrays)
            self._tensors[device] = (index, number, elements, owner)
        return self._tensors[device]

    def split(self, values: Tensor) -> dict[str, Tensor]:
        """Values of all positions, shape (total,), by group."""
        return dict(zip(self.sizes, values.split(list(self.sizes.values())), strict=True))

    def join(self, values: Mapping[str, Tensor]) -> Tensor:
        """The opposite of :meth:`split`.

        Raises:
            UsageError: a group is missing, or has another number of positions.
        """
        for name, size in self.sizes.items():
            if name not in values or values[name].shape != (size,):
                raise UsageError(f"group '{name}' needs one value for each of its {size} positions")
        return torch.cat([values[name] for name in self.sizes])

    def parameters(self, module: nn.Module) -> dict[str, nn.Parameter]:
        """The live parameters that groups have a part in; wrappers that distribute or compile are looked through.

        Raises:
            ModelError: a parameter is missing or has another shape than when the groups were read.
        """
        module, _ = unwrapped(module)
        found: dict[str, nn.Parameter] = {}
        for place, extent in zip(self.slices, self.extents, strict=True):
            if place.tensor not in found:
                found[place.tensor] = _parameter(module, place.tensor)
            shape = found[place.tensor].shape
            if place.dim >= len(shape) or shape[place.dim] != extent:
                raise ModelError(
                    f"parameter '{place.tensor}' has shape {tuple(shape)} where dimension {place.dim} had {extent} "
                    "positions when the groups were read; call groups_of again"
                )
        return found

    def squares(self, module: nn.Module) -> Tensor:
        """The squared L2 norm of what goes with each position, shape (total,), differentiable; at least float32."""
        parameters = self.parameters(module)
        device = next(iter(parameters.values())).device
        sums: list[Tensor] = []
        for name, places in itertools.groupby(self.slices, key=lambda place: place.tensor):
            weight = parameters[name]
            wide = weight if weight.dtype.itemsize >= 4 else weight.float()
            square = wide.square()
            for place in places:
                others = [dim for dim in range(square.dim()) if dim != place.dim]
                sums.append((square.sum(others) if others else square).to(device))
        index, number, _, _ = self.on(device)
        values = torch.cat(sums)[index]
        return torch.zeros(self.total, dtype=values.dtype, device=device).index_add(0, number, values)


def groups_of(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> TrainingGroups:
    """The groups of ``module``, found by exporting it on example inputs; the module is not changed.

    It is read in evaluation mode and left in its own. Read the groups again after pruning.

    Raises:
        ModelError: ``torch.export`` cannot export the module.
        TargetError: nothing in it can be pruned.
    """
    module, _ = unwrapped(module)
    with evaluating(module):
        structure = capture(module, args, kwargs).read()
    if not structure.groups:
        raise TargetError(
            "nothing to prune: no weight has an axis that may be cut; 'inspect' says which operators pin them"
        )
    positions = Positions(structure)
    slices: list[Slice] = []
    extents: list[int] = []
    index: list[Indices] = []
    number: list[Indices] = []
    elements = np.zeros(positions.total, np.intp)
    for parameter in structure.counted:
        axes = structure.tensors[parameter.name] or ()
        for dim, axis in enumerate(axes):
            places = positions.places(axis)
            if not len(places.number):
                continue
            slices.append(Slice(parameter.name, dim))
            index.append(places.index + sum(extents))
            extents.append(int(axis.size))  # type: ignore[arg-type]
            number.append(places.number)
            counts = np.bincount(places.number, minlength=positions.total)
            elements += counts * (parameter.elements // extents[-1])
    groups = TrainingGroups(
        {group.name: group.size for group in structure.groups},
        tuple(slices),
        tuple(extents),
        np.concatenate(index),
        np.concatenate(number),
        elements,
        _scales(structure),
    )
    groups.parameters(module)
    return groups


def group_norms(groups: TrainingGroups, module: nn.Module) -> dict[str, Tensor]:
    """For each group, ``s[k]``: the sum over its slices W of ``||W[k]||_2^2``, shape (size,), differentiable.

    DepGraph's group norm (Fang et al. 2023, https://arxiv.org/abs/2301.12900).
    """
    return groups.split(groups.squares(module))


def _parameter(module: nn.Module, name: str) -> nn.Parameter:
    try:
        return module.get_parameter(name)
    except AttributeError:
        raise ModelError(
            f"the module has no parameter '{name}'; give the one that the groups are of, or call groups_of again"
        ) from None


def _scales(structure: Structure) -> frozenset[str]:
    """Parameters that a BatchNorm multiplies by."""
    normalizations = [call for call in structure.calls if call.op.startswith("aten.") and "batch_norm" in call.op]
    operands = [call.operand(1) for call in normalizations]
    return frozenset(each.name for each in operands if each is not None and each.name in structure.parameters)
