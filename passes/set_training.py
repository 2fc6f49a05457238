"""Set training: switch a PyTorch program between training and evaluation mode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from graphprune.errors import UsageError
from graphprune.passes.base import Context, Pass, Report, register

if TYPE_CHECKING:
    from torch import fx

__all__ = ["SetTraining", "set_training"]


def set_training(module: fx.GraphModule, mode: bool) -> bool:
    """Let a graph train or evaluate, in place; tells whether it changed.

    See :func:`graphprune.frontends.torch_training.set_training`.
    """
    from graphprune.frontends import torch_training

    return torch_training.set_training(module, mode)


@register
@dataclass(frozen=True)
class SetTraining(Pass):
    """Let batch normalisation, dropout and their like train (``mode``), or evaluate.

    Takes a program of PyTorch, or its graph.
    """

    mode: bool = True

    any_host: ClassVar[bool] = True

    def run(self, model: Any, context: Context) -> Report:
        """Switch.

        Raises:
            UsageError: an ONNX model, which has no training mode.
        """
        whole = hasattr(model, "module") and hasattr(model, "source")
        graph = model.module if whole else model
        if not hasattr(graph, "graph") or not hasattr(graph, "recompile"):
            raise UsageError("set-training works on PyTorch programs only: leave it out for an ONNX model")
        changed = set_training(graph, self.mode)
        if whole:
            model.training = self.mode
        return Report(changed)
