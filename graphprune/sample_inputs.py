"""Random inputs for a model whose real data is not at hand.

Symbolic dimensions are filled by name: a batch gets 2 (1 where something is measured), everything else one common
*extent*, expressions such as ``past + 1`` are evaluated, and equal names get equal sizes. Values follow the element
type and, for integers, the input's name: masks are ones, positions count up, lengths are the extent, other integers are
small and not negative because they are most often indices into a table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from graphprune.errors import ModelError, UsageError
from graphprune.text import first_line

__all__ = [
    "SMALL",
    "TYPICAL",
    "InputSpec",
    "Inputs",
    "Sizes",
    "input_shapes",
    "input_specs",
    "inputs_that_run",
    "random_inputs",
]

Inputs: TypeAlias = dict[str, np.ndarray[Any, Any]]
"""Arrays by input name."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What symbolic dimensions become: batch, the least side of an image, and extents that are tried in turn."""

    batch: int
    image: int
    extents: tuple[int, ...]


EXTENT = 7  # prime, so that a size that leaks into a shape constant fails
SMALL = Sizes(
    2,  # the smallest batch at which mixing up samples shows
    64,  # networks halve the sides of images about five times
    (EXTENT, 16, 64, 96, 224, 512, 1280, 16000),  # some networks need a least or a divisible size
)
"""For checking: quick, and as telling as can be."""
TYPICAL = Sizes(1, 224, (128, 1024, 16000))
"""For costs and latency: one sample, as it is in use. Extents are tokens, frames or samples."""
SAMPLE_RATE = 16000
TABLE = 8  # integers stay below it: few embeddings are smaller


@dataclass(frozen=True, slots=True)
class InputSpec:
    """Name, element type and dimensions of a model input; a dimension is a size, a symbol or expression, or None."""

    name: str
    dtype: np.dtype[Any]
    dims: tuple[int | str | None, ...]


def input_specs(model: ir.Model | onnx.ModelProto | onnxruntime.InferenceSession) -> list[InputSpec]:
    """The inputs that a caller must feed (initializers that are listed as inputs are not among them).

    Raises :class:`ModelError` for an input that is no tensor, or whose rank is unknown.
    """
    if isinstance(model, onnxruntime.InferenceSession):
        return [
            InputSpec(i.name, _session_dtype(i.name, i.type), tuple(map(_dim, i.shape))) for i in model.get_inputs()
        ]
    graph = (ir.from_proto(model) if isinstance(model, onnx.ModelProto) else model).graph
    return [_value_spec(value) for value in graph.inputs if value.name not in graph.initializers]


def random_inputs(
    model: ir.Model | onnx.ModelProto | onnxruntime.InferenceSession | Sequence[InputSpec],
    seed: int = 0,
    dims: Mapping[str, int] | None = None,
    extent: int = EXTENT,
    sizes: Sizes = SMALL,
) -> Inputs:
    """Inputs for ``model``, the same for the same seed.

    ``dims`` sets symbolic dimensions by name, or the ones without a name by ``input:position``; a name that the model
    does not have raises :class:`UsageError`.
    """
    specs = list(model) if isinstance(model, Sequence) else input_specs(model)
    shapes = input_shapes(specs, dims, extent, sizes)
    generator = np.random.default_rng(seed)
    return {spec.name: _values(spec, shapes[spec.name], generator, extent) for spec in specs}


def input_shapes(
    specs: Sequence[InputSpec],
    dims: Mapping[str, int] | None = None,
    extent: int = EXTENT,
    sizes: Sizes = SMALL,
) -> dict[str, tuple[int, ...]]:
    """Shapes by input name: symbolic dimensions become the batch or the side of an image of ``sizes``, or ``extent``.

    ``dims`` overrides as in :func:`random_inputs`.
    """
    found = _sizes(specs, dims or {}, extent, sizes.batch, sizes.image)
    return {
        spec.name: tuple(dim if isinstance(dim, int) else found[_key(spec, i)] for i, dim in enumerate(spec.dims))
        for spec in specs
    }


def inputs_that_run(
    run: Callable[[Inputs], object],
    specs: Sequence[InputSpec],
    seed: int = 0,
    dims: Mapping[str, int] | None = None,
    sizes: Sizes = SMALL,
) -> Inputs:
    """The first random inputs that ``run`` accepts, trying the extents of ``sizes``, then those of ``SMALL``.

    Raises :class:`ModelError` with the first refusal where no extent works.
    """
    refusals: list[Exception] = []
    for extent in dict.fromkeys((*sizes.extents, *SMALL.extents)):
        inputs = random_inputs(specs, seed, dims, extent, sizes)
        try:
            run(inputs)
        except Exception as error:  # whatever the runtime raises means that it does not take these inputs
            refusals.append(error)
            if all(isinstance(dim, int) for spec in specs for dim in spec.dims):
                break
        else:
            return inputs
    message = first_line(refusals[0])
    raise ModelError(f"the model does not run on random inputs ({message}); give real ones, or set its dimensions")


def _dim(value: int | str | None) -> int | str | None:
    if isinstance(value, int):
        return value if value >= 0 else None
    return value or None


def _session_dtype(name: str, text: str) -> np.dtype[Any]:
    match = re.fullmatch(r"tensor\((\w+)\)", text)
    if match is None:
        raise ModelError(f"input '{name}' is {text}, no tensor: random inputs cannot be made for it; give real ones")
    return ir.DataType[match.group(1).upper()].numpy()


def _value_spec(value: ir.Value) -> InputSpec:
    name = value.name or ""
    if not isinstance(value.type, ir.TensorType) or value.dtype is None:
        raise ModelError(f"input '{name}' is no tensor: random inputs cannot be made for it; give real ones")
    if value.shape is None:
        raise ModelError(f"input '{name}' has no shape: random inputs cannot be made for it; give real ones")
    dtype = np.dtype(object) if value.dtype == ir.DataType.STRING else value.dtype.numpy()
    return InputSpec(
        name, dtype, tuple(_dim(dim.value if isinstance(dim, ir.SymbolicDim) else dim) for dim in value.shape)
    )


def _sizes(specs: Sequence[InputSpec], given: Mapping[str, int], extent: int, batch: int, image: int) -> dict[str, int]:
    """The size of every symbol, expression and unnamed dimension."""
    keys = {
        _key(spec, i): batch if i == 0 else max(extent, image) if _is_image(spec) else extent
        for spec in reversed(specs)
        for i, dim in enumerate(spec.dims)
        if not isinstance(dim, int)
    }
    symbols = {symbol: size for key, size in keys.items() for symbol in _symbols(key)}
    unknown = sorted(given.keys() - keys.keys() - symbols.keys())
    if unknown:
        known = ", ".join(sorted({**keys, **symbols})) or "none"
        raise UsageError(f"the model has no symbolic dimension '{unknown[0]}'; it has: {known}")
    sizes = {symbol: _default(symbol, size, extent, batch) for symbol, size in symbols.items()}
    past = [size for symbol, size in sizes.items() if "past" in symbol.lower()]
    if past:
        # decoders with a cache attend over what is cached and what is new
        sizes.update({symbol: past[0] + extent for symbol in sizes if "total" in symbol.lower()})
    sizes.update(given)
    for key in keys:
        if key not in sizes:
            value = ir.SymbolicDim(key).evaluate(sizes) if _symbols(key) != {key} else None
            sizes[key] = value if isinstance(value, int) else extent
    return sizes


def _is_image(spec: InputSpec) -> bool:
    """Whether two of the three dimensions after the batch are open."""
    return len(spec.dims) == 4 and sum(not isinstance(dim, int) for dim in spec.dims[1:]) == 2


def _key(spec: InputSpec, position: int) -> str:
    return str(spec.dims[position] or f"{spec.name}:{position}")


def _symbols(key: str) -> set[str]:
    """The names in a dimension's expression; the whole text where it is no expression."""
    if not re.fullmatch(r"[\w\s+\-*/()]+", key):
        return {key}
    try:
        return set(ir.SymbolicDim(key).free_symbols()) or {key}
    except ValueError:
        return {key}


def _default(symbol: str, size: int, extent: int, batch: int) -> int:
    """The size of a symbol whose name tells what it is, else ``size``."""
    name = symbol.lower()
    if re.search(r"batch|^[nb]$", name):
        return batch
    if re.search(r"seq|len|time|past|^[tls]$", name):
        return extent
    return size


def _values(
    spec: InputSpec, shape: tuple[int, ...], generator: np.random.Generator, extent: int
) -> np.ndarray[Any, Any]:
    name = spec.name.lower()
    if spec.dtype == np.dtype(object):
        return np.full(shape, "a", dtype=object)
    if np.issubdtype(spec.dtype, np.complexfloating):
        return (generator.standard_normal(shape) + 1j * generator.standard_normal(shape)).astype(spec.dtype)
    if spec.dtype.kind not in "iub" and "int" not in spec.dtype.name:
        return np.asarray(generator.standard_normal(shape)).astype(spec.dtype)
    if "mask" in name:
        return np.ones(shape, spec.dtype)
    if spec.dtype.kind == "b":
        return np.asarray(generator.integers(0, 2, shape)).astype(spec.dtype)
    if "position" in name and shape:
        return np.broadcast_to(np.arange(shape[-1]), shape).astype(spec.dtype)
    if re.search(r"length|_lens?$", name):
        return np.full(shape, extent, spec.dtype)
    if re.fullmatch(r"sr|rate|sampl\w*_rate", name):
        return np.full(shape, SAMPLE_RATE, spec.dtype)
    if re.search(r"token_type|segment", name):
        return np.zeros(shape, spec.dtype)
    if spec.dtype == np.uint8 and len(shape) >= 3:
        return generator.integers(0, 256, shape, dtype=np.uint8)
    return np.asarray(generator.integers(0, TABLE, shape)).astype(spec.dtype)
