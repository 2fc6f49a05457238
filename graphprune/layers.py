"""The layers of a program: calls that multiply an activation by a stored weight, on both hosts.

Criteria that weigh a position by what reads it, and compensation, which chooses the weight anew, need the numbers that
enter the product. A layer's :class:`~graphprune.forms.Form` knows the geometry: it gives the *rows* of an activation,
and the weight as a matrix, so that ``y = rows @ matrix.T + bias``. A new kind of layer is a row in the table below.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from graphprune.axes import Axis
from graphprune.forms import ConvolutionForm, Form, MatrixForm
from graphprune.rules.call import Call
from graphprune.rules.windows import numbers
from graphprune.structure import Structure

__all__ = ["ADD", "Layer", "destinations", "layers"]


@dataclass(frozen=True, slots=True)
class Layer:
    """One call that multiplies ``x`` by the parameter ``weight``, and the ``bias`` that is added, if there is one.

    ``y`` is what comes out, behind a bias that an operator of its own adds (``adder``, the node of that). ``inputs`` is
    the axis that is summed over, dimension ``x_dim`` of ``x``; ``outputs`` the axis that the weight makes, ``y_dim`` of
    ``y``.
    """

    call: Call
    x: str
    weight: str
    bias: str | None
    y: str
    inputs: Axis
    outputs: Axis
    x_dim: int
    y_dim: int
    form: Form
    adder: str | None = None

    @property
    def node(self) -> str:
        """The name of the call's node."""
        return self.call.node


def layers(structure: Structure) -> list[Layer]:
    """All layers of a program in reading order."""
    readers = _readers(structure)
    adders = {
        operand.name: call
        for call in structure.calls
        if call.op in ADD
        for operand in call.operands
        if operand is not None and readers[operand.name] == 1
    }
    found: list[Layer] = []
    for call in structure.calls:
        make = _TABLE.get(call.op)
        layer = make(call, structure) if make is not None and call.results else None
        if layer is not None:
            found.append(layer if layer.bias is not None else _with_bias(layer, adders.get(layer.y), structure))
    return found


def destinations(structure: Structure) -> dict[str, str]:
    """For results that nothing reads but a sum of two activations of one shape: the sum, a residual stream mostly."""
    readers = _readers(structure)
    found: dict[str, str] = {}
    for call in structure.calls:
        operands = [operand for operand in call.operands[:2] if operand is not None]
        if call.op not in ADD or len(operands) != 2 or any(one.name in structure.parameters for one in operands):
            continue
        a, b = (structure.tensors.get(operand.name) or () for operand in operands)
        if [axis.size for axis in a] == [axis.size for axis in b]:
            found.update((one.name, call.results[0]) for one in operands if readers[one.name] == 1)
    return found


def _readers(structure: Structure) -> Counter[str]:
    """How often each tensor is read; being a result of the program counts."""
    found = Counter(operand.name for call in structure.calls for operand in call.operands if operand is not None)
    found.update(structure.outputs)
    return found


ADD = frozenset({"onnx.Add", "aten.add"})
"""Operators that add two tensors."""


def _with_bias(layer: Layer, adder: Call | None, structure: Structure) -> Layer:
    """A layer together with the operator that adds a stored bias to its result."""
    if adder is None:
        return layer
    names = [operand.name for operand in adder.operands[:2] if operand is not None]
    bias = next((name for name in names if name != layer.y), None)
    axes = structure.tensors.get(bias or "")
    own = structure.tensors.get(layer.y) or ()
    if bias is None or bias not in structure.parameters or axes is None:
        return layer
    at = layer.y_dim - len(own)  # from the end, as operands are aligned
    wide = [dim - len(axes) for dim, axis in enumerate(axes) if axis.size != 1]
    if wide != [at] or axes[at].size != own[at].size or len(axes) > len(own):
        return layer
    return replace(layer, bias=bias, y=adder.results[0], adder=adder.node)


# -- products of matrices ----------------------------------------------------------------------------------------------


def _product(
    call: Call,
    structure: Structure,
    x: int,
    weight: int,
    bias: int | None,
    *,
    transposed: bool,
    x_dim: int = -1,
    scale: float = 1.0,
) -> Layer | None:
    source, stored = call.operand(x), call.operand(weight)
    y = structure.tensors.get(call.results[0])
    if not _is_stored(stored, structure) or source is None or source.axes is None or y is None:
        return None
    assert stored is not None
    if source.name in structure.parameters or len(source.axes) < 2 or len(stored.axes or ()) != 2:
        return None
    x_dim %= len(source.axes)
    y_dim = len(y) - 1
    form = MatrixForm(transposed, x_dim, y_dim, scale)
    own = _bias(call, bias, structure)
    return Layer(call, source.name, stored.name, own, call.results[0], source.axes[x_dim], y[y_dim], x_dim, y_dim, form)


def _is_stored(operand: Any, structure: Structure) -> bool:
    if operand is None or operand.axes is None or operand.name not in structure.parameters:
        return False
    return structure.parameters[operand.name].counts or operand.constant


def _bias(call: Call, number: int | None, structure: Structure) -> str | None:
    operand = None if number is None else call.operand(number)
    if operand is None or operand.axes is None or operand.name not in structure.parameters:
        return None
    return operand.name if sum(axis.size != 1 for axis in operand.axes) == 1 and len(operand.axes) == 1 else None


def _matmul(call: Call, structure: Structure) -> Layer | None:
    return _product(call, structure, 0, 1, None, transposed=False)


def _linear(call: Call, structure: Structure) -> Layer | None:
    return _product(call, structure, 0, 1, 2, transposed=True)


def _addmm(call: Call, structure: Structure) -> Layer | None:
    if call.attribute("beta", 1) != 1:
        return None
    layer = _product(call, structure, 1, 2, 0, transposed=False, scale=float(call.attribute("alpha", 1)))
    return layer if layer is not None and layer.bias is not None else None


def _gemm(call: Call, structure: Structure) -> Layer | None:
    scale, beta = float(call.attribute("alpha", 1.0)), float(call.attribute("beta", 1.0))
    addend = call.operand(2)
    if scale == 0 or (addend is not None and beta != 1):
        return None
    x_dim = 0 if call.attribute("transA", 0) else 1
    transposed = bool(call.attribute("transB", 0))
    layer = _product(call, structure, 0, 1, 2, transposed=transposed, x_dim=x_dim, scale=scale)
    return layer if layer is None or layer.bias is not None or addend is None else None


# -- convolutions ------------------------------------------------------------------------------------------------------


def _convolution(call: Call, structure: Structure) -> Layer | None:
    transposed = bool(call.attribute("transposed", False)) or "ranspose" in call.op
    source, stored = call.operand(0), call.operand(1)
    y = structure.tensors.get(call.results[0])
    if not _is_stored(stored, structure) or source is None or source.axes is None or y is None:
        return None
    assert stored is not None
    rank = len(stored.axes or ())
    kernel = [axis.size for axis in (stored.axes or ())[2:]]
    if len(source.axes) != rank or not all(isinstance(size, int) for size in kernel):
        return None
    form = _geometry(call, [int(size) for size in kernel], transposed)  # type: ignore[arg-type]
    if form is None:
        return None
    bias = _bias(call, 2, structure)
    if bias is None and call.operand(2) is not None:
        return None
    return Layer(call, source.name, stored.name, bias, call.results[0], source.axes[1], y[1], 1, 1, form)


def _geometry(call: Call, kernel: list[int], transposed: bool) -> ConvolutionForm | None:
    count = len(kernel)
    strides = numbers(call.attribute("strides", 1), count)
    dilations = numbers(call.attribute("dilations", 1), count)
    groups = int(call.attribute("group", 1))
    padding = str(call.attribute("auto_pad", "NOTSET")).upper()
    pads: str | tuple[tuple[int, int], ...]
    if padding in ("SAME", "SAME_UPPER", "SAME_LOWER", "VALID"):
        # PyTorch puts the odd one behind, as SAME_UPPER does
        pads = {"SAME": "SAME_UPPER"}.get(padding, padding)
    else:
        listed = numbers(call.attribute("pads", 0), count)
        listed = listed if len(listed) == 2 * count else listed * 2
        pads = tuple(zip(listed[:count], listed[count:], strict=True))
    if not transposed:
        return ConvolutionForm(groups, tuple(kernel), tuple(strides), tuple(dilations), pads)
    if isinstance(pads, str):
        return None
    spans = [(size - 1) * dilation for size, dilation in zip(kernel, dilations, strict=True)]
    around = tuple((span - before, span - after) for span, (before, after) in zip(spans, pads, strict=True))
    if any(side < 0 for pair in around for side in pair) or call.attribute("output_shape") is not None:
        return None
    ones = (1,) * count
    return ConvolutionForm(groups, tuple(kernel), ones, tuple(dilations), around, tuple(strides))


_TABLE: dict[str, Callable[[Call, Structure], Layer | None]] = {
    "onnx.Conv": _convolution,
    "onnx.ConvTranspose": _convolution,
    "onnx.Gemm": _gemm,
    "onnx.MatMul": _matmul,
    **dict.fromkeys(
        (f"aten.{name}" for name in ("conv1d", "conv2d", "conv3d", "convolution", "_convolution")), _convolution
    ),
    **dict.fromkeys((f"aten.conv_transpose{dims}d" for dims in (1, 2, 3)), _convolution),
    "aten.linear": _linear,
    "aten.matmul": _matmul,
    "aten.mm": _matmul,
    "aten.addmm": _addmm,
}
