"""The two sides of a row: the operator on erased operands, and the operator on masked or gathered ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphprune.axes import Leaf
from graphprune.rules.call import AttributeTarget, IndexSite, LengthSite
from graphprune.selection import Mask, Selection
from rules.sample import Array, Places, Reading, Sample

Arrays = list["Array | None"]


def erased(sample: Sample, reading: Reading, selection: Selection) -> Arrays:
    """The results on operands without the removed positions, sites rewritten."""
    arrays = _sliced(sample.arrays, [operand.axes if operand else None for operand in reading.call.operands], selection)
    for number, mask in _counted(sample, reading, selection):
        array = np.asarray(arrays[number])
        arrays[number] = (array % mask.sum()).astype(array.dtype)
    arrays, attributes = _rewritten(sample, reading, selection, arrays)
    return sample.run(arrays, attributes)


def zeroed(sample: Sample, reading: Reading, selection: Selection, masks: bool = True, as_sums: bool = False) -> Arrays:
    """The kept results on whole operands: summed positions masked, positions under a statistic gathered.

    Without ``masks`` nothing is masked and nothing gathered: removed positions hold what they hold. With ``as_sums``
    statistics are treated as sums.
    """
    call = reading.call
    arrays = list(sample.arrays)
    for number, mask in _counted(sample, reading, selection):
        array = np.asarray(arrays[number])
        arrays[number] = np.flatnonzero(mask)[array.astype(np.int64) % mask.sum()].astype(array.dtype)
    gathered = [mix for mix in call.mixes if mix.kind == "statistics"] if masks and not as_sums else []
    seen = {leaf for mix in gathered for leaf in reading.space.leaves(mix.axis)}
    statistics = Selection(reading.space, {leaf: kept for leaf, kept in selection.keep.items() if leaf in seen})
    for mix in call.mixes if masks else ():
        if mix.kind == "sum" or as_sums:
            own = set(reading.space.leaves(mix.axis))
            only = Selection(reading.space, {leaf: kept for leaf, kept in selection.keep.items() if leaf in own})
            neutral = 0 if mix.neutral is None or call.operand(mix.neutral) is None else arrays[mix.neutral]
            for number, dim in mix.operands:
                array = arrays[number]
                assert array is not None
                operand = call.operands[number]
                assert operand is not None
                assert operand.axes is not None
                mask = only.mask(operand.axes[dim]).reshape([-1] + [1] * (array.ndim - 1 - dim % array.ndim))
                arrays[number] = np.where(mask, array, np.asarray(neutral, array.dtype))
    dims = {place for mix in gathered for place in mix.operands}
    for number, dim in dims:
        operand = call.operands[number]
        assert operand is not None
        assert operand.axes is not None
        arrays[number] = np.compress(statistics.mask(operand.axes[dim]), arrays[number], dim)
    arrays, attributes = _rewritten(sample, reading, statistics, arrays)
    results = sample.run(arrays, attributes)
    for number, dim in {place for mix in gathered for place in mix.results}:
        array, axes = results[number], reading.results[number]
        assert array is not None
        assert axes is not None
        mask = statistics.mask(axes[dim])
        scattered = np.zeros((*array.shape[:dim], len(mask), *array.shape[dim + 1 :]), array.dtype)
        scattered[(slice(None),) * (dim % array.ndim) + (mask,)] = array
        results[number] = scattered
    results = _sliced(results, reading.results, selection)
    among_kept = {number for mix in gathered for number in mix.positions}
    for number, meaning in call.meanings.items() if masks else ():
        array = results[number]
        if number not in among_kept and array is not None:
            results[number] = (np.cumsum(selection.mask(meaning.axis)) - 1)[array.astype(np.int64)].astype(array.dtype)
    return results


def _counted(sample: Sample, reading: Reading, selection: Selection) -> Iterable[tuple[int, Mask]]:
    """The operands that hold positions along an axis, and what is kept of it: they hold kept ones only."""
    for number, (given, operand) in enumerate(zip(sample.operands, reading.call.operands, strict=True)):
        if isinstance(given, Places) and operand is not None and operand.meaning is not None:
            yield number, selection.mask(operand.meaning.axis)


def _sliced(arrays: Sequence[Array | None], axes: Sequence[Any], selection: Selection) -> Arrays:
    result: Arrays = []
    for array, own in zip(arrays, axes, strict=False):
        if array is not None and own is not None:
            assert len(own) == array.ndim, f"{array.shape} has axes {own}"
            for dim, axis in enumerate(own):
                if isinstance(axis.size, int):
                    assert axis.size == array.shape[dim], f"{array.shape} has axes {own}"
                    if selection.cuts(axis):
                        array = np.compress(selection.mask(axis), array, dim)
        result.append(array)
    return result


def _rewritten(
    sample: Sample, reading: Reading, selection: Selection, arrays: Arrays
) -> tuple[Arrays, Mapping[str, Any]]:
    attributes = dict(sample.attributes)
    arrays = list(arrays)
    for site in reading.call.sites:
        if isinstance(site, IndexSite):
            arrays[site.operand] = _renumbered(sample.arrays[site.operand], site, selection)
            continue
        assert isinstance(site, LengthSite)
        number = site.offset + sum(int(selection.count(axis)) for axis in site.axes)  # type: ignore[call-overload, misc]
        if site.whole is not None and not selection.cuts(site.whole):
            continue
        target = site.target
        if isinstance(target, AttributeTarget):
            if target.index is None:
                attributes[target.name] = number
            else:
                spelled = list(attributes[target.name])
                spelled[target.index] = number
                attributes[target.name] = spelled
        else:
            array = np.array(arrays[target.operand])
            array.reshape(-1)[target.index] = number
            arrays[target.operand] = array
    return arrays, attributes


def _renumbered(array: Array | None, site: IndexSite, selection: Selection) -> Array:
    assert array is not None
    mask = selection.mask(site.source)
    new = np.cumsum(mask) - 1
    positions = array.reshape(-1)
    if site.result is not None:
        positions = positions[selection.mask(site.result)]
    renumbered = new[positions].astype(array.dtype)
    return renumbered.reshape(array.shape if site.result is None else (-1,))


def selections(reading: Reading, seed: int) -> Iterable[tuple[list[Leaf], Selection]]:
    """Each free leaf alone with a random proper subset, and all of them at once."""
    generator = np.random.default_rng(seed)

    def keep(leaf: Leaf) -> Array:
        size = int(leaf.size)  # type: ignore[arg-type]
        mask = np.zeros(size, bool)
        least = max((count for axis, count in reading.call.least if reading.space.find(axis) is leaf), default=1)
        mask[generator.choice(size, int(generator.integers(least, size)), replace=False)] = True
        return mask

    leaves = [leaf for leaf in reading.free if isinstance(leaf.size, int) and leaf.size > 1]
    for leaf in leaves:
        yield [leaf], Selection(reading.space, {leaf: keep(leaf)})
    if len(leaves) > 1:
        yield leaves, Selection(reading.space, {leaf: keep(leaf) for leaf in leaves})
