"""Pruning as a pass of Microsoft Olive, which other passes of its workflows come before and after.

``GraphprunePass`` is that pass; asking for it imports Olive (the extra ``olive``), and importing this module does
not. A workflow finds it by a package configuration::

    {"passes": {"GraphprunePass": {"module_path": "graphprune.olive.GraphprunePass", "supported_providers": ["*"],
                                   "supported_accelerators": ["*"], "supported_precisions": ["*"]}}}

and uses it as ``{"type": "GraphprunePass", "macs": "50%"}``. Its options are those of :func:`graphprune.prune`; what is
not proven, or not met, is an error of the workflow.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphprune.errors import ModelError
from graphprune.text import first_line

if TYPE_CHECKING:
    GraphprunePass: type[Any]

__all__ = ["OPTIONS"]

OPTIONS: dict[str, tuple[Any, str]] = {
    "ratio": (float, "Share of positions to remove."),
    "macs": (str, "Multiply-accumulates to keep, such as 50%."),
    "params": (str, "Parameters to keep."),
    "bytes": (str, "Bytes of weights to keep."),
    "peak": (str, "Bytes of activations alive at once to keep."),
    "latency": (str, "Latency to keep, measured where the workflow runs: 50% or 8ms."),
    "criterion": (str, "How positions are judged."),
    "recipe": (str, "Criterion, normaliser and compensation together."),
    "calibration": (str, "Calibration inputs: an .npz, an .npy, a folder of pictures, or 'synthetic'."),
    "compensate": (str, "How the weights that are left make up for what is gone."),
    "round_to": (str, "Widths are multiples of this number, or 'auto'."),
    "exclude": (list, "Patterns of tensors, operators or groups that are left alone."),
    "threads": (int, "Threads that latency is measured with."),
    "gate": (bool, "Whether the result must be shown to be faster."),
}
"""The options, with their types, that a workflow may set; none of them has to be."""


@cache
def _made() -> type[Any]:
    """The class; Olive registers it as it is made.

    Raises:
        ModelError: Olive is not installed.
    """
    try:
        from olive.model import ONNXModelHandler
        from olive.model.utils import resolve_onnx_path
        from olive.passes import Pass
        from olive.passes.pass_config import PassConfigParam
    except Exception as error:  # it imports what is installed beside it, and that may be broken
        raise ModelError(f"Olive does not import ({first_line(error)}); pip install 'graphprune[olive]'") from None
    from graphprune.api import prune

    class GraphprunePass(Pass):  # type: ignore[misc]
        """Structured pruning by graphprune: what is cut is gone, and the rest is proven to compute the same."""

        @classmethod
        def _default_config(cls, accelerator_spec: Any) -> dict[str, Any]:
            return {
                name: PassConfigParam(type_=kind, default_value=None, description=what)
                for name, (kind, what) in OPTIONS.items()
            }

        def _run_for_config(self, model: Any, config: Any, output_model_path: str) -> Any:
            given = {name: getattr(config, name, None) for name in OPTIONS}
            options = {name: value for name, value in given.items() if value is not None}
            rounding = options.get("round_to")
            if rounding is not None and rounding != "auto":
                options["round_to"] = int(rounding)
            path = Path(resolve_onnx_path(output_model_path, Path(model.model_path).name))
            path.parent.mkdir(parents=True, exist_ok=True)
            prune(model.model_path, output=path, **options)
            return ONNXModelHandler(model_path=path.parent, onnx_file_name=path.name)

    GraphprunePass.__module__ = __name__
    GraphprunePass.__qualname__ = "GraphprunePass"
    return GraphprunePass


def __getattr__(name: str) -> Any:
    if name != "GraphprunePass":
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return _made()
