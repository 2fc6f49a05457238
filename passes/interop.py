"""Our passes among ``onnx_ir``'s, and ``onnx_ir``'s among ours."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from graphprune.errors import UsageError
from graphprune.passes.base import Context, Pass, Report

__all__ = ["AsIrPass", "FromIrPass"]


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
