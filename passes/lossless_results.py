"""What contractions make: constants where all that is read is constant, equal numbers from equal rows, and bounds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.passes.lossless_bounds import Interval, product_bounds, scaled, sum_bounds
from graphprune.passes.lossless_contractions import Contraction
from graphprune.passes.lossless_facts import Array, Fact, constant, expand, fact, number, rows
from graphprune.passes.lossless_rules import Known
from graphprune.passes.lossless_weights import Kernel

__all__ = ["EXACT", "Result"]

EXACT = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE})
"""Types whose sums may be rounded: in any other type a weight is left as it is."""


class Result:
    """The result of one contraction of ``x``, a fact about the positions of the dimension that is summed."""

    def __init__(
        self, known: Known, node: ir.Node, view: Contraction, tensor: ir.TensorProtocol, kernel: Kernel, x: Fact
    ) -> None:
        self.known, self.node, self.view, self.tensor, self.kernel, self.x = known, node, view, tensor, kernel, x
        self.count = len(kernel.rows)
        self.group = np.repeat(np.arange(view.groups), self.count // view.groups)

    def fact(self) -> Fact | None:
        """What holds for the result; None where that is nothing."""
        at, sizes = self.view.result, self.known.sizes(self.node.outputs[0])
        if sizes is None or at is None or sizes[at] != self.count:
            return None
        bias = self._bias()
        if bias is None:
            return None
        keys = [self.kernel.rows, bias.label]
        if self.view.groups > 1:
            keys.append(rows(self.x.label.reshape(self.view.groups, -1))[self.group])
        made = fact(number(*keys), dtype=bias.value.dtype)
        if self.view.plain:
            constants, value = self._constants(bias)
            made = fact(made.label, constants & np.isfinite(value.astype(np.float64)), value, self._bounds(bias))
        shape = [1] * len(sizes)
        shape[at] = self.count
        return made.map(lambda a: a.reshape(shape))

    def _bias(self) -> Fact | None:
        """What is added to each row; None where more than that is added."""
        inputs, at = self.node.inputs, self.view.bias
        value = inputs[at] if at is not None and at < len(inputs) else None
        if len(inputs) > 3 and inputs[3] is not None:
            return None
        if value is None:
            return constant(np.zeros(self.count, self.tensor.dtype.numpy()))
        found, sizes = self.known.fact(value), self.known.sizes(value)
        if found is None or sizes is None or any(size != 1 for size in sizes[:-1]):
            return None
        line = expand(found, sizes, (*found.label.shape[:-1], self.count))
        return line.map(lambda a: a.reshape(self.count))

    def _by_row(self, line: Array, of: npt.NDArray[np.intp] | slice) -> Array:
        """What each row meets of a line of all positions: those of its group."""
        if self.view.groups == 1:
            return line[None, :]
        return np.asarray(line.reshape(self.view.groups, -1)[self.group[of]])

    def _constants(self, bias: Fact) -> tuple[npt.NDArray[np.bool_], Array]:
        """Rows that are the same for every input, and their numbers, summed in float64."""
        usable = self.x.known & ((self.x.value == 0) | self.view.uniform)
        result = self.view.beta * bias.value.astype(np.float64)
        constants = np.zeros(self.count, np.bool_)
        if bias.known.any() and (usable.any() or self.kernel.zero.any()):
            constants = (self.kernel.zero | self._by_row(usable, slice(None))).all(axis=1) & bias.known
        wanted = np.flatnonzero(constants)
        given = np.where(usable, self.x.value.astype(np.float64), 0)
        if wanted.size and given.any():
            lines = np.take(self.tensor.numpy(), wanted, axis=self.view.rows).astype(np.float64)
            lines = np.moveaxis(lines, (self.view.rows, self.view.columns), (0, 1))
            lines = lines.reshape(*lines.shape[:2], -1).sum(axis=2)
            result[wanted] += self.view.alpha * (lines * self._by_row(given, wanted)).sum(axis=1)
        return constants, result.astype(bias.value.dtype)

    def _bounds(self, bias: Fact) -> Interval | None:
        """Bounds of each row, where it is computed in full precision; what is padded in counts as zero."""
        low, high = self.x.low, self.x.high
        if self.tensor.dtype not in EXACT or not (np.isfinite(low) | np.isfinite(high)).any():
            return None
        if not self.view.uniform:
            low, high = np.minimum(low, 0), np.maximum(high, 0)
        moved = np.moveaxis(self.tensor.numpy(), (self.view.rows, self.view.columns), (0, 1))
        product = product_bounds(moved.reshape(*moved.shape[:2], -1), (low, high), self.view.groups)
        return sum_bounds(scaled(product, self.view.alpha), scaled((bias.low, bias.high), self.view.beta))
