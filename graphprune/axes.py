"""Axes of tensors, and the algebra by which they are coupled.

An axis is a *leaf* (a size), a *product* of axes in row-major order (what a reshape merges: heads times head width),
or a *concatenation* of axes (what a concat joins and a split separates). :meth:`AxisSpace.unify` makes two axes one by
refining both until they have the same form: leaves become products or concatenations of smaller leaves, at worst of
single positions. Positions of one leaf stand or fall together in every tensor whose axis contains the leaf; a leaf that
is *pinned* keeps all its positions.

Soundness rests on one sentence: position ``(i, j)`` of ``product(a, b)`` survives exactly if ``i`` survives in ``a``
and ``j`` in ``b``; where a relation cannot be expressed so, both sides are pinned with the reason.

>>> space = AxisSpace()
>>> q = space.leaf(512)
>>> head, width = space.leaf(8), space.leaf(64)
>>> space.unify(q, space.product([head, width]))
>>> [leaf.size for leaf in space.leaves(q)]
[8, 64]
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from typing import NamedTuple

from graphprune.sizes import Size, Symbolic, divide, fresh, product_size

__all__ = ["ONE", "Axis", "AxisSpace", "Concat", "Leaf", "Pin", "Product"]

MAX_MISFIT = 4096  # positions up to which sizes that do not divide each other are matched run by run
MAX_PINS = 4  # reasons kept for one leaf: enough to explain it, bounded so that merging many pins stays cheap


class Pin(NamedTuple):
    """Why an axis must keep all its positions: the operator (``node`` of type ``op``) that locks it, and the reason."""

    node: str
    op: str
    reason: str

    def __str__(self) -> str:
        where = f"{self.op} '{self.node}': " if self.node else ""
        return f"{where}{self.reason}"


class Axis:
    """A leaf, a product or a concatenation; compared by identity."""

    __slots__ = ("size",)
    size: Size
    forward: Axis | None = None
    """What has replaced it; only leaves are ever replaced."""


class Leaf(Axis):
    """An axis that nothing has divided yet.

    ``pool`` numbers the leaf that this one was cut from: fragments of one original axis share it.
    """

    __slots__ = ("forward", "number", "pins", "pool")

    def __init__(self, size: Size, number: int, pool: int | None = None) -> None:
        self.size = size
        self.number = number
        self.pool = number if pool is None else pool
        self.forward: Axis | None = None
        self.pins: tuple[Pin, ...] = ()

    @property
    def pinned(self) -> bool:
        """Whether all positions must be kept."""
        return bool(self.pins)

    def __repr__(self) -> str:
        return f"Leaf(#{self.number}, size={self.size}{', pinned' if self.pins else ''})"


class Product(Axis):
    """Axes in row-major order: the last one varies fastest."""

    __slots__ = ("parts",)

    def __init__(self, parts: tuple[Axis, ...]) -> None:
        self.parts = parts
        self.size = product_size(part.size for part in parts)

    def __repr__(self) -> str:
        return f"Product{self.parts}"


class Concat(Axis):
    """Axes one after the other."""

    __slots__ = ("parts",)

    def __init__(self, parts: tuple[Axis, ...]) -> None:
        self.parts = parts
        self.size = sum(part.size for part in parts)  # type: ignore[misc]  # parts of a Concat are never symbolic

    def __repr__(self) -> str:
        return f"Concat{self.parts}"


ONE = Product(())
"""The axis of every dimension of size 1: it has nothing to remove."""

_MISFIT = "its sizes do not divide each other"
_LONE = "one position of an axis meets a whole axis"


class AxisSpace:
    """The axes of one program and what is known about them."""

    def __init__(self) -> None:
        self._leaves: list[Leaf] = []

    # -- building -------------------------------------------------------------------------------------------------

    def leaf(self, size: Size, pool: int | None = None) -> Axis:
        """A new axis of ``size`` positions; :data:`ONE` for size 1 unless it is a fragment (``pool`` given)."""
        if size == 1 and pool is None:
            return ONE
        leaf = Leaf(size, len(self._leaves), pool)
        self._leaves.append(leaf)
        return leaf

    def pinned(self, size: Size, pin: Pin) -> Axis:
        """A new axis that keeps all its positions."""
        leaf = self.leaf(size)
        self.pin(leaf, pin)
        return leaf

    def product(self, parts: Iterable[Axis]) -> Axis:
        """The axis whose positions are the tuples of positions of ``parts``, the last varying fastest."""
        flat: list[Axis] = []
        for part in parts:
            part = self.find(part)
            if isinstance(part, Product):
                flat.extend(part.parts)
            else:
                flat.append(part)
        return flat[0] if len(flat) == 1 else Product(tuple(flat)) if flat else ONE

    def concat(self, parts: Iterable[Axis], pin: Pin | None = None) -> Axis:
        """The axis that holds the positions of ``parts`` one after the other.

        Parts of symbolic size cannot be counted, so then everything is pinned for the reason ``pin``.
        """
        kept = [part for part in parts if part.size != 0]
        if len(kept) == 1:
            return kept[0]
        if any(isinstance(part.size, Symbolic) for part in kept):
            pin = pin or Pin("", "", "concatenation of symbolic sizes")
            for part in kept:
                self.pin(part, pin)
            return self.pinned(fresh(), pin)
        return Concat(tuple(kept)) if kept else self.pinned(0, pin or Pin("", "", "empty axis"))

    # -- reading --------------------------------------------------------------------------------------------------

    def find(self, axis: Axis) -> Axis:
        """The present form of ``axis``: a leaf that was merged or refined is followed to what replaced it."""
        root = axis.forward
        if root is None:
            return axis
        while root.forward is not None:
            root = root.forward
        while isinstance(axis, Leaf) and axis.forward is not None and axis.forward is not root:
            axis.forward, axis = root, axis.forward
        return root

    def parts(self, axis: Axis) -> tuple[Axis, ...]:
        """The present forms of the parts of a product or concatenation; none for a leaf."""
        return () if isinstance(axis, Leaf) else tuple(map(self.find, axis.parts))  # type: ignore[attr-defined]

    def postorder(self, axis: Axis, known: Container[int] = ()) -> Iterator[Axis]:
        """Every distinct part of ``axis`` in its present form, parts before what they are part of.

        Parts whose ids are ``known`` are left out.
        """
        seen: set[int] = set()
        stack: list[tuple[Axis, bool]] = [(self.find(axis), False)]
        while stack:
            node, ready = stack.pop()
            if ready:
                yield node
            elif id(node) not in seen and id(node) not in known:
                seen.add(id(node))
                stack.append((node, True))
                stack.extend((part, False) for part in reversed(self.parts(node)))

    def nodes(self, axes: Iterable[Axis]) -> Iterator[Axis]:
        """Every distinct part of any of ``axes`` in its present form, each once, parts before what they are part of."""
        seen: set[int] = set()
        for axis in axes:
            for node in self.postorder(axis, seen):
                seen.add(id(node))
                yield node

    def leaves(self, axis: Axis) -> list[Leaf]:
        """The distinct leaves of ``axis`` in order of appearance."""
        axis = self.find(axis)
        if isinstance(axis, Leaf):
            return [axis]
        return [node for node in self.postorder(axis) if isinstance(node, Leaf)]

    # -- relating -------------------------------------------------------------------------------------------------

    def pin(self, axis: Axis, pin: Pin) -> None:
        """Keep all positions of ``axis``, for the reason ``pin``."""
        axis = self.find(axis)
        for leaf in (axis,) if isinstance(axis, Leaf) else self.leaves(axis):
            if len(leaf.pins) < MAX_PINS and pin not in leaf.pins:
                leaf.pins += (pin,)

    def unify(self, a: Axis, b: Axis, pin: Pin | None = None) -> None:
        """Make ``a`` and ``b`` one axis; where they have no common form, pin both for the reason ``pin``."""
        pin = pin or Pin("", "", "coupled axes")
        work: list[tuple[Axis, Axis]] = [(a, b)]
        while work:
            a, b = work.pop()
            a, b = self.find(a), self.find(b)
            if a is b:
                continue
            both_leaves = isinstance(a, Leaf) and isinstance(b, Leaf)
            if a.size != b.size or a.size == 0 or (a.size == 1 and not both_leaves):
                self._pin_both(a, b, pin)
            elif isinstance(a, Leaf) or isinstance(b, Leaf):
                self._join(a, b)
            elif isinstance(a, Product) and isinstance(b, Product):
                self._align_factors(a, b, work, pin)
            else:
                self._align_terms(a, b, work)

    def join(self, a: Axis, b: Axis) -> bool:
        """Make ``a`` and ``b`` one axis if one is a leaf that can become the other as it is; tells whether it could."""
        a, b = self.find(a), self.find(b)
        if a is b:
            return True
        if a.size != b.size or a.size == 0 or a.size == 1 or not (isinstance(a, Leaf) or isinstance(b, Leaf)):
            return False
        self._join(a, b)
        return True

    def _pin_both(self, a: Axis, b: Axis, pin: Pin) -> None:
        self.pin(a, pin)
        self.pin(b, pin)

    def _join(self, a: Axis, b: Axis) -> None:
        """Let the leaf among ``a`` and ``b`` become the other; of two leaves the older one stays."""
        if isinstance(a, Leaf) and isinstance(b, Leaf) and a.number < b.number:
            a, b = b, a
        if not isinstance(a, Leaf):
            a, b = b, a
        assert isinstance(a, Leaf)
        factors = self._factors(b) if isinstance(b, Product) else []
        if a in factors:
            # The other factors are single positions; with them always kept the two are already one.
            for factor in factors:
                if factor is not a:
                    self.pin(factor, Pin("", "", _LONE))
            return
        for pin in a.pins:
            self.pin(b, pin)
        a.forward = b

    def _align_factors(self, a: Product, b: Product, work: list[tuple[Axis, Axis]], pin: Pin) -> None:
        """Match two products of equal size factor by factor, outermost first, dividing factors where it helps."""
        left, right = list(reversed(self._factors(a))), list(reversed(self._factors(b)))
        matched: list[tuple[Axis, Axis]] = []
        while left and right:
            x, y = self.find(left.pop()), self.find(right.pop())
            if x.size == y.size:
                matched.append((x, y))
            elif x.size == 1 or y.size == 1:
                # A fragment of one position beside a whole axis: keep it, and match the rest without it.
                self.pin(x if x.size == 1 else y, Pin(pin.node, pin.op, _LONE))
                (right if x.size == 1 else left).append(y if x.size == 1 else x)
            elif (rest := divide(x.size, y.size)) is not None:
                outer, inner = self._factor(x, y.size, rest, matched)
                matched.append((outer, y))
                left.append(inner)
            elif (rest := divide(y.size, x.size)) is not None:
                outer, inner = self._factor(y, x.size, rest, matched)
                matched.append((x, outer))
                right.append(inner)
            elif isinstance(a.size, int) and a.size <= MAX_MISFIT:
                work.extend(matched)
                work.append(self._opened([x, *reversed(left)], [y, *reversed(right)]))
                return
            else:
                self._pin_both(a, b, Pin(pin.node, pin.op, f"{pin.reason}: {_MISFIT} ({a.size} positions)"))
                return
        for lone in [*left, *right]:
            self.pin(lone, Pin(pin.node, pin.op, _LONE))
        work.extend(matched)

    def _opened(self, a: list[Axis], b: list[Axis]) -> tuple[Axis, Axis]:
        """Two products whose outermost factors do not divide each other, one of them as the runs it consists of."""
        if a[0].size > b[0].size:  # type: ignore[operator]
            a, b = b, a
        singles: list[Axis] = []
        rest = a[0]
        while rest.size > 1:  # type: ignore[operator]
            single, rest = self.split(rest, 1)
            singles.append(single)
        runs = [self.product([single, *a[1:]]) for single in (*singles, rest)]
        return self.concat(runs), self.product(b)

    def _factors(self, axis: Product) -> list[Axis]:
        """The factors of a product in their present form, nested products flattened."""
        flat: list[Axis] = []
        stack: list[Axis] = [axis]
        while stack:
            part = self.find(stack.pop())
            if isinstance(part, Product):
                stack.extend(reversed(part.parts))
            else:
                flat.append(part)
        return flat

    def _factor(self, axis: Axis, outer: Size, inner: Size, work: list[tuple[Axis, Axis]]) -> tuple[Axis, Axis]:
        """Divide an axis into a product of two leaves."""
        x, y = self.leaf(outer), self.leaf(inner)
        whole = self.product([x, y])
        if isinstance(axis, Leaf):
            self._join(axis, whole)
        else:
            work.append((axis, whole))
        return x, y

    def _align_terms(self, a: Axis, b: Axis, work: list[tuple[Axis, Axis]]) -> None:
        """Match two axes, at least one a concatenation, run by run, cutting runs where the other has a border."""
        left, right = [a], [b]
        while left and right:
            x, y = self.find(left.pop()), self.find(right.pop())
            if x is y:
                continue
            if x.size == y.size and not (isinstance(x, Concat) and isinstance(y, Concat)):
                if isinstance(x, Concat) and isinstance(y, Product):
                    left.extend(reversed(x.parts))
                    right.append(y)
                elif isinstance(y, Concat) and isinstance(x, Product):
                    right.extend(reversed(y.parts))
                    left.append(x)
                else:
                    work.append((x, y))
                continue
            # Open the larger concatenation; cut the larger run only where neither side can be opened further.
            if isinstance(x, Concat) and (x.size >= y.size or not isinstance(y, Concat)):  # type: ignore[operator]
                left.extend(reversed(x.parts))
                right.append(y)
            elif isinstance(y, Concat):
                right.extend(reversed(y.parts))
                left.append(x)
            elif x.size > y.size:  # type: ignore[operator]
                head, tail = self.split(x, y.size)  # type: ignore[arg-type]
                left.extend((tail, head))
                right.append(y)
            else:
                head, tail = self.split(y, x.size)  # type: ignore[arg-type]
                right.extend((tail, head))
                left.append(x)

    def split(self, axis: Axis, at: int) -> tuple[Axis, Axis]:
        """``axis`` as two consecutive axes, the first of ``at`` positions; refines the leaves that are cut through.

        The size must be a number: callers pin symbolic axes instead of cutting them.
        """
        left: list[Axis] = []
        right: list[Axis] = []  # in reverse order
        axis = self.find(axis)
        while 0 < at < axis.size and isinstance(axis, Concat):  # type: ignore[operator]
            parts = self.parts(axis)
            index = 0
            while at >= parts[index].size:  # type: ignore[operator]
                at -= parts[index].size  # type: ignore[operator]
                left.append(parts[index])
                index += 1
            right.extend(reversed(parts[index + 1 :]))
            axis = parts[index]
        if at == 0:
            right.append(axis)
        elif at == axis.size:
            left.append(axis)
        elif isinstance(axis, Leaf):
            head = self.leaf(at, axis.pool)
            tail = self.leaf(axis.size - at, axis.pool)  # type: ignore[operator]
            self._join(axis, Concat((head, tail)))
            left.append(head)
            right.append(tail)
        else:
            heads, tails = self._split_product(self._factors(axis), at)  # type: ignore[arg-type]
            left.extend(heads)
            right.extend(reversed(tails))
        return self.concat(left), self.concat(reversed(right))

    def _split_product(self, factors: Sequence[Axis], at: int) -> tuple[list[Axis], list[Axis]]:
        outer, inner = factors[0], self.product(factors[1:])
        whole, rest = divmod(at, inner.size)  # type: ignore[operator]
        head, tail = self.split(outer, whole)
        heads = [self.product([head, inner])] if whole else []
        if not rest:
            return heads, [self.product([tail, inner])]
        single, tail = self.split(tail, 1)
        first, second = self.split(inner, rest)
        inner = self.product([inner])
        tails = [self.product([tail, inner])] if whole + 1 < outer.size else []  # type: ignore[operator]
        return [*heads, self.product([single, first])], [self.product([single, second]), *tails]

    def take(self, axis: Axis, start: int, stop: int) -> Axis:
        """The axis of positions ``start`` up to ``stop`` of an axis of known size."""
        _, tail = self.split(axis, start)
        return self.split(tail, max(stop - start, 0))[0]
