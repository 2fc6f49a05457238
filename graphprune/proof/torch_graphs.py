"""Copies of exported graphs for comparison: weights are shared, dropout is off, and computation may be wider.

A proof needs several variants of one program. Each is a copy of its nodes, nested graphs included, that shares all
tensors with the original, so that a variant of a large network costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import fx

from graphprune.frontends.torch_calls import Sequences, bodies, names_of, put, walk

__all__ = ["attribute", "copied", "evaluated", "has_half", "set_attribute", "widened", "widest"]

_HALF = frozenset({torch.float16, torch.bfloat16})

_KEEPS_TRAINING = ("batch_norm", "instance_norm", "batch_norm_elemt")
"""Operators whose flag chooses the statistics, which is legal to prove, and not whether anything is dropped."""

_ENABLED = 2
"""Where ``wrap_with_autocast`` has its flag."""


def attribute(module: torch.nn.Module, name: str) -> object:
    """What ``module`` holds under a qualified name."""
    *path, own = name.split(".")
    value: object = module
    for part in (*path, own):
        value = getattr(value, part)
    return value


def set_attribute(module: torch.nn.Module, name: str, value: object) -> None:
    """Replace what ``module`` holds under a qualified name, be it a parameter or not."""
    *path, own = name.split(".")
    owner = module
    for part in path:
        owner = getattr(owner, part)
    if hasattr(owner, own):
        delattr(owner, own)
    if isinstance(value, torch.Tensor) and not isinstance(value, torch.nn.Parameter):
        owner.register_buffer(own, value, persistent=False)
    else:
        setattr(owner, own, value)


def copied(module: fx.GraphModule) -> fx.GraphModule:
    """A copy of the nodes of ``module`` and its nested graphs, under the same names, that shares all tensors."""
    graph = fx.Graph()
    found: dict[fx.Node, fx.Node] = {}
    ending = graph.graph_copy(module.graph, found, return_output_node=True)
    if ending is not None:
        assert isinstance(ending, tuple)
        graph.output(ending[0])
    graph.set_codegen(module.graph._codegen)
    assert all(old.name == new.name for old, new in found.items())
    copy = fx.GraphModule(module, graph)
    inner = {name: body for node in module.graph.nodes for name, body in bodies(module, node)}
    for name, body in inner.items():
        set_attribute(copy, name, copied(body))
    return copy


def evaluated(module: fx.GraphModule) -> fx.GraphModule:
    """``module``, changed in place so that nothing is dropped at random."""
    for _, node, _ in walk(module):
        if not isinstance(node.target, torch._ops.OpOverload):
            continue
        keeps = any(word in names_of(node.target)[-1] for word in _KEEPS_TRAINING)
        for argument in node.target._schema.arguments:
            if argument.name in ("train", "training") and not keeps:
                put(node, argument.name, False)
            elif argument.name == "dropout_p":
                put(node, argument.name, 0.0)
    return module


def widened(module: fx.GraphModule, dtype: torch.dtype) -> fx.GraphModule:
    """``module``, changed in place so that it computes in ``dtype`` wherever it says that it computes in less.

    Tensors of the top level stay, for whoever runs the graph converts them; regions under autocast are left alone.
    """
    for label, node, owner in walk(module):
        if node.op == "call_function":
            node.args = fx.node.map_aggregate(node.args, lambda each: _wide(each, dtype))
            node.kwargs = fx.node.map_aggregate(node.kwargs, lambda each: _wide(each, dtype))
            if names_of(node.target)[0] == "higher_order.wrap_with_autocast":
                node.update_arg(_ENABLED, False)
        elif node.op == "get_attr" and "/" in label:
            value = attribute(owner, str(node.target))
            if isinstance(value, torch.Tensor):
                set_attribute(owner, str(node.target), widest(value, dtype))
    for owner in {id(owner): owner for _, _, owner in walk(module)}.values():
        owner.recompile()
    return module


def widest(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``value`` in ``dtype`` (or its complex pair), if it is a narrower floating-point number."""
    wanted = _wide(value.dtype, dtype)
    assert isinstance(wanted, torch.dtype)
    return value.detach().to(wanted) if wanted != value.dtype else value


def _wide(each: object, dtype: torch.dtype) -> object:
    if not isinstance(each, torch.dtype) or not (each.is_floating_point or each.is_complex):
        return each
    wanted = dtype.to_complex() if each.is_complex else dtype
    return wanted if each.itemsize < wanted.itemsize and (each.is_complex or each.itemsize > 1) else each


def has_half(module: fx.GraphModule, leaves: object) -> bool:
    """Whether half precision occurs anywhere in a program: its weights, its inputs, or what an operator is told."""
    for _, node, owner in walk(module):
        given: object = (*node.args, *node.kwargs.values())
        if node.op == "get_attr":
            given = attribute(owner, str(node.target))
        elif names_of(node.target)[0] == "higher_order.wrap_with_autocast" and node.args[_ENABLED]:
            return True
        if not _HALF.isdisjoint(_dtypes(given)):
            return True
    return not _HALF.isdisjoint(_dtypes(leaves))


def _dtypes(value: object) -> Iterator[torch.dtype]:
    if isinstance(value, torch.dtype):
        yield value
    elif isinstance(value, torch.Tensor):
        yield value.dtype
    elif isinstance(value, Sequences):
        for each in value:
            yield from _dtypes(each)
