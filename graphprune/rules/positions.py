"""Numbers that are positions along an axis: a router's choice of experts, and what it goes on to address.

``topk`` of a router's logits says *which* positions of the expert axis ``e`` are best. Removing an expert means that no
token can choose it, so the operator takes statistics over the experts that stay, and its positions count those. Such
numbers may be moved (a view, a cast, a gather by position), compared with each other, and may address an axis of as
many positions, which is then that of the experts too::

    values, places = topk(softmax(x @ router.T), k)     router: e c      places: positions along e
    w1[places], one_hot(places, e), zeros.scatter(-1, places, values), values[places], histc(places, e, 0, e - 1)

In the slim program they count the positions that stay, in the masked original all of them; both mean the same wherever
nothing but their order and what they address matters. Any other use keeps all positions of the axis.

How often each position was chosen (``histc``), and the running sum of that, are numbers along the axis itself; they say
that a position that goes was never chosen, which is what a grouped product of matrices relies on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphprune.axes import ONE, Axis
from graphprune.rules.call import Call, Meaning, Mix

__all__ = [
    "CASTING",
    "COMPARING",
    "COUNTS",
    "ENDS",
    "JOINING",
    "MOVING",
    "PLACES",
    "POSITIONS",
    "UNREAD",
    "addressed",
    "follow",
    "located",
    "passed_on",
]

POSITIONS, COUNTS, ENDS = "positions", "counts", "ends"

PLACES = "its positions are the result"

_COMPUTED = "its positions are numbers that are computed with"


def located(call: Call, at: int, result: int | None, least: int = 1) -> None:
    """Record a statistic over dimension ``at`` of operand 0, of which ``result`` says at which positions it was found.

    At least ``least`` positions stay. An axis of symbolic size is pinned.
    """
    axis = call.axes(0)[at]
    if axis is ONE:
        return
    if result is not None and not isinstance(axis.size, int):
        call.pin(axis, PLACES)
        return
    call.mixes.append(Mix("statistics", axis, ((0, at),), positions=() if result is None else (result,)))
    if least > 1:
        call.least.append((axis, least))
    if result is not None:
        call.meanings[result] = Meaning(POSITIONS, axis, call.why(PLACES))


def addressed(call: Call, number: int, axis: Axis) -> bool:
    """Whether operand ``number`` holds positions along an axis that ``axis`` can be, and now is."""
    operand = call.operand(number)
    meaning = operand.meaning if operand is not None else None
    if meaning is None or meaning.kind != POSITIONS or axis is ONE or meaning.axis.size != axis.size:
        return False
    call.unify(axis, meaning.axis)
    call.followed.add(number)
    return True


def passed_on(call: Call, result: int = 0) -> None:
    """Let the positions in operand 0, moved, be those in a result; a type that cannot hold them all breaks that."""
    operand = call.operand(0)
    meaning = operand.meaning if operand is not None else None
    if meaning is not None and meaning.kind == POSITIONS:
        _pass_on(call, meaning, result)


def _pass_on(call: Call, meaning: Meaning, result: int) -> None:
    room = call.room[result] if result < len(call.room) else 0
    if isinstance(meaning.axis.size, int) and meaning.axis.size <= room:
        call.meanings[result] = meaning
        call.followed.add(0)


def follow(call: Call, operator: str) -> None:
    """Pass on what the operands' numbers mean as far as ``operator`` keeps it, else pin the axes they count."""
    held = {n: each.meaning for n, each in enumerate(call.operands) if each is not None and each.meaning is not None}
    if not held:
        return
    if operator in UNREAD:
        call.followed.update(held)
    elif operator in CASTING and 0 in held:
        _pass_on(call, held[0], 0)
    elif operator in MOVING:
        for result in range(max(len(call.result_sizes), 1)):
            passed_on(call, result)
    elif operator in JOINING and _one_axis(call, held):
        _pass_on(call, held[0], 0)
        call.followed.update(held if 0 in call.followed else ())
    elif operator in COMPARING and _one_axis(call, held):
        call.followed.update(held)
    for number, meaning in held.items():
        if number not in call.followed and meaning.kind == POSITIONS:
            call.pin(meaning.axis, _COMPUTED)


def _one_axis(call: Call, held: Mapping[int, Meaning]) -> bool:
    """Whether all operands, two at least, hold positions along axes that can be one, and now are.

    Operands that merely number dimensions of their own say nothing about each other.
    """
    axes = [meaning.axis for meaning in held.values() if meaning.kind == POSITIONS]
    if not 1 < len(call.operands) == len(axes) or len({str(axis.size) for axis in axes}) > 1:
        return False
    if all(_counting(call, number) for number in held):
        return False
    for axis in axes[1:]:
        call.unify(axes[0], axis)
    return True


def _counting(call: Call, number: int) -> bool:
    """Whether an operand numbers a dimension of its own."""
    operand = call.operands[number]
    assert operand is not None
    assert operand.meaning is not None
    axis = call.space.find(operand.meaning.axis)
    return any(call.space.find(own) is axis for own in operand.axes or ())


def _names(prefix: str, names: str) -> Sequence[str]:
    return [f"{prefix}.{name}" for name in names.split()]


CASTING = frozenset(
    [
        *_names("aten", "_to_copy alias alias_copy clone contiguous detach detach_copy lift_fresh lift_fresh_copy to"),
        *_names("onnx", "Cast Identity"),
    ]
)
"""Operators that leave every number where it is."""

MOVING = frozenset(
    [
        *_names("aten", "view _unsafe_view view_copy _reshape_copy reshape flatten ravel unflatten permute"),
        *_names("aten", "permute_copy transpose transpose_copy swapdims swapaxes t t_copy numpy_T mT movedim moveaxis"),
        *_names("aten", "squeeze squeeze_copy unsqueeze unsqueeze_copy expand expand_copy broadcast_to expand_as"),
        *_names("aten", "repeat tile repeat_interleave.self_int select select_copy slice slice_copy narrow"),
        *_names("aten", "split_with_sizes chunk unbind gather index _unsafe_index index_select take_along_dim"),
        *_names("onnx", "Reshape Flatten Transpose Squeeze Unsqueeze Expand Tile Slice Split Gather GatherElements"),
    ]
)
"""Operators whose results hold numbers of the first operand, each as it was."""

JOINING = frozenset([*_names("aten", "cat concat concatenate stack"), *_names("onnx", "Concat")])
"""Operators whose results hold the numbers of all operands."""

COMPARING = frozenset(
    [
        *_names("aten", "eq ne lt le gt ge not_equal less less_equal greater greater_equal"),
        *_names("onnx", "Equal Less LessOrEqual Greater GreaterOrEqual"),
    ]
)
"""Operators that ask no more than how numbers are ordered."""

UNREAD = frozenset(
    [
        *_names("aten", "empty_like full_like ones_like rand_like randn_like zeros_like sym_size sym_numel"),
        *_names("aten", "new_empty new_full new_ones new_zeros"),
        *_names("onnx", "Shape Size"),
    ]
)
"""Operators that do not read what their operands hold."""
