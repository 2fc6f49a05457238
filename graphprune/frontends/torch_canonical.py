"""Spells what an exported graph leaves implicit, so that every size it depends on can be rewritten.

``chunk`` and ``split`` into equal parts become splits into listed sizes, and the default scale of an attention, which
depends on the width, is written out. Guards on the shapes of the example inputs go: a slim graph has other shapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import fx

from graphprune.frontends.torch_calls import arguments, put, walk

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
    if changed:
        for owner in {id(owner): owner for _, _, owner in walk(module)}.values():
            owner.recompile()
    return changed


def _listed(node: fx.Node) -> bool:
    """Spell the sizes of the parts of a split; parts of symbolic size stay as they are."""
    given = arguments(node)
    parts = node.meta.get("val")
    source = given["self"]
    if not isinstance(parts, Sequence) or not isinstance(source, fx.Node):
        return False
    dim = given["dim"]
    sizes = [part.shape[dim] for part in parts]
    if not all(isinstance(size, int) for size in sizes):
        return False
    node.target = aten.split_with_sizes.default
    node.args, node.kwargs = (source, sizes, dim), {}
    return True


def _scaled(node: fx.Node) -> bool:
    """Spell the scale of an attention."""
    given = arguments(node)
    query = given["query"].meta.get("val")
    if given.get("scale") is not None or not isinstance(query, torch.Tensor) or not isinstance(query.shape[-1], int):
        return False
    put(node, "scale", 1.0 / math.sqrt(query.shape[-1]))
    return True


_REWRITES: dict[object, Callable[[fx.Node], bool]] = {
    aten.chunk.default: _listed,
    aten.unsafe_chunk.default: _listed,
    aten.split.Tensor: _listed,
    aten.split.sizes: _listed,
    aten.unsafe_split.Tensor: _listed,
    aten.tensor_split.sections: _listed,
    aten.tensor_split.indices: _listed,
    aten.scaled_dot_product_attention.default: _scaled,
}
