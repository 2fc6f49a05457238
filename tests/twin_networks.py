"""Small networks with given weights, the same in both hosts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest

from graphprune.frontends.onnx_reader import read
from graphprune.frontends.onnx_shapes import infer_shapes
from graphprune.frontends.onnx_weights import weights_of
from graphprune.models.reference.builder import GraphBuilder, Value
from graphprune.passes import canonicalize
from graphprune.score import Evidence, Scores

__all__ = ["HOSTS", "Network", "Numbers", "by_size", "evidence"]

Numbers = npt.ArrayLike
Network = Callable[[Any, Any], Any]
"""From the operators of a host and an input of two channels to a result."""

HOSTS = ("onnx", pytest.param("torch", marks=pytest.mark.torch))


class Onnx:
    """The operators as nodes."""

    def __init__(self) -> None:
        self.builder = GraphBuilder()

    def conv(self, x: Value, weight: Numbers, groups: int = 1) -> Value:
        """A convolution with a kernel of one; the weight is (outputs, inputs of a group)."""
        kernel = np.asarray(weight, np.float32)[..., None, None]
        return self.builder.conv(x, len(kernel), 1, groups=groups, bias=False, weight=self.builder.constant(kernel))

    def norm(self, x: Value, scale: Numbers) -> Value:
        """A batch normalisation with deviations of one."""
        gamma = np.asarray(scale, np.float32)
        numbers = [gamma, np.zeros_like(gamma), np.zeros_like(gamma), np.ones_like(gamma)]
        operands = [self.builder.constant(each) for each in numbers]
        return self.builder.op("BatchNormalization", x, *operands, shape=x.shape, epsilon=0.0)

    def relu(self, x: Value) -> Value:
        """The rectifier."""
        return self.builder.relu(x)

    def add(self, x: Value, y: Value) -> Value:
        """The sum."""
        return self.builder.add(x, y)

    def concat(self, values: Sequence[Value]) -> Value:
        """Channels one after the other."""
        return self.builder.concat(values, 1)


def evidence(host: str, network: Network) -> Evidence:
    """What criteria are given of a network."""
    if host == "onnx":
        o = Onnx()
        o.builder.output(network(o, o.builder.input("x", (1, 2, 4, 4))), "y")
        model = ir.from_proto(o.builder.model())
        canonicalize(model)
        infer_shapes(model)
        return Evidence(read(model), weights_of(model))
    torch = pytest.importorskip("torch")
    from torch_models import program

    from graphprune.frontends.torch_program import TorchProgram

    functional = torch.nn.functional

    class Torch(torch.nn.Module):  # type: ignore[misc, name-defined]
        """The operators as calls, whose weights are made the first time."""

        def __init__(self) -> None:
            super().__init__()
            self.weights = torch.nn.ParameterList()

        def _next(self, numbers: Any, trained: bool = True) -> Any:
            self.count += 1
            if self.count > len(self.weights):
                self.weights.append(torch.nn.Parameter(torch.tensor(np.asarray(numbers, np.float32)), trained))
            return self.weights[self.count - 1]

        def conv(self, x: Any, weight: Numbers, groups: int = 1) -> Any:
            return functional.conv2d(x, self._next(np.asarray(weight)[..., None, None]), groups=groups)

        def norm(self, x: Any, scale: Numbers) -> Any:
            size = len(np.asarray(scale))
            mean, deviation = self._next(np.zeros(size), False), self._next(np.ones(size), False)
            return functional.batch_norm(x, mean, deviation, self._next(scale), eps=0.0)

        def relu(self, x: Any) -> Any:
            return functional.relu(x)

        def add(self, x: Any, y: Any) -> Any:
            return x + y

        def concat(self, values: Any) -> Any:
            return torch.cat(values, 1)

        def forward(self, x: Any) -> Any:
            self.count = 0
            return network(self, x)

    module, inputs = Torch().eval(), torch.ones(1, 2, 4, 4)
    module(inputs)
    captured: TorchProgram = program(module, inputs)
    return Evidence(captured.read(), captured.weights())


def by_size(scores: Scores) -> dict[int, npt.NDArray[np.float64]]:
    """Scores by the sizes of their groups, which differ."""
    found = {len(values): values for values in scores.values()}
    assert len(found) == len(scores)
    return found
