"""Groups by name: of the group itself, of a tensor or one of its dimensions, or of a node."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from graphprune.axes import Axis, Leaf
from graphprune.errors import UsageError
from graphprune.structure import Structure

__all__ = ["Names"]


class Names:
    """Everything that the groups of ``structure`` can be called by.

    A tensor stands for the groups of all its dimensions, ``tensor:dim`` for those of one, a node for the groups that
    it makes (those of its weights that its input does not have; all of them where there are no others).
    """

    def __init__(self, structure: Structure) -> None:
        self._structure = structure
        self._groups = {group.leaf for group in structure.groups}
        self._leaves: dict[str, set[Leaf]] = {}
        for group in structure.groups:
            self._add(group.name, {group.leaf})
        for tensor, axes in structure.tensors.items():
            for dim, axis in enumerate(axes or ()):
                leaves = self._of([axis])
                self._add(tensor, leaves)
                self._add(f"{tensor}:{dim}", leaves)
        for call in structure.calls:
            weights: set[Leaf] = set()
            inputs: set[Leaf] = set()
            for operand in call.operands:
                if operand is not None:
                    (weights if operand.constant else inputs).update(self._of(operand.axes or ()))
            self._add(call.node, weights - inputs or weights or inputs)

    def _of(self, axes: Iterable[Axis]) -> set[Leaf]:
        return {leaf for axis in axes for leaf in self._structure.leaves(axis) if leaf in self._groups}

    def _add(self, name: str, leaves: set[Leaf]) -> None:
        self._leaves.setdefault(name, set()).update(leaves)

    def match(self, pattern: str) -> set[Leaf]:
        """The groups that ``pattern`` (shell wildcards) names.

        Raises:
            UsageError: nothing in the program has such a name.
        """
        if pattern in self._leaves:
            return self._leaves[pattern]
        found = [leaves for name, leaves in self._leaves.items() if fnmatchcase(name, pattern)]
        if not found:
            raise UsageError(f"pattern '{pattern}' matches no tensor, node or group of the model; see 'inspect'")
        return set[Leaf]().union(*found)
