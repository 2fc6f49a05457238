"""Widths rounded up: positions that come back so that what is left has a width that a machine likes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graphprune.axes import Leaf
from graphprune.score.base import Scores
from graphprune.selection import Selection
from graphprune.structure import Structure

__all__ = ["padded"]


def padded(
    structure: Structure, selection: Selection, scores: Scores, multiples: Mapping[Leaf, int]
) -> Selection | None:
    """``selection`` with the widths of groups rounded up to ``multiples``; None where they are such multiples already.

    The positions of the highest scores come back first, the first of equal ones. A width never exceeds what it was.
    """
    keep = dict(selection.keep)
    for group in structure.groups:
        mask, multiple = selection.mask(group.leaf), multiples.get(group.leaf, 1)
        width = int(np.count_nonzero(mask))
        missing = min(-width % multiple, group.size - width)
        if not missing:
            continue
        gone = np.flatnonzero(~mask)
        back = gone[np.lexsort((gone, -scores[group.leaf][gone]))][:missing]
        filled = mask.copy()
        filled[back] = True
        keep[group.leaf] = filled
    found = {leaf: mask for leaf, mask in keep.items() if not mask.all()}
    same = found.keys() == selection.keep.keys() and all(
        np.array_equal(mask, selection.keep[leaf]) for leaf, mask in found.items()
    )
    return None if same else Selection(structure.space, found)
