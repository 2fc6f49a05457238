"""One operator instance as a rule sees it, and what the rule records about it.

Rules know nothing of the host: ONNX and ATen calls look the same here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from graphprune.axes import ONE, Axis, AxisSpace, Pin
from graphprune.elements import Element
from graphprune.sizes import Size, fresh

__all__ = [
    "AttributeTarget",
    "Axes",
    "Call",
    "Declined",
    "IndexSite",
    "InputTarget",
    "LengthSite",
    "Meaning",
    "Mix",
    "Operand",
    "Site",
]

Axes = tuple[Axis, ...]


class Declined(Exception):
    """A rule cannot describe this call: every axis it touches is pinned, for the reason given."""


class Meaning(NamedTuple):
    """What the numbers in a tensor say about ``axis`` (see :mod:`graphprune.rules.positions`).

    ``kind`` is ``"positions"`` (each is a position along it), ``"counts"`` (along the axis: how often each position was
    chosen) or ``"ends"`` (running sums of such counts). ``why`` is the pin of the operator that made the numbers, where
    they are given away.
    """

    kind: str
    axis: Axis
    why: Pin


@dataclass(slots=True)
class Operand:
    """A tensor that an operator reads: its axes (None where the rank is unknown) and, where known, its contents."""

    name: str
    axes: Axes | None
    constant: bool = False
    elements: tuple[Element, ...] | None = None
    """Contents of a small integer tensor of rank 0 or 1, element by element, as far as they are known."""
    read: Callable[[], npt.NDArray[Any] | None] = lambda: None
    """Reads the contents of a constant (None otherwise); called only where a rule needs them."""
    boolean: bool = False
    """Whether it holds truth values, as far as the host tells."""
    meaning: Meaning | None = None
    """What its numbers say about an axis, where that is known."""


@dataclass(frozen=True, slots=True)
class AttributeTarget:
    """The literal in attribute ``name`` of the operator, at ``index`` of a list."""

    name: str
    index: int | None = None


@dataclass(frozen=True, slots=True)
class InputTarget:
    """The literal at ``index`` of the tensor that is operand ``operand``."""

    operand: int
    index: int = 0


@dataclass(frozen=True, slots=True)
class LengthSite:
    """A number in the host that spells a size: after a cut it is ``offset`` plus the extents of ``axes``.

    Where ``whole`` is given, the number means something only relative to that axis (a bound of a slice, which may be
    negative or lie beyond the end) and is rewritten only if that axis is cut.
    """

    target: AttributeTarget | InputTarget
    axes: Axes
    whole: Axis | None = None
    offset: int = 0


@dataclass(frozen=True, slots=True)
class IndexSite:
    """Constant positions (operand ``operand``) into ``source`` that produce ``result``: renumbered after a cut."""

    operand: int
    source: Axis
    result: Axis | None


Site = LengthSite | IndexSite


class Mix(NamedTuple):
    """Positions of an axis that the operator mixes.

    ``kind`` is ``"sum"`` (a removed position must contribute zero: mask ``operands``) or ``"statistics"`` (removed
    positions must not be seen: gather ``operands``, scatter ``results``). Both list ``(number, dim)``. ``neutral`` is
    the operand that holds what stands for zero, where that is not 0 (a zero point). ``positions`` are results whose
    numbers are positions along the axis: of those that were gathered, so that they must be counted among all again.
    """

    kind: str
    axis: Axis
    operands: tuple[tuple[int, int], ...]
    results: tuple[tuple[int, int], ...] = ()
    neutral: int | None = None
    positions: tuple[int, ...] = ()


@dataclass(slots=True)
class Call:
    """An operator, its operands, and what its rule found out."""

    space: AxisSpace
    node: str
    op: str
    operands: list[Operand | None]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    result_sizes: list[tuple[Size, ...] | None] = field(default_factory=list)
    opset: int = 0
    results: tuple[str, ...] = ()
    """Names of the tensors that it makes."""
    border: tuple[str, ...] = ()
    """Names of what its bodies take and give (If, Loop, Scan); they share axes with its operands and results."""
    sites: list[Site] = field(default_factory=list)
    mixes: list[Mix] = field(default_factory=list)
    contractions: list[Axes] = field(default_factory=list)
    """Each a list of axes whose extents multiply to a number of multiply-accumulates."""
    roles: list[tuple[Axis, str]] = field(default_factory=list)
    least: list[tuple[Axis, int]] = field(default_factory=list)
    """Axes of which so many positions must stay, whichever they are: a choice of the best k needs k."""
    meanings: dict[int, Meaning] = field(default_factory=dict)
    """What the numbers of results say about axes."""
    followed: set[int] = field(default_factory=set)
    """Operands that hold positions and whose use the rule answers for; the host pins what the others count."""
    room: tuple[int, ...] = ()
    """Of each result, up to which whole number it can hold all of them; as far as the host tells."""
    related: set[int] = field(default_factory=set)
    """Operands whose axes the rule asked for; the host pins the others."""
    spelled: set[int] = field(default_factory=set)
    """Operands whose contents the rule read as sizes or places, so that sites answer for them."""

    # -- reading --------------------------------------------------------------------------------------------------

    def attribute(self, name: str, default: Any = None) -> Any:
        """The value of an attribute, or ``default``."""
        value = self.attributes.get(name)
        return default if value is None else value

    def operand(self, index: int) -> Operand | None:
        """Operand ``index``, None where it is absent."""
        return self.operands[index] if index < len(self.operands) else None

    def axes(self, index: int) -> Axes:
        """Axes of operand ``index``.

        Raises:
            Declined: the operand is absent or its rank unknown.
        """
        operand = self.operand(index)
        if operand is None or operand.axes is None:
            raise Declined(f"operand {index} has an unknown shape")
        self.related.add(index)
        return operand.axes

    def sizes(self, index: int) -> tuple[Size, ...]:
        """Sizes of the dimensions of operand ``index``."""
        return tuple(axis.size for axis in self.axes(index))

    def elements(self, index: int) -> tuple[Element, ...]:
        """Contents of integer operand ``index``.

        Raises:
            Declined: nothing is known about them.
        """
        operand = self.operand(index)
        if operand is None or operand.elements is None:
            raise Declined(f"operand {index} is computed in a way that is not understood")
        self.spelled.add(index)
        return operand.elements

    def integers(self, index: int) -> tuple[int, ...]:
        """Contents of integer operand ``index`` where all are known numbers."""
        values = tuple(element.value for element in self.elements(index))
        if not all(isinstance(value, int) for value in values):
            raise Declined(f"operand {index} is not a constant")
        return values  # type: ignore[return-value]

    def array(self, index: int) -> npt.NDArray[Any]:
        """Contents of constant operand ``index``."""
        operand = self.operand(index)
        value = operand.read() if operand is not None else None
        if value is None:
            raise Declined(f"operand {index} is not a constant")
        return np.asarray(value)

    def result(self, index: int = 0) -> tuple[Size, ...] | None:
        """Sizes of result ``index`` as the host knows them, None where the rank is unknown."""
        return self.result_sizes[index] if index < len(self.result_sizes) else None

    # -- recording ------------------------------------------------------------------------------------------------

    def why(self, reason: str) -> Pin:
        """The pin that this operator sets for ``reason``."""
        return Pin(self.node, self.op, reason)

    def pin(self, axes: Axis | Sequence[Axis], reason: str) -> None:
        """Keep all positions of one or more axes."""
        for axis in [axes] if isinstance(axes, Axis) else axes:
            if axis is not ONE:
                self.space.pin(axis, self.why(reason))

    def unify(self, a: Axis, b: Axis, reason: str = "couples axes of different structure") -> None:
        """Make two axes one."""
        if a is not b and not self.space.join(a, b):
            self.space.unify(a, b, self.why(reason))

    def broadcast(self, a: Axis, b: Axis) -> Axis:
        """The axis that results where ``a`` meets ``b`` in an element-wise operator."""
        if a is b:
            return a
        if (a.size == 1) != (b.size == 1):
            narrow, wide = (a, b) if a.size == 1 else (b, a)
            self.pin(narrow, "one position is repeated along a whole axis")
            return wide
        self.unify(a, b)
        return a

    def fixed(self, size: Size | None, reason: str) -> Axis:
        """A new axis of which nothing can be removed."""
        return self.space.pinned(fresh() if size is None else size, self.why(reason))

    def site(
        self, target: AttributeTarget | InputTarget, *axes: Axis, whole: Axis | None = None, offset: int = 0
    ) -> None:
        """Record that the number at ``target`` is ``offset`` plus the extents of ``axes``."""
        self.sites.append(LengthSite(target, axes, whole, offset))

    def unknown_results(self, reason: str) -> list[Axes | None]:
        """Results about which only their sizes are known, pinned."""
        return [
            None if sizes is None else tuple(self.fixed(size, reason) for size in sizes) for sizes in self.result_sizes
        ]
