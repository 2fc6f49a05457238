"""Every row of the operator table against its real operator, in both directions.

What a rule leaves free can be removed: the operator on the erased operands gives what it gives on whole operands, of
which summed positions are masked and positions under a statistic gathered; everything else that was removed holds
whatever it holds. What a rule pins is listed in ``rows.txt``, so that a needless pin shows as a diff. Run with
``GRAPHPRUNE_GOLDEN=1`` to write that file anew.
"""

from __future__ import annotations

import difflib
import itertools
import os
from pathlib import Path

import onnx
import pytest
from onnxruntime.capi import _pybind_state as runtime

from graphprune.rules import table
from graphprune.rules.opaque import is_opaque
from rules.notation import line
from rules.row_check import erased, selections, zeroed
from rules.rows import ROWS
from rules.sample import Sample, differ, read, settle, signed, symbolic

GOLDEN = Path(__file__).with_name("rows.txt")


def labels() -> list[str]:
    counts: dict[str, int] = {}
    result = []
    for sample in ROWS:
        number = counts[sample.label] = counts.get(sample.label, 0) + 1
        result.append(sample.label if number == 1 else f"{sample.label} #{number}")
    return result


@pytest.mark.parametrize("sample", ROWS, ids=labels())
def test_free_positions_can_be_removed(sample: Sample) -> None:
    reading = read(sample)
    mixed = {leaf for mix in reading.call.mixes for leaf in reading.space.leaves(mix.axis)}
    visible = False
    for leaves, selection in selections(reading, seed=0):
        slim = erased(sample, reading, selection)
        if sample.follows:
            continue
        whole = zeroed(sample, reading, selection)
        for number, (a, b) in enumerate(zip(slim, whole, strict=True)):
            assert not differ(a, b, sample.tolerance), f"result {number} without {leaves} in {line(reading)}"
        if mixed & set(leaves) and not visible:
            raw = zeroed(sample, reading, selection, masks=False)
            visible = any(differ(a, b, sample.tolerance) for a, b in zip(slim, raw, strict=True))
    if mixed & set(reading.free) and not sample.follows:
        assert visible, f"no mask or gather was needed in {line(reading)}"


@pytest.mark.parametrize("sample", ROWS, ids=labels())
def test_a_statistic_is_not_a_sum(sample: Sample) -> None:
    """Where zeroing would do, a rule must not say that it does not; extremes notice it among numbers of one sign."""
    reading = read(sample)
    statistics = {
        leaf for mix in reading.call.mixes if mix.kind == "statistics" for leaf in reading.space.leaves(mix.axis)
    }
    wanted = {leaf for leaf in reading.free if leaf in statistics}
    for trial, seed in itertools.product((sample, signed(sample, -1), signed(sample, 1)), range(4)):
        if not wanted:
            break
        for leaves, selection in selections(reading, seed):
            if len(leaves) > 1 or leaves[0] not in wanted:
                continue
            slim = erased(trial, reading, selection)
            zeros = zeroed(trial, reading, selection, as_sums=True)
            if any(differ(a, b, 1e-3, 1e-8) for a, b in zip(slim, zeros, strict=True)):
                wanted.remove(leaves[0])
    assert not wanted, line(reading)


@pytest.mark.parametrize("sample", ROWS, ids=labels())
def test_free_where_other_sizes_are_symbols_or_unknown(sample: Sample) -> None:
    """What is free although a size is a symbol, or results have no stated sizes, can be removed as well."""
    if sample.follows:
        return
    for symbols in [{}, *symbolic(read(sample))]:
        for stated in (True, False):
            reading = read(sample, stated, symbols)
            settle(reading, sample)
            for leaves, selection in list(selections(reading, seed=2))[-1:]:
                slim, whole = erased(sample, reading, selection), zeroed(sample, reading, selection)
                same = not any(differ(a, b, sample.tolerance) for a, b in zip(slim, whole, strict=True))
                assert same, f"without {leaves} where {symbols or 'nothing'} is a symbol"


def test_golden() -> None:
    lines = [f"{label}\n    {line(read(sample))}\n" for label, sample in zip(labels(), ROWS, strict=True)]
    found = "".join(lines)
    if os.environ.get("GRAPHPRUNE_GOLDEN"):
        GOLDEN.write_text(found)
    expected = GOLDEN.read_text()
    diff = difflib.unified_diff(expected.splitlines(), found.splitlines(), "rows.txt", "now", n=1, lineterm="")
    assert found == expected, "\n".join(diff)


def test_every_binding_has_a_sample() -> None:
    sampled = {sample.op for sample in ROWS}
    bound = {op: row for op, row in table().items() if op.startswith(("onnx.", "com.microsoft."))}
    assert [op for op, binding in bound.items() if op not in sampled and not is_opaque(binding.rule)] == []
    assert sampled <= set(table())


def schemas() -> dict[str, list[list[str]]]:
    """For each operator the names of its operands, one list a version."""
    found: dict[str, list[list[str]]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        found.setdefault(f"{schema.domain or 'onnx'}.{schema.name}", []).append([i.name for i in schema.inputs])
    for schema in runtime.get_all_operator_schema():
        found.setdefault(f"{schema.domain or 'onnx'}.{schema.name}", []).append([i.name for i in schema.inputs])
    return found


def test_operands_are_named_as_in_the_schema() -> None:
    known = schemas()
    for op, binding in table().items():
        names = list(binding.operands)
        assert not names or op not in known or any(own[: len(names)] == names for own in known[op]), (op, known[op])


def test_every_standard_operator_is_declared() -> None:
    bodies = {"onnx.If", "onnx.Loop", "onnx.Scan", "onnx.SequenceMap"}
    newest = {f"onnx.{schema.name}" for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""}
    assert sorted(newest - bodies - set(table())) == []
