"""Spells what an exported graph leaves implicit, so that every size it depends on can be rewritten.

``chunk`` and ``split`` into equal parts become splits into listed sizes, ``squeeze`` names the dimensions that it
removes, and the default scale of an attention, which depends on the width, is written out. Guards and checks on the
shapes of the example inputs go: a slim graph has other shapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import fx
from torch._C import _functorch as functorch
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from graphprune.frontends.torch_calls import arguments, put, walk
from graphprune.frontends.torch_scale import DEFAULT_SCALE

__all__ = ["canonicalize"]

aten = torch.ops.aten


def canonicalize(module: fx.GraphModule) -> bool:
    """Rewrite ``module`` in place; tells whether anything changed."""
    changed = False
    for _, node, owner in list(walk(module)):
        if node.op == "call_module" and str(node.target) == "_guards_fn":
            owner.graph.erase_node(node)
            owner.delete_submodule("_guards_fn")
            changed = True
        elif node.op == "call_function" and (rewrite := _REWRITES.get(node.target)) is not None:
            changed |= rewrite(node)
        _plain_value(node)
    changed |= _named_apart(module)
    if changed:
        for owner in {id(owner): owner for _, _, owner in walk(module)}.values():
            owner.recompile()
    return changed


def _plain_value(node: fx.Node) -> None:
    """State a value inside ``vmap``, which only that level could read, as one of the same shape.

    Likewise one with sizes that began as symbols, of which the export found out that they are numbers.
    """
    value = inner = node.meta.get("val")
    while isinstance(inner, torch.Tensor) and functorch.is_batchedtensor(inner):
        inner = functorch.get_unwrapped(inner)
    if inner is not value:
        node.meta["val"] = inner.new_empty(value.shape)
    elif isinstance(value, torch.Tensor):
        node.meta["val"] = _settled(value)
    elif isinstance(value, list | tuple):
        parts = [_settled(each) if isinstance(each, torch.Tensor) else each for each in value]
        node.meta["val"] = parts if isinstance(value, list) else tuple(parts)


def _settled(value: torch.Tensor) -> torch.Tensor:
    numbers = [size.node.maybe_as_int() if isinstance(size, torch.SymInt) else None for size in value.shape]
    if all(number is None for number in numbers):
        return value
    sizes = [size if number is None else number for size, number in zip(value.shape, numbers, strict=True)]
    return value.new_empty(sizes)


def _named_apart(module: fx.GraphModule) -> bool:
    """Rename nodes that are called like a stored tensor of the module, or like a module that holds some."""
    stored = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    stored.update(name for name, _ in [*module.named_parameters(), *module.named_buffers()])
    taken = {name[:end] for name in stored for end in (*_dots(name), len(name))}
    changed = False
    for node in module.graph.nodes:
        while node.name in taken and not (node.op == "get_attr" and node.target == node.name):
            node._rename(f"{node.name}_")
            changed = True
    return changed


def _dots(name: str) -> list[int]:
    return [place for place, letter in enumerate(name) if letter == "."]


def _listed(node: fx.Node) -> bool:
    """Spell the sizes of the parts of a split; parts of symbolic size stay as they are."""
    given = arguments(node)
    parts = node.meta.get("val")
    source = given["self"]
    if not isinstance(parts, Sequence) or not isinstance(source, fx.Node):
        return False
    dim = given["dim"] if "dim" in given else _split_dim(node, source)
    sizes = [part.shape[dim] for part in parts]
    if not all(isinstance(size, int) for size in sizes):
        return False
    node.target = aten.split_with_sizes.default
    node.args, node.kwargs = (source, sizes, dim), {}
    return True


def _split_dim(node: fx.Node, source: fx.Node) -> int:
    """The dimension along which ``hsplit``, ``vsplit`` and ``dsplit`` cut."""
    if node.target in (aten.vsplit.int, aten.vsplit.array):
        return 0
    if node.target in (aten.dsplit.int, aten.dsplit.array):
        return 2
    return min(len(source.meta["val"].shape) - 1, 1)


def _squeezed(node: fx.Node) -> bool:
    """Name the dimensions of size 1 that go, so that none goes because a cut leaves one position of it."""
    given = arguments(node)
    source, result = given["self"], node.meta.get("val")
    value = source.meta.get("val") if isinstance(source, fx.Node) else None
    if not isinstance(value, torch.Tensor) or not isinstance(result, torch.Tensor):
        return False
    listed = given.get("dim", range(value.dim()))
    dims = [dim % max(value.dim(), 1) for dim in ([listed] if isinstance(listed, int) else listed)]
    gone = [dim for dim in dims if dim < value.dim() and isinstance(value.shape[dim], int) and value.shape[dim] == 1]
    if result.dim() != value.dim() - len(set(gone)):
        return False  # a size that only a run tells is 1
    if node.target is aten.squeeze.dims and gone == list(listed):
        return False
    node.target = aten.squeeze.dims
    node.args, node.kwargs = (source, gone), {}
    return True


def _unhinted(node: fx.Node) -> bool:
    """Leave out the size of the result, which follows from the repeats."""
    if arguments(node).get("output_size") is None:
        return False
    put(node, "output_size", None)
    return True


def _any_strides(node: fx.Node) -> bool:
    """A view with strides of its own has the values of a reshape."""
    given = arguments(node)
    node.target = aten.reshape.default
    node.args, node.kwargs = (given["self"], given["size"]), {}
    return True


def _erased(node: fx.Node) -> bool:
    """Take out a check, and what computes nothing but its condition."""
    pending = [node]
    while pending:
        current = pending.pop()
        if not current.users and current.op == "call_function":
            operands = list(current.all_input_nodes)
            current.graph.erase_node(current)
            pending.extend(each for each in operands if not isinstance(each.meta.get("val"), torch.Tensor))
    return True


def _unchecked(node: fx.Node) -> bool:
    """Take out a check of sizes; one of a number that the graph reads off data stays."""
    condition = next(iter(arguments(node).values()))
    value = condition.meta.get("val") if isinstance(condition, fx.Node) else condition
    return False if value is None or _of_data(value) else _erased(node)


def _of_data(value: object) -> bool:
    """Whether a number or a truth depends on what tensors hold."""
    inner = getattr(value, "node", None)
    return inner is not None and bool(free_unbacked_symbols(value))


def _scaled(node: fx.Node) -> bool:
    """Spell the scale of an attention."""
    given = arguments(node)
    query = given["query"].meta.get("val")
    if given.get("scale") is not None or not isinstance(query, torch.Tensor) or not isinstance(query.shape[-1], int):
        return False
    put(node, "scale", 1.0 / math.sqrt(query.shape[-1]))
    node.meta[DEFAULT_SCALE] = True
    return True


_REWRITES: dict[object, Callable[[fx.Node], bool]] = {
    aten.chunk.default: _listed,
    aten.unsafe_chunk.default: _listed,
    aten.split.Tensor: _listed,
    aten.split.sizes: _listed,
    aten.unsafe_split.Tensor: _listed,
    aten.tensor_split.sections: _listed,
    aten.tensor_split.indices: _listed,
    aten.hsplit.int: _listed,
    aten.hsplit.array: _listed,
    aten.vsplit.int: _listed,
    aten.vsplit.array: _listed,
    aten.dsplit.int: _listed,
    aten.dsplit.array: _listed,
    aten.squeeze.default: _squeezed,
    aten.squeeze.dim: _squeezed,
    aten.squeeze.dims: _squeezed,
    aten.repeat_interleave.self_int: _unhinted,
    aten._reshape_alias.default: _any_strides,
    aten._assert_tensor_metadata.default: _erased,
    aten._assert_scalar.default: _unchecked,
    aten.sym_constrain_range.default: _unchecked,
    aten.sym_constrain_range_for_size.default: _unchecked,
    aten.scaled_dot_product_attention.default: _scaled,
}
