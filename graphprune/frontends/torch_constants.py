"""Tensors of a PyTorch program whose contents do not depend on its inputs: index tables, permutations, masks.

They are evaluated only where a rule asks, and only as long as they are made of integers: what is computed from
parameters is never a constant, since training changes those, nor is what the graph writes to.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy.typing as npt
import torch
from torch import fx

from graphprune.frontends.torch_calls import Sequences, arguments, bodies

__all__ = ["Constants", "written_by"]

MAX_ELEMENTS = 1 << 22

_SEEDED = ("rand", "bernoulli", "dropout", "multinomial", "normal", "empty")
"""Operators that make other values at each run."""


_DETACHED = torch.ops.aten.detach_.default
"""Works in place and leaves every value as it is; lists of numbers in a program pass through it."""


class Constants:
    """The tensors that are constant as far as they are ``known``, and how the others are made."""

    def __init__(self) -> None:
        self.known: dict[str, torch.Tensor | None] = {}
        self._made: dict[str, tuple[str, fx.Node]] = {}
        self._written: dict[int, set[fx.Node]] = {}

    def hold(self, label: str, node: fx.Node, value: torch.Tensor) -> None:
        """Know a stored tensor."""
        twins = {each.target for each in self._writes(node.graph) if each.op == "get_attr"}
        self.known[label] = None if node.target in twins else value

    def note(self, label: str, prefix: str, node: fx.Node) -> None:
        """Remember how a tensor is made."""
        self._made[label] = (prefix, node)

    def array(self, label: str) -> npt.NDArray[Any] | None:
        """The contents of a tensor; None where they are not constant, or not integers."""
        value = self._value(label)
        if value is None or value.is_floating_point() or value.is_complex():
            return None
        array: npt.NDArray[Any] = value.detach().cpu().numpy()
        return array

    def _value(self, label: str) -> torch.Tensor | None:
        """Evaluate what ``label`` needs, without recursion: such chains may be long."""
        pending = [label]
        while pending:
            current = pending[-1]
            if current in self.known:
                pending.pop()
                continue
            if current not in self._made:
                self.known[current] = None
                continue
            prefix, node = self._made[current]
            missing = [name for each in node.all_input_nodes if (name := prefix + each.name) not in self.known]
            if missing:
                pending.extend(missing)
            else:
                self.known[current] = self._evaluate(prefix, node)
        found = self.known[label]
        unreadable = found is None or found.is_meta or isinstance(found, torch._subclasses.FakeTensor)
        return None if unreadable else found

    def _evaluate(self, prefix: str, node: fx.Node) -> torch.Tensor | None:
        target, stated = node.target, node.meta.get("val")
        if not isinstance(target, torch._ops.OpOverload) or not isinstance(stated, torch.Tensor):
            return None
        if (target._schema.is_mutable and target is not _DETACHED) or any(
            word in target._schema.name for word in _SEEDED
        ):
            return None
        if node in self._writes(node.graph):
            return None
        operands = {each: self.known[prefix + each.name] for each in node.all_input_nodes}
        if any(value is None or value.is_meta for value in operands.values()):
            return None
        if not all(isinstance(size, int) and size <= MAX_ELEMENTS for size in stated.shape):
            return None
        args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), lambda each: operands[each])
        try:
            with torch.no_grad():
                value = target(*args, **kwargs)
        except (RuntimeError, TypeError, ValueError, IndexError):
            return None
        return value if isinstance(value, torch.Tensor) and value.numel() <= MAX_ELEMENTS else None

    def _writes(self, graph: fx.Graph) -> set[fx.Node]:
        """The nodes of a graph whose memory some node of it writes to."""
        if id(graph) not in self._written:
            pending = [target for node in graph.nodes for target in written_by(node)]
            found = self._written[id(graph)] = set()
            while pending:
                node = pending.pop()
                if node not in found:
                    found.add(node)
                    pending.extend(_viewed_by(node))
        return self._written[id(graph)]


def written_by(node: fx.Node) -> list[fx.Node]:
    """The operands that a node writes to; a nested graph that writes at all may write to any of them."""
    if isinstance(node.target, torch._ops.OpOverload):
        writes = node.target._schema.is_mutable and node.target is not _DETACHED
        return _operands(node, writes=True) if writes else []
    owner = node.graph.owning_module
    if node.op != "call_function" or owner is None or not isinstance(node.target, torch._ops.HigherOrderOperator):
        return []
    inner = [body for _, body in bodies(owner, node)]
    return list(node.all_input_nodes) if any(written_by(each) for body in inner for each in body.graph.nodes) else []


def _viewed_by(node: fx.Node) -> list[fx.Node]:
    """The operands whose memory the result of a node may share."""
    if node.target is operator.getitem:
        return list(node.all_input_nodes)
    return _operands(node, writes=False) if isinstance(node.target, torch._ops.OpOverload) else []


def _operands(node: fx.Node, writes: bool) -> list[fx.Node]:
    """The operands that a call writes to, or those that its results alias."""
    assert isinstance(node.target, torch._ops.OpOverload)
    found: list[fx.Node] = []
    for argument, value in zip(node.target._schema.arguments, arguments(node).values(), strict=True):
        if argument.alias_info is not None and (argument.alias_info.is_write or not writes):
            found.extend(each for each in (value if isinstance(value, Sequences) else (value,)) if _is_node(each))
    return found


def _is_node(value: object) -> bool:
    return isinstance(value, fx.Node)
