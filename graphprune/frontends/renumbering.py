"""Constant positions into an axis, as they are after a cut; both hosts write them back in their own way."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from graphprune.rules.call import IndexSite
from graphprune.selection import Selection

__all__ = ["renumbered"]


def renumbered(site: IndexSite, selection: Selection, old: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """The positions ``old`` of a site, numbered among what is kept; None where the cut leaves them as they are."""
    source = selection.mask(site.source)
    counted = np.where(old < 0, old + len(source), old)
    positions = counted.reshape(-1)
    if site.result is not None:
        positions = positions[selection.mask(site.result)]
    new: npt.NDArray[Any] = (np.cumsum(source) - 1)[positions].astype(old.dtype)
    new = new.reshape(()) if old.ndim == 0 else new
    return None if new.shape == old.shape and np.array_equal(new, counted) else new
