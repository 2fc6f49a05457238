"""Opening ONNX models: what opens, what is refused, and in which words."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from frontends.small_models import small_network, write_external
from onnx import helper, numpy_helper

from graphprune.errors import ModelError
from graphprune.frontends.onnx_data import check_finite, chunks
from graphprune.frontends.onnx_file import load

FLOAT = onnx.TensorProto.FLOAT


def refusal(source: object) -> str:
    """Return the words in which a source is refused; they are one printable line of bounded length."""
    with pytest.raises(ModelError) as caught:
        load(source)  # type: ignore[arg-type]
    words = str(caught.value)
    assert words.isprintable()
    assert len(words) < 1000
    assert ";" in words
    return words


def written(tmp_path: Path, content: bytes, name: str = "model.onnx") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


# -- what opens ---------------------------------------------------------------------------------------------------


def test_opens_a_path_a_message_and_a_model(tmp_path: Path) -> None:
    proto = small_network()
    content = proto.SerializeToString()
    path = written(tmp_path, content)
    for source in (path, str(path), proto, load(proto)):
        model = load(source)
        assert [node.op_type for node in model.graph] == ["Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm"]
        assert model.opset_imports == {"": 17, "com.example": 3}
    assert proto.SerializeToString() == content
    assert path.read_bytes() == content


def test_sources_are_not_changed_through_the_result() -> None:
    proto = small_network()
    content = proto.SerializeToString()
    model = load(proto)
    clone = load(model)
    for changed in (clone, model):
        changed.graph.initializers["conv.bias"].name = "renamed"
        changed.graph.remove(changed.graph.node("relu"), safe=False)
        assert proto.SerializeToString() == content
    assert len(load(proto).graph) == 5


def test_more_than_two_gigabytes_open_without_being_read(tmp_path: Path) -> None:
    side = 32768
    with open(tmp_path / "big.data", "wb") as file:
        file.truncate(side * side * 4)
    weight = onnx.TensorProto(name="w", data_type=FLOAT, dims=[side, side], data_location=onnx.TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="big.data")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "big",
        [helper.make_tensor_value_info("x", FLOAT, ["n", side])],
        [helper.make_tensor_value_info("y", FLOAT, ["n", side])],
        [weight],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    tensor = load(written(tmp_path, proto.SerializeToString())).graph.initializers["w"].const_value
    assert isinstance(tensor, ir.ExternalTensor)
    assert tensor.raw is None
    assert tensor.nbytes == 4 << 30


def test_unordered_nodes_are_put_in_order() -> None:
    proto = small_network()
    proto.graph.node.sort(key=lambda node: node.name)
    assert [node.name for node in load(proto).graph] == ["conv", "relu", "pool", "flat", "head"]


def test_negative_sizes_become_unknown() -> None:
    proto = small_network()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    shape = load(proto).graph.inputs[0].shape
    assert shape is not None
    assert shape[1:] == (3, 8, 8)
    assert shape[0] == ir.SymbolicDim(None)


def test_operators_of_unknown_domains_open() -> None:
    proto = small_network()
    proto.graph.node[1].domain = "com.example"
    proto.graph.node[1].op_type = "Gate"
    proto.graph.node[1].attribute.add(name="blob", type=onnx.AttributeProto.STRING, s=b"\xff\xfe")
    assert load(proto).graph.node("relu").op_type == "Gate"


def test_the_long_name_of_the_standard_domain_is_the_short_one() -> None:
    proto = small_network()
    proto.opset_import[0].domain = "ai.onnx"
    for node in proto.graph.node:
        node.domain = "ai.onnx"
    model = load(proto)
    assert model.opset_imports[""] == 17
    assert {node.domain for node in model.graph} == {""}


def branch(output: str, reads: str, operator: str = "Identity") -> onnx.GraphProto:
    node = helper.make_node(operator, [reads], [output])
    return helper.make_graph([node], "branch", [], [helper.make_tensor_value_info(output, FLOAT, None)])


def with_branches(then: onnx.GraphProto, otherwise: onnx.GraphProto) -> onnx.ModelProto:
    proto = small_network()
    proto.graph.input.append(helper.make_tensor_value_info("flag", onnx.TensorProto.BOOL, []))
    proto.graph.node.append(helper.make_node("If", ["flag"], ["z"], then_branch=then, else_branch=otherwise))
    proto.graph.output.append(helper.make_tensor_value_info("z", FLOAT, None))
    return proto


def test_branches_read_values_around_them_and_may_shadow_names() -> None:
    proto = with_branches(branch("b", "a"), branch("j", "a", "Relu"))
    proto.graph.node.sort(key=lambda node: node.op_type != "If")
    assert next(reversed(load(proto).graph)).op_type in ("If", "Gemm")


@pytest.mark.corpus
def test_every_network_of_the_corpus_opens() -> None:
    folder = os.environ.get("GRAPHPRUNE_CORPUS")
    if not folder:
        pytest.skip("GRAPHPRUNE_CORPUS is not set")
    paths = sorted(Path(folder, "onnx").glob("*.onnx"))
    assert paths
    for path in paths:
        model = load(path)
        check_finite(model)
        assert len(load(model).graph) == len(model.graph)


@pytest.mark.filterwarnings("ignore")
def test_every_model_of_onnx_backend_tests_opens() -> None:
    from onnx.backend.test.case.node import collect_testcases

    models = [(case.name, case.model) for case in collect_testcases(None) if case.model is not None]
    assert len(models) > 1000
    for name, proto in models:
        try:
            load(proto)
        except ModelError as error:
            raise AssertionError(f"{name} is valid") from error


# -- files that are not models ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"\x00" * 100, "truncated or damaged"),
        (random.Random(0).randbytes(5000), "truncated or damaged"),
        (b"hello, this is a text file\n" * 10, "text file"),
        ("übersicht über das Netz\n".encode() * 40, "text file"),
        (b'{"irVersion": "8"}', "text file"),
        (b"ir_version: 8\ngraph {\n}\n", "text file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "git lfs pull"),
        (b"PK\x03\x04" + bytes(60), "torch.onnx.export"),
        (b"\x1f\x8b\x08" + bytes(60), "decompress"),
        (b"\x80\x02}q\x00.", "pickle"),
        (b"\x18\x00\x00\x00ORTM" + bytes(60), ".ort"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(60), "tf2onnx"),
    ],
)
def test_other_files_are_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = written(tmp_path, content)
    message = refusal(path)
    assert words in message
    assert str(path) in message


def test_a_missing_file_a_folder_and_a_pipe_are_named(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "missing.onnx")
    assert "folder" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "not a plain file" in refusal(tmp_path / "pipe")
    assert "cannot be read" in refusal("a\0b")
    assert "cannot be read" in refusal("x" * 5000)


def test_a_file_beyond_the_limit_of_protobuf_is_named(tmp_path: Path) -> None:
    with open(tmp_path / "huge.onnx", "wb") as file:
        file.truncate(1 << 31)
    assert "external data" in refusal(tmp_path / "huge.onnx")


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    content = small_network().SerializeToString()
    for length in range(0, len(content) - 5, 97):
        refusal(written(tmp_path, content[:length]))


def test_bytes_where_names_should_be_are_refused(tmp_path: Path) -> None:
    content = small_network().SerializeToString()
    for name in (b"conv.bias", b"head", b"batch", b"tests", b"com.example"):
        assert "UTF-8" in refusal(written(tmp_path, content.replace(name, b"\xff\xfe" + name[2:])))


# -- graphs that are not valid ------------------------------------------------------------------------------------


def weight(proto: onnx.ModelProto, index: int = 0) -> onnx.TensorProto:
    return proto.graph.initializer[index]


def replace_weight(proto: onnx.ModelProto, array: np.ndarray, index: int = 0) -> None:
    weight(proto, index).CopyFrom(numpy_helper.from_array(array, weight(proto, index).name))


def nest(proto: onnx.ModelProto, depth: int) -> None:
    graph = branch("inner", "a")
    for _ in range(depth):
        node = helper.make_node("If", ["flag"], ["inner"], then_branch=graph, else_branch=branch("inner", "a"))
        graph = helper.make_graph([node], "outer", [], [helper.make_tensor_value_info("inner", FLOAT, None)])
    proto.CopyFrom(with_branches(graph, branch("inner", "a")))


BAD: dict[str, tuple[Callable[[onnx.ModelProto], object], str]] = {
    "no nodes": (lambda m: m.graph.ClearField("node"), "no nodes"),
    "no outputs": (lambda m: m.graph.ClearField("output"), "no outputs"),
    "new IR": (lambda m: setattr(m, "ir_version", 999), "IR version 999"),
    "new opset": (lambda m: setattr(m.opset_import[0], "version", 999), "operator set 999"),
    "opset zero": (lambda m: setattr(m.opset_import[0], "version", 0), "below 1"),
    "two opsets": (lambda m: m.opset_import.append(helper.make_opsetid("", 16)), "contradictory"),
    "no opset": (lambda m: m.opset_import.pop(0), "no operator set is imported"),
    "operator of a later set": (
        lambda m: [setattr(m.graph.node[1], "op_type", "Mish"), setattr(m.opset_import[0], "version", 17)],
        "operator set 17 does not have yet",
    ),
    "domain not imported": (lambda m: setattr(m.graph.node[1], "domain", "nowhere"), "'nowhere'"),
    "no operator": (lambda m: setattr(m.graph.node[1], "op_type", ""), "no operator type"),
    "training": (lambda m: m.training_info.add(), "training_info"),
    "dangling input": (lambda m: m.graph.node[1].input.__setitem__(0, "gone"), "'relu' (Relu) reads 'gone'"),
    "dangling output": (lambda m: setattr(m.graph.output[0], "name", "gone"), "returns 'gone'"),
    "cycle": (lambda m: m.graph.node[0].input.__setitem__(0, "b"), "cycle"),
    "own output": (lambda m: m.graph.node[1].input.__setitem__(0, "b"), "cycle"),
    "value twice": (lambda m: m.graph.node[1].output.__setitem__(0, "a"), "'a' is defined twice"),
    "value is a weight": (lambda m: m.graph.node[1].output.__setitem__(0, "conv.bias"), "'conv.bias' is defined twice"),
    "input twice": (lambda m: m.graph.input.append(m.graph.input[0]), "same name twice"),
    "output twice": (lambda m: m.graph.output.append(m.graph.output[0]), "same value twice"),
    "unnamed weight": (lambda m: weight(m).ClearField("name"), "no name"),
    "untyped input": (lambda m: m.graph.input[0].ClearField("type"), "input 'x' has no type"),
    "unknown input type": (lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 99), "element type 99"),
    "enormous input": (
        lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", 2**60),
        "impossible shape",
    ),
    "map": (lambda m: m.graph.output[0].type.map_type.SetInParent(), "map"),
    "undefined type": (lambda m: setattr(weight(m), "data_type", 0), "undefined data type"),
    "unknown type": (lambda m: setattr(weight(m), "data_type", 99), "undefined data type 99"),
    "negative dimension": (lambda m: weight(m).dims.__setitem__(0, -16), "negative dimension"),
    "too many bytes declared": (lambda m: weight(m).dims.__setitem__(0, 17), "needs 1836 bytes but has 1728"),
    "enormous dimension": (lambda m: weight(m).dims.__setitem__(0, 2**62), "impossible shape"),
    "huge dimension": (lambda m: weight(m).dims.__setitem__(0, 2**30), "needs 115964116992 bytes"),
    "no data": (lambda m: weight(m).ClearField("raw_data"), "needs 432 values but has 0"),
    "segmented": (lambda m: weight(m).segment.SetInParent(), "segments"),
    "sparse": (lambda m: m.graph.sparse_initializer.add(), "sparse"),
    "sparse attribute": (
        lambda m: m.graph.node[1].attribute.add(name="s", type=onnx.AttributeProto.SPARSE_TENSOR),
        "sparse",
    ),
    "untyped attribute": (lambda m: m.graph.node[0].attribute.add(name="group", i=1), "no type"),
    "axis far away": (lambda m: m.graph.node[3].attribute.append(helper.make_attribute("axis", 2**40)), "no tensor"),
    "attribute twice": (lambda m: m.graph.node[0].attribute.append(helper.make_attribute("group", 1)), "multiple"),
    "attribute of another type": (
        lambda m: m.graph.node[4].attribute.append(helper.make_attribute("alpha", 1)),
        "alpha",
    ),
    "unknown attribute": (lambda m: m.graph.node[1].attribute.append(helper.make_attribute("slope", 1)), "slope"),
    "too many operands": (lambda m: m.graph.node[1].input.append("x"), "input size 2"),
    "too few operands": (lambda m: m.graph.node[0].input.__delitem__(slice(1, 3)), "input size 1"),
    "wrong rank": (
        lambda m: replace_weight(m, np.ones((16, 27), np.float32)),
        "'conv' (Conv) cannot take its operands",
    ),
    "weight declared with another shape": (
        lambda m: m.graph.input.append(helper.make_tensor_value_info("conv.bias", FLOAT, [15])),
        "is declared with another",
    ),
    "wrong channels": (lambda m: replace_weight(m, np.ones((16, 5, 3, 3), np.float32)), "takes 5 channels"),
    "wrong bias": (lambda m: replace_weight(m, np.ones(15, np.float32), 1), "its bias has the shape [15]"),
    "no groups": (lambda m: setattr(m.graph.node[0].attribute[0], "i", 0), "it has 0 groups"),
    "uneven groups": (lambda m: setattr(m.graph.node[0].attribute[0], "i", 3), "does not divide into 3 groups"),
    "wrong kernel": (
        lambda m: m.graph.node[0].attribute.append(helper.make_attribute("kernel_shape", [3, 5])),
        "does not have the kernel [3, 5]",
    ),
    "rank under a stated kernel": (
        lambda m: [
            m.graph.node[0].attribute.append(helper.make_attribute("kernel_shape", [3, 3])),
            replace_weight(m, np.ones((16,), np.float32)),
        ],
        "its weight has 1 axes",
    ),
    "wrong weight type": (lambda m: replace_weight(m, np.ones((16, 3, 3, 3), np.int64)), "int64"),
    "wrong Gemm size": (lambda m: replace_weight(m, np.ones((10, 17), np.float32), 2), "'head' (Gemm)"),
    "weight without elements": (lambda m: replace_weight(m, np.ones((0, 3, 3, 3), np.float32)), "axis of size 0"),
    "endless nesting": (lambda m: nest(m, 25), "nested"),
    "outer value returned": (
        lambda m: m.CopyFrom(
            with_branches(
                helper.make_graph([], "e", [], [helper.make_tensor_value_info("a", 1, None)]), branch("j", "a")
            )
        ),
        "returns 'a'",
    ),
    "dangling in branch": (lambda m: m.CopyFrom(with_branches(branch("i", "gone"), branch("j", "a"))), "reads 'gone'"),
    "cycle through branch": (
        lambda m: m.CopyFrom(with_branches(branch("i", "z"), branch("j", "a"))),
        "cycle",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_invalid_graphs_are_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    change, words = BAD[name]
    proto = small_network()
    change(proto)
    assert words in refusal(written(tmp_path, proto.SerializeToString()))
    assert words in refusal(proto)


def test_a_message_without_a_graph_is_refused(tmp_path: Path) -> None:
    proto = small_network()
    proto.ClearField("graph")
    assert "no graph" in refusal(proto)
    assert "not an ONNX model" in refusal(written(tmp_path, proto.SerializeToString()))


NATIVE: dict[str, tuple[str, str]] = {
    "far axis": ("y = LayerNormalization <axis = 2147483648> (x, w)", "no tensor allows"),
    "negative batch": ("y = GatherND <batch_dims = -7> (x, i)", "no tensor allows"),
    "many parts": ("y = Split <num_outputs = 2147483648> (x)", "no tensor allows"),
    "more outputs than parts": ("y, z, t = Split <num_outputs = 2> (x)", "3 outputs but num_outputs is 2"),
    "endless equation": ('y = Einsum <equation = "-"> (x)', "equation"),
    "endless list": ("y = Cast <to = 7> (s)", "make its dimension symbolic"),
    "long shape": ("y = ConstantOfShape (s)", "more than 64 numbers"),
}


@pytest.mark.parametrize("name", NATIVE)
def test_what_would_end_the_process_in_shape_inference_is_refused_before(name: str) -> None:
    node, words = NATIVE[name]
    inputs = f"float[2, 6] x, float[6] w, int64[2, 1] i, int64[{2**33 if name == 'endless list' else 65}] s"
    text = f'<ir_version: 10, opset_import: ["" : 18]> graph ({inputs}) => (float y) {{ {node} }}'
    assert words in refusal(onnx.parser.parse_model(text))


def test_names_do_not_break_the_line(tmp_path: Path) -> None:
    proto = small_network()
    proto.graph.node[1].input[0] = "gone\nTraceback\x1b[31m" + "x" * 5000
    refusal(written(tmp_path, proto.SerializeToString()))


def test_a_model_put_together_wrongly_is_refused() -> None:
    model = load(small_network())
    model.graph.node("relu").replace_input_with(0, ir.Value(name="gone"))
    assert "gone" in refusal(model)


# -- external data ------------------------------------------------------------------------------------------------


def test_external_data_is_lazy_and_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proto = small_network()
    path = write_external(proto, tmp_path)
    monkeypatch.chdir(tmp_path)
    for source in (path, Path(path.name)):
        model = load(source)
        for initializer in proto.graph.initializer:
            tensor = model.graph.initializers[initializer.name].const_value
            assert isinstance(tensor, ir.ExternalTensor)
            assert tensor.raw is None
            np.testing.assert_array_equal(tensor.numpy(), numpy_helper.to_array(initializer))


def test_a_message_with_external_data_needs_its_path(tmp_path: Path) -> None:
    path = write_external(small_network(), tmp_path)
    assert "pass the path" in refusal(onnx.load(path, load_external_data=False))


def set_external(path: Path, key: str, value: str) -> None:
    proto = onnx.load(path, load_external_data=False)
    entries = proto.graph.initializer[0].external_data
    kept = [(entry.key, entry.value) for entry in entries if entry.key != key]
    del entries[:]
    for name, text in [*kept, (key, value)]:
        entries.add(key=name, value=text)
    path.write_bytes(proto.SerializeToString())


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("location", "", "names no file"),
        ("location", "a\0b", "names no file"),
        ("location", "missing.bin", "is missing"),
        ("location", ".", "not a plain file"),
        ("location", "/etc/passwd", "absolute"),
        ("location", "C:\\Windows\\x", "absolute"),
        ("location", "../outside.bin", "leaves the model's folder"),
        ("location", "inner/../../outside.bin", "leaves the model's folder"),
        ("location", "link.bin", "leaves the model's folder"),
        ("location", "hard.bin", "hard links"),
        ("location", "pipe", "not a plain file"),
        ("offset", "100000", "truncated"),
        ("offset", "-4", "offset -4"),
        ("offset", "four", "no number"),
        ("length", "4", "4 bytes declared"),
        ("length", "99999999999999999999", "bytes declared"),
    ],
)
def test_untrustworthy_external_data_is_refused(tmp_path: Path, key: str, value: str, words: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = write_external(small_network(), folder)
    (tmp_path / "outside.bin").write_bytes(bytes(10000))
    (folder / "link.bin").symlink_to(tmp_path / "outside.bin")
    os.link(tmp_path / "outside.bin", folder / "hard.bin")
    os.mkfifo(folder / "pipe")
    set_external(path, key, value)
    message = refusal(path)
    assert words in message
    assert "conv.weight" in message


def test_external_data_cut_short_is_refused(tmp_path: Path) -> None:
    path = write_external(small_network(), tmp_path)
    os.truncate(tmp_path / "weights.bin", 100)
    assert "has 100" in refusal(path)


def test_links_inside_the_folder_are_followed(tmp_path: Path) -> None:
    path = write_external(small_network(), tmp_path)
    (tmp_path / "weights.bin").rename(tmp_path / "renamed.bin")
    (tmp_path / "weights.bin").symlink_to("renamed.bin")
    load(path)


def test_a_model_whose_data_vanished_is_refused(tmp_path: Path) -> None:
    model = load(write_external(small_network(), tmp_path))
    (tmp_path / "weights.bin").unlink()
    assert "is missing" in refusal(model)


# -- numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "FLOAT8E4M3FN"])
@pytest.mark.parametrize("external", [False, True])
def test_nan_is_found(tmp_path: Path, dtype: str, external: bool) -> None:
    proto = small_network()
    array = np.ones((1000,), ir.DataType[dtype].numpy())
    array[777] = np.nan
    tensor = ir.to_proto(ir.Tensor(array, name="extra"))
    proto.graph.initializer.append(tensor)
    path = write_external(proto, tmp_path) if external else written(tmp_path, proto.SerializeToString())
    with pytest.raises(ModelError, match=r"'extra'.*NaN"):
        check_finite(load(path))


def test_infinity_is_accepted_in_masks_and_refused_in_weights() -> None:
    proto = small_network()
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(-np.inf), "mask"))
    check_finite(load(proto))
    array = numpy_helper.to_array(proto.graph.initializer[0]).copy()
    array[3, 2, 1, 0] = np.inf
    replace_weight(proto, array)
    with pytest.raises(ModelError, match=r"'conv\.weight'"):
        check_finite(load(proto))


def test_chunks_are_small_and_complete(tmp_path: Path) -> None:
    for path in (write_external(small_network(), tmp_path), small_network()):
        tensor = load(path).graph.initializers["conv.weight"].const_value
        assert tensor is not None
        pieces = list(chunks(tensor, 100))
        assert max(piece.nbytes for piece in pieces) <= 100
        np.testing.assert_array_equal(np.concatenate(pieces), tensor.numpy().reshape(-1))
