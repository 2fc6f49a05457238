"""Attentions whose scale follows from the width of their heads: the same results with the scale of a narrower head.

``scaled_dot_product_attention(q, k, v)`` multiplies by ``1 / sqrt(width)``. A cut of the width leaves the products as
they are, so the scale must stay that of the original width; but code that leaves it out cannot say so. As

    a * (q . k)  =  b * ((a / b) q . k)

the difference can go into what makes ``q``: the rows of a linear layer, or the weights of a normalisation of ``q``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import fx

from graphprune.frontends.torch_calls import arguments, attribute, names_of, put, walk

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

_ROWS = (("weight", 0), ("bias", 0))
_NORMS = {"aten.layer_norm": _ROWS, "aten.rms_norm": _ROWS[:1]}
_LINEAR = {
    "aten.linear": (-1, _ROWS),
    "aten.addmm": (-1, (("mat2", 1), ("self", 0))),
    **dict.fromkeys(("aten.conv1d", "aten.conv2d", "aten.conv3d"), (1, _ROWS)),
}
"""The dimension of their result that rows of their parameters make, and which dimension of each these are."""

_SUMS = frozenset(f"aten.{name}" for name in ("add", "sub", "cat", "stack"))
_FACTORS = frozenset(f"aten.{name}" for name in ("mul", "div"))
_PRODUCTS = frozenset(f"aten.{name}" for name in ("matmul", "bmm"))
_HOMOGENEOUS = frozenset(
    f"aten.{name}" for name in ("neg", "relu", "flip", "roll", "max_pool1d", "max_pool2d", "avg_pool2d", "_to_copy")
)
"""Operators that a positive factor passes through, as it does through movement."""


def move_scales(
    graph: fx.GraphModule,
    skip: Iterable[str] = (),
    before: fx.GraphModule | None = None,
    held: Mapping[str, Collection[float]] = MappingProxyType({}),
) -> int:
    """Let attentions that had the default scale have that of their heads' width now; returns how many changed.

    With the graph as it was ``before`` the cut, numbers that are the (reciprocal) square root of the width of ``q`` are
    taken for such scales too, except for those that are ``held`` by the module that computes with them. Parameters of
    the graph are written to. Attentions made by modules called as in ``skip``,
    and those whose ``q`` is not made by a layer that can take a factor, keep the scale they have.
    """
    left_out = set(skip)
    changed = 0
    touched: set[tuple[int, int]] = set()
    widths = {label: _width(node) for label, node, _ in walk(before)} if before is not None else {}
    for label, node, owner in list(walk(graph)):
        paths = [str(path).partition("@")[0] for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
        if left_out & set(paths):
            continue
        scale = _fused(node) if node.meta.get(DEFAULT_SCALE) else None
        if scale is None and widths:
            prefix = label[: len(label) - len(node.name)]
            kept = held.get(paths[-1], ()) if paths else ()
            scale = _spelled(node, lambda each, prefix=prefix: widths.get(prefix + each.name), kept)  # type: ignore[misc]
        if scale is not None and _multiply(owner, scale.query, scale.factor, touched):
            scale.set()
            changed += 1
    return changed


@dataclass(frozen=True, slots=True)
class _Scale:
    """What must be multiplied by what, so that a number in a call may be another."""

    query: fx.Node
    factor: float
    node: fx.Node
    argument: str
    value: float

    def set(self) -> None:
        put(self.node, self.argument, self.value)


def _width(node: object) -> int | None:
    stated = node.meta.get("val") if isinstance(node, fx.Node) else None
    if not isinstance(stated, torch.Tensor) or stated.dim() == 0:
        return None
    return stated.shape[-1] if isinstance(stated.shape[-1], int) else None


def _fused(node: fx.Node) -> _Scale | None:
    """The scale of an attention in one operator."""
    query, width = node.args[0], _width(node.args[0])
    if not isinstance(query, fx.Node) or width is None:
        return None
    old, new = float(arguments(node)["scale"]), width**-0.5
    return None if math.isclose(old, new, rel_tol=1e-9) else _Scale(query, old / new, node, "scale", new)


def _spelled(node: fx.Node, before: Callable[[fx.Node], int | None], kept: Collection[float]) -> _Scale | None:
    """A number that products of queries and keys, or queries, are multiplied or divided by."""
    name = names_of(node.target)[-1] if node.op == "call_function" else ""
    if name not in _FACTORS or len(node.args) != 2 or not isinstance(node.args[0], fx.Node):
        return None
    operand, holder, argument = node.args[1], node, "other"
    if isinstance(operand, fx.Node) and operand.target is torch.ops.aten.full.default and len(operand.users) == 1:
        holder, argument, operand = operand, "fill_value", operand.args[1]
    if not isinstance(operand, float | int) or operand <= 0 or operand in kept:
        return None
    query = node.args[0]
    if names_of(query.target)[-1] in _PRODUCTS and isinstance(query.args[0], fx.Node):
        query = query.args[0]
    old, new = before(query), _width(query)
    if old is None or new is None or old == new:
        return None
    power = next((p for p in (0.5, -0.5) if math.isclose(operand, old**p, rel_tol=1e-6)), None)
    if power is None:
        return None
    value = new**power
    factor = operand / value if name == "aten.mul" else value / operand
    return _Scale(query, factor, holder, argument, value)


def _multiply(graph: fx.GraphModule, query: fx.Node, factor: float, touched: set[tuple[int, int]]) -> bool:
    """Multiply what makes ``query`` by ``factor``; tells whether that could be done."""
    made: dict[fx.Node, fx.Node | None] = {}
    layer = _maker(query, made)
    if layer is None:
        return False
    name = names_of(layer.target)[-1]
    if name in _NORMS:
        return _scale(graph, layer, _NORMS[name], None, factor, touched)
    dim, parameters = _LINEAR[name]
    rows = _rows(layer, query, [node for node, maker in made.items() if maker is layer], dim)
    return rows is not None and _scale(graph, layer, parameters, rows, factor, touched)


def _maker(node: fx.Node, made: dict[fx.Node, fx.Node | None], depth: int = 0) -> fx.Node | None:
    """The one layer that ``node`` is proportional to, None where there is none; ``made`` remembers it of all nodes."""
    if node in made or depth > 64:
        return made.get(node)
    made[node] = None
    if node.op != "call_function":
        return None
    name = names_of(node.target)[-1]
    if name in _NORMS or name in _LINEAR:
        made[node] = node
    elif name in _MOVEMENT or name in _HOMOGENEOUS or name.endswith("getitem"):
        made[node] = _maker(node.args[0], made, depth + 1) if isinstance(node.args[0], fx.Node) else None
    elif name in _SUMS:
        makers = {_maker(each, made, depth + 1) for each in node.all_input_nodes}
        made[node] = makers.pop() if len(makers) == 1 else None
    elif name in _FACTORS:
        operands = node.all_input_nodes if name == "aten.mul" else node.all_input_nodes[:1]
        found = [maker for each in operands if (maker := _maker(each, made, depth + 1)) is not None]
        made[node] = found[0] if len(found) == 1 else None
    return made[node]


def _rows(layer: fx.Node, end: fx.Node, between: list[fx.Node], dim: int) -> torch.Tensor | None:
    """Which of a layer's outputs arrive at ``end``: those that a gradient comes back to."""
    stated = layer.meta.get("val")
    if not isinstance(stated, torch.Tensor):
        return None
    start = torch.rand([_number(size) for size in stated.shape], dtype=torch.float64, requires_grad=True)
    values: dict[fx.Node, Any] = {layer: start}

    def value(node: fx.Node) -> Any:
        if node not in values:
            known = node.meta["val"]
            tensor = isinstance(known, torch.Tensor)
            values[node] = torch.ones([_number(each) for each in known.shape]) if tensor else _number(known)
        return values[node]

    try:
        with torch.enable_grad():
            for node in sorted(between):
                if node is not layer:
                    args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), value)
                    values[node] = node.target(*args, **kwargs)
            (gradient,) = torch.autograd.grad(values[end].square().sum(), start)
    except (RuntimeError, TypeError, KeyError, IndexError, ValueError, AttributeError):
        return None
    seen = (gradient != 0).movedim(dim, 0).flatten(1).any(1) if gradient.dim() > 1 else gradient != 0
    return seen.nonzero().reshape(-1)


def _number(size: Any) -> int:
    return int(size) if isinstance(size, int) else int(size.node.hint)


def _scale(
    graph: fx.GraphModule,
    layer: fx.Node,
    parameters: Iterable[tuple[str, int]],
    rows: torch.Tensor | None,
    factor: float,
    touched: set[tuple[int, int]],
) -> bool:
    """Multiply rows of a layer's parameters, which no other call may use."""
    given = arguments(layer)
    tensors: list[tuple[torch.Tensor, int]] = []
    for name, dim in parameters:
        node = given.get(name)
        if node is None:
            continue
        if not isinstance(node, fx.Node) or node.op != "get_attr":
            return False
        uses = [each for each in graph.graph.nodes if each.op == "get_attr" and each.target == node.target]
        if sum(len(each.users) for each in uses) != 1:
            return False
        value = attribute(graph, str(node.target))
        if not isinstance(value, torch.Tensor):
            return False
        tensors.append((value, dim))
    keys = {(id(tensor), int(row)) for tensor, _ in tensors for row in (rows if rows is not None else [0])}
    if not tensors or keys & touched:
        return False
    touched |= keys
    with torch.no_grad():
        for tensor, dim in tensors:
            if rows is None:
                tensor.mul_(factor)
            else:
                tensor.movedim(dim, 0)[rows.to(tensor.device)] *= factor
    return True
