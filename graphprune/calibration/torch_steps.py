"""A PyTorch program on all calibration inputs, with stops (see :mod:`graphprune.calibration.steps`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import fx

from graphprune.calibration.steps import Feed, Stop, Values, ends_of
from graphprune.errors import UsageError
from graphprune.frontends.torch_calls import attribute
from graphprune.frontends.torch_program import TorchProgram
from graphprune.proof.torch_run import leaves_of, seeded

__all__ = ["Arguments", "TorchSteps", "arguments_of", "array_of"]


class Arguments(NamedTuple):
    """A batch for a program that takes positional and keyword inputs."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class TorchSteps:
    """One run of a program, node by node, each on all batches."""

    def __init__(self, program: TorchProgram, feeds: Sequence[Feed], stops: Sequence[Stop]) -> None:
        self.module, self.stops = program.module, stops
        self.nodes = list(program.module.graph.nodes)
        self.last = {operand: index for index, node in enumerate(self.nodes) for operand in node.all_input_nodes}
        self.ends = ends_of({node.name: index for index, node in enumerate(self.nodes)}, stops)
        self.wanted = {name: number for number, stop in enumerate(stops) for name in stop.names}
        self.leaves = [leaves_of(program.module, *arguments_of(program, feed)) for feed in feeds]
        self.known: list[dict[fx.Node, Any]] = [{} for _ in feeds]
        self.buffers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # the original keeps its id while it is here

    def run(self) -> Iterator[list[Values]]:
        """See :func:`~graphprune.calibration.steps.steps`."""
        start = 0
        for number, (stop, end) in enumerate(zip(self.stops, self.ends, strict=True)):
            for index in range(start, end):
                self._compute(self.nodes[index], index, number)
            start = max(start, end)
            yield [{name: self._value(known, name) for name in stop.names} for known in self.known]

    def _compute(self, node: fx.Node, index: int, number: int) -> None:
        for known, leaves in zip(self.known, self.leaves, strict=True):
            with torch.no_grad(), seeded(0):
                if node.op == "placeholder":
                    value = leaves.pop(0)
                    known[node] = value.clone() if isinstance(value, torch.Tensor) else value
                elif node.op not in ("get_attr", "output"):
                    args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), lambda n, k=known: self._fetch(n, k))
                    target: Any = attribute(self.module, str(node.target)) if node.op == "call_module" else node.target
                    known[node] = target(*args, **kwargs)
            for operand in (*node.all_input_nodes, node):
                if self.last.get(operand, -1) <= index and self._want(operand) < number:
                    known.pop(operand, None)

    def _want(self, node: fx.Node) -> int:
        """The last stop that wants what a node makes, or a part of it."""
        parts = (number for name, number in self.wanted.items() if name.rpartition(".")[0] == node.name)
        return max(self.wanted.get(node.name, -1), *parts, -1)

    def _fetch(self, node: fx.Node, known: dict[fx.Node, Any]) -> Any:
        """A value, or a stored tensor; of a buffer, which programs write to, a copy made when it is first read."""
        if node.op != "get_attr":
            return known[node]
        value = attribute(self.module, str(node.target))
        if not isinstance(value, torch.Tensor) or isinstance(value, torch.nn.Parameter):
            return value.detach() if isinstance(value, torch.Tensor) else value
        if id(value) not in self.buffers:
            self.buffers[id(value)] = (value, value.detach().clone())
        return self.buffers[id(value)][1]

    def _value(self, known: dict[fx.Node, Any], name: str) -> np.ndarray[Any, Any]:
        nodes = {node.name: node for node in known}
        if name in nodes:
            value = known[nodes[name]]
        else:
            source, _, index = name.rpartition(".")
            value = known[nodes[source]][int(index)]
        return array_of(value)


def array_of(value: torch.Tensor) -> np.ndarray[Any, Any]:
    """The numbers of a tensor, floating-point ones in single precision."""
    own: np.ndarray[Any, Any] = (value.float() if value.is_floating_point() else value).detach().cpu().numpy()
    return own


def arguments_of(program: TorchProgram, feed: Feed) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A batch as arguments and keyword arguments; arrays become tensors on the device of the example inputs.

    Raises:
        UsageError: the batch does not fit the program.
    """
    like = [value for value in _flat((program.args, dict(program.kwargs))) if isinstance(value, torch.Tensor)]
    device = like[0].device if like else torch.device("cpu")

    def tensor(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(np.ascontiguousarray(value))
        return value.to(device) if isinstance(value, torch.Tensor) else value

    if isinstance(feed, Arguments):
        return feed
    if isinstance(feed, dict):
        unknown = sorted(feed.keys() - program.kwargs.keys())
        if unknown:
            raise UsageError(
                f"calibration: the module was exported without a keyword input '{unknown[0]}'; "
                "leave it out, or give it among the example inputs"
            )
        return (), {name: tensor(value) for name, value in feed.items()}
    args = feed if isinstance(feed, tuple) else tuple(feed) if isinstance(feed, list) else (feed,)
    if len(args) < len(program.args):
        args = (*args, *program.args[len(args) :])
    return tuple(tensor(value) for value in args), dict(program.kwargs)


def _flat(value: Any) -> list[Any]:
    from torch.utils import _pytree as pytree

    return list(pytree.tree_leaves(value))
