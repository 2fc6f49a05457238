"""What a program wants to be fed with: its inputs, which of their dimensions is the batch, and what integers may be.

An input is a :class:`~graphprune.sample_inputs.InputSpec`; of a PyTorch program each tensor among its arguments is one,
called like the parameter of ``forward``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir

from graphprune.errors import UsageError
from graphprune.frontends.program import is_torch
from graphprune.sample_inputs import InputSpec, input_specs

__all__ = ["Slot", "channel_axis", "is_image", "slots_of"]

_TIME = re.compile(r"seq|len|time|past|frame|^[tls]$", re.IGNORECASE)
_PASSED = frozenset({"Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Transpose", "Flatten"})
"""What token ids may go through on their way to the table."""
CHANNELS = (1, 3, 4)


@dataclass(frozen=True, slots=True)
class Slot:
    """One input: its name, type and dimensions, the dimension that counts samples, and the rows of its table.

    ``axis`` is None for an input that all samples share; ``table`` is the number of rows of the embedding that integers
    of this input look up, None where there is none.
    """

    spec: InputSpec
    axis: int | None
    table: int | None = None

    @property
    def name(self) -> str:
        """The name of the input."""
        return self.spec.name

    @property
    def fixed(self) -> int | None:
        """The batch size that the model insists on, if any."""
        size = None if self.axis is None else self.spec.dims[self.axis]
        return size if isinstance(size, int) else None


def slots_of(host: Any, dims: Mapping[str, int] | None = None) -> list[Slot]:
    """The inputs of an ONNX model, of a PyTorch program, or as listed; ``dims`` sets symbolic dimensions by name.

    Raises:
        UsageError: the program has no inputs.
        ModelError: an input is no tensor, or has no shape.
    """
    tables: Mapping[str, int] = {}
    if is_torch(host):
        from graphprune.calibration.torch_feeds import program_tables, torch_specs

        specs, tables = torch_specs(host), program_tables(host)
    elif isinstance(host, Sequence):
        specs = [each.spec if isinstance(each, Slot) else each for each in host]
    else:
        specs = input_specs(host)
        tables = _tables(host) if isinstance(host, ir.Model) else {}
    if not specs:
        raise UsageError("the model has no inputs to calibrate on: it computes the same each time")
    specs = [replace(spec, dims=tuple((dims or {}).get(str(dim), dim) for dim in spec.dims)) for spec in specs]
    first = next((spec.dims[0] for spec in specs if spec.dims), None)
    return [Slot(spec, _axis(spec, first), tables.get(spec.name)) for spec in specs]


def is_image(spec: InputSpec) -> bool:
    """Whether an input looks like images: four dimensions, of numbers or bytes, two of them sides."""
    kind = spec.dtype.kind in "f" or "float" in spec.dtype.name or spec.dtype.name == "uint8"
    if not kind or len(spec.dims) != 4:
        return False
    sides = _sides(spec.dims)
    return all(not isinstance(side, int) or side >= 8 for side in sides)


def channel_axis(spec: InputSpec, layout: str = "auto") -> int:
    """The dimension of an image input that holds the channels: 1 or 3."""
    if layout != "auto":
        return 1 if layout == "nchw" else 3
    return 3 if spec.dims[3] in CHANNELS and spec.dims[1] not in CHANNELS else 1


def _sides(dims: Sequence[int | str | None]) -> tuple[int | str | None, int | str | None]:
    last = dims[3] in CHANNELS and dims[1] not in CHANNELS
    return (dims[1], dims[2]) if last else (dims[2], dims[3])


def _axis(spec: InputSpec, batch: int | str | None) -> int | None:
    """The dimension that counts samples, ``batch`` being the leading dimension of the model's first input."""
    if not spec.dims:
        return None
    if isinstance(batch, str):
        if _TIME.search(batch):
            return None
        if batch in spec.dims:
            return spec.dims.index(batch)
    leading = spec.dims[0]
    if isinstance(leading, int):
        return 0 if leading == batch else None
    return None if isinstance(leading, str) and _TIME.search(leading) else 0


def _tables(model: ir.Model) -> dict[str, int]:
    """The rows of the smallest table that each integer input looks up."""
    found: dict[str, int] = {}
    for value in model.graph.inputs:
        waiting, seen = [value], {id(value)}
        while waiting:
            current = waiting.pop()
            for node, position in current.uses():
                table = node.inputs[0]
                if node.op_type == "Gather" and position == 1 and table is not None and table.is_initializer():
                    shape = table.shape
                    if shape is not None and len(shape) == 2 and isinstance(shape[0], int):
                        found[value.name or ""] = min(shape[0], found.get(value.name or "", shape[0]))
                elif node.op_type in _PASSED and id(node.outputs[0]) not in seen:
                    seen.add(id(node.outputs[0]))
                    waiting.append(node.outputs[0])
    return found
