"""Makes scores of unlike groups comparable, which a ranking across groups needs.

Layers differ in fan-in and scale, so raw sums would empty whole layers. A normaliser is one to three words joined by
``/``, in this order:

- a *scale*: each group's scores are divided by a statistic of their own; parts of one original axis (equal ``pool``)
  share it, since a part may be a single position. ``max`` is the default: a group whose scores are all alike is left
  alone, one with a long tail of weak positions loses them. On CIFAR-10 networks cut to 85 % of their MACs without
  training it left the most accuracy by far (ResNet-20 90.7 % of the training images, with the mean 86.0 %; ResNet-56
  99.8 % and 92.7 %). Without a scale the scores stay raw.
- a *cost*: scores are divided by what one position costs in the whole program: ``macs`` by its multiply-accumulates
  (``params`` and ``bytes`` likewise), ``memory`` by the elements that it adds to the results of operators (Group
  Fisher, Liu et al. 2021, arXiv 2108.00708). A position is then worth keeping by what it gives for its price. One that
  costs nothing counts as costing 1.
- ``class``: a position's score becomes its rank among all positions of its group's class, from 0 to 1, so that each
  class loses the same share and scores are compared within classes only (isomorphic pruning, Fang et al. 2024, arXiv
  2407.04616). Groups are of one class if the same operators hold them in the same operands and dimensions, in the same
  order (:func:`classes`).

Or it is the one word ``losses``: scores are losses that add up, in one unit for all groups, as those of ``obs`` are.
Nothing is ranked then: how much of each group goes is searched for, so that their sum is least within the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from graphprune.axes import Leaf
from graphprune.cost import CostModel
from graphprune.errors import UsageError
from graphprune.score.base import Scores
from graphprune.score.positions import Numbers
from graphprune.structure import Structure

__all__ = ["CLASS", "COSTS", "LOSSES", "NORMALIZERS", "Normalizer", "classes", "costs", "normalize"]


def _divided(values: Numbers, by: float) -> Numbers:
    return values / by if by else np.zeros_like(values)


NORMALIZERS: dict[str, Callable[[Numbers], Numbers]] = {
    "mean": lambda values: _divided(values, float(values.mean())),
    "max": lambda values: _divided(values, float(np.abs(values).max())),
    "sum": lambda values: _divided(values, float(values.sum())),
    "standard": lambda values: _divided(values - values.mean(), float(values.std())),
    "none": lambda values: values,
}
"""How a group's scores are brought to scale, by name; ``standard`` has mean 0 and deviation 1."""

COSTS = ("macs", "params", "bytes", "memory")
CLASS = "class"
LOSSES = "losses"


class Normalizer:
    """What a text such as ``max``, ``macs``, ``class``, ``max/memory/class`` or ``losses`` asks for.

    Raises:
        UsageError: it is none, or its words are in another order.
    """

    def __init__(self, text: str) -> None:
        self.losses = text == LOSSES
        words = ["none"] if self.losses else text.split("/")
        self.scale = words.pop(0) if words[0] in NORMALIZERS else "none"
        self.cost = words.pop(0) if words and words[0] in COSTS else None
        self.by_class = bool(words) and words[0] == CLASS
        if words[self.by_class :]:
            known = ", ".join((*sorted(NORMALIZERS), *COSTS, CLASS, LOSSES))
            raise UsageError(
                f"no normaliser is called '{text}'; there are: {known}, and a scale, a cost and class joined by '/', "
                "such as max/macs"
            )


def normalize(scores: Scores, by: str = "max", cost: CostModel | None = None) -> Scores:
    """``scores`` on a common scale; ``cost`` is the program's, which costs and classes need.

    Raises:
        UsageError: ``by`` is no normaliser.
    """
    asked = Normalizer(by)
    pools = _pools(scores)
    found: Scores = {}
    for leaves in pools.values():
        found.update(_together(NORMALIZERS[asked.scale], scores, leaves))
    if asked.cost is not None:
        assert cost is not None
        prices = costs(cost, asked.cost)
        # A score below zero must fall, not rise, with the price; only `standard` makes such scores.
        found = {leaf: np.where(own < 0, own * prices[leaf], own / prices[leaf]) for leaf, own in found.items()}
    if asked.by_class:
        assert cost is not None
        members: dict[object, list[Leaf]] = {}
        kinds = classes(cost.structure)
        for leaves in pools.values():
            kind = frozenset(kinds[leaf] for leaf in leaves)
            members.setdefault(kind, []).extend(leaves)
        values = found
        found = {}
        for leaves in members.values():
            found.update(_together(_ranks, values, leaves))
    return {leaf: found[leaf] for leaf in scores}


def _pools(scores: Scores) -> dict[int, list[Leaf]]:
    pools: dict[int, list[Leaf]] = {}
    for leaf in scores:
        pools.setdefault(leaf.pool, []).append(leaf)
    return pools


def _together(change: Callable[[Numbers], Numbers], scores: Scores, leaves: list[Leaf]) -> Scores:
    """The scores of several leaves, changed as if they were one."""
    values = change(np.concatenate([scores[leaf] for leaf in leaves]))
    borders = np.cumsum([len(scores[leaf]) for leaf in leaves])[:-1]
    return dict(zip(leaves, np.split(values, borders), strict=True))


def _ranks(values: Numbers) -> Numbers:
    """The share of positions below each, equal ones sharing their ranks.

    >>> _ranks(np.array([5.0, 1.0, 1.0, 7.0])).tolist()
    [0.625, 0.25, 0.25, 0.875]
    """
    unique, place, count = np.unique(values, return_inverse=True, return_counts=True)
    middle = (np.cumsum(count) - count / 2) / max(len(values), 1)
    return np.asarray(middle[place.reshape(-1)] if len(unique) else values, np.float64)


def costs(cost: CostModel, by: str) -> dict[Leaf, float]:
    """What one position of each group costs: what is saved where one goes and everything else stays; at least 1."""
    if by != "memory":
        whole = getattr(cost.total, by)
        return {
            group.leaf: max(1, whole - getattr(cost.at({group.leaf: group.size - 1}), by))
            for group in cost.structure.groups
        }
    activations = cost.activations
    held = activations.elements(cost.extents({}))
    return {
        group.leaf: max(1, held - activations.elements(cost.extents({group.leaf: group.size - 1})))
        for group in cost.structure.groups
    }


def classes(structure: Structure) -> Mapping[Leaf, int]:
    """The class of each group, numbered in reading order.

    Groups are of one class if they have the same role and the calls that hold them are, in reading order, the same
    operators with the group in the same dimensions of the same operands and results. Positions that take the same part
    in the same kind of sub-network have comparable scores.
    """
    uses: dict[Leaf, list[tuple[str, int, int]]] = {group.leaf: [] for group in structure.groups}
    for call in structure.calls:
        operands = [None if operand is None else operand.axes for operand in call.operands]
        results = [structure.tensors.get(name) for name in call.results]
        for number, axes in enumerate((*operands, *results)):
            for dim, axis in enumerate(axes or ()):
                for leaf in structure.leaves(axis):
                    if leaf in uses:
                        uses[leaf].append((call.op, number, dim))
    numbers: dict[object, int] = {}
    return {
        group.leaf: numbers.setdefault((group.role, tuple(uses[group.leaf])), len(numbers))
        for group in structure.groups
    }
