"""What was removed, given to what was kept, from weights alone.

A removed input ``p`` of a layer is written as a combination of kept ones, ``x_p ~ sum_k s_k x_k``, and its columns of
the weight are added to theirs: ``W_k += s_k W_p``. Coefficients follow from the second moments ``M`` that
:class:`~graphprune.compensation.likeness.Likeness` tells (``K`` kept):

- ``lbyl``: all kept positions, by ridge regression, ``s = (M_KK + ridge I)^-1 M_Kp`` (after LBYL, "Leave Before You
  Leave", 2022, which compares filters where this compares what becomes of them behind the activation);
- ``nearest``: the one kept position that is most parallel to it, ``s = M_kp / M_kk`` (neuron merging, Kim et al. 2020,
  https://arxiv.org/abs/2010.13160).

A position that is a positive multiple of a kept one is merged into it exactly, whatever the method.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from graphprune.compensation.likeness import Blocked, Likeness, Moments, is_depthwise
from graphprune.frontends.program import Host
from graphprune.frontends.weight_access import get_weight, is_editable
from graphprune.layers import Layer
from graphprune.selection import Selection
from graphprune.structure import Structure

__all__ = ["Merged", "Merging", "combination", "merge"]

Merging: TypeAlias = Literal["lbyl", "nearest"]
Numbers: TypeAlias = npt.NDArray[np.float64]

PARALLEL = 1e-6
"""How far from 1 the likeness of two positions may be that count as multiples of each other; weights are float32."""


@dataclass(slots=True)
class Merged:
    """New weights by name, how many positions were merged and how many of them exactly, and why layers were left."""

    weights: dict[str, Numbers] = field(default_factory=dict)
    layers: int = 0
    positions: int = 0
    parallel: int = 0
    left: Counter[str] = field(default_factory=Counter)


def merge(
    before: Host, structure: Structure, selection: Selection, after: Host, method: Merging, ridge: float
) -> Merged:
    """New weights for ``after``, which ``selection`` has left of ``before``; nothing is changed."""
    likeness = Likeness(structure, before)
    result = Merged()
    readers = Counter(operand.name for call in structure.calls for operand in call.operands if operand is not None)
    together: dict[str, list[Layer]] = {}
    for layer in likeness.layers:
        together.setdefault(layer.weight, []).append(layer)
    for weight, alike in together.items():
        if not all(isinstance(layer.inputs.size, int) and selection.cuts(layer.inputs) for layer in alike):
            continue
        try:
            if readers[weight] != len(alike):
                raise Blocked("a weight that other operators read too")
            _merge_weight(likeness, selection, after, alike, method, ridge, result)
        except Blocked as reason:
            result.left[str(reason)] += len(alike)
    return result


def _merge_weight(
    likeness: Likeness,
    selection: Selection,
    after: Host,
    alike: list[Layer],
    method: Merging,
    ridge: float,
    result: Merged,
) -> None:
    """Merge inputs of the layers that have one weight, by the moments of all of them."""
    layer = alike[0]
    if not is_editable(likeness.host, layer.weight) or not is_editable(after, layer.weight):
        raise Blocked("a weight that is no floating-point number")
    old = get_weight(likeness.host, layer.weight).astype(np.float64)
    if is_depthwise(layer, old):
        return
    moments = [likeness.moments(each.x, each.x_dim) for each in alike]
    blocks = _Blocks(layer, old, moments[0], selection)
    if any((each.outer, each.inner, len(each.mean)) != blocks.layout for each in moments[1:]):
        raise Blocked("layers with one weight that read different layouts")
    second, removed = _shared(moments), 0
    added = np.zeros((*blocks.kept_outputs, blocks.outer, int(blocks.keep[0].sum()), blocks.inner))
    for group, keep in enumerate(blocks.keep):
        own = slice(group * len(keep), (group + 1) * len(keep))
        s, parallel = combination(second[own, own], keep, method, ridge)
        gone = blocks.weight[group][blocks.outputs[group]][:, :, ~keep]
        added[group] = np.einsum("oapi,kp->oaki", gone, s)
        removed += s.shape[1]
        result.parallel += parallel
    current = get_weight(after, layer.weight).astype(np.float64)
    matrix = layer.form.matrix(current)
    result.weights[layer.weight] = layer.form.weight(matrix + added.reshape(matrix.shape), current)
    result.layers += len(alike)
    result.positions += removed


def _shared(moments: list[Moments]) -> Numbers:
    """Second moments of the inputs of several layers, each of which counts the same."""
    seconds = [each.second() for each in moments]
    scales = [float(np.trace(second)) for second in seconds]
    return np.asarray(sum(second / (scale or 1.0) for second, scale in zip(seconds, scales, strict=True)))


class _Blocks:
    """A layer's weight by group, output, and input ``outer x position x inner``, and what of each is kept."""

    def __init__(self, layer: Layer, weight: Numbers, moments: Moments, selection: Selection) -> None:
        matrix = layer.form.matrix(weight)
        groups, outputs, features = matrix.shape
        count = len(moments.mean)
        self.layout = (moments.outer, moments.inner, count)
        self.outer, self.inner = moments.outer, moments.inner * layer.form.taps
        if count % groups or groups * features != self.outer * count * self.inner or (groups > 1 and self.outer > 1):
            raise Blocked("a product whose sides are not followed")
        self.weight = matrix.reshape(groups, outputs, self.outer, count // groups, self.inner)
        mask = selection.mask(layer.inputs).reshape(self.outer, count, moments.inner)
        if (mask != mask[:1, :, :1]).any():
            raise Blocked("positions are cut in part")
        self.keep = mask[0, :, 0].reshape(groups, -1)
        self.outputs = selection.mask(layer.outputs).reshape(groups, outputs)
        sums, made = self.keep.sum(1), self.outputs.sum(1)
        if (sums != sums[0]).any() or (made != made[0]).any() or not sums[0] or not made[0]:
            raise Blocked("groups that are cut unequally")
        self.kept_outputs = (groups, int(made[0]))


def combination(second: Numbers, keep: npt.NDArray[np.bool_], method: Merging, ridge: float) -> tuple[Numbers, int]:
    """Coefficients (kept, removed) from second moments, and how many removed positions are multiples of kept ones.

    ``ridge`` is relative to the mean of the diagonal. A position that is always zero has none.
    """
    kept, gone = np.flatnonzero(keep), np.flatnonzero(~keep)
    s = np.zeros((len(kept), len(gone)))
    own, across = np.diag(second), second[np.ix_(kept, gone)]
    alive = own[gone] > 0
    if not len(gone) or not (own[kept] > 0).any():
        return s, 0
    norms = np.sqrt(np.outer(own[kept], own[gone]))
    cosines = np.where(norms > 0, across / np.where(norms > 0, norms, 1), -1)
    best, columns = cosines.argmax(0), np.arange(len(gone))
    parallel = columns[alive & (cosines[best, columns] > 1 - PARALLEL)]
    if method == "nearest":
        use = columns[alive & (across[best, columns] > 0)]
        s[best[use], use] = across[best[use], use] / own[kept[best[use]]]
    else:
        block = second[np.ix_(kept, kept)]
        s = np.linalg.solve(block + ridge * np.trace(block) / len(kept) * np.eye(len(kept)), across)
        s[:, parallel] = 0
    s[best[parallel], parallel] = np.sqrt(own[gone[parallel]] / own[kept[best[parallel]]])
    return s, len(parallel)
