"""Half precision and 8-bit integers, by ONNX Runtime's own converters, and how far outputs move.

- ``fp16``: weights and arithmetic in half precision where there are kernels; inputs and outputs keep their types.
- ``int8-dynamic``: weights of matrix products in 8 bits, activations quantised as they come; needs no data.
  Convolutions stay in floating point: ONNX Runtime's dynamic integer convolution is slower, and not built for signed
  weights.
- ``int8-static``: convolutions, matrix products and what lies between in 8 bits, with ranges seen on calibration
  inputs; a weight has a scale for each output channel. On x86 without VNNI weights take 7 bits, because the products
  of its 8-bit instructions saturate.
"""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from graphprune.backends.onnxruntime.sessions import (
    PROTOBUF_LIMIT,
    Model,
    save_optimized,
    session,
    stored_size,
)
from graphprune.backends.quiet import quiet
from graphprune.calibration.data import Batches, load_batches
from graphprune.errors import ModelError, UsageError
from graphprune.sample_inputs import Inputs, input_specs, inputs_that_run
from graphprune.text import first_line

__all__ = ["PRECISIONS", "Converted", "convert"]

PRECISIONS = ("fp32", "fp16", "int8-dynamic", "int8-static")

DYNAMIC = ("MatMul", "Attention", "LSTM", "Gather", "EmbedLayerNormalization")
"""What is quantised without calibration (Gemm becomes MatMul)."""
QUANTISED = frozenset(
    {
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger"),
        *("DynamicQuantizeLSTM", "QAttention", "QEmbedLayerNormalization"),
    }
)
PER_CHANNEL = 13
"""The first opset in which a tensor may have a scale for each channel."""
HALF_MAXIMUM = float(np.finfo(np.float16).max)
CHECKED = 4
"""How many batches the result is checked on."""


@dataclass(frozen=True, slots=True)
class Converted:
    """A model in another precision, and how far it is from the one that it was made of.

    ``error`` is the root mean square of the difference over that of the outputs, over all floating-point outputs.
    """

    model: onnx.ModelProto
    error: float
    notes: tuple[str, ...] = ()


def convert(
    model: Model,
    precision: str,
    calibration: Any = None,
    *,
    seed: int = 0,
    dims: Mapping[str, int] | None = None,
) -> Converted:
    """``model`` in another precision; ``calibration`` is what ``load_batches`` takes, and needed for ``int8-static``.

    Raises:
        UsageError: there is no such precision, no calibration, or nothing to quantise.
        ModelError: the model cannot be converted, or what comes out has outputs that are not finite.
    """
    if precision not in PRECISIONS[1:]:
        raise UsageError(f"there is no precision '{precision}'; there are: {', '.join(PRECISIONS)}")
    if stored_size(model) > PROTOBUF_LIMIT:
        raise UsageError(f"{precision}: models of more than 2 GiB cannot be converted; compile this one in fp32")
    if precision == "int8-static" and calibration is None:
        raise UsageError("int8-static needs inputs to see ranges on: give --calib PATH (or --calib synthetic)")
    proto = _without_overrides(proto_of(model))
    before = session(proto)
    batches = None
    notes: tuple[str, ...] = ()
    if calibration is not None:
        batches = load_batches(calibration, ir.from_proto(proto), seed=seed, dims=dims)
        notes = batches.notes
    feeds: list[Inputs] = (
        batches.feeds[:CHECKED]
        if batches is not None
        else [inputs_that_run(lambda feed: before.run(None, feed), input_specs(before), seed, dims)]
    )
    quantised = _quantised(proto)
    try:
        with quiet():
            made = _converted(proto, precision, batches)
            after = session(made)
    except Exception as error:  # the converters raise whatever they come across
        raise ModelError(f"cannot be converted to {precision}: {first_line(error)}") from error
    if precision != "fp16" and _quantised(made) <= quantised:
        others = {"int8-dynamic": "int8-static, which takes convolutions too", "int8-static": "fp16"}
        raise UsageError(f"{precision}: the model has nothing to quantise; try {others[precision]}")
    distance = _difference(before, after, feeds, precision)
    where = "on made-up inputs" if batches is None or batches.synthetic else f"on {batches.source}"
    if precision == "int8-static" and _opset(proto) < PER_CHANNEL:
        notes = (*notes, f"int8-static: one scale a tensor, since opset {_opset(proto)} has none for each channel")
    notes = (*notes, f"{precision}: outputs differ by {distance:.2%} (root mean square, {where})")
    if precision == "fp16" and (beyond := _beyond_half(proto, feeds[0])):
        more = f" (one of {len(beyond)} tensors)" if len(beyond) > 1 else ""
        notes = (*notes, f"fp16: half precision ends at {HALF_MAXIMUM:.0f}, and '{beyond[0]}'{more} has more")
    if precision == "fp16" and platform.machine().lower() in ("x86_64", "amd64"):
        notes = (*notes, "fp16: x86 processors compute most operators in fp32, so it saves bytes here, not time")
    return Converted(made, distance, notes)


def proto_of(model: Model) -> onnx.ModelProto:
    """A message of its own, which holds all tensors.

    Raises:
        ModelError: the model cannot be read.
    """
    try:
        if isinstance(model, ir.Model):
            return ir.to_proto(ir.external_data.load_to_model(model.clone()))
        if isinstance(model, onnx.ModelProto):
            copied = onnx.ModelProto()
            copied.CopyFrom(model)
            return copied
        if isinstance(model, bytes):
            return onnx.load_from_string(model)
        return onnx.load(model)
    except Exception as error:  # protobuf and onnx share no base class
        raise ModelError(f"not a readable ONNX model ({first_line(error)})") from error


def _converted(proto: onnx.ModelProto, precision: str, batches: Batches | None) -> onnx.ModelProto:
    if precision == "fp16":
        from onnxruntime.transformers.float16 import convert_float_to_float16

        copied = onnx.ModelProto()
        copied.CopyFrom(proto)
        made: onnx.ModelProto = convert_float_to_float16(copied, keep_io_types=True)
        return made
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static

    with tempfile.TemporaryDirectory() as name:
        ready, done = Path(name) / "ready.onnx", Path(name) / "done.onnx"
        save_optimized(proto, ready, "basic")  # batch normalisation in convolutions, constants folded
        if precision == "int8-dynamic":
            quantize_dynamic(ready, done, op_types_to_quantize=list(DYNAMIC), weight_type=QuantType.QInt8)
        else:
            quantize_static(
                ready,
                done,
                _Reader(batches.feeds if batches is not None else ()),
                quant_format=QuantFormat.QDQ,
                per_channel=_opset(proto) >= PER_CHANNEL,
                reduce_range=_saturates(),
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        return onnx.load(done)


class _Reader:
    """Feeds in the form that ONNX Runtime's calibration reads them."""

    def __init__(self, feeds: Sequence[Inputs]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Inputs | None:
        return next(self._feeds, None)


def _difference(before: Any, after: Any, feeds: Sequence[Inputs], precision: str) -> float:
    difference = scale = 0.0
    for feed in feeds:
        for one, other in zip(before.run(None, feed), after.run(None, feed), strict=True):
            if not isinstance(one, np.ndarray) or one.dtype.kind != "f":
                continue
            if not np.array_equal(np.isfinite(one), np.isfinite(other)):
                raise ModelError(f"{precision}: outputs are not finite any more; keep this model in fp32")
            finite = np.isfinite(one)
            wide, narrow = one[finite].astype(np.float64), other[finite].astype(np.float64)
            difference += float(np.sum((wide - narrow) ** 2))
            scale += float(np.sum(wide**2))
    return float(np.sqrt(difference / scale)) if scale else 0.0


def _beyond_half(proto: onnx.ModelProto, feed: Inputs) -> list[str]:
    """The tensors that hold larger values than half precision has.

    The converted model does not show them where a processor computes it in single precision.
    """
    watched = onnx.ModelProto()
    watched.CopyFrom(proto)
    names = [name for node in watched.graph.node for name in node.output if name]
    del watched.graph.output[:]
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    runnable = session(watched, level="none")
    return [
        name
        for name, value in zip(names, runnable.run(None, feed), strict=True)
        if isinstance(value, np.ndarray)
        and value.dtype == np.float32
        and np.any(np.isfinite(value) & (np.abs(value) > HALF_MAXIMUM))
    ]


def _opset(proto: onnx.ModelProto) -> int:
    return max((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), default=PER_CHANNEL)


def _without_overrides(proto: onnx.ModelProto) -> onnx.ModelProto:
    """``proto`` with no initializer among its inputs, which the converters would leave in fp32 like an input."""
    stored = {initializer.name for initializer in proto.graph.initializer}
    kept = [value for value in proto.graph.input if value.name not in stored]
    if len(kept) < len(proto.graph.input):
        del proto.graph.input[:]
        proto.graph.input.extend(kept)
        proto.ir_version = max(proto.ir_version, 4)  # the first in which initializers need not be inputs
    return proto


def _quantised(proto: onnx.ModelProto) -> set[str]:
    """The operators of a model that compute with 8-bit integers, or convert to and from them."""
    return {node.op_type for node in proto.graph.node if node.op_type in QUANTISED}


def _saturates() -> bool:
    """Whether products of 8-bit integers are summed in 16 bits on this processor, which overflow."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        return "vnni" not in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
