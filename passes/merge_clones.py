"""Merge clones: the inverse of the cloning that canonicalisation does, for those that are still equal."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from graphprune.passes.base import Context, Pass, Report, register
from graphprune.passes.clones import merge_clones

__all__ = ["MergeClones"]


@register
@dataclass(frozen=True)
class MergeClones(Pass):
    """Let uses of one constant share it again where they still agree."""

    def run(self, model: ir.Model, context: Context) -> Report:
        """Merge."""
        count = merge_clones(model)
        return Report(bool(count), {"merged clones": count} if count else {})
