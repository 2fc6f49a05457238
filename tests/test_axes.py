"""The algebra of axes: whatever is unified stays one under every selection."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.axes import ONE, Axis, AxisSpace, Concat, Leaf, Pin
from graphprune.selection import Selection, occurrences
from graphprune.sizes import symbol

SIZES = (6, 8, 12, 24, 36)


def _factors(size: int) -> list[int]:
    return [divisor for divisor in range(2, size) if size % divisor == 0]


@st.composite
def forms(draw: st.DrawFn, size: int, depth: int = 3) -> object:
    """A shape of an axis: ``size`` for a leaf, ``("product" | "concat", parts)`` otherwise."""
    kind = draw(st.sampled_from(("leaf", "product", "concat"))) if depth and size > 1 else "leaf"
    if kind == "product" and _factors(size):
        outer = draw(st.sampled_from(_factors(size)))
        return "product", (draw(forms(outer, depth - 1)), draw(forms(size // outer, depth - 1)))
    if kind == "concat":
        head = draw(st.integers(1, size - 1))
        return "concat", (draw(forms(head, depth - 1)), draw(forms(size - head, depth - 1)))
    return size


def build(space: AxisSpace, form: object, leaves: list[Axis]) -> Axis:
    """The axis of a form; leaves of equal size are now and then shared, so that relations meet."""
    if isinstance(form, int):
        known = [leaf for leaf in leaves if leaf.size == form]
        if known and len(leaves) % 3 == 0:
            return known[0]
        leaves.append(space.leaf(form))
        return leaves[-1]
    assert isinstance(form, tuple)
    kind, parts = form
    axes = [build(space, part, leaves) for part in parts]
    return space.product(axes) if kind == "product" else space.concat(axes)


def random_selection(space: AxisSpace, axes: Sequence[Axis], seed: int) -> Selection:
    """Random positions of every leaf that is not pinned."""
    rng = np.random.default_rng(seed)
    keep = {leaf: rng.random(leaf.size) < 0.6 for axis in axes for leaf in space.leaves(axis) if not leaf.pinned}
    return Selection(space, keep)  # type: ignore[arg-type]


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_unified_axes_have_equal_masks_under_every_selection(data: st.DataObject) -> None:
    space = AxisSpace()
    leaves: list[Axis] = []
    pairs: list[tuple[Axis, Axis]] = []
    for _ in range(data.draw(st.integers(1, 4))):
        size = data.draw(st.sampled_from(SIZES))
        a, b = (build(space, data.draw(forms(size)), leaves) for _ in range(2))
        space.unify(a, b)
        pairs.append((a, b))
    for seed in range(3):
        selection = random_selection(space, [axis for pair in pairs for axis in pair], seed)
        for a, b in pairs:
            assert np.array_equal(selection.mask(a), selection.mask(b))
            assert selection.count(a) == selection.mask(a).sum() == selection.count(b)
            assert a.size == b.size == len(selection.mask(a))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_split_halves_are_the_whole(data: st.DataObject) -> None:
    space = AxisSpace()
    size = data.draw(st.sampled_from(SIZES))
    axis = build(space, data.draw(forms(size)), [])
    at = data.draw(st.integers(0, size))
    head, tail = space.split(axis, at)
    selection = random_selection(space, [axis], data.draw(st.integers(0, 9)))
    whole = selection.mask(axis)
    if at:
        assert np.array_equal(selection.mask(head), whole[:at])
    if at < size:
        assert np.array_equal(selection.mask(tail), whole[at:])


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_occurrences_explain_the_mask(data: st.DataObject) -> None:
    space = AxisSpace()
    axis = build(space, data.draw(forms(data.draw(st.sampled_from(SIZES)))), [])
    selection = random_selection(space, [axis], data.draw(st.integers(0, 9)))
    mask = np.ones(axis.size, dtype=bool)  # type: ignore[arg-type]
    for place in occurrences(space, axis):
        mask[place.index] &= selection.mask(place.leaf)[place.position]
    assert np.array_equal(mask, selection.mask(axis))


def test_heads_and_head_width_are_two_groups_of_one_axis() -> None:
    space = AxisSpace()
    projection, heads, width = space.leaf(512), space.leaf(8), space.leaf(64)
    space.unify(projection, space.product([heads, width]))
    assert [leaf.size for leaf in space.leaves(projection)] == [8, 64]
    keep = {leaf: np.arange(leaf.size) < leaf.size // 2 for leaf in space.leaves(projection)}  # type: ignore[operator]
    assert Selection(space, keep).count(projection) == 4 * 32


def test_a_shuffle_couples_what_it_interleaves() -> None:
    space = AxisSpace()
    left, right = space.leaf(6), space.leaf(6)
    two, six = space.leaf(2), space.leaf(6)
    space.unify(space.concat([left, right]), space.product([two, six]))
    first, _ = space.split(space.product([six, two]), 6)
    assert {leaf.size for leaf in space.leaves(first)} & {3}
    selection = random_selection(space, [left, right], 1)
    assert np.array_equal(selection.mask(left), selection.mask(right))


def test_a_rotated_half_couples_both_halves() -> None:
    space = AxisSpace()
    width = space.leaf(8)
    first, second = space.split(width, 4)
    space.unify(width, space.concat([second, first]))
    assert space.find(first) is space.find(second)


def test_sizes_that_do_not_divide_each_other_meet_in_their_common_runs() -> None:
    space = AxisSpace()
    a, b = (space.product([space.leaf(x), space.leaf(y)]) for x, y in ((6, 4), (4, 6)))
    space.unify(a, b, Pin("node", "Reshape", "divides an axis"))
    free = {leaf for axis in (a, b) for leaf in space.leaves(axis) if not leaf.pinned}
    assert 2 in {leaf.size for leaf in free}
    for seed in range(4):
        selection = random_selection(space, [a, b], seed)
        assert np.array_equal(selection.mask(a), selection.mask(b))


def test_large_sizes_that_do_not_divide_each_other_are_pinned_with_the_reason() -> None:
    space = AxisSpace()
    a, b = (space.product([space.leaf(x), space.leaf(y)]) for x, y in ((600, 400), (400, 600)))
    space.unify(a, b, Pin("node", "Reshape", "divides an axis"))
    assert all(leaf.pinned for axis in (a, b) for leaf in space.leaves(axis))
    assert "do not divide" in str(space.leaves(a)[0].pins[0])


def test_different_sizes_pin_both_sides() -> None:
    space = AxisSpace()
    a, b = space.leaf(3), space.leaf(4)
    space.unify(a, b, Pin("n", "Add", "meets"))
    assert all(isinstance(axis, Leaf) and axis.pinned for axis in (a, b))


def test_one_has_nothing_to_remove() -> None:
    space = AxisSpace()
    assert space.leaf(1) is ONE
    assert space.product([ONE, ONE]) is ONE
    leaf = space.leaf(5)
    assert space.product([ONE, leaf, ONE]) is leaf


def test_symbolic_runs_pin_a_concatenation() -> None:
    space = AxisSpace()
    cache, step = space.leaf(symbol("past")), space.leaf(4)
    whole = space.concat([cache, step])
    assert not isinstance(whole, Concat)
    assert all(leaf.pinned for axis in (cache, step, whole) for leaf in space.leaves(axis))


def test_a_deep_chain_of_concatenations_does_not_recurse() -> None:
    space = AxisSpace()
    axis = space.leaf(2)
    for _ in range(5000):
        axis = space.concat([axis, space.leaf(2)])
    assert Selection(space, {}).count(axis) == 2 * 5001
    head, _ = space.split(axis, 3)
    assert head.size == 3


def test_a_leaf_meets_a_product_whose_factor_became_a_product_with_that_leaf() -> None:
    space = AxisSpace()
    one, other = (space.split(space.leaf(5), 1)[0] for _ in range(2))
    leaf, factor = space.leaf(8), space.leaf(8)
    whole = space.product([factor, other])
    space.unify(factor, space.product([leaf, one]))
    space.unify(leaf, whole)
    keep = {each: np.arange(8) < 3 for each in space.leaves(leaf)}
    assert Selection(space, keep).count(leaf) == Selection(space, keep).count(whole) == 3
