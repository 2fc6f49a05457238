"""Our passes among ``onnx_ir``'s, and ``onnx_ir``'s among ours."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import onnx_ir as ir

from graphprune.errors import UsageError
from graphprune.passes.base import Context, Pass, Report, run_passes
from graphprune.passes.canonicalize import Canonicalize
from graphprune.passes.eliminate_dead_nodes import EliminateDeadNodes
from graphprune.passes.merge_clones import MergeClones
from graphprune.passes.prune import Prune
from graphprune.passes.verify import Verify

__all__ = ["AsIrPass", "FromIrPass", "PruneIrPass"]


class AsIrPass(ir.passes.InPlacePass):
    """One of our passes as an ``onnx_ir`` pass, for its ``Sequential`` and ``PassManager``."""

    def __init__(self, step: Pass, context: Context | None = None) -> None:
        super().__init__()
        self.step = step
        self.context = Context() if context is None else context

    def requires(self, model: ir.Model) -> None:
        """Check that the passes our pass requires have run in the same context."""
        for required in self.step.requires:
            if not self.context.ran(required):
                raise ir.passes.PreconditionError(f"pass '{self.step.name}' needs '{required}' before it")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Run our pass on ``model``."""
        return ir.passes.PassResult(model, self.step(model, self.context).modified)


class PruneIrPass(ir.passes.InPlacePass):
    """Pruning as one ``onnx_ir`` pass: what :class:`~graphprune.passes.prune.Prune` removes is gone, and proven.

    ``Sequential(PruneIrPass(macs="50%"), ...)``; the options are those of ``Prune``, and ``verify`` says whether the
    slim model must be shown to compute what the masked one does. ``context`` holds the decision after a call.
    """

    def __init__(self, *, verify: bool = True, context: Context | None = None, **options: Any) -> None:
        super().__init__()
        known = [each.name for each in fields(Prune)]
        if unknown := sorted(options.keys() - set(known)):
            raise UsageError(f"PruneIrPass has no option '{unknown[0]}'; it has: verify, context, {', '.join(known)}")
        self.steps: list[Pass] = [Canonicalize(), Prune(**options)]
        self.steps += [Verify()] if verify else []
        self.steps += [EliminateDeadNodes(), MergeClones()]
        self.context = context

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Prune ``model``.

        Raises what :func:`graphprune.prune` raises, wrapped by ``onnx_ir``; the model is then no longer what it was.
        """
        self.context = Context() if self.context is None else self.context
        before = len(self.context.reports)
        run_passes(model, self.steps, self.context)
        return ir.passes.PassResult(model, any(report.modified for _, report in self.context.reports[before:]))


@dataclass(frozen=True)
class FromIrPass(Pass):
    """An in-place ``onnx_ir`` pass as a step of our pipelines."""

    inner: ir.passes.PassBase

    def run(self, model: ir.Model, context: Context) -> Report:
        """Run the ``onnx_ir`` pass.

        Raises:
            UsageError: when it returns another model instead of changing the one it was given.
        """
        if not self.inner.in_place:
            raise UsageError(f"{type(self.inner).__name__} is not in place: graphprune pipelines change one model")
        return Report(self.inner(model).modified)
