"""What reading a program means in every host: rules are applied call by call; where one cannot say, axes are pinned.

A host's reader makes a :class:`~graphprune.rules.call.Call` of each of its nodes; everything that follows from the call
alone is here, so that all hosts pin and believe the same things.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphprune.axes import Axis, AxisSpace, Pin
from graphprune.elements import Element
from graphprune.rules.call import Axes, Call, Declined, Meaning
from graphprune.rules.positions import follow
from graphprune.rules.table import Binding
from graphprune.sizes import Size, Symbolic, is_fresh
from graphprune.structure import Structure

__all__ = ["Reading", "Results", "meet"]

Results = list[Axes | None]


class Reading:
    """The structure of one program, as far as it has been read."""

    def __init__(self) -> None:
        self.space = AxisSpace()
        self.structure = Structure(self.space)
        self.elements: dict[str, tuple[Element, ...]] = {}
        self.meanings: dict[str, Meaning] = {}

    def relate(
        self,
        call: Call,
        binding: Binding | None,
        read_body: Callable[[], Results] | None = None,
        give_up: Callable[[], None] = lambda: None,
    ) -> Results:
        """The axes of the results of ``call`` by its rule, or pinned ones; the call is then part of the structure.

        ``read_body`` reads control flow instead of a rule, and ``give_up`` is called where that did not succeed.
        """
        try:
            if read_body is not None:
                results = read_body()
            elif binding is None:
                self.structure.undeclared[call.op] += 1
                raise Declined("an operator that nobody declared")
            else:
                results = list(binding.rule(call))
                self._pin_unrelated(call)
            self._check(call, results)
        except (Declined, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # Ranks, shapes and attributes that a program states wrongly make rules index and pair what is not there.
            reason = str(error) if isinstance(error, Declined) else "its operands do not fit its rule"
            give_up()
            results = self._pin_all(call, reason)
        follow(call, binding.operator if binding is not None else "")
        for index, name in enumerate(call.results):
            self.mean(name, call.meanings.get(index))
        self.structure.calls.append(call)
        return results

    def mean(self, name: str, meaning: Meaning | None) -> None:
        """Note what the numbers in a tensor say about an axis; a graph that is read again may say otherwise."""
        if meaning is not None:
            self.meanings[name] = meaning
        elif self.meanings:
            self.meanings.pop(name, None)

    def pin_meaning(self, name: str, pin: Pin | None = None) -> None:
        """Keep all positions of the axis that the numbers in a tensor count, if they count one.

        Without a ``pin`` the reason is that of the operator that made them.
        """
        if (meaning := self.meanings.get(name)) is not None:
            self.space.pin(meaning.axis, pin or meaning.why)

    def _pin_unrelated(self, call: Call) -> None:
        if len(call.related) == len(call.operands):
            return
        for index, operand in enumerate(call.operands):
            if operand is not None and index not in call.related:
                call.pin(operand.axes or (), "read by this operator as a whole")

    def _check(self, call: Call, results: Sequence[Axes | None]) -> None:
        """A rule whose result contradicts the shapes that the program states is not believed."""
        for stated, axes in zip(call.result_sizes, results, strict=False):
            if stated is None or axes is None:
                continue
            if len(axes) != len(stated) or _contradict(axes, stated):
                shown = "x".join(map(str, stated)), "x".join(str(axis.size) for axis in axes)
                raise Declined(f"its result is {shown[0]} where its rule says {shown[1]}")

    def _pin_all(self, call: Call, reason: str) -> Results:
        call.sites.clear()
        call.mixes.clear()
        call.contractions.clear()
        call.meanings.clear()
        call.followed.clear()
        for operand in call.operands:
            if operand is not None:
                call.pin(operand.axes or (), reason)
        return call.unknown_results(reason)

    def refined(self, call: Call, axes: Axes | None, stated: Sequence[Size] | None) -> Axes | None:
        """Axes of a result, with what the program states about symbolic dimensions put in."""
        if stated is None:
            return axes
        if axes is None:
            return tuple(call.fixed(size, "an unknown axis") for size in stated)
        for axis in axes:
            if not isinstance(axis.size, int):
                break
        else:
            return axes
        return tuple([self._better(call, axis, size) for axis, size in zip(axes, stated, strict=True)])

    def _better(self, call: Call, axis: Axis, stated: Size) -> Axis:
        size = axis.size
        if size is stated or isinstance(size, int) or size == stated:
            return axis
        if isinstance(stated, Symbolic) and (is_fresh(stated) or not is_fresh(size)):
            return axis
        call.pin(axis, "an axis of symbolic size")
        return call.fixed(stated, "an axis of symbolic size")

    def pin_computed(self, call: Call) -> None:
        """Where sizes enter computations that are not followed, the axes they are read off keep their extent."""
        for index, operand in enumerate(call.operands):
            if operand is not None and operand.elements is not None and index not in call.spelled:
                for element in operand.elements:
                    call.pin(element.depends, "its extent enters a computation")


def _contradict(axes: Axes, stated: Sequence[Size]) -> bool:
    for axis, known in zip(axes, stated, strict=True):
        size = axis.size
        if size is not known and isinstance(size, int) and isinstance(known, int) and size != known:
            return True
    return False


def meet(call: Call, a: Axes | None, b: Axes | None, reason: str) -> Axes | None:
    """Two values that become one."""
    if a is None or b is None or len(a) != len(b):
        for axes in (a, b):
            call.pin(axes or (), reason)
        return None
    return tuple(_one(call, x, y, reason) for x, y in zip(a, b, strict=True))


def _one(call: Call, a: Axis, b: Axis, reason: str) -> Axis:
    if a.size == b.size:
        call.unify(a, b, reason)
        return a
    call.pin([a, b], reason)
    return call.fixed(None, reason)
