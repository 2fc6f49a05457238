"""ATen's operators that make tensors: constants of spelled extents, positions, random numbers; and checks.

A tensor of one value has free axes, whose extents are sites. Positions differ from each other, and random numbers would
not be those of the whole tensor, so both are pinned.
"""

from __future__ import annotations

from graphprune.rules.call import Axes, Call
from graphprune.rules.layout import constant_of_shape, own_result
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


bind("aten.zeros aten.ones aten.full aten.empty", constant_of_shape, "size")
bind("aten.new_zeros aten.new_ones aten.new_full aten.new_empty", constant_beside, "size self")
bind("aten.sym_size aten.sym_numel", extents, "self")
bind("aten.arange aten.linspace aten.logspace aten.eye aten.scalar_tensor aten.tril_indices", own_result)
bind("aten.triu_indices aten.fft_fftfreq aten.fft_rfftfreq", own_result)
bind("aten.hann_window aten.hamming_window aten.blackman_window aten.bartlett_window aten.kaiser_window", own_result)
bind("aten.rand aten.randn aten.randint aten.randperm", own_result)
bind("aten._assert_tensor_metadata", check, "a")
bind("aten._assert_async aten._functional_assert_async", check, "self")
bind("aten._assert_scalar aten._functional_assert_scalar aten.sym_constrain_range", check)
bind("aten.sym_constrain_range_for_size", check)
