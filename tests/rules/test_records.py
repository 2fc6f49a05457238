"""What is worked out once for each form of call is right for every call of that form, and for no other."""

from __future__ import annotations

from graphprune.axes import ONE, Axis, AxisSpace
from graphprune.rules.call import Axes, Call, Mix, Operand
from graphprune.rules.table import Rule


def call(space: AxisSpace, *operands: tuple[Axes, bool], **attributes: int) -> Call:
    given = [Operand(f"t{number}", axes, constant) for number, (axes, constant) in enumerate(operands)]
    return Call(space, "node", "op", list(given), attributes, [None])


def linear() -> Rule:
    return Rule("*n i, o i, o? -> *n o", macs=("*n i o",))


def test_calls_of_one_form_share_records_but_not_axes() -> None:
    rule, space = linear(), AxisSpace()
    made: list[tuple[Axis, Call]] = []
    for _ in range(2):
        batch, i, o = space.leaf(2), space.leaf(3), space.leaf(5)
        made.append((i, call(space, ((batch, i), False), ((o, i), True), ((o,), True))))
        assert rule(made[-1][1]) == [(batch, o)]
    assert len(rule.known) == 1
    for axis, one in made:
        assert one.mixes == [Mix("sum", axis, ((0, 1),))]
        assert [sorted(a.size for a in term) for term in one.contractions] == [[2, 3, 5]]  # type: ignore[type-var]


def test_the_activation_is_masked_wherever_it_stands() -> None:
    rule, space = linear(), AxisSpace()
    for constant, place in ((False, (0, 1)), (True, (1, 1))):
        batch, i, o = space.leaf(2), space.leaf(3), space.leaf(5)
        one = call(space, ((batch, i), constant), ((o, i), not constant))
        rule(one)
        assert one.mixes == [Mix("sum", i, (place,))]
    assert len(rule.known) == 2


def test_an_operand_or_a_dimension_more_is_another_form() -> None:
    rule, space = linear(), AxisSpace()
    i, o = space.leaf(3), space.leaf(5)
    for operands in (
        [((space.leaf(2), i), False), ((o, i), True)],
        [((space.leaf(2), i), False), ((o, i), True), ((o,), True)],
        [((space.leaf(2), space.leaf(7), i), False), ((o, i), True)],
        [((ONE, space.leaf(7), i), False), ((o, i), True)],
    ):
        rule(call(space, *operands))
    assert len(rule.known) == 4


def test_a_factor_that_is_new_is_the_axis_itself_where_all_beside_it_is_one() -> None:
    rule = Rule("n (g i), (g o) i -> n (g o)", sizes={"g": "group"}, sites={"group": "g"})
    space = AxisSpace()
    n, i, o = space.leaf(2), space.leaf(4), space.leaf(6)
    one = call(space, ((n, i), False), ((o, i), True), group=1)
    assert rule(one) == [(n, o)]
    assert not one.sites
    grouped = call(space, ((n, space.leaf(4)), False), ((space.leaf(6), space.leaf(2)), True), group=2)
    (axes,) = rule(grouped)
    assert axes is not None
    assert [leaf.size for leaf in space.leaves(axes[1])] == [2, 3]
    assert len(grouped.sites) == 1


def test_a_dimension_that_is_repeated_is_another_form() -> None:
    rule, space = Rule("m~ n~ , n -> n"), AxisSpace()
    n = space.leaf(3)
    rule(call(space, ((space.leaf(2), n), False), ((n,), True)))
    wide = len(rule.known)
    rule(call(space, ((ONE, ONE), False), ((n,), True)))
    assert len(rule.known) == wide + 1
