"""One call of an operator on small operands, read by its rule and run for real."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from graphprune import rules
from graphprune.axes import AxisSpace, Leaf, Pin
from graphprune.elements import literal
from graphprune.rules.call import Call, Declined, Meaning, Operand
from graphprune.rules.positions import PLACES, POSITIONS, follow
from graphprune.sizes import Size, Symbolic, symbol

Array = npt.NDArray[Any]
Symbols = dict[tuple[int, int], Size]
Reference = Callable[..., "Array | tuple[Array | None, ...]"]


@dataclass(frozen=True)
class Const:
    """An operand whose contents the rule may read, as it may those of an initializer."""

    array: Array


@dataclass(frozen=True)
class Places:
    """An operand that holds positions along an axis of ``size``."""

    array: Array
    size: int


@dataclass
class Sample:
    """A call: ``operands`` are arrays, constants, positions or None.

    It runs in ONNX Runtime, in onnx.reference (``by_onnx``, or where the runtime lacks the operator), or as the
    function ``reference``. The contents of a result that ``follows`` the operands' shapes are not compared.
    """

    op: str
    operands: Sequence[Array | Const | Places | None]
    attributes: Mapping[str, Any]
    opset: int
    results: int
    reference: Reference | None = None
    tolerance: float = 1e-4
    by_onnx: bool = False
    follows: bool = False
    name: str = ""
    _runs: dict[bytes, Any] = field(default_factory=dict, repr=False)

    @property
    def label(self) -> str:
        spelled = [f"{key}={_short(value)}" for key, value in self.attributes.items()]
        version = [f"opset={self.opset}"] if self.opset != NEWEST else []
        return " ".join([self.op, *([self.name] if self.name else []), *version, *spelled])

    @property
    def arrays(self) -> list[Array | None]:
        return [operand.array if isinstance(operand, Const | Places) else operand for operand in self.operands]

    def run(self, arrays: Sequence[Array | None], attributes: Mapping[str, Any] | None = None) -> list[Array | None]:
        """The results of the real operator."""
        attributes = self.attributes if attributes is None else attributes
        if self.reference is not None:
            found = self.reference(*arrays, **attributes)
            return list(found) if isinstance(found, tuple) else [found]
        model = self.model(arrays, attributes)
        feeds = {
            f"x{number}": array
            for number, array in enumerate(arrays)
            if array is not None and not isinstance(self.operands[number], Const)
        }
        key = model.SerializeToString(deterministic=True)
        if key not in self._runs:
            self._runs[key] = Evaluator(model) if self.by_onnx else _session(model)
        return list(self._runs[key].run(None, feeds))

    def model(self, arrays: Sequence[Array | None], attributes: Mapping[str, Any]) -> onnx.ModelProto:
        domain, _, op_type = self.op.rpartition(".")
        domain = "" if domain == "onnx" else domain
        names = [f"x{number}" if array is not None else "" for number, array in enumerate(arrays)]
        outputs = [f"y{number}" for number in range(self.results)]
        node = helper.make_node(op_type, names, outputs, domain=domain, **attributes)
        inputs, initializers = [], []
        for number, array in enumerate(arrays):
            if array is None:
                continue
            if isinstance(self.operands[number], Const):
                initializers.append(numpy_helper.from_array(np.asarray(array), f"x{number}"))
            else:
                kind = helper.np_dtype_to_tensor_dtype(array.dtype)
                shape = array.shape if domain else [f"d{number}_{dim}" for dim in range(array.ndim)]
                inputs.append(helper.make_tensor_value_info(f"x{number}", kind, shape))
        graph = helper.make_graph(
            [node], "g", inputs, [onnx.ValueInfoProto(name=name) for name in outputs], initializers
        )
        opsets = [helper.make_opsetid("", self.opset)]
        if domain:
            opsets.append(helper.make_opsetid(domain, 1))
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    @cached_property
    def expected(self) -> list[Array | None]:
        return self.run(self.arrays)


NEWEST = 23


def _short(value: Any) -> str:
    return str(value).replace(" ", "")


class Evaluator:
    """onnx.reference behind the interface of a session."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.evaluator = ReferenceEvaluator(model)

    def run(self, _: None, feeds: dict[str, Array]) -> list[Array]:
        return list(self.evaluator.run(None, feeds))


def _session(model: onnx.ModelProto) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_mem_pattern = options.enable_cpu_mem_arena = False
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
        return Evaluator(model)


@dataclass
class Reading:
    """What a rule said about a sample."""

    space: AxisSpace
    call: Call
    results: list[tuple[Any, ...] | None]
    declined: str = ""

    @cached_property
    def free(self) -> list[Leaf]:
        """Unpinned leaves in order of appearance, of operands first."""
        found: dict[Leaf, None] = {}
        meanings = [*(operand.meaning for operand in self.call.operands if operand), *self.call.meanings.values()]
        counted = [(meaning.axis,) for meaning in meanings if meaning]
        for axes in [*(operand.axes for operand in self.call.operands if operand), *self.results, *counted]:
            for axis in axes or ():
                leaves = (leaf for leaf in self.space.leaves(axis) if not leaf.pinned and isinstance(leaf.size, int))
                found.update(dict.fromkeys(leaves))
        return list(found)


def symbolic(reading: Reading) -> list[Symbols]:
    """Ways to state one size as a symbol: for each leaf that is always a whole dimension, where it is one."""
    places: dict[Leaf, Symbols] = {}
    divided: set[Leaf] = set()
    tensors = [*(operand.axes if operand else None for operand in reading.call.operands), *reading.results]
    for number, axes in enumerate(tensors):
        for dim, axis in enumerate(axes or ()):
            for leaf in reading.space.leaves(axis):
                places.setdefault(leaf, {})[number, dim] = symbol("n")
                if leaf is not reading.space.find(axis):
                    divided.add(leaf)
    return [own for leaf, own in places.items() if leaf not in divided]


def read(sample: Sample, result_sizes: bool = True, symbols: Symbols | None = None) -> Reading:
    """Apply the rule of a sample's operator to fresh axes, as the ONNX reader does.

    ``symbols`` are symbolic sizes of dimensions ``(number, dim)`` of operands, and of results, numbered on after them.
    """
    symbols = symbols or {}
    space = AxisSpace()
    operands: list[Operand | None] = []
    for number, operand in enumerate(sample.operands):
        if operand is None:
            operands.append(None)
            continue
        array = operand.array if isinstance(operand, Const | Places) else operand
        axes = tuple(space.leaf(symbols.get((number, dim), size)) for dim, size in enumerate(array.shape))
        made = Operand(f"x{number}", axes, isinstance(operand, Const) or number > 0)
        if isinstance(operand, Const):
            made.read = lambda array=array: np.asarray(array)  # type: ignore[misc]
            if array.dtype in (np.int64, np.int32) and array.ndim <= 1:
                made.elements = tuple(literal(int(element)) for element in np.reshape(array, -1))
        if isinstance(operand, Places):
            made.meaning = Meaning(POSITIONS, space.leaf(operand.size), Pin("", "", PLACES))
        operands.append(made)
    sizes: list[tuple[Size, ...] | None] = [None] * sample.results
    if result_sizes:
        sizes = [
            None
            if array is None
            else tuple(symbols.get((number, dim), size) for dim, size in enumerate(np.shape(array)))
            for number, array in enumerate(sample.expected, len(operands))
        ]
    call = Call(space, "it", sample.op, operands, sample.attributes, list(sizes), sample.opset)
    call.room = tuple(0 if made is None else _room(made.dtype) for made in sample.expected)
    binding = rules.find(sample.op)
    assert binding is not None, sample.op
    try:
        results = list(binding.rule(call))
        for number, made in enumerate(call.operands):
            if made is not None and number not in call.related:
                call.pin(made.axes or (), "read by this operator as a whole")
        follow(call, sample.op)
    except Declined as declined:
        for made in call.operands:
            if made is not None:
                call.pin(made.axes or (), str(declined))
        call.followed.clear()
        follow(call, "")
        call.sites.clear()
        call.mixes.clear()
        return Reading(space, call, call.unknown_results(str(declined)), str(declined))
    return Reading(space, call, results)


def _room(dtype: np.dtype[Any]) -> int:
    """Up to which whole number an array can hold all of them."""
    if dtype.kind in "iu":
        return int(np.iinfo(dtype).max)
    return int(2 / np.finfo(dtype).eps) if dtype.kind == "f" else 0


def settle(reading: Reading, sample: Sample) -> None:
    """Give symbolic sizes the numbers that they have in the sample; what is free stays what the reading found."""
    _ = reading.free
    arrays = [*sample.arrays, *sample.expected]
    tensors = [*(operand.axes if operand else None for operand in reading.call.operands), *reading.results]
    places = [
        (reading.space.find(axis), size)
        for array, axes in zip(arrays, tensors, strict=False)
        for axis, size in zip(axes or (), np.shape(array) if array is not None else (), strict=False)
    ]
    values = {axis.size.symbols: size for axis, size in places if isinstance(axis.size, Symbolic)}
    for axis, _size in places:
        for node in reading.space.postorder(axis):
            if isinstance(node.size, Symbolic) and all((name,) in values for name in node.size.symbols):
                node.size = node.size.coefficient * prod(values[name,] for name in node.size.symbols)


def signed(sample: Sample, sign: int) -> Sample:
    """The same call with all floats of one sign."""
    operands = [
        sign * np.abs(operand) if isinstance(operand, np.ndarray) and operand.dtype.kind == "f" else operand
        for operand in sample.operands
    ]
    return replace(sample, operands=operands, _runs={})


def random(shape: Sequence[int], dtype: npt.DTypeLike = np.float32, seed: int = 0) -> Array:
    """Numbers of either sign, none near zero; integers from the whole of a small range."""
    generator = np.random.default_rng([seed, *shape])
    kind = np.dtype(dtype)
    if kind.kind in "iu":
        low, high = (1, 20) if kind.kind == "u" else (-9, 10)
        return generator.integers(low, high, shape).astype(kind)
    if kind.kind == "b":
        return generator.random(shape) < 0.5
    drawn = generator.uniform(0.2, 1.0, shape) * generator.choice([-1, 1], shape)
    return np.asarray(drawn).astype(kind)


bfloat16 = np.dtype(ml_dtypes.bfloat16)


def differ(a: Array | None, b: Array | None, relative: float, absolute: float | None = None) -> bool:
    """Whether two results are not the same up to rounding."""
    if a is None or b is None:
        return False
    if a.shape != b.shape:
        return True
    if a.dtype.kind in "OUST":
        return not np.array_equal(a, b)
    left, right = (np.asarray(side, np.complex128) for side in (a, b))
    return not np.allclose(left, right, rtol=relative, atol=relative if absolute is None else absolute, equal_nan=True)
