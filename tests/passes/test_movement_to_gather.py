from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx_models import fingerprint, operators, parse, run
from random_graphs import random_inputs, random_model

from graphprune.cost import CostModel
from graphprune.frontends.onnx_file import load
from graphprune.frontends.onnx_reader import read
from graphprune.models.reference import shufflenet_v2
from graphprune.passes import Context, MovementToGather, canonicalize
from graphprune.passes.movement_chains import movements

RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


CHAINS = {
    "shuffle": (
        "a = Reshape(x, s)\n b = Transpose<perm = [0, 2, 1, 3]>(a)\n y = Reshape(b, t)",
        {"s": np.array([0, 3, 4, 5]), "t": np.array([0, 12, 5])},
        [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11],
    ),
    "every second of each half": (
        "a = Reshape(x, s)\n b = Slice(a, one, big, axis, two)\n y = Reshape(b, t)",
        {"s": np.array([0, 2, 6, 5]), "t": np.array([0, 6, 5]), "one": np.array([1]), "big": np.array([2**31]),
         "axis": np.array([2]), "two": np.array([2])},
        [1, 3, 5, 7, 9, 11],
    ),
    "interleave": (
        "a, b = Split<axis = 1>(x, s)\n c = Unsqueeze(a, two)\n d = Unsqueeze(b, two)\n e = Concat<axis = 2>(c, d)\n"
        "y = Reshape(e, t)",
        {"s": np.array([6, 6]), "t": np.array([0, 12, 5]), "two": np.array([2])},
        [0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11],
    ),
    "repeat interleave": (
        "a = Unsqueeze(x, two)\n b = Expand(a, s)\n y = Reshape(b, t)",
        {"s": np.array([1, 1, 2, 1]), "t": np.array([0, 24, 5]), "two": np.array([2])},
        np.repeat(np.arange(12), 2).tolist(),
    ),
    "shuffle over the batch": (
        "a = Reshape(x, s)\n b = Transpose<perm = [1, 0, 2]>(a)\n c = Reshape(b, t)\n y = Gather(c, one)",
        {"s": np.array([-1, 2, 5]), "t": np.array([2, -1, 6, 5]), "one": np.array(1)},
        [1, 3, 5, 7, 9, 11],
    ),
}  # fmt: skip


@pytest.mark.parametrize("batch", ["2", "n"])
@pytest.mark.parametrize("name", CHAINS)
def test_chains_that_pick_channels_are_found(name: str, batch: str) -> None:
    chain, constants, index = CHAINS[name]
    header = f"agraph (float[{batch}, 12, 5] z) => (float[{batch}, {len(index)}, 5] r)"
    text = f"{header} {{ x = Relu(z)\n {chain}\n r = Tanh(y) }}"
    model = parse(text, **constants)
    canonicalize(model)
    (found,) = movements(model)
    assert (found.root.name, found.result.name, found.dim, list(found.index)) == ("x", "y", 1, index)


@pytest.mark.parametrize(
    "chain",
    [
        "y = Transpose<perm = [0, 2, 1]>(x)",
        "a = Transpose<perm = [0, 2, 1]>(x)\n y = Reshape(a, same)",
        "a = Reshape(x, s)\n b = Transpose<perm = [2, 0, 1]>(a)\n y = Reshape(b, same)",
        "y = Slice(x, one, big, axis, two)",
        "a, b = Split<axis = 1>(x, half)\n y = Concat<axis = 1>(b, a)",
    ],
)
def test_other_movement_is_left_to_the_analysis(chain: str) -> None:
    model = parse(
        f"agraph (float[2, 12, 5] z) => (float[a, b, c] r) {{ x = Relu(z)\n {chain}\n r = Tanh(y) }}",
        same=np.array([2, 12, 5]), s=np.array([4, 6, 5]), half=np.array([6, 6]),
        one=np.array([1]), big=np.array([2**31]), axis=np.array([1]), two=np.array([2]),
    )  # fmt: skip
    canonicalize(model)
    assert not movements(model)


def freedom(model: ir.Model) -> tuple[float, int]:
    """The share of parameters that can be reached, and the number of positions that can go one by one."""
    structure = read(model)
    cost = CostModel(structure)
    return round(1 - cost.floor.params / max(1, cost.total.params), 6), sum(group.size for group in structure.groups)


def uneven_shuffle() -> ir.Model:
    """A shuffle by three whose result is cut where no row of it ends."""
    w = {"w1": normal(12, 3, 1, 1), "w2": normal(5, 5, 1, 1), "w3": normal(5, 7, 1, 1)}
    sizes = {"s": np.array([2, 3, 4, 6, 6]), "t": np.array([0, 12, 6, 6]), "half": np.array([5, 7])}
    text = (
        "agraph (float[2, 3, 6, 6] x) => (float[2, 5, 6, 6] y)"
        "{ a = Conv(x, w1)\n b = Reshape(a, s)\n c = Transpose<perm = [0, 2, 1, 3, 4]>(b)\n d = Reshape(c, t)\n"
        "e, f = Split<axis = 1>(d, half)\n g = Conv(e, w2)\n h = Conv(f, w3)\n y = Add(g, h) }"
    )
    return parse(text, **w, **sizes)


def test_a_shuffle_that_couples_channels_becomes_a_gather() -> None:
    model = uneven_shuffle()
    canonicalize(model)
    before, old = model.clone(), freedom(model)
    assert MovementToGather()(model).modified
    assert freedom(model) == (1.0, 12) > old
    assert operators(model) == ["Conv", "Gather", "Gather", "Conv", "Conv", "Add"]
    feeds = random_inputs(ir.to_proto(before))
    np.testing.assert_array_equal(run(model, feeds)[0], run(before, feeds)[0])
    assert not MovementToGather()(model).modified


def test_nothing_happens_where_nothing_is_freed() -> None:
    w = {"w1": normal(12, 3, 1, 1), "w2": normal(5, 12, 1, 1)}
    text = (
        "agraph (float[2, 3, 6, 6] x) => (float[2, 12, 6, 6] y)"
        "{ a = Conv(x, w1)\n b = Reshape(a, s)\n c = Transpose<perm = [0, 2, 1, 3, 4]>(b)\n y = Reshape(c, t) }"
    )
    model = parse(text, w1=w["w1"], s=np.array([2, 3, 4, 6, 6]), t=np.array([2, 12, 6, 6]))
    canonicalize(model)
    before = fingerprint(model)
    assert len(movements(model)) == 1
    assert not MovementToGather()(model).modified
    assert fingerprint(model) == before


def test_shufflenet_is_cut_more_finely() -> None:
    model = load(shufflenet_v2(tiny=True))
    canonicalize(model)
    before, old = model.clone(), freedom(model)
    report = MovementToGather()(model)
    assert report.modified
    assert report.counts["chains replaced"] < len(movements(before))
    assert freedom(model) > old
    feeds = random_inputs(ir.to_proto(before))
    np.testing.assert_array_equal(run(model, feeds)[0], run(before, feeds)[0])


FREED = (6, 12, 16, 24, 25, 44, 74, 135, 164, 230, 232, 233)
"""Seeds of random graphs with chains of movement that the analysis sees through only as a Gather."""


@pytest.mark.parametrize("seed", FREED)
def test_random_graphs_compute_exactly_what_they_did(seed: int) -> None:
    model = load(random_model(seed))
    canonicalize(model)
    before, old = model.clone(), freedom(model)
    assert MovementToGather()(model, Context()).modified
    assert freedom(model) > old
    feeds = random_inputs(ir.to_proto(before))
    for a, b in zip(run(before, feeds), run(model, feeds), strict=True):
        np.testing.assert_array_equal(a, b)
