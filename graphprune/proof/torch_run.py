"""Runs an exported graph for comparison, its weights as a function says and never written to.

Weights are fetched where they are used and dropped again, so that variants of large weights (poisoned, widened) need
the memory of one at a time. What a program writes to, running statistics or a cache, is a copy for the one run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import fx
from torch.utils import _pytree as pytree

from graphprune.errors import UsageError
from graphprune.proof.torch_graphs import attribute

__all__ = ["Leaves", "Values", "leaves_of", "run", "seeded"]

Leaves: TypeAlias = list[Any]
"""What a program is given or gives, nested containers opened."""

Values: TypeAlias = Callable[[str, torch.Tensor], torch.Tensor]
"""The value that a weight is to have, by its name and its own value."""


def leaves_of(module: fx.GraphModule, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Leaves:
    """The inputs of a graph in the order in which it takes them.

    Raises:
        UsageError: they do not fit its signature.
    """
    spec = getattr(getattr(module.graph._codegen, "pytree_info", None), "in_spec", None)
    if spec is not None and len(spec.children()) == 2:
        names = spec.child(1).context
        if set(names) == set(kwargs):
            kwargs = {name: kwargs[name] for name in names}
    leaves: Leaves = pytree.tree_leaves((tuple(args), dict(kwargs)))
    wanted = sum(node.op == "placeholder" for node in module.graph.nodes)
    if len(leaves) != wanted:
        raise UsageError(f"the program takes {wanted} inputs and {len(leaves)} are given; give it all it was read with")
    return leaves


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Let random operators draw the same numbers each time; the state of the generators is put back."""
    devices = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


@contextmanager
def _computing_in(dtype: torch.dtype | None) -> Iterator[None]:
    """Let operators that are not told a type make numbers of ``dtype``."""
    before = torch.get_default_dtype()
    if dtype is not None:
        torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def run(
    module: fx.GraphModule,
    leaves: Leaves,
    values: Values = lambda name, tensor: tensor,
    *,
    seed: int = 0,
    expose: Collection[str] = (),
    dtype: torch.dtype | None = None,
) -> Leaves:
    """The outputs of ``module``, then the results of the nodes called ``expose``; neither weights nor inputs change.

    ``values`` says what each weight is to be, and ``dtype`` what operators make that are told no type. Whatever an
    operator raises passes through.
    """
    device = next((value.device for value in leaves if isinstance(value, torch.Tensor)), None)
    with torch.no_grad(), seeded(seed, device), _computing_in(dtype):
        return _Run(module, values, expose).outputs(leaves)


class _Run:
    """One run of one graph."""

    def __init__(self, module: fx.GraphModule, values: Values, expose: Collection[str]) -> None:
        self.module, self.value_of, self.expose = module, values, expose
        self.known: dict[fx.Node, Any] = {}
        self.copies: dict[int, torch.Tensor] = {}
        self.written = _written(module.graph)
        self.exposed: dict[str, Any] = {}

    def outputs(self, leaves: Leaves) -> Leaves:
        """Run node by node; what nobody reads any more is dropped."""
        given = iter(leaves)
        unread = Counter({node: len(node.users) for node in self.module.graph.nodes})
        ending: Any = ()
        for node in self.module.graph.nodes:
            if node.op == "placeholder":
                value = next(given)
                self.known[node] = value.clone() if isinstance(value, torch.Tensor) else value
            elif node.op == "output":
                ending = fx.node.map_arg(node.args[0], self._fetch)
            elif node.op != "get_attr":
                args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), self._fetch)
                target: Any = attribute(self.module, str(node.target)) if node.op == "call_module" else node.target
                self.known[node] = target(*args, **kwargs)
                del args, kwargs
            if node.name in self.expose:
                self.exposed[node.name] = _owned(self.known[node])
            for operand in {*node.all_input_nodes, node}:
                unread[operand] -= operand is not node
                if unread[operand] <= 0:
                    self.known.pop(operand, None)
        return [*pytree.tree_leaves(ending), *(self.exposed[name] for name in self.expose)]

    def _fetch(self, node: fx.Node) -> Any:
        return self._stored(node) if node.op == "get_attr" else self.known[node]

    def _stored(self, node: fx.Node) -> Any:
        """A weight with the value that it is to have; what may be written to is copied once."""
        name = str(node.target)
        own = attribute(self.module, name)
        if not isinstance(own, torch.Tensor):
            return own
        if isinstance(own, torch.nn.Parameter) and node not in self.written:
            return self.value_of(name, own.detach())
        if id(own) not in self.copies:
            value = self.value_of(name, own.detach())
            shared = value.untyped_storage()._cdata == own.untyped_storage()._cdata
            self.copies[id(own)] = value.clone() if shared else value
        return self.copies[id(own)]


def _owned(value: Any) -> Any:
    """A value that later writes in place do not change."""
    return value.clone() if isinstance(value, torch.Tensor) else value


def _written(graph: fx.Graph) -> set[fx.Node]:
    """The weights that an operator writes to, directly or through views."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if not isinstance(node.target, torch._ops.OpOverload):
            continue
        schema = node.target._schema
        for position, argument in enumerate(schema.arguments):
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            given = node.args[position] if position < len(node.args) else node.kwargs.get(argument.name)
            while isinstance(given, fx.Node) and given.op == "call_function" and given.args:
                given = given.args[0]
            if isinstance(given, fx.Node) and given.op == "get_attr":
                found.add(given)
    return found
