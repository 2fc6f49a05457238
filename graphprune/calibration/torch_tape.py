"""Runs a graph so that it can be differentiated, and takes down what passes between its nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import fx

from graphprune.frontends.torch_calls import attribute, walk

__all__ = ["Tap", "Tape", "weights_of"]

Tap: TypeAlias = tuple[str, str]
"""A tensor by its name in the structure, and the node that reads it; without one (``""``) the tensor itself."""

_FLOAT = torch.float32


def weights_of(module: fx.GraphModule) -> dict[str, torch.Tensor]:
    """The floating-point parameters of a graph by name, in single precision at least; those of one storage once.

    They share memory with the module where that is their type, and none of them asks for gradients.
    """
    found: dict[tuple[Any, ...], str] = {}
    names = [str(node.target) for node in module.graph.nodes if node.op == "get_attr"]
    values: dict[str, torch.Tensor] = {}
    for name in names:
        value = attribute(module, name)
        if isinstance(value, torch.nn.Parameter) and value.is_floating_point():
            own = found.setdefault(_storage(value), name)
            if own == name:
                values[name] = _wide(value.detach())
    return values


def _storage(value: torch.Tensor) -> tuple[Any, ...]:
    return (value.untyped_storage()._cdata, value.storage_offset(), tuple(value.shape), value.stride())


def _wide(value: torch.Tensor) -> torch.Tensor:
    return value.to(_FLOAT) if value.is_floating_point() and value.element_size() < _FLOAT.itemsize else value


class Tape(fx.Interpreter):  # type: ignore[misc]
    """One run of ``module`` on flat inputs, its parameters being ``weights``; :attr:`taken` are the values at taps.

    Whatever the program writes to is a copy. Inputs of less than single precision are widened.
    """

    def __init__(self, module: fx.GraphModule, weights: Mapping[str, torch.Tensor], taps: Sequence[Tap] = ()) -> None:
        super().__init__(module, garbage_collect_values=True)
        self.extra_traceback = False
        self.taken: dict[Tap, torch.Tensor] = {}
        self._taps = frozenset(taps)
        self._weights = weights
        self._twins = {_storage(attribute(module, name)): name for name in weights}
        self._written = any(_writes(node) for _, node, _ in walk(module))
        self._stored: dict[int, Any] = {}

    def results(self, leaves: Sequence[Any]) -> Any:
        """What the module returns, in the form in which it returns it."""
        own = [_wide(leaf.detach().clone()) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        result = self.run(*own, enable_io_processing=False)
        return self.module.graph.process_outputs(result)

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        """A parameter as it is to be, a copy of a buffer."""
        value = attribute(self.module, str(target))
        if not isinstance(value, torch.Tensor):
            return value
        name = self._twins.get(_storage(value)) if isinstance(value, torch.nn.Parameter) else None
        if name is not None:
            weight = self._weights[name]
            return weight.clone() if self._written else weight
        if id(value) not in self._stored:  # copied, for normalisations write to statistics and do not say so
            self._stored[id(value)] = _wide(value.detach().clone())
        return self._stored[id(value)]

    def run_node(self, n: fx.Node) -> Any:
        """Compute a node and take down its result where there is a tap."""
        result = super().run_node(n)
        if n.op == "get_attr":
            return result
        if isinstance(result, list | tuple):
            parts = [self._tapped((f"{n.name}.{index}", ""), part) for index, part in enumerate(result)]
            return type(result)(parts) if type(result) in (list, tuple) else result
        return self._tapped((n.name, ""), result)

    def map_nodes_to_values(self, args: Any, n: fx.Node) -> Any:
        """The values that a node reads, through the taps that are on its operands."""
        return fx.node.map_arg(args, lambda operand: self._read(operand, n))

    def _read(self, operand: fx.Node, reader: fx.Node) -> Any:
        value = self.env[operand]
        for name in _names(operand):
            value = self._tapped((name, reader.name), value)
        return value

    def _tapped(self, tap: Tap, value: Any) -> Any:
        """The value, seen through a tensor of its own that a gradient can be asked for."""
        if tap not in self._taps or not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return value
        if tap not in self.taken:
            value = value if value.requires_grad else value.detach().requires_grad_()
            self.taken[tap] = value.clone() if self._written else value.view_as(value)
        own = self.taken[tap]
        # what is taken down must not be written to afterwards
        return own.clone() if self._written else own


def _names(node: fx.Node) -> tuple[str, ...]:
    """The names of a node's result: that of its own, and that of its place in the list that it is taken from."""
    if node.op == "call_function" and getattr(node.target, "__name__", "") == "getitem":
        source = node.args[0]
        if isinstance(source, fx.Node):
            return node.name, f"{source.name}.{node.args[1]}"
    return (node.name,)


def _writes(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable
