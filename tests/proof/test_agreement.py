"""What lies around the proved cut must not change what a model computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import graphprune
from graphprune.models import digits_path
from graphprune.passes import Canonicalize, Context, EliminateDeadNodes, Report
from graphprune.proof import Incomparable, disagreement


def spoil(model: ir.Model) -> None:
    """Make one weight half as large again."""
    value = next(v for v in model.graph.initializers.values() if v.const_value is not None and v.const_value.size > 100)
    assert value.const_value is not None
    value.const_value = ir.tensor(value.const_value.numpy() * 1.5, name=value.name)


def test_a_model_agrees_with_itself_and_not_with_a_spoiled_one() -> None:
    model, other = ir.load(digits_path()), ir.load(digits_path())
    assert disagreement(model, other) is None
    spoil(other)
    assert "differs" in (disagreement(model, other) or "")


@pytest.mark.parametrize("spoiled", [Canonicalize, EliminateDeadNodes])
def test_a_spoiling_pass_is_caught(spoiled: type, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = spoiled.run

    def wrong(self: object, model: ir.Model, context: Context) -> Report:
        report = run(self, model, context)
        spoil(model)
        return report

    monkeypatch.setattr(spoiled, "run", wrong)
    with pytest.raises(graphprune.VerificationError, match="rewriting the model changed it"):
        graphprune.prune(digits_path(), tmp_path / "slim.onnx", ratio=0.5)
    assert not list(tmp_path.iterdir())


def test_what_can_flip_is_noted_instead_of_compared() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        agraph (float[N, 4] x) => (float[N, 3] y, int64[N, 1] best)
        { h = MatMul(x, a) y = MatMul(h, b) best = ArgMax<axis = 1>(y) }""",
        initializers=[
            ir.tensor(np.random.default_rng(0).normal(size=shape).astype(np.float32), name=name)
            for name, shape in (("a", (4, 8)), ("b", (8, 3)))
        ],
    )
    with pytest.raises(Incomparable, match="flip"):
        disagreement(model, model)
    result = graphprune.prune(model, ratio=0.5)
    assert result.verified
    assert any("not compared with the file" in note for note in result.notes)
