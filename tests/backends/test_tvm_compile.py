"""Compiling ONNX models with TVM: what they compute, for which machine they are, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_models import parse
from tvm_programs import convolution, needs_tvm

from graphprune.backends.base import Backend, Executable
from graphprune.backends.registry import backend
from graphprune.backends.tvm import building, checking, targets
from graphprune.backends.tvm.backend import Tvm
from graphprune.backends.tvm.elf import elf_machine
from graphprune.backends.tvm.package import library
from graphprune.errors import ModelError, UsageError
from graphprune.models import digits_path, digits_test

pytestmark = needs_tvm

TVM = Tvm()
IMAGES = digits_test().inputs[:4]
GENERATOR = np.random.default_rng(0)


def reference(model: Any, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return backend("ort").compile(model, "cpu", threads=1, optimize="none")(feed)


def test_the_digits_network_equals_onnx_runtime() -> None:
    executable = TVM.compile(digits_path(), "cpu", threads=1)
    expected = reference(digits_path(), {"images": IMAGES})["logits"]
    found = executable({"images": IMAGES})["logits"]
    assert np.ptp(expected) > 1
    assert np.allclose(found, expected, rtol=1e-5, atol=1e-5)  # fp32, summed in another order
    assert [spec.to_dict() for spec in executable.inputs] == [
        {"name": "images", "dtype": "float32", "shape": ["n", 1, 8, 8]}
    ]
    assert executable.notes[-1].startswith("outputs differ from the original's by ")
    assert isinstance(executable, Executable)
    assert isinstance(TVM, Backend)


@pytest.mark.parametrize(
    ("text", "weights", "shape"),
    [
        (
            "g (float[2, 6] x) => (float[2, 3] y, float[2, 3] z) { y = Gemm<transB=1>(x, w, b)\n z = Softmax(y) }",
            {"w": (3, 6), "b": (3,)},
            (2, 6),
        ),
        (
            """g (float[2, 4, 6] x) => (float[2, 6, 4] y) {
                m = ReduceMean<axes=[2], keepdims=1>(x)
                c = Sub(x, m)
                t = Transpose<perm=[0, 2, 1]>(c)
                y = MatMul(t, w)
            }""",
            {"w": (4, 4)},
            (2, 4, 6),
        ),
        (
            """g (float[1, 4, 6, 6] x) => (float[1, 4, 3, 3] y) {
                a = Conv<kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=4>(x, w)
                b = Add(a, x)
                y = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(b)
            }""",
            {"w": (4, 1, 3, 3)},
            (1, 4, 6, 6),
        ),
    ],
    ids=["linear", "attention-like", "depthwise"],
)
def test_small_graphs(text: str, weights: dict[str, tuple[int, ...]], shape: tuple[int, ...]) -> None:
    arrays = {name: GENERATOR.standard_normal(size).astype(np.float32) for name, size in weights.items()}
    model = parse(text, opset=13, **arrays)
    feed = {"x": GENERATOR.standard_normal(shape).astype(np.float32)}
    expected = reference(model, feed)
    found = TVM.compile(model, "cpu", threads=1, verify=False)(feed)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert np.ptp(value) > 0.1
        assert np.allclose(found[name], value, rtol=1e-5, atol=1e-5)


def test_dimensions_get_sizes() -> None:
    executable = TVM.compile(convolution(), "cpu", threads=1, dims={"n": 3})
    assert executable.inputs[0].dims == (3, 4, 8, 8)
    assert executable.fixed == {"n": 3}
    with pytest.raises(UsageError, match=r"has shape \[1, 4, 8, 8\], which does not fit \[3, 4, 8, 8\]"):
        executable({"x": np.zeros((1, 4, 8, 8), np.float32)})
    with pytest.raises(UsageError, match="no symbolic dimension 'm'; it has: n"):
        TVM.compile(convolution(), "cpu", dims={"m": 3})


def test_old_models_with_open_sizes() -> None:
    text = """g (float[a, 3, b] x) => (float[a, 2, b] y) {
        s = Slice<axes=[1], starts=[1], ends=[3]>(x)
        y = Relu(s)
    }"""
    model = ir.to_proto(parse(text, opset=9))
    for position in (0, 2):
        dim = model.graph.input[0].type.tensor_type.shape.dim[position]
        dim.dim_value = -1 if position else 0
        if not position:
            dim.Clear()
    with pytest.raises(UsageError, match="tuning needs sizes of all dimensions, give --dims x:0=1"):
        TVM.compile(model, "cpu", tune=1)
    feed = {"x": GENERATOR.standard_normal((1, 3, 4)).astype(np.float32)}
    executable = TVM.compile(model, "cpu", threads=1, dims={"x:0": 1, "x:2": 4})
    assert executable.inputs[0].dims == (1, 3, 4)
    assert np.array_equal(executable(feed)["y"], np.maximum(feed["x"][:, 1:3], 0))


def test_a_resize_with_empty_scales() -> None:
    text = """g (float[1, 2, 3, 3] x) => (float[1, 2, 6, 6] y) {
        y = Resize<mode="linear", coordinate_transformation_mode="half_pixel">(x, none, none, sizes)
    }"""
    model = parse(text, opset=13, none=np.zeros(0, np.float32), sizes=np.int64([1, 2, 6, 6]))
    feed = {"x": GENERATOR.standard_normal((1, 2, 3, 3)).astype(np.float32)}
    found = TVM.compile(model, "cpu", threads=1)(feed)["y"]
    assert np.ptp(found) > 0.1
    assert np.allclose(found, reference(model, feed)["y"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("target", ["aarch64", "riscv64"])
def test_other_machines_get_a_library_of_theirs(target: str, tmp_path: Path) -> None:
    if shutil.which(targets.TARGETS[target].linker) is None:
        pytest.skip(f"needs {targets.TARGETS[target].linker}")
    executable = TVM.compile(convolution(), target, dims={"n": 1})
    data = (executable.save(tmp_path / "made") / "model.so").read_bytes()
    assert elf_machine(data) == target
    assert executable.notes == ()
    with pytest.raises(UsageError, match=f"cannot run here: it is for {target}: run it there, or give --rpc"):
        executable({"x": np.zeros((1, 4, 8, 8), np.float32)})


def test_without_a_cross_compiler_there_are_objects(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(targets.shutil, "which", lambda command: None)
    assert not next(target for target in TVM.targets() if target.name == "riscv64").available
    executable = TVM.compile(convolution(), "riscv64", dims={"n": 1})
    (note,) = executable.notes
    assert note.startswith("riscv64-linux-gnu-gcc is not installed, so that objects were written")
    folder = executable.save(tmp_path / "made")
    shutil.unpack_archive(folder / "model.tar", tmp_path / "objects")
    machines = {elf_machine(path.read_bytes()) for path in (tmp_path / "objects").iterdir()}
    assert machines == {"riscv64"}


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_sources_of_c(tmp_path: Path) -> None:
    executable = TVM.compile(convolution(), "c", dims={"n": 1})
    feed = {"x": GENERATOR.standard_normal((1, 4, 8, 8)).astype(np.float32)}
    assert np.allclose(executable(feed)["y"], reference(convolution(), feed)["y"], rtol=1e-5, atol=1e-5)
    folder = executable.save(tmp_path / "made")
    shutil.unpack_archive(folder / "model.tar", tmp_path / "sources")
    assert "fused_conv2d_relu" in (tmp_path / "sources" / "lib0.c").read_text()
    with pytest.raises(UsageError, match="the target c has no processors to choose from"):
        TVM.compile(convolution(), "c", processor="generic")


@pytest.mark.parametrize("target", ["cuda", "opencl"])
def test_code_for_gpus_needs_no_gpu(target: str) -> None:
    executable = TVM.compile(convolution(), target, dims={"n": 1}, verify=False)
    kernels = executable.stored.path.read_bytes()
    assert b"blockIdx" in kernels if target == "cuda" else b"get_group_id" in kernels
    unknown = targets.compute_capability(library()) is None
    assert any("made for sm_75" in note for note in executable.notes) == (target == "cuda" and unknown)
    if target == "cuda":
        named = TVM.compile(convolution(), target, dims={"n": 1}, verify=False, processor="sm_80")
        assert not any("made for" in note for note in named.notes)


def test_a_gpu_is_named_as_nvidia_does() -> None:
    with pytest.raises(UsageError, match="'cortex-a72' is no GPU of NVIDIA's: give --processor as sm_80"):
        TVM.compile(convolution(), "cuda", dims={"n": 1}, processor="cortex-a72")


def test_a_package_that_tvm_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: Any) -> Any:
        raise ModuleNotFoundError("No module named 'psutil'")

    monkeypatch.setattr(building, "fused", missing)
    with pytest.raises(
        UsageError, match=r"does not import \(No module named 'psutil'\): pip install 'graphprune\[tvm\]'"
    ):
        TVM.compile(convolution(), "cpu", dims={"n": 1})


def test_operators_that_tvm_does_not_support_are_named() -> None:
    model = parse("g (float[k, k] x) => (float y) { a = Relu(x)\n y = Det(a) }")
    model.graph[1].name = "volume"
    with pytest.raises(
        ModelError, match=r"TVM does not support the operator Det \(node 'volume'\); --backend ort comp"
    ):
        TVM.compile(model, "cpu")


def test_the_node_that_the_front_end_fails_at_is_named(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from tvm.relax.frontend.onnx import onnx_frontend

    convert = onnx_frontend.ONNXGraphImporter._convert_operator

    def refuse(importer: Any, operator: str, *others: Any) -> Any:
        if operator == "Relu":
            raise ValueError("only on Sundays")
        return convert(importer, operator, *others)

    monkeypatch.setattr(onnx_frontend.ONNXGraphImporter, "_convert_operator", refuse)
    words = r"front end fails at Relu .*\(only on Sundays\); give its dimensions sizes \(--dims n=1\), or --backend ort"
    with pytest.raises(ModelError, match=words):
        TVM.compile(convolution(), "cpu")
    assert capfd.readouterr() == ("", "")


def test_what_differs_from_the_original_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "TOLERANCE", 0.0)
    with pytest.raises(ModelError, match=r"differs from the original by .* and is not kept; --backend ort compiles it"):
        TVM.compile(convolution(), "cpu", threads=1)


def test_what_no_random_input_fits_is_not_compared() -> None:
    model = parse("g (float[4] x, int64[2] i) => (float[2] y) { j = Add(i, w)\n y = Gather(x, j) }", w=np.int64([99]))
    (note,) = TVM.compile(model, "cpu", threads=1).notes
    assert note.startswith("not compared with the original: the model does not run on random inputs")


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        ("moon", {}, "TVM has no target 'moon'; it has: cpu, aarch64"),
        ("cpu", {"precision": "fp16"}, "tvm has no option 'precision'; it has: threads"),
        ("cpu", {"threads": 0}, "threads must be at least 1"),
        ("cpu", {"tune": -1}, "-1 is no number of trials"),
        ("cpu", {"database": "x"}, "a database is for tuning"),
        ("cpu", {"rpc": "board"}, "--rpc: 'board' is not HOST:PORT"),
        ("cpu", {"processor": "z80"}, "LLVM knows no processor 'z80'"),
        ("cpu", {"tune": 2}, "tuning needs sizes of all dimensions, give --dims n=1"),
        ("aarch64", {"tune": 2, "dims": {"n": 1}}, "tuning measures on the device, and it is for aarch64"),
        ("c", {"tune": 2, "dims": {"n": 1}}, "leave --tune out"),
    ],
)
def test_usage(target: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        TVM.compile(convolution(), target, **options)


def test_models_that_do_not_load(tmp_path: Path) -> None:
    for model, words in ((tmp_path / "y.onnx", "y.onnx: no such file"), (b"x", "not a readable ONNX model")):
        with pytest.raises(ModelError, match=words):
            TVM.compile(model, "cpu")
    with pytest.raises(UsageError, match="a dict is neither an ONNX model"):
        TVM.compile({}, "cpu")
    proto = onnx.load(digits_path())
    before = proto.SerializeToString()
    TVM.compile(proto, "riscv64", dims={"n": 1})
    assert proto.SerializeToString() == before
