"""The two sides of an ATen row: the call cut by the writer, and the call on masked or gathered operands."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

import torch

from graphprune.frontends.torch_slice import kept_part, slice_module
from graphprune.rules.call import Axes
from graphprune.rules.positions import POSITIONS
from graphprune.selection import Selection
from rules.aten_sample import AtenReading, AtenSample

Tensors = list["torch.Tensor | None"]


def erased(sample: AtenSample, reading: AtenReading, selection: Selection) -> Tensors:
    """The results on operands without the removed positions, as the writer leaves the call."""
    module = sample.copy()
    slice_module(module, reading.structure, selection)
    inputs = {node.name for node in sample.module.graph.nodes if node.op == "placeholder"}
    sliced = {
        name: kept_part(sample.tensors[name], axes, selection)
        for name in inputs
        if (axes := reading.structure.tensors[name]) is not None
    }
    for name, mask in _counted(sample, reading, selection):
        sliced[name] = sliced[name] % int(mask.sum())
    results = sample.run(module, sliced)
    for value, own in zip(results, reading.results, strict=True):
        if value is not None and own is not None:
            expected = [int(selection.count(axis)) for axis in own]  # type: ignore[call-overload]
            assert list(value.shape) == expected, f"{list(value.shape)} where the rule says {expected}"
    return results


def zeroed(
    sample: AtenSample, reading: AtenReading, selection: Selection, masks: bool = True, as_sums: bool = False
) -> Tensors:
    """The kept results on whole operands: summed positions masked, positions under a statistic gathered.

    Without ``masks`` nothing is masked and nothing gathered: removed positions hold what they hold. With ``as_sums``
    statistics are treated as sums.
    """
    call, space = reading.call, reading.space
    tensors = dict(sample.tensors)
    for name, mask in _counted(sample, reading, selection):
        tensors[name] = mask.nonzero().flatten()[tensors[name].long() % int(mask.sum())].to(tensors[name])
    gathered = [mix for mix in call.mixes if mix.kind == "statistics"] if masks and not as_sums else []
    seen = {leaf for mix in gathered for leaf in space.leaves(mix.axis)}
    statistics = Selection(space, {leaf: kept for leaf, kept in selection.keep.items() if leaf in seen})
    for mix in call.mixes if masks else ():
        if mix.kind == "sum" or as_sums:
            own = set(space.leaves(mix.axis))
            only = Selection(space, {leaf: kept for leaf, kept in selection.keep.items() if leaf in own})
            for number, dim in mix.operands:
                name, axes = _operand(reading, number)
                tensor = tensors[name]
                mask = torch.from_numpy(only.mask(axes[dim]).copy())
                assert dim >= 0, "dimensions of mixes are counted from the front"
                mask = mask.reshape([-1] + [1] * (tensor.dim() - 1 - dim))
                tensors[name] = torch.where(mask, tensor, torch.zeros_like(tensor))
    for number, dim in {place for mix in gathered for place in mix.operands}:
        name, axes = _operand(reading, number)
        assert dim >= 0, "dimensions of mixes are counted from the front"
        mask = torch.from_numpy(statistics.mask(axes[dim]).copy())
        tensors[name] = tensors[name].index_select(dim, mask.nonzero().flatten())
    module = sample.copy() if statistics.keep else sample.module
    if statistics.keep:
        slice_module(module, reading.structure, statistics)
    results = sample.run(module, tensors)
    for number, dim in {place for mix in gathered for place in mix.results}:
        value, own = results[number], reading.results[number]
        if value is None:
            continue
        assert own is not None
        mask = torch.from_numpy(statistics.mask(own[dim]).copy())
        shape = list(value.shape)
        shape[dim] = len(mask)
        results[number] = value.new_zeros(shape).index_copy(dim, mask.nonzero().flatten(), value)
    if not masks:
        return sliced(results, reading.results, selection)
    among_kept = {number for mix in gathered for number in mix.positions}
    return _renumbered(sliced(results, reading.results, selection), reading, selection, among_kept)


def _counted(sample: AtenSample, reading: AtenReading, selection: Selection) -> Iterator[tuple[str, torch.Tensor]]:
    """The operands that hold positions along an axis, and what is kept of it: they hold kept ones only."""
    for name, operand in zip(reading.operands, reading.call.operands, strict=True):
        meaning = operand.meaning if operand is not None else None
        if name in sample.numbers and meaning is not None and meaning.kind == POSITIONS:
            yield name, torch.from_numpy(selection.mask(meaning.axis).copy())


def _renumbered(tensors: Tensors, reading: AtenReading, selection: Selection, among_kept: Container[int]) -> Tensors:
    """Results that count all positions of an axis count what is kept of it, as the results ``among_kept`` do."""
    for number, meaning in reading.call.meanings.items():
        value = tensors[number]
        if meaning.kind == POSITIONS and number not in among_kept and value is not None:
            mask = torch.from_numpy(selection.mask(meaning.axis).copy())
            tensors[number] = (mask.cumsum(0) - 1)[value.long()].to(value.dtype)
    return tensors


def sliced(tensors: Sequence[torch.Tensor | None], axes: Sequence[Axes | None], selection: Selection) -> Tensors:
    """Tensors without the positions of their axes that are removed."""
    return [
        tensor if tensor is None or own is None else kept_part(tensor, own, selection)
        for tensor, own in zip(tensors, axes, strict=True)
    ]


def _operand(reading: AtenReading, number: int) -> tuple[str, Axes]:
    name, operand = reading.operands[number], reading.call.operands[number]
    assert name is not None
    assert operand is not None
    assert operand.axes is not None
    return name, operand.axes
