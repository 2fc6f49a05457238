"""Bodies of operators whose rule does not read them keep what they use."""

from __future__ import annotations

import onnx
from analysed import analyse
from onnx import parser

MODEL = """
<ir_version: 10, opset_import: ["": 18]>
g (float[2, 3] x, seq(float[2, 5]) s) => (seq(float[2, 5]) y)
<float[3, 5] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}> {
    h = MatMul (x, w)
    y = SequenceMap (s) <body = b (float[2, 5] one) => (float[2, 5] sum) { sum = Add (one, h) }>
}
"""


def test_a_captured_value_is_pinned() -> None:
    model: onnx.ModelProto = parser.parse_model(MODEL)
    structure = analyse(model).structure
    assert structure.groups == ()
    assert any("read in a body" in str(pin) for pin in structure.pins(structure.axis("w", 1)))
