"""The rules on the single-operator test cases that the ONNX standard comes with: what is free can be removed."""

from __future__ import annotations

import functools
from collections import defaultdict

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.backend.test.case.node import collect_testcases

from graphprune import rules
from rules.notation import line
from rules.row_check import erased, selections, zeroed
from rules.sample import NEWEST, Const, Sample, differ, read

RANDOM = frozenset(f"onnx.{name}" for name in ("Bernoulli", "Dropout", "RandomNormalLike", "RandomUniformLike"))
FOLLOWING = frozenset({"onnx.Shape", "onnx.Size"})
BODIES = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS, onnx.AttributeProto.TENSOR)


def as_sample(case: onnx.backend.test.case.node.TestCase) -> Sample | None:
    """A case as a sample; None where it is more than an operator on tensors of numbers."""
    graph = case.model.graph
    node = graph.node[0]
    operator = f"{node.domain or 'onnx'}.{node.op_type}"
    if len(graph.node) != 1 or not case.data_sets or not all(node.output) or operator in RANDOM | FOLLOWING:
        return None
    if rules.find(operator) is None or any(attribute.type in BODIES for attribute in node.attribute):
        return None
    feeds = dict(zip([value.name for value in graph.input], case.data_sets[0][0], strict=True))
    if not all(isinstance(array, np.ndarray | np.generic) for array in (*feeds.values(), *case.data_sets[0][1])):
        return None
    arrays = [np.asarray(feeds[name]) if name else None for name in node.input]
    if any(array is not None and array.dtype.kind in "OSU" for array in arrays):
        return None
    spelled = [
        Const(array)
        if number and array is not None and array.dtype in (np.int64, np.int32) and array.ndim < 2
        else array
        for number, array in enumerate(arrays)
    ]
    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    attributes = {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}
    opset = next((entry.version for entry in case.model.opset_import if not entry.domain), NEWEST)
    return Sample(operator, spelled, attributes, opset, len(node.output), name=case.name, tolerance=2e-3)


UNTRIED = frozenset({"onnx.ImageDecoder"})
"""The standard's own implementation needs an image library; all that the operator touches is pinned."""


@functools.cache
def cases() -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = defaultdict(list)
    for case in collect_testcases(None):
        sample = as_sample(case)
        if sample is not None and sample.op not in UNTRIED:
            found[sample.op].append(sample)
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("letter", "ABCDEFGHIJKLMNOPQRSTUWX")
def test_free_positions_can_be_removed(letter: str) -> None:
    for operator, samples in cases().items():
        if not operator.rpartition(".")[2].startswith(letter):
            continue
        for sample in samples:
            try:
                _ = sample.expected
            except Exception:
                sample.by_onnx = True
                sample._runs.clear()
            reading = read(sample)
            for leaves, selection in selections(reading, seed=3):
                pairs = zip(erased(sample, reading, selection), zeroed(sample, reading, selection), strict=True)
                assert not any(differ(a, b, sample.tolerance) for a, b in pairs), (sample.name, leaves, line(reading))


def test_enough_cases_are_tried() -> None:
    assert sum(map(len, cases().values())) > 1000
