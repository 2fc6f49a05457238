"""Writing ONNX models: nothing is lost, weights are streamed, and an interrupted write leaves nothing behind."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from frontends.small_models import small_network, write_external
from onnx import helper, numpy_helper

from graphprune.errors import ModelError, UsageError
from graphprune.frontends import atomic, onnx_write
from graphprune.frontends.onnx_file import load
from graphprune.frontends.onnx_fingerprint import fingerprint
from graphprune.frontends.onnx_write import save


@pytest.fixture(params=["nameless", "hidden"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Both ways of writing a file before it has its name."""
    if request.param == "hidden":
        monkeypatch.setattr(atomic, "_supports_nameless", lambda folder: False)
    elif not atomic._supports_nameless(tmp_path):
        pytest.skip("this file system has no nameless files")
    return str(request.param)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def run(path: Path) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(None, {"x": np.linspace(-1, 1, 2 * 3 * 64, dtype=np.float32).reshape(2, 3, 8, 8)})[
        0
    ]
    return result


# -- nothing is lost ----------------------------------------------------------------------------------------------


def _stored(name: str, array: np.ndarray, dtype: ir.DataType) -> onnx.TensorProto:
    proto: onnx.TensorProto = ir.to_proto(ir.Tensor(array.astype(dtype.numpy()), dtype=dtype, name=name))
    return proto


def rich_network() -> onnx.ModelProto:
    """Return the small network with every kind of tensor, a local function and value shapes."""
    proto = small_network()
    extra = [
        helper.make_tensor("typed", onnx.TensorProto.FLOAT, [2, 2], [1.0, 2.0, 3.0, 4.0]),
        helper.make_tensor("words", onnx.TensorProto.STRING, [2], [b"one", b"two"]),
        helper.make_tensor("empty", onnx.TensorProto.FLOAT, [0], []),
        _stored("nibbles", np.arange(-3, 4), ir.DataType.INT4),
        _stored("brain", np.linspace(-1, 1, 700), ir.DataType.BFLOAT16),
        _stored("eight", np.linspace(-1, 1, 1500), ir.DataType.FLOAT8E4M3FN),
    ]
    proto.graph.initializer.extend(extra)
    proto.graph.initializer[0].doc_string = "a weight"
    proto.graph.value_info.append(helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, ["batch", 16, "h", None]))
    body = [helper.make_node("Add", ["p", "p"], ["q"])]
    opsets = [helper.make_opsetid("", 17)]
    proto.functions.append(helper.make_function("com.example", "Twice", ["p"], ["q"], body, opsets))
    proto.graph.node.append(helper.make_node("Twice", ["y"], ["twice"], name="twice", domain="com.example"))
    proto.graph.output.append(helper.make_tensor_value_info("twice", onnx.TensorProto.FLOAT, ["batch", 10]))
    return proto


def test_a_model_is_written_as_it_was_read(tmp_path: Path, way: str) -> None:
    proto = rich_network()
    size = save(load(proto), tmp_path / "out.onnx")
    assert os.listdir(tmp_path) == ["out.onnx"]
    assert size == (tmp_path / "out.onnx").stat().st_size
    copy = onnx.load(tmp_path / "out.onnx")
    for field in ("ir_version", "producer_name", "doc_string", "metadata_props"):
        assert getattr(copy, field) == getattr(proto, field)
    assert {entry.domain: entry.version for entry in copy.opset_import} == {"": 17, "com.example": 3}
    for field in ("node", "input", "output", "initializer", "name", "doc_string"):
        assert getattr(copy.graph, field) == getattr(proto.graph, field), field
    assert [function.node for function in copy.functions] == [function.node for function in proto.functions]
    shapes = {value.name: value for value in copy.graph.value_info}
    assert shapes["a"] == proto.graph.value_info[0]


def test_data_files_hold_the_same_numbers(tmp_path: Path, way: str) -> None:
    proto = rich_network()
    path = tmp_path / "out.onnx"
    size = save(load(proto), path, external=True)
    assert sorted(os.listdir(tmp_path)) == ["out.onnx", "out.onnx.data"]
    assert size == sum(file.stat().st_size for file in tmp_path.iterdir())
    stored = {tensor.name: tensor for tensor in onnx.load(path, load_external_data=False).graph.initializer}
    outside = {name for name, tensor in stored.items() if tensor.data_location == onnx.TensorProto.EXTERNAL}
    assert outside == {"conv.weight", "brain", "eight"}
    for name in outside:
        assert int(next(entry.value for entry in stored[name].external_data if entry.key == "offset")) % 64 == 0
    assert stored["conv.weight"].doc_string == "a weight"
    written = load(path)
    for tensor in proto.graph.initializer:
        there = written.graph.initializers[tensor.name].const_value
        assert there is not None
        assert there.dtype == tensor.data_type
        np.testing.assert_array_equal(there.numpy(), ir.from_proto(tensor).numpy())
    save(load(small_network()), tmp_path / "inside.onnx")
    save(load(small_network()), tmp_path / "outside.onnx", external=True)
    np.testing.assert_array_equal(run(tmp_path / "inside.onnx"), run(tmp_path / "outside.onnx"))


def test_the_model_itself_stays_as_it_is(tmp_path: Path) -> None:
    model = load(write_external(small_network(), tmp_path))
    before = ir.to_proto(model).SerializeToString()
    save(model, tmp_path / "out.onnx", shard_bytes=100)
    assert ir.to_proto(model).SerializeToString() == before


def test_shards_are_numbered_and_bounded(tmp_path: Path) -> None:
    graph = rich_network()
    save(load(graph), tmp_path / "out.onnx", external=True, shard_bytes=1500)
    data = sorted(name for name in os.listdir(tmp_path) if name.endswith(".data"))
    assert data == [f"out.onnx-{index:05d}-of-00003.data" for index in (1, 2, 3)]
    assert [(tmp_path / name).stat().st_size for name in data] == [1728, 1400, 1500]
    load(tmp_path / "out.onnx")
    with pytest.raises(UsageError, match="0 bytes"):
        save(load(graph), tmp_path / "x.onnx", external=True, shard_bytes=0)


def test_a_model_that_came_with_data_files_leaves_with_them(tmp_path: Path) -> None:
    model = load(write_external(small_network(), tmp_path))
    (tmp_path / "a").mkdir()
    save(model, tmp_path / "a" / "out.onnx")
    assert sorted(os.listdir(tmp_path / "a")) == ["out.onnx", "out.onnx.data"]
    for value in model.graph.initializers.values():
        assert value.const_value is not None
        value.const_value = ir.Tensor(value.const_value.numpy(), name=value.name)
    (tmp_path / "b").mkdir()
    save(model, tmp_path / "b" / "out.onnx")
    assert len(os.listdir(tmp_path / "b")) == 2
    (tmp_path / "c").mkdir()
    save(model, tmp_path / "c" / "out.onnx", external=False)
    assert os.listdir(tmp_path / "c") == ["out.onnx"]


def test_weights_beyond_one_file_go_outside_by_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_write, "MAX_PROTOBUF", onnx_write.GRAPH_MARGIN + 1000)
    save(load(small_network()), tmp_path / "out.onnx")
    assert len(os.listdir(tmp_path)) == 2
    with pytest.raises(UsageError, match="allow external data"):
        save(load(small_network()), tmp_path / "x.onnx", external=False)


def test_constants_that_were_external_stay_readable(tmp_path: Path) -> None:
    proto = small_network()
    value = numpy_helper.from_array(np.ones((10,), np.float32), "value")
    proto.graph.node.append(helper.make_node("Constant", [], ["k"], name="constant", value=value))
    proto.graph.output.append(helper.make_tensor_value_info("k", onnx.TensorProto.FLOAT, [10]))
    path = tmp_path / "in.onnx"
    onnx.save_model(
        proto, path, save_as_external_data=True, location="in.bin", size_threshold=0, convert_attribute=True
    )
    save(load(path), tmp_path / "out.onnx")
    (tmp_path / "in.bin").unlink()
    tensor = load(tmp_path / "out.onnx").graph.node("constant").attributes["value"].as_tensor()
    np.testing.assert_array_equal(tensor.numpy(), np.ones(10))


def test_a_tensor_that_two_values_share_is_stored_once(tmp_path: Path) -> None:
    model = load(small_network())
    twin = ir.Value(name="twin", const_value=model.graph.initializers["conv.weight"].const_value)
    model.graph.register_initializer(twin)
    save(model, tmp_path / "out.onnx", external=True)
    assert (tmp_path / "out.onnx.data").stat().st_size == 1728
    assert set(load(tmp_path / "out.onnx").graph.initializers) >= {"twin", "conv.weight"}


@pytest.mark.corpus
def test_every_network_of_the_corpus_is_written_as_it_was_read(tmp_path: Path) -> None:
    folder = os.environ.get("GRAPHPRUNE_CORPUS")
    if not folder:
        pytest.skip("GRAPHPRUNE_CORPUS is not set")
    for path in sorted(Path(folder, "onnx").glob("*.onnx")):
        model = load(path)
        save(model, tmp_path / "out.onnx")
        proto, copy = onnx.load(path), onnx.load(tmp_path / "out.onnx")
        for field in ("initializer", "name"):
            assert getattr(copy.graph, field) == getattr(proto.graph, field)
        assert [node.output for node in copy.graph.node] == [node.output for node in proto.graph.node]
        save(model, tmp_path / "external.onnx", external=True)
        assert fingerprint(load(tmp_path / "external.onnx")) == fingerprint(model)


# -- streaming ----------------------------------------------------------------------------------------------------


def make_lazy(model: ir.Model, prepare: Callable[[str], None]) -> None:
    """Replace every initializer by a lazy one that calls `prepare` when its numbers are asked for."""
    for value in model.graph.initializers.values():
        source = value.const_value
        assert source is not None

        def evaluate(name: str = value.name or "", source: ir.TensorProtocol = source) -> ir.Tensor:
            prepare(name)
            return ir.Tensor(source.numpy().copy(), name=name)

        value.const_value = ir.LazyTensor(evaluate, source.dtype, ir.Shape(source.shape.numpy()), name=value.name)


def test_lazy_tensors_are_evaluated_one_at_a_time(tmp_path: Path) -> None:
    model = load(rich_network())
    for name in ("words", "nibbles"):
        del model.graph.initializers[name]
    alive: list[weakref.ref[np.ndarray]] = []
    order: list[str] = []

    for value in model.graph.initializers.values():
        source = value.const_value
        assert source is not None

        def evaluate(name: str = value.name or "", source: ir.TensorProtocol = source) -> ir.Tensor:
            assert not [reference for reference in alive if reference() is not None]
            array = source.numpy().copy()
            alive.append(weakref.ref(array))
            order.append(name)
            return ir.Tensor(array, name=name, dtype=source.dtype)

        value.const_value = ir.LazyTensor(evaluate, source.dtype, ir.Shape(source.shape.numpy()), name=value.name)
    done: list[tuple[int, int]] = []
    save(model, tmp_path / "out.onnx", external=True, progress=lambda now, total: done.append((now, total)))
    assert sorted(order) == sorted(model.graph.initializers)
    assert done == [(1728, 4628), (3128, 4628), (4628, 4628)]
    load(tmp_path / "out.onnx")


def test_a_lazy_tensor_of_another_size_is_caught(tmp_path: Path) -> None:
    model = load(small_network())
    value = model.graph.initializers["conv.weight"]
    short = ir.Tensor(np.ones(3, np.float32))
    value.const_value = ir.LazyTensor(lambda: short, ir.DataType.FLOAT, ir.Shape([16, 3, 3, 3]), name=value.name)
    with pytest.raises(ModelError, match="does not have the 1728 bytes"):
        save(model, tmp_path / "out.onnx", external=True)
    assert os.listdir(tmp_path) == []


# -- completely or not at all -------------------------------------------------------------------------------------


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("failure", [KeyboardInterrupt, SystemExit, MemoryError, OSError(28, "No space left")])
def test_a_failure_leaves_the_folder_as_it_was(
    tmp_path: Path, way: str, external: bool, failure: type[BaseException] | BaseException
) -> None:
    save(load(small_network(1)), tmp_path / "out.onnx", external=external)
    before = contents(tmp_path)
    model = load(small_network())

    def fail(name: str) -> None:
        if name == "head.weight":
            raise failure

    make_lazy(model, fail)
    with pytest.raises((KeyboardInterrupt, SystemExit, MemoryError, ModelError)):
        save(model, tmp_path / "out.onnx", external=external)
    assert contents(tmp_path) == before


def test_a_failure_while_files_get_their_names_is_undone(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(1, 7):
        folder = tmp_path / str(step)
        folder.mkdir()
        save(load(small_network(1)), folder / "out.onnx", external=True, shard_bytes=1800)
        before = contents(folder)
        calls = 0

        def replace(source: Path, target: Path, step: int = step, original: Callable = os.replace) -> None:
            nonlocal calls
            calls += 1
            if calls == step:
                raise OSError(5, "Input/output error")
            original(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(atomic.os, "replace", replace)
            try:
                save(load(small_network()), folder / "out.onnx", external=True, shard_bytes=1800)
            except ModelError:
                assert contents(folder) == before
            else:
                assert calls < step
                assert contents(folder) != before


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("external", [False, True])
def test_a_full_disk_is_named_and_nothing_is_left(tmp_path: Path, way: str, external: bool) -> None:
    model = load(small_network())
    with largest_file(1000), pytest.raises(ModelError, match="cannot be written"):
        save(model, tmp_path / "out.onnx", external=external)
    assert os.listdir(tmp_path) == []


def test_too_little_space_is_seen_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 100

    monkeypatch.setattr(onnx_write.shutil, "disk_usage", lambda folder: Usage)
    with pytest.raises(ModelError, match="100 left"):
        save(load(small_network()), tmp_path / "out.onnx")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_killed_process_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    if number == signal.SIGKILL and not atomic._supports_nameless(tmp_path):
        pytest.skip("this file system has no nameless files")
    (tmp_path / "in.onnx").write_bytes(small_network().SerializeToString())
    script = """
        import sys, time
        import onnx_ir as ir
        from graphprune.frontends.onnx_file import load
        from graphprune.frontends.onnx_write import save
        model = load("in.onnx")
        last = model.graph.initializers["head.weight"]
        def wait():
            print("writing", flush=True)
            time.sleep(60)
        last.const_value = ir.LazyTensor(wait, ir.DataType.FLOAT, ir.Shape([10, 1600]), name="head.weight")
        save(model, "out.onnx", external=True)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(number)
        assert process.wait(30) != 0
    assert os.listdir(tmp_path) == ["in.onnx"]


def test_folders_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    model = load(small_network())
    (tmp_path / "file").write_text("not a folder")
    for path in (tmp_path / "missing" / "out.onnx", tmp_path / "file" / "out.onnx", tmp_path / ("x" * 300)):
        with pytest.raises(ModelError, match="cannot be written"):
            save(model, path)
    for path in (tmp_path, Path("/dev/null")):
        with pytest.raises(UsageError, match="not a file"):
            save(model, path)
    with pytest.raises(UsageError, match="null character"):
        save(model, "a\0b")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(ModelError, match="Permission denied"):
            save(load(small_network()), tmp_path / "out.onnx")
    finally:
        tmp_path.chmod(0o755)


def test_permissions_follow_the_umask(tmp_path: Path, way: str) -> None:
    previous = os.umask(0o027)
    try:
        save(load(small_network()), tmp_path / "out.onnx")
    finally:
        os.umask(previous)
    assert (tmp_path / "out.onnx").stat().st_mode & 0o777 == 0o640


# -- sources are not overwritten ----------------------------------------------------------------------------------


def test_files_that_the_model_is_read_from_are_kept(tmp_path: Path) -> None:
    path = write_external(small_network(), tmp_path, data="out.onnx.data")
    model = load(path)
    (tmp_path / "alias.onnx").symlink_to(path.name)
    before = contents(tmp_path)
    for target in ("external.onnx", "alias.onnx", "out.onnx"):
        with pytest.raises(UsageError, match="read from this file"):
            save(model, tmp_path / target)
        with pytest.raises(UsageError, match="read from this file"):
            save(load(model), tmp_path / target)
    assert contents(tmp_path) == before
    save(model, tmp_path / "out.onnx", external=False)


def test_an_earlier_output_is_replaced(tmp_path: Path, way: str) -> None:
    (tmp_path / "in.onnx").write_bytes(small_network().SerializeToString())
    model = load(tmp_path / "in.onnx")
    with pytest.raises(UsageError, match="another path"):
        save(model, tmp_path / "in.onnx")
    for external in (True, False, True):
        save(model, tmp_path / "out.onnx", external=external)
        np.testing.assert_array_equal(run(tmp_path / "out.onnx"), run(tmp_path / "in.onnx"))


# -- fingerprints -------------------------------------------------------------------------------------------------


def test_a_fingerprint_is_of_the_network_not_of_its_storage(tmp_path: Path) -> None:
    proto = rich_network()
    prints = {fingerprint(load(proto)), fingerprint(load(load(proto)))}
    for external in (False, True):
        save(load(proto), tmp_path / "out.onnx", external=external)
        prints.add(fingerprint(load(tmp_path / "out.onnx")))
    proto.doc_string = proto.producer_name = "other"
    prints.add(fingerprint(load(proto)))
    assert len(prints) == 1
    assert len(prints.pop()) == 64


@pytest.mark.parametrize(
    "change",
    [
        lambda m: setattr(m.graph.node[0], "op_type", "ConvInteger"),
        lambda m: m.graph.node[0].attribute.append(helper.make_attribute("pads", [1, 1, 1, 1])),
        lambda m: setattr(m.opset_import[0], "version", 18),
        lambda m: m.graph.initializer[0].CopyFrom(
            numpy_helper.from_array(np.zeros((16, 3, 3, 3), np.float32), "conv.weight")
        ),
        lambda m: setattr(m.graph.output[0].type.tensor_type.shape.dim[0], "dim_param", "n"),
        lambda m: setattr(m.graph.initializer[3], "name", "renamed"),
        lambda m: m.graph.initializer[4].string_data.__setitem__(0, b"three"),
        lambda m: m.functions[0].node[0].input.__setitem__(0, ""),
    ],
)
def test_a_fingerprint_tells_networks_apart(change: Callable[[onnx.ModelProto], object]) -> None:
    proto = rich_network()
    before = fingerprint(ir.from_proto(proto))
    change(proto)
    assert fingerprint(ir.from_proto(proto)) != before
