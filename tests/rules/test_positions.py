"""What may be done with positions is sampled: every operator that the tables name has a row that is given some."""

from __future__ import annotations

import pytest

from graphprune.rules import positions
from rules.rows import ROWS
from rules.sample import Places

NAMED = positions.CASTING | positions.MOVING | positions.JOINING | positions.COMPARING | positions.UNREAD


def of(space: str) -> set[str]:
    return {name for name in NAMED if name.startswith(f"{space}.")}


def test_onnx() -> None:
    given = {sample.op for sample in ROWS if any(isinstance(each, Places) for each in sample.operands)}
    assert of("onnx") <= given


@pytest.mark.torch
def test_aten() -> None:
    pytest.importorskip("torch")
    from graphprune.frontends.torch_calls import binding_of
    from rules.aten_rows import ROWS as ATEN_ROWS

    given = set()
    for sample in ATEN_ROWS:
        assert sample.module is not None
        binding = binding_of(sample.target)
        if sample.numbers and binding is not None:
            given.add(binding.operator)
    assert of("aten") <= given
