"""Every ATen row of the operator table against its real operator, in both directions.

As for ONNX (``test_rows.py``), with the reader and the writer of PyTorch programs: a call is read from a graph, cut by
the writer, and run. What rules pin is listed in ``aten_rows.txt``; run with ``GRAPHPRUNE_GOLDEN=1`` to write it anew.
"""

from __future__ import annotations

import difflib
import itertools
import os
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from graphprune.frontends.torch_calls import names_of  # noqa: E402
from graphprune.rules import table  # noqa: E402
from graphprune.rules.opaque import is_opaque  # noqa: E402
from rules.aten_check import erased, zeroed  # noqa: E402
from rules.aten_rows import ROWS  # noqa: E402
from rules.aten_sample import AtenSample, read  # noqa: E402
from rules.notation import line  # noqa: E402
from rules.row_check import selections  # noqa: E402
from rules.sample import differ as differ_arrays  # noqa: E402

pytestmark = pytest.mark.torch

GOLDEN = Path(__file__).with_name("aten_rows.txt")

_SPACES = ("aten.", "torchvision.", "prims.", "quantized_decomposed.", "transformers.")


def differ(a: Any, b: Any, relative: float, absolute: float | None = None) -> bool:
    left, right = (None if side is None else _array(side) for side in (a, b))
    return differ_arrays(left, right, relative, absolute)


def _array(value: Any) -> Any:
    value = value.detach() if isinstance(value, torch.Tensor) else torch.tensor(value)
    if value.is_quantized:
        value = value.dequantize()
    return value.resolve_conj().resolve_neg().to(torch.complex128 if value.is_complex() else torch.float64).numpy()


def labels() -> list[str]:
    counts: dict[str, int] = {}
    result = []
    for sample in ROWS:
        number = counts[sample.label] = counts.get(sample.label, 0) + 1
        result.append(sample.label if number == 1 else f"{sample.label} #{number}")
    return result


@pytest.mark.parametrize("sample", ROWS, ids=labels())
def test_free_positions_can_be_removed(sample: AtenSample) -> None:
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
def test_a_statistic_is_not_a_sum(sample: AtenSample) -> None:
    """Where zeroing would do, a rule must not say that it does not; extremes notice it among numbers of one sign."""
    reading = read(sample)
    statistics = {
        leaf for mix in reading.call.mixes if mix.kind == "statistics" for leaf in reading.space.leaves(mix.axis)
    }
    wanted = {leaf for leaf in reading.free if leaf in statistics}
    if not wanted:
        return
    for trial, seed in itertools.product((sample, _signed(sample, -1), _signed(sample, 1)), range(4)):
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


def _signed(sample: AtenSample, sign: int) -> AtenSample:
    """The same call with all floats of one sign."""
    return sample.with_tensors(lambda tensor: sign * tensor.abs() if tensor.is_floating_point() else tensor)


def test_golden() -> None:
    lines = [f"{label}\n    {line(read(sample))}\n" for label, sample in zip(labels(), ROWS, strict=True)]
    found = "".join(lines)
    if os.environ.get("GRAPHPRUNE_GOLDEN"):
        GOLDEN.write_text(found)
    expected = GOLDEN.read_text()
    diff = difflib.unified_diff(expected.splitlines(), found.splitlines(), "aten_rows.txt", "now", n=1, lineterm="")
    assert found == expected, "\n".join(diff)


def bound() -> list[str]:
    return [op for op in table() if op.startswith(_SPACES)]


def test_every_binding_has_a_sample() -> None:
    sampled = {next(name for name in names_of(sample.target) if name in table()) for sample in ROWS}
    assert [op for op in bound() if op not in sampled and not is_opaque(table()[op].rule)] == []


def schemas(op: str) -> list[Any]:
    """The schemas of all overloads that follow a row, of those that work in place too."""
    space, name, *overload = op.split(".")
    packets = [getattr(getattr(torch.ops, space), own, None) for own in (name, f"{name}_")]
    found = [getattr(packet, own) for packet in packets if packet is not None for own in packet.overloads()]
    return [each._schema for each in found if not overload or each._overloadname == overload[0]]


@pytest.mark.parametrize("op", bound())
def test_names_are_those_of_the_schema(op: str) -> None:
    """Operands and arguments that a binding names exist, all of them in one overload."""
    binding = table()[op]
    named = {name for name in binding.operands if name != "-"}
    named |= {source for source in binding.attributes.values() if isinstance(source, str)}
    known = [{argument.name for argument in schema.arguments} for schema in schemas(op)]
    assert known, f"{op} does not exist"
    assert any(named <= own for own in known), f"{op} has no {sorted(named - set().union(*known))}"
