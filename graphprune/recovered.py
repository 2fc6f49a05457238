"""The dense program with the weights that were chosen for the slim one: masked, it is what the slim one must equal."""

from __future__ import annotations

import numpy as np

from graphprune.frontends.program import Host
from graphprune.frontends.weight_access import get_weight, is_editable, set_weight
from graphprune.passes.pipeline import parse_pipeline
from graphprune.plan import Plan
from graphprune.selection import Selection
from graphprune.structure import Structure

__all__ = ["RECOVERIES", "recovers", "take_weights"]

RECOVERIES = frozenset({"compensate", "merge", "recalibrate"})
"""Passes that choose weights anew after a cut."""


def recovers(plan: Plan) -> bool:
    """Whether the pipeline that made a plan chose weights anew."""
    text = str(plan.options.get("pipeline", ""))
    return any(step.name in RECOVERIES for step in parse_pipeline(text)) if text else False


def take_weights(dense: Host, slim: Host, structure: Structure, selection: Selection) -> None:
    """Give ``dense``, in place, the weights of ``slim`` at the positions that it keeps; others stay as they are."""
    for name in structure.parameters:
        axes = structure.tensors.get(name)
        if axes is None or not is_editable(dense, name) or not is_editable(slim, name):
            continue
        whole, part = get_weight(dense, name), get_weight(slim, name)
        kept = np.ix_(*(selection.positions(axis) for axis in axes))
        if whole[kept].shape == part.shape:
            whole[kept] = part
            set_weight(dense, name, whole)
