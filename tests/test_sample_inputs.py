from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graphprune.backends.onnxruntime import session
from graphprune.errors import ModelError, UsageError
from graphprune.sample_inputs import InputSpec, input_specs, inputs_that_run, random_inputs

KINDS = """
<ir_version: 10, opset_import: ["" : 18]>
kinds (float[batch, 3] a, float16[batch, 3] b, double[batch] c, int64[batch, sequence] input_ids,
       int64[batch, sequence] attention_mask, bool[batch] d, int32[batch, sequence] position_ids)
    => (float[batch, 3] y) { y = Identity(a) }
"""


def parsed(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(text)


def spec(name: str, dtype: str, *dims: int | str | None) -> InputSpec:
    return InputSpec(name, np.dtype(dtype), dims)


def test_a_proto_an_ir_model_and_a_session_have_the_same_inputs() -> None:
    proto = parsed(KINDS)
    specs = input_specs(proto)
    assert specs == input_specs(ir.from_proto(proto)) == input_specs(session(proto))
    assert [s.name for s in specs][:2] == ["a", "b"]
    assert specs[3] == spec("input_ids", "int64", "batch", "sequence")


def test_element_types_and_shared_symbols() -> None:
    inputs = random_inputs(parsed(KINDS))
    assert {name: value.dtype.name for name, value in inputs.items()} == {
        "a": "float32",
        "b": "float16",
        "c": "float64",
        "input_ids": "int64",
        "attention_mask": "int64",
        "d": "bool",
        "position_ids": "int32",
    }
    assert inputs["a"].shape == (2, 3)
    assert inputs["c"].shape == (2,)
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape == (2, 7)


def test_integers_follow_their_names() -> None:
    inputs = random_inputs(
        [
            spec("input_ids", "int64", 50, 50),
            spec("attention_mask", "int64", 2, 5),
            spec("position_ids", "int64", 2, 5),
            spec("lengths", "int64", 3),
            spec("token_type_ids", "int64", 2, 5),
            spec("sr", "int64"),
            spec("image", "uint8", 1, 16, 16, 3),
        ]
    )
    assert inputs["input_ids"].min() == 0
    assert 1 < inputs["input_ids"].max() < 8
    assert (inputs["attention_mask"] == 1).all()
    assert inputs["position_ids"].tolist() == [[0, 1, 2, 3, 4]] * 2
    assert inputs["lengths"].tolist() == [7, 7, 7]
    assert not inputs["token_type_ids"].any()
    assert inputs["sr"].item() == 16000
    assert inputs["image"].max() > 200


def test_the_seed_decides() -> None:
    specs = [spec("x", "float32", 4, 4)]
    assert np.array_equal(random_inputs(specs, seed=3)["x"], random_inputs(specs, seed=3)["x"])
    assert not np.array_equal(random_inputs(specs, seed=3)["x"], random_inputs(specs, seed=4)["x"])


@pytest.mark.parametrize(
    ("dims", "shape"),
    [
        (("N", "T"), (2, 7)),
        ((None, None), (2, 7)),
        (("seq", "batch", 5), (7, 2, 5)),
        (("batch", "past_length + 1"), (2, 8)),
        (("batch", 4, "past_sequence_length", 8), (2, 4, 7, 8)),
        (("batch", 3, "height", "width"), (2, 3, 64, 64)),
        ((None, None, None, 3), (2, 64, 64, 3)),
        (("batch", 1, "seq", "seq"), (2, 1, 7, 7)),
        (("unk.1", "images::dim"), (2, 7)),
        ((0, 3), (0, 3)),
        ((), ()),
    ],
)
def test_open_dimensions(dims: tuple[int | str | None, ...], shape: tuple[int, ...]) -> None:
    assert random_inputs([InputSpec("x", np.dtype("float32"), dims)])["x"].shape == shape


def test_a_cache_and_the_total_agree() -> None:
    inputs = random_inputs(
        [
            spec("input_ids", "int64", "batch_size", "sequence_length"),
            spec("attention_mask", "int64", "batch_size", "total_sequence_length"),
            spec("past.0.key", "float32", "batch_size", 2, "past_sequence_length", 4),
        ]
    )
    assert inputs["attention_mask"].shape[1] == inputs["input_ids"].shape[1] + inputs["past.0.key"].shape[2]


def test_dimensions_can_be_set() -> None:
    specs = [spec("x", "float32", "n", "length"), spec("y", "float32", "n", None)]
    inputs = random_inputs(specs, dims={"n": 5, "length": 11, "y:1": 13})
    assert inputs["x"].shape == (5, 11)
    assert inputs["y"].shape == (5, 13)
    with pytest.raises(UsageError, match=r"no symbolic dimension 'm'; it has: length, n, y:1"):
        random_inputs(specs, dims={"m": 1})


def test_initializers_are_not_fed() -> None:
    proto = parsed(
        '<ir_version: 3, opset_import: ["" : 7]> g (float[2] x, float[2] w) => (float[2] y) <float[2] w = {1, 2}>'
        " { y = Add(x, w) }"
    )
    assert [s.name for s in input_specs(proto)] == ["x"]


def test_what_is_no_tensor_is_refused() -> None:
    proto = parsed(
        '<ir_version: 8, opset_import: ["" : 18]> g (seq(float[2]) s) => (int64 n) { n = SequenceLength(s) }'
    )
    for model in (proto, session(proto)):
        with pytest.raises(ModelError, match=r"input 's' .*no tensor.*give real ones"):
            input_specs(model)


def test_low_precision_types_and_strings() -> None:
    bfloat16, int4, text = (ir.DataType[name].numpy() for name in ("BFLOAT16", "INT4", "STRING"))
    specs = [InputSpec("a", bfloat16, (4,)), InputSpec("b", int4, (4,)), InputSpec("c", text, (2,))]
    inputs = random_inputs(specs)
    assert inputs["a"].dtype == bfloat16
    assert np.unique(inputs["a"].astype(np.float32)).size == 4
    assert inputs["b"].dtype == int4
    assert inputs["c"].tolist() == ["a", "a"]


def test_larger_extents_are_tried_until_the_model_runs() -> None:
    model = session(
        parsed(
            '<ir_version: 8, opset_import: ["" : 18]> g (float[n, t] x) => (float[n, c, u] y)'
            " <int64[3] shape = {0, -1, 32}> { y = Reshape(x, shape) }"
        )
    )
    inputs = inputs_that_run(lambda feed: model.run(None, feed), input_specs(model))
    assert inputs["x"].shape == (2, 64)


def test_a_model_that_never_runs_says_why() -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("no kernel for this\nsecond line")

    with pytest.raises(ModelError, match=r"does not run on random inputs \(no kernel for this\); give real ones"):
        inputs_that_run(refuse, [spec("x", "float32", "n")])
