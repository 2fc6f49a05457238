"""Compiling for ONNX Runtime: what is stored, precisions, formats, and what is refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_models import parse

from graphprune.backends.onnxruntime import precision, sessions
from graphprune.backends.onnxruntime.backend import OnnxRuntime
from graphprune.backends.onnxruntime.executable import bound
from graphprune.backends.onnxruntime.mobile import CONFIG
from graphprune.backends.onnxruntime.sessions import session
from graphprune.backends.registry import load
from graphprune.errors import ModelError, UsageError
from graphprune.models import digits_path, digits_test

IMAGES = digits_test().inputs[:16]
CPU = OnnxRuntime()
DENSE = CPU.compile(digits_path(), "cpu", optimize="none")({"images": IMAGES})["logits"]


def operators(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path).graph.node}


def distance(outputs: dict[str, Any]) -> float:
    """Root mean square of the difference over that of the dense logits."""
    (found,) = outputs.values()
    return float(np.sqrt(np.mean((found - DENSE) ** 2) / np.mean(DENSE**2)))


@pytest.mark.parametrize("level", [None, "none", "basic", "extended"])
def test_the_stored_graph_is_optimised_and_computes_the_same(level: str | None, tmp_path: Path) -> None:
    folder = CPU.compile(digits_path(), "cpu", optimize=level).save(tmp_path / "a")
    # Rewriting changes the order of sums: a few units of the last of 24 bits.
    assert distance(load(folder)({"images": IMAGES})) < 1e-5
    fused = "FusedConv" in operators(folder / "model.onnx")
    assert fused == (level in (None, "extended"))


def test_every_form_of_a_model_has_one_fingerprint(tmp_path: Path) -> None:
    proto = onnx.load(digits_path())
    before = proto.SerializeToString()
    forms = [digits_path(), proto, before, ir.from_proto(proto)]
    found = set()
    for number, form in enumerate(forms):
        folder = CPU.compile(form, "cpu").save(tmp_path / str(number))
        found.add(CPU.load(folder).stored.model()["fingerprint"])
    assert len(found) == 1
    assert proto.SerializeToString() == before


def test_half_precision_is_half_as_large(tmp_path: Path) -> None:
    executable = CPU.compile(digits_path(), "cpu", precision="fp16")
    folder = executable.save(tmp_path / "half")
    assert (folder / "model.onnx").stat().st_size < 0.6 * digits_path().stat().st_size
    assert [spec.dtype for spec in (*executable.inputs, *executable.outputs)] == ["float32", "float32"]
    # Half precision has 11 bits; a dozen layers add up to ten times that.
    assert 1e-5 < distance(executable({"images": IMAGES})) < 5e-3
    assert "fp16: outputs differ by 0." in executable.notes[0]


@pytest.mark.parametrize(
    ("name", "calibration", "new"),
    [("int8-dynamic", None, "MatMulInteger"), ("int8-static", digits_test().inputs[16:80], "QuantizeLinear")],
)
def test_eight_bits(name: str, calibration: Any, new: str, tmp_path: Path) -> None:
    executable = CPU.compile(digits_path(), "cpu", precision=name, calibration=calibration)
    folder = executable.save(tmp_path / "small")
    assert new in operators(folder / "model.onnx")
    (found,) = executable({"images": IMAGES}).values()
    assert 1e-4 < distance({"": found}) < 0.05  # 8 bits, less what a few layers add
    assert np.mean(found.argmax(1) == DENSE.argmax(1)) == 1
    assert np.array_equal(load(folder)({"images": IMAGES})["logits"], found)
    assert f"{name}: outputs differ by" in executable.notes[-1]
    if calibration is not None:
        assert (folder / "model.onnx").stat().st_size < 0.5 * digits_path().stat().st_size


def test_the_ort_format_comes_with_the_configuration_of_a_reduced_build(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    handlers = list(logging.getLogger().handlers)
    folder = CPU.compile(digits_path(), "cpu", format="ort").save(tmp_path / "mobile")
    assert sorted(path.name for path in folder.iterdir()) == ["load.py", "manifest.json", "model.ort", CONFIG]
    assert distance(load(folder)({"images": IMAGES})) < 1e-5
    assert "Conv" in (folder / CONFIG).read_text()
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger().handlers == handlers
    assert load(folder).save(tmp_path / "copy").joinpath(CONFIG).exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "int4"}, "no precision 'int4'; there are: fp32, fp16"),
        ({"precision": "int8-static"}, "int8-static needs inputs to see ranges on: give --calib"),
        ({"calibration": "synthetic"}, "fp32 takes none"),
        ({"format": "tflite"}, "no format 'tflite'"),
        ({"optimize": "all"}, "would store layouts of this processor"),
        ({"optimize": "much"}, "no graph level 'much'; there are: none, basic"),
        ({"level": "much"}, "no graph level 'much'"),
        ({"precision": "fp16", "format": "ort"}, "stored with fp32 arithmetic"),
        ({"precision": "fp16", "optimize": "basic"}, "stored with fp32 arithmetic"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"turbo": True}, "no option 'turbo'; it has: threads"),
        ({"providers": ["NoSuch"]}, "no execution provider 'NoSuch'"),
    ],
)
def test_usage(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        CPU.compile(digits_path(), "cpu", **options)


def test_targets_that_are_not_here_say_what_they_need() -> None:
    for target in CPU.targets():
        if not target.available:
            with pytest.raises(UsageError, match="this ONNX Runtime has no") as caught:
                CPU.compile(digits_path(), target.name)
            assert str(target.remedy) in str(caught.value)
    with pytest.raises(UsageError, match="no target 'moon'; it has: cpu, cuda"):
        CPU.compile(digits_path(), "moon")


def test_a_provider_that_does_not_start_is_not_replaced_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    made = onnxruntime.InferenceSession

    def on_the_cpu(source: Any, options: Any, providers: list[Any], **others: Any) -> Any:
        return made(source, options, providers[-1:])

    names = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    monkeypatch.setattr(onnxruntime, "InferenceSession", on_the_cpu)
    with pytest.raises(UsageError, match="CUDAExecutionProvider is in this ONNX Runtime but did not start"):
        CPU.compile(digits_path(), "cuda")


def test_models_that_do_not_load(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"# no model")
    cases = ((tmp_path / "x.onnx", "x.onnx"), (tmp_path / "y.onnx", "y.onnx: no such file"), (b"x", "the model"))
    for model, words in cases:
        for options in ({}, {"optimize": "none"}, {"precision": "fp16"}):
            with pytest.raises(ModelError, match=words):
                CPU.compile(model, "cpu", **options)
    with pytest.raises(UsageError, match="a dict is no ONNX model"):
        CPU.compile({}, "cpu")


def test_nothing_to_quantise() -> None:
    model = parse("g (float[2, 3] x) => (float[2, 3] y) { y = Neg(x) }")
    with pytest.raises(UsageError, match="int8-dynamic: the model has nothing to quantise; try int8-static"):
        CPU.compile(model, "cpu", precision="int8-dynamic")


def test_initializers_that_are_inputs_are_converted_too() -> None:
    proto = onnx.load(digits_path())
    proto.graph.input.extend(
        onnx.helper.make_tensor_value_info(each.name, each.data_type, each.dims) for each in proto.graph.initializer
    )
    proto.ir_version = 3
    executable = CPU.compile(proto, "cpu", precision="fp16")
    assert executable.stored_bytes() < 0.6 * digits_path().stat().st_size
    assert [spec.name for spec in executable.inputs] == ["images"]


def test_an_old_opset_has_one_scale_a_tensor() -> None:
    text = "g (float[N, 2, 4, 4] x) => (float[N, 3, 4, 4] y) { y = Conv<kernel_shape=[1, 1]>(x, w) }"
    weight = np.random.default_rng(0).standard_normal((3, 2, 1, 1)).astype(np.float32)
    model = parse(text, opset=11, w=weight)
    executable = CPU.compile(model, "cpu", precision="int8-static", calibration="synthetic")
    assert "int8-static: one scale a tensor, since opset 11 has none for each channel" in executable.notes


def test_half_precision_that_overflows_is_told() -> None:
    model = parse("g (float[2, 3] x) => (float[2, 3] y) { a = Mul(x, w)\n y = Mul(a, w) }", w=np.float32([6e5] * 3))
    notes = CPU.compile(model, "cpu", precision="fp16").notes
    assert "fp16: half precision ends at 65504, and 'a' (one of 2 tensors) has more" in notes
    assert not any("ends at" in note for note in CPU.compile(digits_path(), "cpu", precision="fp16").notes)


def test_outputs_that_are_not_finite_any_more_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoilt(proto: onnx.ModelProto, wanted: str, batches: object) -> onnx.ModelProto:
        made = onnx.ModelProto()
        made.CopyFrom(proto)
        bias = next(each for each in made.graph.initializer if each.name == "7.bias")
        bias.CopyFrom(onnx.numpy_helper.from_array(np.full(10, np.inf, np.float32), "7.bias"))
        return made

    monkeypatch.setattr(precision, "_converted", spoilt)
    with pytest.raises(ModelError, match=r"digits\.onnx: fp16: outputs are not finite any more; keep"):
        CPU.compile(digits_path(), "cpu", precision="fp16")


def test_inputs_are_checked_and_converted() -> None:
    executable = CPU.compile(digits_path(), "cpu", optimize="none")
    assert np.array_equal(executable({"images": IMAGES.astype(np.float64)})["logits"], DENSE)
    whole = np.ones((1, 1, 8, 8), np.int64)
    assert np.array_equal(executable({"images": whole})["logits"], executable({"images": whole.astype("f4")})["logits"])
    for inputs, words in (
        ({}, "needs the input 'images'"),
        ({"images": IMAGES, "more": IMAGES}, "no input 'more'; it has: images"),
        ({"images": IMAGES[0]}, r"has shape \[1, 8, 8\], which does not fit \['n', 1, 8, 8\]"),
        ({"images": whole * (2**30 + 1)}, "is int64, and would lose something as float32"),
        ({"images": np.full((1, 1, 8, 8), "x")}, "would lose something"),
    ):
        with pytest.raises(UsageError, match=words):
            executable(inputs)


def test_external_data_goes_along(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    onnx.save(onnx.load(digits_path()), folder / "d.onnx", save_as_external_data=True, location="d", size_threshold=0)
    for number, options in enumerate(({}, {"optimize": "none"}, {"precision": "fp16"})):
        saved = CPU.compile(folder / "d.onnx", "cpu", **options).save(tmp_path / f"made{number}")
        (folder / "d").rename(folder / "away")
        assert distance(load(saved)({"images": IMAGES})) < 5e-3
        (folder / "away").rename(folder / "d")


@pytest.mark.parametrize("options", [{}, {"optimize": "basic"}, {"optimize": "none"}])
def test_what_one_file_cannot_hold_lies_beside_it(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    onnx.save(onnx.load(digits_path()), folder / "d.onnx", save_as_external_data=True, location="d", size_threshold=0)
    monkeypatch.setattr(sessions, "PROTOBUF_LIMIT", 100_000)
    for number, model in enumerate((folder / "d.onnx", onnx.load(digits_path()))):
        saved = CPU.compile(model, "cpu", **options).save(tmp_path / f"made{number}")
        if options.get("optimize") != "none" or number == 0:
            assert (saved / "model.data").stat().st_size > 200_000
        assert distance(load(saved)({"images": IMAGES})) < 1e-5
        load(saved).save(tmp_path / f"copy{number}")
        assert distance(load(tmp_path / f"copy{number}")({"images": IMAGES})) < 1e-5
    monkeypatch.setattr(precision, "PROTOBUF_LIMIT", 100_000)
    with pytest.raises(UsageError, match="models of more than 2 GiB cannot be converted"):
        CPU.compile(folder / "d.onnx", "cpu", precision="fp16")


def test_bound_inputs_give_the_same_outputs() -> None:
    runnable = session(digits_path())
    binding = bound(runnable, {"images": IMAGES}, "cpu")()
    (found,) = binding.copy_outputs_to_cpu()  # type: ignore[attr-defined]
    assert np.array_equal(found, DENSE)
