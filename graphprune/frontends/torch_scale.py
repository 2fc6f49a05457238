"""Attentions whose scale follows from the width of their heads: the same results with the scale of a narrower head.

``scaled_dot_product_attention(q, k, v)`` multiplies by ``1 / sqrt(width)``. A cut of the width leaves the products as
they are, so the scale must stay that of the original width; but code that leaves it out cannot say so. As

    a * (q . k)  =  b * ((a / b) q . k)

the difference can go into what makes ``q``: the rows of a linear layer, or the weights of a normalisation of ``q``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import fx

from graphprune.frontends.torch_calls import arguments, names_of, put, walk

__all__ = ["DEFAULT_SCALE", "move_scales"]

DEFAULT_SCALE = "graphprune.default_scale"
"""Mark of attentions whose scale was left to the operator, in the metadata of a node."""

_MOVEMENT = frozenset(
    f"aten.{name}"
    for name in (
        "view", "reshape", "_unsafe_view", "permute", "transpose", "select", "unbind", "split", "split_with_sizes",
        "chunk", "slice", "contiguous", "clone", "unsqueeze", "squeeze", "flatten", "unflatten", "alias", "detach",
        "narrow", "t", "movedim", "expand",
    )
)  # fmt: skip

_NORMS = {"aten.layer_norm": ("weight", "bias"), "aten.rms_norm": ("weight",)}
_LINEAR = {"aten.linear": -1, "aten.conv1d": 1, "aten.conv2d": 1, "aten.conv3d": 1}
"""The dimension of their result that the rows of their weight make."""


def move_scales(graph: fx.GraphModule, skip: Iterable[str] = ()) -> int:
    """Let attentions that had the default scale have that of their heads' width now; returns how many changed.

    Parameters of the graph are written to. Attentions made by modules called as in ``skip``, and those whose ``q`` is
    not made by a layer that can take a factor, keep the scale they have.
    """
    left_out = set(skip)
    changed = 0
    touched: set[tuple[int, int]] = set()
    for _, node, owner in list(walk(graph)):
        if not node.meta.get(DEFAULT_SCALE):
            continue
        paths = [str(path).partition("@")[0] for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
        query = node.args[0]
        stated = query.meta.get("val") if isinstance(query, fx.Node) else None
        if not isinstance(stated, torch.Tensor) or not isinstance(stated.shape[-1], int) or left_out & set(paths):
            continue
        old, new = float(arguments(node)["scale"]), 1.0 / math.sqrt(stated.shape[-1])
        if math.isclose(old, new, rel_tol=1e-9):
            continue
        assert isinstance(query, fx.Node)
        if _multiply(owner, query, old / new, touched):
            put(node, "scale", new)
            changed += 1
    return changed


def _multiply(graph: fx.GraphModule, query: fx.Node, factor: float, touched: set[tuple[int, int]]) -> bool:
    """Multiply what makes ``query`` by ``factor``; tells whether that could be done."""
    chain: list[fx.Node] = []
    node = query
    while True:
        name = names_of(node.target)[-1] if node.op == "call_function" else ""
        if name in _NORMS:
            return _scale(graph, node, _NORMS[name], None, factor, touched)
        if name in _LINEAR:
            rows = _rows(node, chain, _LINEAR[name])
            return rows is not None and _scale(graph, node, ("weight", "bias"), rows, factor, touched)
        if name not in _MOVEMENT and not name.endswith("getitem"):
            return False
        chain.append(node)
        source = node.args[0]
        if not isinstance(source, fx.Node):
            return False
        node = source


def _rows(layer: fx.Node, chain: list[fx.Node], dim: int) -> torch.Tensor | None:
    """Which of a layer's outputs arrive at the end of a chain of movements: numbers are sent along it."""
    stated = layer.meta.get("val")
    if not isinstance(stated, torch.Tensor):
        return None
    shape = [_number(size) for size in stated.shape]
    numbers = torch.arange(shape[dim])
    view = [1] * len(shape)
    view[dim] = -1
    values: dict[fx.Node, Any] = {layer: numbers.reshape(view).expand(shape).contiguous()}

    def value(node: fx.Node) -> Any:
        return values[node] if node in values else _number(node.meta["val"])

    try:
        for node in reversed(chain):
            args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), value)
            values[node] = node.target(*args, **kwargs)  # type: ignore[operator]
    except (RuntimeError, TypeError, KeyError, IndexError, ValueError):
        return None
    end = values[chain[0]] if chain else values[layer]
    return torch.unique(end) if isinstance(end, torch.Tensor) else None


def _number(size: Any) -> int:
    return int(size) if isinstance(size, int) else int(size.node.hint)


def _scale(
    graph: fx.GraphModule,
    layer: fx.Node,
    names: Iterable[str],
    rows: torch.Tensor | None,
    factor: float,
    touched: set[tuple[int, int]],
) -> bool:
    """Multiply rows of a layer's parameters, which no other call may use."""
    given = arguments(layer)
    tensors: list[torch.Tensor] = []
    for name in names:
        node = given.get(name)
        if node is None:
            continue
        if not isinstance(node, fx.Node) or node.op != "get_attr":
            return False
        uses = [each for each in graph.graph.nodes if each.op == "get_attr" and each.target == node.target]
        if sum(len(each.users) for each in uses) != 1:
            return False
        value: Any = graph
        for part in str(node.target).split("."):
            value = getattr(value, part)
        if not isinstance(value, torch.Tensor):
            return False
        tensors.append(value)
    keys = {(id(tensor), int(row)) for tensor in tensors for row in (rows if rows is not None else [0])}
    if not tensors or keys & touched:
        return False
    touched |= keys
    with torch.no_grad():
        for tensor in tensors:
            if rows is None:
                tensor.mul_(factor)
            else:
                tensor[rows.to(tensor.device)] *= factor
    return True
