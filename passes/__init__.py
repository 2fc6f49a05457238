"""Passes: steps that change a model in place, alone or in a pipeline."""

from __future__ import annotations

from graphprune.passes.base import Context, Decision, Pass, Report, passes, register, run_passes
from graphprune.passes.canonicalize import Canonicalize, canonicalize
from graphprune.passes.compensate import Compensate
from graphprune.passes.depth import Depth
from graphprune.passes.eliminate_dead_nodes import EliminateDeadNodes
from graphprune.passes.interop import AsIrPass, FromIrPass, PruneIrPass
from graphprune.passes.lossless import Lossless
from graphprune.passes.merge import Merge
from graphprune.passes.merge_clones import MergeClones
from graphprune.passes.movement_to_gather import MovementToGather
from graphprune.passes.pipeline import format_pipeline, make_pass, parse_pipeline
from graphprune.passes.prune import Prune
from graphprune.passes.recalibrate import Recalibrate
from graphprune.passes.set_training import SetTraining
from graphprune.passes.verify import Verify

__all__ = [
    "AsIrPass",
    "Canonicalize",
    "Compensate",
    "Context",
    "Decision",
    "Depth",
    "EliminateDeadNodes",
    "FromIrPass",
    "Lossless",
    "Merge",
    "MergeClones",
    "MovementToGather",
    "Pass",
    "Prune",
    "PruneIrPass",
    "Recalibrate",
    "Report",
    "SetTraining",
    "Verify",
    "canonicalize",
    "format_pipeline",
    "make_pass",
    "parse_pipeline",
    "passes",
    "register",
    "run_passes",
]
