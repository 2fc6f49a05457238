"""The operators that a stored graph may call: an allow-list, since the graph may come from anyone.

Operators of PyTorch, of torchvision and those that the rule table knows by name compute with tensors; others touch
files, load libraries or call back into Python. Those of a package of one's own are allowed once a rule is bound to them.
"""

from __future__ import annotations

from typing import Any

import torch

from graphprune.errors import ModelError
from graphprune.rules.table import table

__all__ = ["higher_order_named", "operator_named"]

_SPACES = frozenset({"aten", "prims", "torchvision", "quantized_decomposed"})
_NOT_OPERATORS = frozenset({"onnx", "com", "ai", "torch", "higher_order"})
"""Spaces of the rule table that are not namespaces of PyTorch's operators."""

_FILES = frozenset({"aten.from_file", "aten.save", "aten.load", "torchvision.read_file", "torchvision.write_file"})

_HIGHER_ORDER = frozenset(
    {
        "associative_scan",
        "autograd_function_apply",
        "cond",
        "flex_attention",
        "foreach_map",
        "hints_wrapper",
        "invoke_subgraph",
        "map_impl",
        "out_dtype",
        "scan",
        "strict_mode",
        "tag_activation_checkpoint",
        "while_loop",
        "wrap",
        "wrap_activation_checkpoint",
        "wrap_with_autocast",
        "wrap_with_set_grad_enabled",
    }
)
"""Those that run graphs, and nothing but graphs."""


def operator_named(text: str) -> torch._ops.OpOverload:
    """The operator that ``text`` names with its overload: ``aten.add.Tensor``.

    Raises:
        ModelError: it is not allowed in a stored graph, or nothing registered it.
    """
    space, _, rest = text.partition(".")
    name, _, overload = rest.rpartition(".")
    if not all(part.isascii() and part.isidentifier() for part in (space, name, overload)):
        raise ModelError(f"there is no operator '{text}'")
    if f"{space}.{name}" in _FILES:
        raise ModelError(f"the operator '{text}' is not allowed in a stored graph: it touches files")
    if space not in _allowed():
        raise ModelError(
            f"the operator '{text}' is not allowed in a stored graph; "
            f"bind a rule to '{space}.{name}' before loading, if you trust it"
        )
    packet = getattr(getattr(torch.ops, space), name, None)
    found = getattr(packet, overload, None) if isinstance(packet, torch._ops.OpOverloadPacket) else None
    if not isinstance(found, torch._ops.OpOverload):
        raise ModelError(f"there is no operator '{text}': import the package that registers it before loading")
    return found


def higher_order_named(name: str) -> Any:
    """The operator ``name`` among those that take graphs.

    Raises:
        ModelError: it is not allowed in a stored graph, or this version of PyTorch does not have it.
    """
    if name not in _HIGHER_ORDER:
        raise ModelError(f"the operator 'higher_order.{name}' is not allowed in a stored graph")
    found = getattr(torch.ops.higher_order, name, None)
    if not isinstance(found, torch._ops.HigherOrderOperator):
        raise ModelError(f"this version of PyTorch has no operator 'higher_order.{name}'")
    return found


def _allowed() -> frozenset[str]:
    return _SPACES | ({name.partition(".")[0] for name in table()} - _NOT_OPERATORS)
