from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from analysed import Analysed, analyse

from graphprune.axes import AxisSpace, Leaf
from graphprune.errors import UsageError
from graphprune.frontends.onnx_file import load
from graphprune.frontends.onnx_weights import weights_of
from graphprune.models.reference.builder import GraphBuilder
from graphprune.passes import canonicalize
from graphprune.score import Block, Evidence, Magnitude, Scores, blocks, criteria, criterion, normalize, register
from graphprune.score.positions import Positions


def weight(program: Analysed, name: str) -> npt.NDArray[np.float64]:
    value = program.model.graph.initializers[name].const_value
    assert value is not None
    return value.numpy().astype(np.float64)


def two_layers(dtype: npt.DTypeLike = np.float32) -> Analysed:
    b = GraphBuilder(dtype=dtype)
    x = b.relu(b.conv(b.input("x", (1, 3, 6, 6)), 8, 3))
    b.output(b.conv(x, 5, 1), "y")
    return analyse(b.model())


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("reduction", ["mean", "sum", "max"])
def test_norms_of_rows_and_columns(p: int, reduction: str) -> None:
    program = two_layers()
    (group,) = program.structure.groups
    first, second = weight(program, "weight"), weight(program, "weight_1")
    parts = np.stack([(np.abs(first) ** p).sum((1, 2, 3)), (np.abs(second) ** p).sum((0, 2, 3))])
    expected = getattr(parts, reduction)(0) ** (1 / p)
    found = Magnitude(p, reduction).score(Evidence(program.structure, weights_of(program.model)))  # type: ignore[arg-type]
    np.testing.assert_allclose(found[group.leaf], expected, rtol=1e-5)
    assert np.ptp(expected) > 0.1


def test_l1_is_the_default_reduction_by_name() -> None:
    program = two_layers()
    (group,) = program.structure.groups
    expected = Magnitude(2, "mean").score(Evidence(program.structure, weights_of(program.model)))
    np.testing.assert_array_equal(program.scores("l2")[group.leaf], expected[group.leaf])


def test_heads_and_their_width_are_scored_each_for_itself() -> None:
    b = GraphBuilder()
    x = b.input("x", (1, 4, 8))
    y = b.linear(x, 6, bias=False)
    y = b.transpose(b.reshape(y, (1, 4, 2, 3), (1, 4, 2, 3)), 0, 2, 1, 3)
    y = b.mul(y, b.weight(2, 1, 1, name="scale"))
    y = b.reshape(b.transpose(y, 0, 2, 1, 3), (1, 4, 6), (1, 4, 6))
    b.output(b.linear(y, 5, bias=False), "y")
    program = analyse(b.model())
    scores = program.scores("l1")
    first, second = np.abs(weight(program, "weight")), np.abs(weight(program, "weight_1"))
    for group in program.structure.groups:
        over = (0, 2) if group.size == 2 else (0, 1)
        rows = first.reshape(8, 2, 3).sum(over)
        columns = second.reshape(2, 3, 5).sum((1, 2) if group.size == 2 else (0, 2))
        np.testing.assert_allclose(scores[group.leaf], (rows + columns) / 2, rtol=1e-5)
    assert sorted(group.size for group in program.structure.groups) == [2, 3]


def test_vectors_count_only_where_there_is_nothing_else() -> None:
    b = GraphBuilder()
    x = b.batch_norm(b.conv(b.input("x", (1, 3, 6, 6)), 8, 3))
    b.output(b.conv(x, 5, 1), "y")
    program = analyse(b.model())
    (group,) = program.structure.groups
    matrices = [s.tensor for s in group.slices if len(program.structure.tensors[s.tensor] or ()) > 1]
    sums = [np.abs(weight(program, n)).sum((1, 2, 3) if n == "weight" else (0, 2, 3)) for n in matrices]
    np.testing.assert_allclose(program.scores("l1")[group.leaf], np.mean(sums, 0), rtol=1e-5)

    b = GraphBuilder()
    x = b.add(b.input("x", (1, 1)), b.weight(7, name="offset"))
    b.output(b.reduce("ReduceSum", x, 1), "y")
    program = analyse(b.model())
    for group in program.structure.groups:
        np.testing.assert_allclose(program.scores("l1")[group.leaf], np.abs(weight(program, "offset")), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.int4])
def test_scores_of_any_element_type(dtype: npt.DTypeLike) -> None:
    program = two_layers()
    (group,) = program.structure.groups
    for name in ("weight", "weight_1"):
        value = program.model.graph.initializers[name]
        values = value.const_value.numpy() * (8 if np.dtype(dtype) == ml_dtypes.int4 else 1)  # type: ignore[union-attr]
        value.const_value = ir.tensor(values.clip(-7, 7).astype(dtype), name=name)
    found = criterion("l1").score(Evidence(program.structure, weights_of(program.model)))
    first, second = np.abs(weight(program, "weight")), np.abs(weight(program, "weight_1"))
    expected = (first.sum((1, 2, 3)) + second.sum((0, 2, 3))) / 2
    assert expected.max() > 0
    np.testing.assert_allclose(found[group.leaf], expected, rtol=1e-4)


def test_external_weights_are_streamed_and_score_the_same(tmp_path: Path) -> None:
    def build() -> onnx.ModelProto:
        b = GraphBuilder()
        x = b.relu(b.linear(b.input("x", (1, 64)), 3000))
        b.output(b.linear(x, 2000), "y")
        return b.model()

    inside = analyse(build())
    onnx.save(build(), tmp_path / "m.onnx", save_as_external_data=True, location="m.data")
    model = load(tmp_path / "m.onnx")
    canonicalize(model)
    outside = Analysed(model)
    stored = {name: value.const_value for name, value in model.graph.initializers.items()}
    assert sum(isinstance(tensor, ir.ExternalTensor) for tensor in stored.values()) >= 2
    for a, b_ in zip(inside.structure.groups, outside.structure.groups, strict=True):
        np.testing.assert_allclose(outside.scores()[b_.leaf], inside.scores()[a.leaf], rtol=1e-5)


@pytest.mark.parametrize("limit", [1, 5, 12, 24, 25, 1000])
@pytest.mark.parametrize("shape", [(), (7,), (5, 4), (2, 3, 4), (2, 5, 3, 2), (0, 3)])
def test_blocks_cover_an_array_once(shape: tuple[int, ...], limit: int) -> None:
    array = np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape)
    seen: list[float] = []
    for block in blocks(array, limit):
        assert block.values.size <= limit or len(block.values) == 1
        assert block.values.ndim == max(array.ndim, 1) - len(block.prefix)
        seen.extend(block.values.reshape(-1).tolist())
    assert seen == array.reshape(-1).tolist()


def test_small_blocks_score_the_same() -> None:
    b = GraphBuilder()
    x = b.relu(b.conv(b.input("x", (1, 3, 6, 6)), 8, 3))
    b.output(b.conv(x, 5, 3), "y")
    program = analyse(b.model())
    (group,) = program.structure.groups

    def tiny(name: str) -> Iterator[Block]:
        return blocks(program.model.graph.initializers[name].const_value.numpy(), 2)  # type: ignore[union-attr]

    found = criterion("l1").score(Evidence(program.structure, tiny))
    np.testing.assert_allclose(found[group.leaf], program.scores("l1")[group.leaf], rtol=1e-5)


def test_random_scores_depend_on_the_seed_alone() -> None:
    program = two_layers()
    (group,) = program.structure.groups
    a, b, c = (program.scores("random", seed)[group.leaf] for seed in (3, 3, 4))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()
    assert a.min() >= 0
    assert a.max() < 1


def test_criteria_by_name() -> None:
    assert set(criteria()) >= {"l1", "l2", "random"}
    for name in ("l1", "l2", "random"):
        assert criterion(name).name == name
        assert criterion(name).needs == frozenset()
    with pytest.raises(UsageError, match=r"no criterion is called 'l3'; there are: .*l1, l2, .*random"):
        criterion("l3")
    with pytest.raises(ValueError, match="registered twice"):
        register("l1", lambda _: Magnitude(1))


def test_normalisers_bring_groups_to_scale_and_share_it_over_a_pool() -> None:
    space = AxisSpace()
    left, right = space.split(space.leaf(6), 2)
    other = space.leaf(7)
    assert isinstance(left, Leaf)
    assert isinstance(right, Leaf)
    assert isinstance(other, Leaf)
    scores: Scores = {left: np.array([1.0, 2.0]), right: np.array([3.0, 4.0, 5.0, 3.0]), other: np.arange(7) * 100.0}
    by = {name: normalize(scores, name) for name in ("mean", "max", "sum", "standard", "none")}
    np.testing.assert_allclose(by["mean"][left], [1 / 3, 2 / 3])
    np.testing.assert_allclose(by["mean"][other].mean(), 1)
    np.testing.assert_allclose(by["max"][right], [0.6, 0.8, 1, 0.6])
    np.testing.assert_allclose(by["sum"][other].sum(), 1)
    np.testing.assert_allclose(by["standard"][other].std(), 1)
    assert (by["none"][other] == scores[other]).all()
    for values in by.values():
        assert (np.argsort(values[other]) == np.arange(7)).all()
    zero = normalize({other: np.zeros(7)})
    assert (zero[other] == 0).all()
    with pytest.raises(UsageError, match="no normaliser is called 'median'"):
        normalize(scores, "median")


def test_positions_are_numbered_without_gaps() -> None:
    program = two_layers()
    positions = Positions(program.structure)
    values = np.arange(positions.total, dtype=float)
    assert positions.total == sum(group.size for group in program.structure.groups)
    np.testing.assert_array_equal(positions.join(positions.split(values)), values)
