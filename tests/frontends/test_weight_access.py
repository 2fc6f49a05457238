"""Weights are read as numbers and replaced in the program alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import numpy_helper, parser

from graphprune.errors import ModelError
from graphprune.frontends.weight_access import get_weight, is_editable, set_weight


def _model(dtype: ir.DataType = ir.DataType.FLOAT) -> ir.Model:
    kind = {ir.DataType.FLOAT: "float", ir.DataType.FLOAT16: "float16", ir.DataType.BFLOAT16: "bfloat16"}[dtype]
    model = parser.parse_model(
        f"""
        <ir_version: 10, opset_import: ["" : 21]>
        g ({kind}[2,3] x, {kind}[3,3] w, int64[1] n) => ({kind}[2,3] y, int64[1] m) {{
            h = MatMul(x, w)
            y = MatMul(h, w)
            m = Identity(n)
        }}"""
    )
    values = np.arange(9).reshape(3, 3).astype(dtype.numpy())
    model.graph.initializer.extend([numpy_helper.from_array(values, "w"), numpy_helper.from_array(np.array([7]), "n")])
    return ir.from_proto(model)


@pytest.mark.parametrize("dtype", [ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16])
def test_a_weight_keeps_its_type_and_a_copy_of_the_model_its_weight(dtype: ir.DataType) -> None:
    model = _model(dtype)
    copy = model.clone()
    read = get_weight(model, "w")
    assert read.dtype == np.float32
    read[0, 0] = 100.25
    assert get_weight(model, "w")[0, 0] == 0
    set_weight(model, "w", read)
    stored = model.graph.initializers["w"].const_value
    assert stored is not None
    assert stored.dtype == dtype
    assert get_weight(model, "w")[0, 0] == np.float32(np.array(100.25).astype(dtype.numpy()))
    assert get_weight(copy, "w")[0, 0] == 0


def test_what_cannot_be_written_is_refused() -> None:
    model = _model(ir.DataType.FLOAT16)
    assert is_editable(model, "w")
    assert not is_editable(model, "n")
    assert not is_editable(model, "missing")
    with pytest.raises(ModelError, match="INT64, no floating-point numbers"):
        get_weight(model, "n")
    with pytest.raises(ModelError, match="holds no weight 'missing'"):
        set_weight(model, "missing", np.zeros(1))
    with pytest.raises(ModelError, match=r"shape \(3, 3\), not \(2, 3\)"):
        set_weight(model, "w", np.zeros((2, 3)))
    with pytest.raises(ModelError, match="does not fit into FLOAT16"):
        set_weight(model, "w", np.full((3, 3), 1e6))
    with pytest.raises(ModelError, match="is not finite"):
        set_weight(model, "w", np.full((3, 3), np.nan))
    assert get_weight(model, "w").max() == 8


def test_a_weight_in_a_file_is_replaced_in_memory(tmp_path: Path) -> None:
    ir.save(_model(), tmp_path / "m.onnx", external_data="m.data", size_threshold_bytes=0)
    before = (tmp_path / "m.data").read_bytes()
    model = ir.load(tmp_path / "m.onnx")
    assert isinstance(model.graph.initializers["w"].const_value, ir.ExternalTensor)
    set_weight(model, "w", get_weight(model, "w") + 1)
    assert not isinstance(model.graph.initializers["w"].const_value, ir.ExternalTensor)
    assert get_weight(model, "w")[0, 0] == 1
    assert (tmp_path / "m.data").read_bytes() == before


@pytest.mark.torch
def test_of_a_module_tied_parameters_change_together_and_the_users_stay() -> None:
    torch = pytest.importorskip("torch")
    from graphprune.frontends.torch_program import capture

    class Tied(torch.nn.Module):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.one = torch.nn.Linear(3, 3).double()
            self.two = torch.nn.Linear(3, 3).double()
            self.two.weight = self.one.weight
            self.one.weight.requires_grad_(False)
            self.register_buffer("count", torch.tensor(3))

        def forward(self, x: object) -> object:
            return self.two(self.one(x)) * self.count

    module = Tied()
    kept = module.one.weight.detach().clone()
    program = capture(module, (torch.ones(2, 3, dtype=torch.float64),))
    copy = program.clone()
    read = get_weight(program, "one.weight")
    assert read.dtype == np.float64
    set_weight(program, "one.weight", read + 1)
    assert np.array_equal(get_weight(program, "two.weight"), kept.numpy() + 1)
    new = program.module.get_parameter("one.weight")
    assert not new.requires_grad
    assert new.dtype == torch.float64
    assert torch.equal(module.one.weight, kept)
    assert np.array_equal(get_weight(copy, "one.weight"), kept.numpy())
    (before,), (after,) = copy.run(program.args, {}), program.run(program.args, {})
    assert (before - after).abs().max() > 0.1
    assert is_editable(program, "one.bias")
    assert not is_editable(program, "count")
    with pytest.raises(ModelError, match=r"torch\.int64, no floating-point numbers"):
        get_weight(program, "count")
    with pytest.raises(ModelError, match="holds no weight 'one'"):
        get_weight(program, "one")
