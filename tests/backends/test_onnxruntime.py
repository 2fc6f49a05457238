from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graphprune.backends.onnxruntime import compare, session, stored_bytes
from graphprune.errors import ModelError, UsageError
from graphprune.models import digits_path, digits_test


def matmul(size: int, name: str = "m") -> onnx.ModelProto:
    weight = onnx.numpy_helper.from_array(np.eye(size, dtype=np.float32), "w")
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        name,
        [value("x", onnx.TensorProto.FLOAT, ["n", size])],
        [value("y", onnx.TensorProto.FLOAT, ["n", size])],
        [weight],
    )
    return onnx.helper.make_model(graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 18)])


@pytest.fixture
def external(tmp_path: Path) -> Path:
    path = tmp_path / "external.onnx"
    onnx.save(matmul(64), path, save_as_external_data=True, location="external.data", size_threshold=0)
    return path


def test_every_form_of_a_model_computes_the_same(tmp_path: Path) -> None:
    proto = onnx.load(digits_path())
    images = digits_test().inputs[:5]
    forms = [digits_path(), str(digits_path()), proto, proto.SerializeToString(), ir.from_proto(proto)]
    outputs = [session(form, threads=1).run(None, {"images": images})[0] for form in forms]
    assert np.ptp(outputs[0]) > 1
    for output in outputs[1:]:
        assert np.array_equal(output, outputs[0])


def test_external_data_is_found_from_memory(external: Path) -> None:
    model = ir.load(external)
    assert isinstance(model.graph.initializers["w"].const_value, ir.ExternalTensor)
    x = np.arange(64, dtype=np.float32)[None]
    assert np.array_equal(session(model).run(None, {"x": x})[0], x)


def test_external_data_from_two_folders(external: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    onnx.save(matmul(64), tmp_path / "other" / "m.onnx", save_as_external_data=True, location="d", size_threshold=0)
    model, other = ir.load(external), ir.load(tmp_path / "other" / "m.onnx")
    x = model.graph.inputs[0]
    node = ir.node("MatMul", [model.graph.outputs[0], other.graph.initializers["w"]])
    second = ir.Value(name="w2", const_value=other.graph.initializers["w"].const_value)
    node.replace_input_with(1, second)
    model.graph.register_initializer(second)
    model.graph.append(node)
    node.outputs[0].name = "z"
    model.graph.outputs[0] = node.outputs[0]
    array = np.arange(64, dtype=np.float32)[None]
    assert np.array_equal(session(model).run(None, {str(x.name): array})[0], array)


def test_what_does_not_load_is_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model at all")
    for model, words in ((broken, "broken.onnx"), (tmp_path / "none.onnx", "no such file"), (b"xx", "does not load")):
        with pytest.raises(ModelError, match=words) as caught:
            session(model)
        assert "\n" not in str(caught.value)


def test_unknown_providers_and_threads_are_refused() -> None:
    with pytest.raises(UsageError, match=r"no execution provider 'NoSuch'; it has: .*CPUExecutionProvider"):
        session(digits_path(), providers=["NoSuch"])
    with pytest.raises(UsageError, match="threads must be at least 1, not 0"):
        session(digits_path(), threads=0)


def test_models_are_compared(tmp_path: Path) -> None:
    small, large = tmp_path / "small.onnx", tmp_path / "large.onnx"
    onnx.save(matmul(8), small)
    onnx.save(matmul(2048), large)
    fast, slow = compare([small, large], warmup=1, repeats=9, threads=1)
    assert all(0 < each.minimum <= each.median and each.spread >= 0 for each in (fast, slow))
    assert fast.runs == slow.runs == 9
    assert fast.model == str(small)
    assert fast.bytes == small.stat().st_size


def test_given_inputs_are_used_and_checked() -> None:
    (latency,) = compare([digits_path()], {"images": digits_test().inputs[:1]}, warmup=0, repeats=3)
    assert latency.median > 0
    with pytest.raises(ModelError, match=r"digits\.onnx: does not run on the given inputs: .*"):
        compare([digits_path()], {"images": np.zeros((1, 3, 8, 8), np.float32)})
    with pytest.raises(UsageError, match="at least one run"):
        compare([digits_path()], repeats=0)


def test_external_data_counts(external: Path) -> None:
    data = external.parent / "external.data"
    assert data.stat().st_size == 64 * 64 * 4
    assert stored_bytes(external) == external.stat().st_size + data.stat().st_size
    with pytest.raises(ModelError, match="nowhere"):
        stored_bytes(external.parent / "nowhere.onnx")
