"""ATen calls in an FX graph as rules see them: operands by the names of the operator's own schema.

A rule numbers its operands; a binding names them. An argument that a binding names as an operand is a tensor, a list of
tensors (each an operand of its own), or numbers that spell sizes: those are seen as the contents of an operand, so that
ATen's ``view(x, [n, 64])`` and ONNX's ``Reshape(x, shape)`` follow one rule. Everything else is an attribute.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import fx, nn

from graphprune.rules.table import Binding, lookup

__all__ = ["Place", "arguments", "attribute", "binding_of", "names_of", "places", "put", "take", "walk"]

Sequences = (list, tuple)


def attribute(module: nn.Module, name: str) -> Any:
    """What a module holds under a qualified name, as a node that gets an attribute spells it.

    Raises:
        AttributeError: there is nothing of that name.
    """
    value: Any = module
    for part in name.split("."):
        value = getattr(value, part)
    return value


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands in a call: the schema's name of the argument, and the index where it is a list."""

    name: str
    index: int | None = None


@dataclass(frozen=True, slots=True)
class _Signature:
    """What a schema says, looked up once: (name, keyword only, default) of each argument, and which hold tensors."""

    arguments: tuple[tuple[str, bool, Any], ...]
    tensors: tuple[str, ...]
    lists: frozenset[str]


@cache
def _signature(target: object) -> _Signature:
    assert isinstance(target, torch._ops.OpOverload)
    arguments = target._schema.arguments
    tensors = [argument for argument in arguments if "Tensor" in str(argument.type)]
    return _Signature(
        tuple((argument.name, argument.kwarg_only, argument.default_value) for argument in arguments),
        tuple(argument.name for argument in tensors),
        frozenset(argument.name for argument in tensors if "List" in str(argument.type)),
    )


@cache
def names_of(target: object) -> tuple[str, ...]:
    """The names that an operator goes by in the table: with its overload, then without.

    An operator that works in place (``relu_``) follows the row of the one that does not.
    """
    if isinstance(target, torch._ops.OpOverload):
        space, _, name = target._schema.name.partition("::")
        overload = target._overloadname
        if name.endswith("_") and not name.endswith("__") and target._schema.is_mutable:
            name = name[:-1]
        return (f"{space}.{name}.{overload}", f"{space}.{name}")
    if isinstance(target, torch._ops.HigherOrderOperator):
        return (f"higher_order.{target.name()}",)
    return (f"{getattr(target, '__module__', '')}.{getattr(target, '__name__', target)}",)


def binding_of(target: object) -> Binding | None:
    """The row of an operator, None where nobody declared it."""
    return next((found for name in names_of(target) if (found := lookup(name)) is not None), None)


def walk(module: fx.GraphModule, prefix: str = "") -> Iterator[tuple[str, fx.Node, fx.GraphModule]]:
    """Every node, those of nested graphs right before the node that runs them, with a label unique in the program."""
    for node in module.graph.nodes:
        if node.op == "call_function":
            for name, body in bodies(module, node):
                yield from walk(body, f"{prefix}{name}/")
        yield f"{prefix}{node.name}", node, module


def bodies(module: fx.GraphModule, node: fx.Node) -> Iterator[tuple[str, fx.GraphModule]]:
    """The graphs that a node runs, by the names that its module has them under."""
    for value in node.args:
        if isinstance(value, fx.Node) and value.op == "get_attr":
            inner = getattr(module, str(value.target), None)
            if isinstance(inner, fx.GraphModule):
                yield str(value.target), inner


def arguments(node: fx.Node) -> dict[str, Any]:
    """The arguments of an ATen call by the schema's names, defaults included."""
    args, kwargs = node.args, node.kwargs
    count = len(args)
    return {
        name: args[position] if position < count and not by_name else kwargs.get(name, default)
        for position, (name, by_name, default) in enumerate(_signature(node.target).arguments)
    }


def places(node: fx.Node, binding: Binding | None, given: Mapping[str, Any]) -> list[Place | None]:
    """Where the operands stand that a rule numbers; None for one that the operator lacks.

    Without a binding, or where it names none, those are all tensors in the order of the schema.
    """
    signature = _signature(node.target)
    names = binding.operands if binding is not None and binding.operands else signature.tensors
    found: list[Place | None] = []
    for name in names:
        if name not in given:
            found.append(None)
        elif name in signature.lists and isinstance(given[name], Sequences):
            found.extend(Place(name, index) for index in range(len(given[name])))
        else:
            found.append(Place(name))
    return found


def take(given: Mapping[str, Any], place: Place) -> Any:
    """What stands at a place."""
    value = given[place.name]
    return value if place.index is None else value[place.index]


def put(node: fx.Node, name: str, value: Any) -> None:
    """Set the argument that the schema calls ``name``."""
    for position, (own, by_name, _) in enumerate(_signature(node.target).arguments):
        if own == name and position < len(node.args) and not by_name:
            node.update_arg(position, value)
            return
    node.update_kwarg(name, value)
