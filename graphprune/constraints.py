"""What a choice of positions must respect, and what that means for the groups of a program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from graphprune.axes import Leaf
from graphprune.budget import Budget
from graphprune.cost import CostModel
from graphprune.curves import Curves
from graphprune.errors import TargetError, UsageError
from graphprune.ledger import ledger
from graphprune.patterns import Names
from graphprune.score.normalize import Normalizer
from graphprune.structure import Group, Structure
from graphprune.text import operator
from graphprune.units import Unit

__all__ = ["MAX_RATIO", "Constraints", "Scope", "candidates", "check", "lock_text", "ratios_of"]

Scope = Literal["auto", "local", "global"]

MAX_RATIO = 0.95
"""A layer of one channel breaks a network long before its other layers are used up."""


@dataclass(frozen=True, slots=True)
class Constraints:
    """What a choice must respect.

    ``scope``: ``local``, ``global``, or ``auto``: local for a ratio, global for targets.
    ``round_to``: kept widths of groups larger than it are multiples of it, or of the number that ``multiples`` has for
    the group. ``min_width``: positions that every group
    keeps at least. ``exclude``: patterns of groups left alone. ``ratios``: pattern -> share to remove of these groups,
    whatever the budget; later patterns override earlier ones, and ``shares``, the same by leaf, all of them.
    ``units``: only groups of these roles are cut (all, if empty), each with a ratio of its own, which the ratio of a
    pattern overrides, and bounds of its own.
    ``normalizer``: how scores of different groups are brought to scale (:mod:`graphprune.score.normalize`).
    ``max_ratio``: the share that a group loses at most where a ranking decides, that is under scope ``global`` or a
    target; a group that is asked for by a ratio of its own is taken at its word.
    """

    scope: Scope = "auto"
    round_to: int = 1
    min_width: int = 1
    exclude: Sequence[str] = ()
    ratios: Mapping[str, float] = field(default_factory=dict)
    shares: Mapping[Leaf, float] = field(default_factory=dict)
    units: Mapping[str, Unit] = field(default_factory=dict)
    normalizer: str = "max"
    max_ratio: float = MAX_RATIO
    multiples: Mapping[Leaf, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.scope not in ("auto", "local", "global"):
            raise UsageError(f"scope '{self.scope}' is unknown; there are: auto, local, global")
        for name, value in (("round-to", self.round_to), ("minimum width", self.min_width)):
            if value < 1:
                raise UsageError(f"{name} {value} is out of range: it must be at least 1")
        for pattern, ratio in self.ratios.items():
            if not 0 <= ratio <= 1:
                raise UsageError(f"ratio {ratio:g} for '{pattern}' is out of range: it must be between 0 and 1")
        if not 0 < self.max_ratio <= 1:
            raise UsageError(f"maximum ratio {self.max_ratio:g} is out of range: it must be above 0 and at most 1")
        Normalizer(self.normalizer)


def check(
    structure: Structure, cost: CostModel, budget: Budget, constraints: Constraints, curves: Curves | None = None
) -> None:
    """Refuse what no scores can make a choice of, before they are computed.

    Raises:
        TargetError: no group may be cut.
        UsageError: a pattern matches nothing, a role does not occur, the scope leaves no choice, or curves are of
            another network.
    """
    if curves is not None:
        curves.check(structure)
    if constraints.scope == "local" and (curves is not None or budget.latency is not None):
        what = "a latency" if curves is None else "curves"
        raise UsageError(f"scope local gives each group the same share, and {what} each its own: leave one out")
    candidates(structure, constraints, cost)
    ratios_of(structure, constraints)


def candidates(structure: Structure, constraints: Constraints, cost: CostModel) -> list[Group]:
    """The groups that may be cut; ``cost`` tells what holds the others.

    Raises:
        TargetError: there is none.
        UsageError: a pattern matches nothing, or a role does not occur.
    """
    groups = structure.groups
    if not groups:
        raise TargetError(f"nothing to prune: no weight has an axis that may be cut{lock_text(cost)}")
    known = sorted({group.role for group in groups})
    for role in constraints.units:
        if role not in known:
            raise UsageError(f"no group has the role '{role}'; there are: {', '.join(known)}")
    excluded: set[Leaf] = set()
    names = Names(structure) if constraints.exclude else None
    for pattern in constraints.exclude:
        assert names is not None
        excluded |= names.match(pattern)
    chosen = [
        group
        for group in groups
        if group.leaf not in excluded and (not constraints.units or group.role in constraints.units)
    ]
    if not chosen:
        raise TargetError(f"nothing to prune: all {len(groups)} groups are excluded")
    return chosen


def ratios_of(structure: Structure, constraints: Constraints) -> dict[Leaf, float]:
    """The groups that have a ratio of their own.

    Raises:
        UsageError: a pattern matches nothing.
    """
    if not constraints.ratios:
        return dict(constraints.shares)
    names = Names(structure)
    found = {leaf: ratio for pattern, ratio in constraints.ratios.items() for leaf in names.match(pattern)}
    return found | dict(constraints.shares)


def lock_text(cost: CostModel) -> str:
    """What keeps most of a program from being cut, to end a message with; nothing where that is little."""
    entries = ledger(cost)
    if not entries or entries[0].share < 0.005:
        return ""
    first = entries[0]
    return f"; the largest lock is {operator(first.op)} '{first.node}' ({first.reason}), {100 * first.share:.3g}%"
