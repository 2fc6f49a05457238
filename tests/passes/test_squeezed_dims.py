"""A Squeeze removes after a cut what it removed before, and nothing else."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

import graphprune


def _squeezing(opset: int, batch: str) -> onnx.ModelProto:
    model: onnx.ModelProto = parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : {opset}]>
        g (float[{batch},1,16] x) => (float[{"5" if batch == "1" else "N,5"}] y) {{
            h = MatMul(x, w)
            s = Squeeze(h)
            y = MatMul(s, v)
        }}""")
    rng = np.random.default_rng(0)
    for name, shape in (("w", (16, 2)), ("v", (2, 5))):
        model.graph.initializer.append(numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    return model


@pytest.mark.parametrize("opset", [11, 13])
def test_a_cut_to_one_position_leaves_the_rank(opset: int) -> None:
    result = graphprune.prune(_squeezing(opset, "1"), ratio=0.5)
    assert result.verified
    assert result.params.after == result.params.before / 2


def test_what_a_symbolic_size_leaves_open_is_pinned_with_the_reason() -> None:
    structure = graphprune.inspect(_squeezing(13, "N")).structure
    assert not structure.groups
    assert any("squeezed too" in pin.reason for pin in structure.pins(structure.axis("w", 1)))
