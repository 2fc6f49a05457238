"""Whether a model is nearer to the dense one with new weights than with its own, on inputs that stand for real ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from graphprune.calibration.evaluate import tokens_of
from graphprune.calibration.fidelity import fidelity
from graphprune.calibration.observe import Calibration
from graphprune.calibration.remembered import Remembered
from graphprune.frontends.program import Host
from graphprune.frontends.weight_access import get_weight, set_weight

__all__ = ["Judge", "put"]


class Judge:
    """Measures how far a model is from the dense one: the relative error of its outputs, the largest of them; with
    ``classes`` the divergence (KL) of an output that scores classes, if there is one.

    On inputs that are made up the error tells better than the divergence which weights do well on real ones: a
    network that gives one class to all noise agrees with another by chance.
    """

    def __init__(self, dense: Host, feeds: Sequence[Any], *, classes: bool = False) -> None:
        self._classes = classes
        self._tokens = bool(feeds) and tokens_of(feeds[0]) is not None
        self._feeds = list(feeds)
        self._dense = Remembered(Calibration(dense, self._feeds))

    def distance(self, slim: Host) -> float:
        """The distance, infinite where an output is no number."""
        found = fidelity(self._dense, Calibration(slim, self._feeds), tokens=self._tokens)
        figure = found.kl if self._classes and found.kl is not None else found.relative_error
        return math.inf if figure is None or not math.isfinite(figure) else figure


def put(host: Host, weights: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[np.floating[Any]]]:
    """Replace weights, and return the ones that were there."""
    old = {name: get_weight(host, name) for name in weights}
    try:
        for name, array in weights.items():
            set_weight(host, name, array)
    except Exception:
        for name, array in old.items():
            set_weight(host, name, array)
        raise
    return old
