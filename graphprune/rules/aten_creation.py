"""ATen's operators that make tensors: constants of spelled extents, positions, random numbers; and checks.

A tensor of one value has free axes, whose extents are sites. ``arange(n)`` says of each position which one it is. Other
numbers differ from each other, and random ones would not be those of the whole tensor, so they are pinned.
"""

from __future__ import annotations

from graphprune.rules.call import AttributeTarget, Axes, Call, Meaning
from graphprune.rules.layout import constant_of_shape, own_result
from graphprune.rules.positions import PLACES, POSITIONS
from graphprune.rules.table import bind


def constant_beside(call: Call) -> list[Axes | None]:
    """One value everywhere; of the second operand only type and device are read."""
    call.related.add(1)
    return constant_of_shape(call)


def extents(call: Call) -> list[Axes | None]:
    """A size read off a tensor, which follows its cuts by itself."""
    call.related.add(0)
    return [None] * len(call.result_sizes)


def check(call: Call) -> list[Axes | None]:
    """A check of an operand, which any cut leaves true: what it says of sizes the host takes out."""
    for index in range(len(call.operands)):
        call.related.add(index)
        if call.attribute("size") is not None or call.attribute("stride") is not None:
            call.pin(call.axes(index), "its sizes are checked")
    return [None] * len(call.result_sizes)


def counting(call: Call) -> list[Axes | None]:
    """Positions of an axis of its own from the first on, or any other numbers in equal steps."""
    end, plain = call.attribute("end"), call.attribute("start", 0) == 0 and call.attribute("step", 1) == 1
    if not plain or isinstance(end, bool) or not isinstance(end, int) or not 1 < end <= max(call.room, default=0):
        return own_result(call)
    axis = call.space.leaf(end)
    call.site(AttributeTarget("end"), axis)
    call.meanings[0] = Meaning(POSITIONS, axis, call.why(PLACES))
    return [(axis,)]


bind("aten.zeros aten.ones aten.full aten.empty", constant_of_shape, "size")
bind("aten.new_zeros aten.new_ones aten.new_full aten.new_empty", constant_beside, "size self")
bind("aten.sym_size aten.sym_numel", extents, "self")
bind("aten.arange", counting)
bind("aten.linspace aten.logspace aten.eye aten.scalar_tensor aten.tril_indices", own_result)
bind("aten.triu_indices aten.fft_fftfreq aten.fft_rfftfreq", own_result)
bind("aten.hann_window aten.hamming_window aten.blackman_window aten.bartlett_window aten.kaiser_window", own_result)
bind("aten.rand aten.randn aten.randint aten.randperm", own_result)
bind("aten._assert_tensor_metadata", check, "a")
bind("aten._assert_async aten._functional_assert_async", check, "self")
bind("aten._assert_scalar aten._functional_assert_scalar aten.sym_constrain_range", check)
bind("aten.sym_constrain_range_for_size", check)
