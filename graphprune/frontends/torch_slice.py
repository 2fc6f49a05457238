"""Carries a selection out on the graph of a PyTorch program: slices parameters and rewrites what spells a size."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx, nn

from graphprune.axes import Axis
from graphprune.errors import ModelError
from graphprune.frontends.renumbering import renumbered
from graphprune.frontends.settlement import can_infer
from graphprune.frontends.torch_calls import Place, Sequences, arguments, binding_of, places, put, walk
from graphprune.rules.call import AttributeTarget, Axes, Call, IndexSite, InputTarget, LengthSite
from graphprune.selection import Selection
from graphprune.sizes import Size
from graphprune.structure import Structure

__all__ = ["kept_part", "slice_module", "slice_tensors"]


def slice_module(module: fx.GraphModule, structure: Structure, selection: Selection) -> bool:
    """Remove from ``module``, in place, all positions that ``selection`` does not keep; tells whether any went.

    ``structure`` must have been read from this module.

    Raises:
        ModelError: a number in the graph cannot be made to spell the new size.
    """
    nodes = {label: (node, owner) for label, node, owner in walk(module)}
    changed = slice_tensors(module, structure, selection)
    for call in structure.calls:
        if call.sites:
            changed |= _Sites(*nodes[call.node], call, selection).rewrite()
    if changed:
        restate = _Restated(structure, selection)
        for label, (node, _) in nodes.items():
            restate(node, label)
        for owner in {id(owner): owner for _, owner in nodes.values()}.values():
            owner.graph.lint()
            owner.recompile()
    return changed


def slice_tensors(module: nn.Module, structure: Structure, selection: Selection) -> bool:
    """Slice the parameters and buffers of ``module`` that ``structure`` names; tied ones stay tied."""
    changed = False
    done: dict[int, torch.Tensor] = {}
    for name in structure.parameters:
        axes = structure.tensors.get(name)
        if not any(map(selection.cuts, axes or ())):
            continue
        path, _, own = name.rpartition(".")
        owner = module.get_submodule(path)
        tensor = getattr(owner, own)
        if id(tensor) not in done:
            done[id(tensor)] = kept_part(tensor, axes or (), selection)
            done[id(done[id(tensor)])] = done[id(tensor)]
        _set(owner, own, done[id(tensor)])
        changed = True
    return changed


def kept_part(tensor: torch.Tensor, axes: Axes, selection: Selection) -> torch.Tensor:
    """The positions of a tensor that survive, as a tensor of the same kind (a parameter stays one)."""
    value = tensor.detach()
    for dim, axis in enumerate(axes):
        if selection.cuts(axis):
            index = torch.from_numpy(np.flatnonzero(selection.mask(axis))).to(value.device)
            value = value.index_select(dim, index)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(value, tensor.requires_grad)
    return value.requires_grad_(tensor.requires_grad)


def _set(owner: nn.Module, name: str, tensor: torch.Tensor) -> None:
    if name in owner._parameters:
        assert isinstance(tensor, nn.Parameter)
        owner._parameters[name] = tensor
    elif name in owner._buffers:
        owner._buffers[name] = tensor
    else:
        setattr(owner, name, tensor)


class _Restated:
    """States the new extents of what nodes make; symbolic dimensions stay as they are.

    Tensors that stand for shapes are slow to make, so those of one shape and type are one.
    """

    def __init__(self, structure: Structure, selection: Selection) -> None:
        self.structure, self.selection = structure, selection
        self._made: dict[tuple[object, ...], torch.Tensor] = {}

    def __call__(self, node: fx.Node, label: str) -> None:
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            node.meta["val"] = self._resized(value, label)
        elif isinstance(value, Sequences):
            node.meta["val"] = type(value)(self._resized(each, f"{label}.{n}") for n, each in enumerate(value))

    def _resized(self, value: object, label: str) -> object:
        axes = self.structure.tensors.get(label)
        if not isinstance(value, torch.Tensor) or axes is None or not any(map(self.selection.cuts, axes)):
            return value
        sizes = [_extent(axis, size, self.selection) for axis, size in zip(axes, value.shape, strict=True)]
        if not all(isinstance(size, int) for size in sizes):
            return value.new_empty(sizes)
        key = (*sizes, value.dtype, value.device, value.requires_grad)
        if key not in self._made:
            self._made[key] = value.new_empty(sizes)
        return self._made[key]


def _extent(axis: Axis, size: int | torch.SymInt, selection: Selection) -> int | torch.SymInt:
    count = selection.count(axis)
    if isinstance(count, int):
        return count
    return size if not selection.cuts(axis) else size * count.coefficient // axis.size.coefficient  # type: ignore[union-attr]


class _Sites:
    """The numbers in one node that spell sizes."""

    def __init__(self, node: fx.Node, owner: fx.GraphModule, call: Call, selection: Selection) -> None:
        self.node, self.owner, self.call, self.selection = node, owner, call, selection
        self.binding = binding_of(node.target)
        self.places = places(node, self.binding, arguments(node))

    def rewrite(self) -> bool:
        """Set all numbers to what they must be; tells whether any changed."""
        changed = False
        for site in self.call.sites:
            if isinstance(site, IndexSite):
                changed |= self._renumber(site)
                continue
            cut = any(map(self.selection.cuts, site.axes if site.whole is None else (site.whole,)))
            if site.whole is not None and not cut:
                continue
            wanted = self._wanted(site)
            if isinstance(site.target, AttributeTarget):
                place = Place(self._spelled(site.target.name), site.target.index)
                if isinstance(wanted, int) and cut:
                    changed |= self._write(place, wanted)
            else:
                changed |= self._operand(site.target, wanted, cut)
        return changed

    def _spelled(self, name: str) -> str:
        source = self.binding.attributes.get(name, name) if self.binding is not None else name
        return source if isinstance(source, str) else name

    def _wanted(self, site: LengthSite) -> Size:
        counts = [self.selection.count(axis) for axis in site.axes]
        if len(counts) == 1 and not site.offset:
            return counts[0]
        return site.offset + sum(count for count in counts if isinstance(count, int))

    def _operand(self, target: InputTarget, wanted: Size, cut: bool) -> bool:
        operand, place = self.call.operand(target.operand), self.places[target.operand]
        assert operand is not None
        assert operand.elements is not None
        assert place is not None
        element = operand.elements[target.index]
        after = element.after(self.selection)
        if after == wanted or (after == element.value and not cut):
            return False
        if not isinstance(wanted, int):
            if not can_infer(self.call.op, operand.elements):
                raise ModelError(
                    f"node '{self.call.node}': argument '{operand.name}' computes a size that does not follow the cut; "
                    "exclude the layers that feed it"
                )
            wanted = -1
        spread = isinstance(arguments(self.node)[place.name], Sequences)
        return self._write(Place(place.name, target.index if spread else None), wanted)

    def _write(self, place: Place, number: int) -> bool:
        value = arguments(self.node)[place.name]
        if place.index is not None and isinstance(value, Sequences):
            numbers = list(value)
            if numbers[place.index] == number:
                return False
            numbers[place.index] = number
            put(self.node, place.name, numbers)
            return True
        if value == number:
            return False
        put(self.node, place.name, number)
        return True

    def _renumber(self, site: IndexSite) -> bool:
        new = renumbered(site, self.selection, np.asarray(self.call.array(site.operand)))
        place = self.places[site.operand]
        if new is not None and place is not None:
            self._replace(place, torch.from_numpy(new))
        return new is not None

    def _replace(self, place: Place, tensor: torch.Tensor) -> None:
        """Let an operand be a constant of its own."""
        number = 0
        while hasattr(self.owner, name := f"_positions_{number}"):
            number += 1
        value: Any = arguments(self.node)[place.name]
        before = value if place.index is None else value[place.index]
        stated = before.meta.get("val")
        device = stated.device if isinstance(stated, torch.Tensor) else torch.device("cpu")
        self.owner.register_buffer(name, tensor.to(device))
        with self.owner.graph.inserting_before(self.node):
            node = self.owner.graph.get_attr(name)
        node.meta["val"] = tensor if stated is None else stated.new_empty(tensor.shape)
        if place.index is not None:
            value = [node if index == place.index else each for index, each in enumerate(value)]
        put(self.node, place.name, node if place.index is None else value)
