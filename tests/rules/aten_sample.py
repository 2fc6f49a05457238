"""One ATen call on small operands: a graph of that call alone, read by the reader of PyTorch programs, and run."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import fx, nn

from graphprune.axes import AxisSpace, Pin
from graphprune.frontends.settlement import settle
from graphprune.frontends.torch_calls import arguments, binding_of, places, take
from graphprune.frontends.torch_reader import Reader
from graphprune.rules.call import Axes, Call, Meaning
from graphprune.rules.positions import PLACES
from graphprune.structure import Structure
from rules.sample import Reading

Sequences = (list, tuple)


@dataclass(frozen=True)
class Const:
    """A tensor whose contents the rule may read, as it may those of a buffer."""

    tensor: torch.Tensor


@dataclass(frozen=True)
class Numbers:
    """A tensor whose numbers say something about an axis: one of ``size``, or the only one it has."""

    tensor: torch.Tensor
    kind: str
    size: int | None = None


@dataclass
class AtenSample:
    """A call of ``target``: tensors and constants stand among its arguments.

    The contents of a result that ``follows`` the operands' shapes (random numbers, empty memory) are not compared.
    """

    target: Any
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    tolerance: float = 1e-4
    follows: bool = False
    name: str = ""
    read: Sequence[int] = ()
    """The results that the graph goes on to read, all of them if none is named."""
    reference: Callable[..., Any] | None = None
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    """Contents of all operands by the names of their nodes."""
    numbers: dict[str, Numbers] = field(default_factory=dict)
    """The operands whose numbers say something about an axis."""

    @cached_property
    def op(self) -> str:
        return str(self.target).removesuffix(".default")

    @property
    def label(self) -> str:
        spelled = [_short(arg) for arg in self.args]
        named = [f"{key}={_short(value)}" for key, value in self.kwargs.items()]
        named += [f"read={_short(self.read)}"] if self.read else []
        return " ".join([self.op, *([self.name] if self.name else []), *spelled, *named])

    @cached_property
    def module(self) -> fx.GraphModule:
        """The graph: the first tensor and all integers are inputs, other tensors parameters, constants buffers."""
        root, graph = nn.Module(), fx.Graph()

        def spell(value: Any) -> Any:
            if isinstance(value, Const | Numbers | torch.Tensor):
                tensor = value if isinstance(value, torch.Tensor) else value.tensor
                name = f"x{len(self.tensors)}"
                if isinstance(value, Const):
                    root.register_buffer(name, tensor)
                    node = graph.get_attr(name)
                elif self.tensors and (tensor.is_floating_point() or tensor.is_complex()):
                    root.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
                    node = graph.get_attr(name)
                else:
                    node = graph.placeholder(name)
                node.meta["val"] = tensor
                self.tensors[node.name] = tensor
                if isinstance(value, Numbers):
                    self.numbers[node.name] = value
                return node
            return type(value)(map(spell, value)) if isinstance(value, Sequences) else value

        call = graph.call_function(
            self.target, tuple(map(spell, self.args)), {k: spell(v) for k, v in self.kwargs.items()}
        )
        reads = [graph.call_function(operator.getitem, (call, index)) for index in self.read]
        graph.output(tuple(reads) if reads else call)
        module = fx.GraphModule(root, graph)
        value = call.meta["val"] = self._run(call, self.tensors)
        for index, node in zip(self.read, reads, strict=True):
            node.meta["val"] = value[index]
        return module

    @cached_property
    def expected(self) -> list[torch.Tensor | None]:
        return self.run(self.module, {})

    def run(self, module: fx.GraphModule, tensors: Mapping[str, torch.Tensor]) -> list[torch.Tensor | None]:
        """The results of the call in ``module``, a copy of this one's, on ``tensors`` where they name an operand."""
        known = {node.name: getattr(module, str(node.target)) for node in module.graph.nodes if node.op == "get_attr"}
        value = self._run(call_of(module), {**self.tensors, **known, **tensors})
        if not isinstance(value, Sequences):
            return [value]
        return [each if not self.read or index in self.read else None for index, each in enumerate(value)]

    def _run(self, node: fx.Node, tensors: Mapping[str, torch.Tensor]) -> Any:
        def fill(value: Any) -> Any:
            if isinstance(value, Sequences):
                return type(value)(map(fill, value))
            return tensors[value.name].detach().clone() if isinstance(value, fx.Node) else value

        args, kwargs = fx.node.map_aggregate(node.args, fill), fx.node.map_aggregate(node.kwargs, fill)
        torch.manual_seed(0)
        value = (self.reference or self.target)(*args, **kwargs)
        return tuple(value) if isinstance(value, Sequences) else value

    def copy(self) -> fx.GraphModule:
        return copy.deepcopy(self.module)

    def with_tensors(self, change: Callable[[torch.Tensor], torch.Tensor]) -> AtenSample:
        """The same call with other contents."""

        def spell(value: Any) -> Any:
            if isinstance(value, Sequences):
                return type(value)(map(spell, value))
            return change(value) if isinstance(value, torch.Tensor) else value

        return AtenSample(
            self.target,
            [spell(value) for value in self.args],
            {key: spell(value) for key, value in self.kwargs.items()},
            self.tolerance,
            self.follows,
            self.name,
            self.read,
            self.reference,
        )


@dataclass
class AtenReading(Reading):
    """What the reader said about a sample."""

    structure: Structure = field(default_factory=lambda: Structure(AxisSpace()))
    operands: Sequence[str | None] = ()
    """The node of each operand."""


class _Reader(Reader):
    """A reader that remembers why it pinned a call."""

    declined = ""

    def _pin_all(self, call: Call, reason: str) -> list[Axes | None]:
        self.declined = reason
        return super()._pin_all(call, reason)


def read(sample: AtenSample) -> AtenReading:
    """Read the graph of a sample, nothing of which is pinned by being its interface."""
    module = sample.module
    reader = _Reader(module)
    inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
    given = [tuple(reader.space.leaf(int(size)) for size in node.meta["val"].shape) for node in inputs]
    for node, axes in zip(inputs, given, strict=True):
        if (own := sample.numbers.get(node.name)) is not None:
            axis = axes[0] if own.size is None else reader.space.leaf(own.size)
            reader.meanings[node.name] = Meaning(own.kind, axis, Pin("", "", PLACES))
    reader.graph(module, "", given)
    settle(reader.structure)
    node = call_of(module)
    tensors = reader.structure.tensors
    results = [
        None if value is None else tensors.get(node.name if node.name in tensors else f"{node.name}.{index}")
        for index, value in enumerate(sample.expected)
    ]
    call = reader.structure.calls[-1]
    stated = arguments(node)
    found = [None if p is None else take(stated, p) for p in places(node, binding_of(node.target), stated)]
    nodes = [value.name if isinstance(value, fx.Node) else None for value in found]
    return AtenReading(reader.space, call, results, reader.declined, reader.structure, nodes)


def call_of(module: fx.GraphModule) -> fx.Node:
    """The one call of a sample's graph."""
    return next(node for node in module.graph.nodes if node.op == "call_function")


def resolve(op: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The overload that PyTorch takes for these arguments; ``op`` may name one."""
    space, name, *overload = op.split(".")
    packet = getattr(getattr(torch.ops, space), name)
    if not overload:
        plain = [_plain(arg) for arg in args]
        named = {key: _plain(value) for key, value in kwargs.items()}
        overload = [torch._C._jit_resolve_packet(f"{space}::{name}", *plain, **named)]
    return getattr(packet, overload[0] or "default")


def _plain(value: Any) -> Any:
    if isinstance(value, Sequences):
        return type(value)(map(_plain, value))
    return value.tensor if isinstance(value, Const | Numbers) else value


def _short(value: Any) -> str:
    if isinstance(value, Sequences):
        return "[" + ",".join(map(_short, value)) + "]"
    if isinstance(value, Const):
        return f"const{value.tensor.tolist()}".replace(" ", "") if value.tensor.numel() < 9 else "const"
    if isinstance(value, Numbers):
        return f"{value.kind}{value.tensor.tolist()}".replace(" ", "")
    if isinstance(value, torch.Tensor):
        return "(" + ",".join(map(str, value.shape)) + ")"
    return str(value)
