"""Every row through the whole product: its sample as a model of one node, pruned by half and proved.

All operands of the node are weights, the first one times an input so that nothing folds; results are weighted and
summed, so that every axis is free and every removal is seen.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphprune
from rules.rows import ROWS
from rules.sample import Array, Const, Evaluator, Places, Sample, read

UNSEEN = ("onnx.IsInf", "onnx.IsNaN")  # one answer for all ordinary numbers
NO_MASK = ("com.microsoft.MatMulInteger16",)  # ONNX Runtime has no Where for its type


def prunable(sample: Sample) -> bool:
    if sample.op in UNSEEN or sample.op in NO_MASK or sample.reference or sample.by_onnx or sample.follows:
        return False
    if any(isinstance(operand, Places) for operand in sample.operands):
        return False  # nothing says so of a weight
    sample.run(sample.arrays)
    in_runtime = not any(isinstance(session, Evaluator) for session in sample._runs.values())
    return in_runtime and any(isinstance(leaf.size, int) and leaf.size > 1 for leaf in read(sample).free)


def whole_model(sample: Sample) -> onnx.ModelProto:
    """The sample between an input and sums."""
    domain, _, op_type = sample.op.rpartition(".")
    domain = "" if domain == "onnx" else domain
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    names: list[str] = []

    def node(op: str, inputs: list[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def weight(array: Array, name: str) -> str:
        weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    for number, array in enumerate(sample.arrays):
        if array is None:
            names.append("")
            continue
        name = weight(array, f"w{number}")
        if number == 0 and not isinstance(sample.operands[0], Const) and array.dtype in (np.float32, np.uint8, np.int8):
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            number_ = node("Cast", [name], "as float", to=TensorProto.FLOAT) if kind != TensorProto.FLOAT else name
            name = node("Mul", [number_, "one"], "times one")
            name = node("Cast", [name], "back", to=kind) if kind != TensorProto.FLOAT else name
        names.append(name)
    results = [f"y{number}" for number in range(sample.results)]
    nodes.append(helper.make_node(op_type, names, results, domain=domain, name="row", **sample.attributes))
    outputs = []
    for number, (result, array) in enumerate(zip(results, sample.expected, strict=True)):
        assert array is not None
        if array.dtype != np.float32:
            result = node("Cast", [result], f"float {result}", to=TensorProto.FLOAT)
        drawn = np.random.default_rng(number).uniform(0.5, 1.5, np.shape(array)).astype(np.float32)
        result = node("Mul", [result, weight(drawn, f"scale {result}")], f"scaled {result}")
        if np.ndim(array):
            dims = [weight(np.arange(np.ndim(array)), f"dims {result}")] if sample.opset >= 13 else []
            result = node("ReduceSum", [result, *dims], f"sum {result}", keepdims=0)
        outputs.append(helper.make_tensor_value_info(result, TensorProto.FLOAT, []))
    inputs = [helper.make_tensor_value_info("one", TensorProto.FLOAT, [])]
    opsets = [helper.make_opsetid("", sample.opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(
        helper.make_graph(nodes, "row", inputs, outputs, weights), opset_imports=opsets, ir_version=10
    )


@pytest.mark.parametrize("op", sorted({sample.op for sample in ROWS}))
def test_pruned_and_proved(op: str) -> None:
    for sample in (sample for sample in ROWS if sample.op == op and prunable(sample)):
        result = graphprune.prune(whole_model(sample), ratio=0.5, criterion="random")
        assert result.verified, sample.label
        assert not result.undeclared, sample.label
        assert result.params.after < result.params.before, sample.label
