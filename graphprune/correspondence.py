"""Finds which tensor of one program is which tensor of another that was made from the same network.

Exporters rename, transpose, fold and pack. Tensors are matched by their names first (also as exporters spell them),
then by what they hold: the same numbers, in the same or in transposed order; the same filters up to a factor each, as
a folded BatchNorm leaves them; the same rows in another order, as ONNX packs the gates of recurrent layers. What
several tensors could be the counterpart of is the counterpart of none.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from graphprune.errors import ModelError
from graphprune.score.base import Weights
from graphprune.structure import Structure

__all__ = ["Joint", "Link", "Matcher", "Namer", "Side", "straight", "transposed"]

Array = npt.NDArray[np.float32]

_CLONE = re.compile(r"^(.*)__use\d+$")
_PREFIX = re.compile(r"^[pbc]_")
_SHORTEST_FILTER = 4
"""Numbers that a filter must have for a factor between two of them to say anything."""
_SAME_FILTER = 1e-4
"""How far a filter may be from a multiple of another, relative to its own length: float32 rounds at 1e-7, and folding
a BatchNorm multiplies each number once or twice."""


@dataclass(frozen=True)
class Side:
    """A program as one of two that are compared: what it is called, its structure, and its numbers if there are any."""

    title: str
    structure: Structure
    weights: Weights | None = None
    fingerprint: str = ""

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The sizes of a parameter, where all are numbers."""
        sizes = tuple(axis.size for axis in self.structure.tensors.get(name) or ())
        return sizes if sizes and all(isinstance(size, int) for size in sizes) else None  # type: ignore[return-value]

    def array(self, name: str) -> Array | None:
        """A parameter's numbers as float32; None where there are none (on the ``meta`` device)."""
        shape = self.shape(name)
        if self.weights is None or shape is None:
            return None
        whole = np.empty(shape, np.float32)
        try:
            for block in self.weights(name):
                whole[block.prefix][block.start : block.start + len(block.values)] = block.values
        except ModelError:
            return None
        return whole

    @cached_property
    def shared(self) -> frozenset[str]:
        """Names that stand for one use of a constant which an exporter has merged from several."""
        clones = {name: match.group(1) for name in self.structure.parameters if (match := _CLONE.match(name))}
        return frozenset(clones) | frozenset(clones.values())

    @cached_property
    def weights_by_shape(self) -> Mapping[tuple[int, ...], list[str]]:
        """Names of the tensors of rank two and up that count as parameters, by their sorted shape."""
        found: defaultdict[tuple[int, ...], list[str]] = defaultdict(list)
        for parameter in self.structure.counted:
            shape = self.shape(parameter.name)
            if shape is not None and len(shape) > 1:
                found[tuple(sorted(shape))].append(parameter.name)
        return found


@dataclass(frozen=True)
class Joint:
    """Dimension ``source`` of one tensor is dimension ``target`` of another.

    Position ``i`` there is position ``order[i]`` here; without an order they are the same.
    """

    source: int
    target: int
    order: npt.NDArray[np.intp] | None = None


@dataclass(frozen=True)
class Link:
    """Tensor ``source`` of one program is ``target`` of the other."""

    source: str
    target: str
    joints: tuple[Joint, ...]


def straight(source: str, target: str, rank: int) -> Link:
    """The same tensor with the same dimensions."""
    return Link(source, target, tuple(Joint(dim, dim) for dim in range(rank)))


def transposed(source: str, target: str) -> Link:
    """The same matrix, transposed."""
    return Link(source, target, (Joint(0, 1), Joint(1, 0)))


class Namer:
    """Finds the counterpart of a name among ``targets``: equal, as exporters spell it, or under a common prefix."""

    def __init__(self, sources: Iterable[str], targets: Iterable[str]) -> None:
        self.targets = set(targets)
        flat: defaultdict[str, list[str]] = defaultdict(list)
        for name in self.targets:
            flat[_flat(name)].append(name)
        self._flat = {key: names[0] for key, names in flat.items() if len(names) == 1}
        self._prefixes = list(self._common(set(sources)))

    def __call__(self, name: str) -> str | None:
        """The counterpart, or None."""
        if name in self.targets:
            return name
        for prefix, there in self._prefixes:
            found = prefix + name if there else name.removeprefix(prefix)
            if found != name and found in self.targets:
                return found
        return self._flat.get(_flat(name))

    def _common(self, sources: set[str]) -> Iterator[tuple[str, bool]]:
        """The prefix that most names have here or there and not on the other side, as a wrapper's attribute is."""
        counts: Counter[tuple[str, bool]] = Counter()
        for there, names, others in ((False, sources, self.targets), (True, self.targets, sources)):
            for name in names:
                parts = name.split(".")
                for cut in range(1, len(parts)):
                    if ".".join(parts[cut:]) in others:
                        counts[".".join(parts[:cut]) + ".", there] += 1
        if counts:
            best, count = counts.most_common(1)[0]
            if 2 * count >= min(len(sources), len(self.targets)):
                yield best


def _flat(name: str) -> str:
    """A name as exporters write it that may not use dots, and mark parameters and buffers."""
    return re.sub(r"\W", "_", _PREFIX.sub("", name))


@dataclass
class Matcher:
    """Finds links from ``source`` to ``target``, by names for all tensors, and by contents for one at a time."""

    source: Side
    target: Side
    _digests: defaultdict[object, list[Link]] = field(default_factory=lambda: defaultdict(list), init=False)
    _digested: set[str] = field(default_factory=set, init=False)
    _sketches: dict[tuple[str, int], Array] = field(default_factory=dict, init=False)

    def by_names(self) -> list[Link]:
        """Links between tensors of the same name and of the same shape, possibly transposed."""
        namer = Namer(self.source.structure.parameters, self.target.structure.parameters)
        found: list[Link] = []
        for name in self.source.structure.parameters:
            target = None if name in self.source.shared else namer(name)
            if target is None or target in self.target.shared:
                continue
            shape, other = self.source.shape(name), self.target.shape(target)
            if shape is None or other is None:
                continue
            turned = len(shape) == 2 and shape == other[::-1] and (shape != other or self._turned(name, target))
            if turned:
                found.append(transposed(name, target))
            elif shape == other:
                found.append(straight(name, target, len(shape)))
        return found

    def _turned(self, name: str, target: str) -> bool:
        """Whether two square matrices of the same name are each other's transpose."""
        own, other = self.source.array(name), self.target.array(target)
        if own is None or other is None or np.array_equal(own, other):
            return False
        return np.array_equal(own, other.T)

    def by_contents(self, name: str) -> list[Link]:
        """Links of a tensor of rank two and up to those that hold the same; empty where that is not clear."""
        array = self.source.array(name)
        if array is None or array.ndim < 2 or not np.any(array):
            return []
        return self._equal(name, array) or self._proportional(name, array) or self._packed(name, array)

    def by_shape(self, name: str, taken: set[str]) -> list[Link]:
        """The link to the only tensor of that shape which is not ``taken``; none for a square matrix, which may be
        transposed."""
        shape = self.source.shape(name)
        if shape is None:
            return []
        key = tuple(sorted(shape))
        left = [each for each in self.target.weights_by_shape.get(key, ()) if each not in taken]
        if len(left) != 1 or len(self.source.weights_by_shape[key]) != 1:
            return []
        other = self.target.shape(left[0])
        if shape == other:
            square = len(shape) == 2 and shape[0] == shape[1]
            return [] if square else [straight(name, left[0], len(shape))]
        return [transposed(name, left[0])] if len(shape) == 2 else []

    # -- contents -------------------------------------------------------------------------------------------------

    def _candidates(self, shape: tuple[int, ...]) -> list[str]:
        return self.target.weights_by_shape.get(tuple(sorted(shape)), [])

    def _equal(self, name: str, array: Array) -> list[Link]:
        for target in self._candidates(array.shape):
            other = None if target in self._digested else self.target.array(target)
            self._digested.add(target)
            if other is None:
                continue
            self._digests[_digest(other)].append(straight("", target, other.ndim))
            if other.ndim == 2:
                self._digests[_digest(other.T)].append(transposed("", target))
        return self._only([Link(name, link.target, link.joints) for link in self._digests.get(_digest(array), ())])

    def _only(self, links: list[Link]) -> list[Link]:
        """One of several links that lead to one tensor, which may have several names; nothing where they do not."""
        places = {
            tuple((joint.source, id(self._axis(link.target, joint.target))) for joint in link.joints) for link in links
        }
        return links[:1] if len(places) == 1 else []

    def _axis(self, target: str, dim: int) -> object:
        return self.target.structure.space.find(self.target.structure.axis(target, dim))

    def _proportional(self, name: str, array: Array) -> list[Link]:
        """Each filter is a multiple of its counterpart, along the first or the second dimension."""
        found: list[Link] = []
        for target in self._candidates(array.shape):
            shape = self.target.shape(target)
            for turned in (False, True) if array.ndim == 2 else (False,):
                own = array.T if turned else array
                if own.shape == shape and any(self._scaled(own, target, dim) for dim in (0, 1)):
                    found.append(transposed(name, target) if turned else straight(name, target, array.ndim))
        return self._only(found)

    def _scaled(self, own: Array, target: str, dim: int) -> bool:
        rows = _rows(own, dim)
        if rows.shape[1] < _SHORTEST_FILTER:
            return False
        first = int(np.argmax(np.abs(rows).max(1)))
        key = (target, dim)
        other = None
        if key not in self._sketches:
            other = self.target.array(target)
            if other is None:
                return False
            self._sketches[key] = _rows(other, dim)[:, :_SHORTEST_FILTER].copy()
        width = _SHORTEST_FILTER
        if not _multiples(rows[first : first + 1, :width], self._sketches[key][first : first + 1], 100 * _SAME_FILTER):
            return False
        other = self.target.array(target) if other is None else other
        return other is not None and _multiples(rows, _rows(other, dim), _SAME_FILTER)

    def _packed(self, name: str, array: Array) -> list[Link]:
        """Rows of one direction of a recurrent layer [directions, gates, width] in the order of the other program."""
        width = array.shape[-1]
        rows = _numbered(array)
        found: list[Link] = []
        for parameter in self.target.structure.counted:
            shape = self.target.shape(parameter.name)
            if shape is None or shape[-1] != width or {array.ndim, len(shape)} != {2, 3}:
                continue
            if (shape[-2] if len(shape) == 3 else shape[0]) != array.shape[-2]:
                continue
            other = self.target.array(parameter.name)
            if other is None:
                continue
            places = [rows.get(row.tobytes()) for row in (other + 0.0).reshape(-1, width)]
            found.extend(_packing(name, parameter.name, places, array.ndim, len(shape), array.shape[-2]))
        return found


def _packing(
    name: str, target: str, places: list[tuple[int, int] | None], rank: int, other_rank: int, gates: int
) -> Iterator[Link]:
    """The links that say where the rows of one direction of ``target`` are."""
    for start in range(0, len(places), gates):
        block = places[start : start + gates]
        known = [place for place in block if place is not None]
        order = np.asarray([row for _, row in known], np.intp)
        if len(known) != gates or len({direction for direction, _ in known}) != 1 or len(set(order.tolist())) != gates:
            continue
        rows, columns = Joint(rank - 2, other_rank - 2, order), Joint(rank - 1, other_rank - 1)
        yield Link(name, target, (rows, columns))


def _numbered(array: Array) -> dict[bytes, tuple[int, int] | None]:
    """The direction and number of each row of a matrix or a stack of them; None for a row that occurs twice."""
    found: dict[bytes, tuple[int, int] | None] = {}
    stack = (array + 0.0).reshape(-1, *array.shape[-2:])
    for direction, matrix in enumerate(stack):
        for number, row in enumerate(matrix):
            key = row.tobytes()
            found[key] = None if key in found else (direction, number)
    return found


def _digest(array: npt.NDArray[Any]) -> tuple[tuple[int, ...], bytes]:
    plain = np.ascontiguousarray(array, np.float32) + np.float32(0)  # minus zero becomes zero
    return plain.shape, hashlib.blake2b(plain.data).digest()


def _rows(array: Array, dim: int) -> Array:
    return np.moveaxis(array, dim, 0).reshape(array.shape[dim], -1)


def _multiples(own: Array, other: Array, tolerance: float) -> bool:
    """Whether each row of ``own`` is a multiple of that of ``other``; rows of zeros may be zero times anything."""
    a, b = own.astype(np.float64), other.astype(np.float64)
    square = np.einsum("ij,ij->i", b, b)
    factor = np.einsum("ij,ij->i", a, b) / np.where(square, square, 1.0)
    rest = np.linalg.norm(a - factor[:, None] * b, axis=1)
    return bool(np.any(factor)) and bool(np.all(rest <= tolerance * np.linalg.norm(a, axis=1)))
