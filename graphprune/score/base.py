"""What a criterion is, what it may look at, and the criteria by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from graphprune.axes import Leaf
from graphprune.errors import UsageError
from graphprune.score.options import with_options
from graphprune.score.positions import Numbers
from graphprune.structure import Structure

if TYPE_CHECKING:
    from graphprune.calibration.gradients import Gradients
    from graphprune.calibration.observe import Calibration

__all__ = [
    "FUNCTION",
    "Block",
    "Criterion",
    "Evidence",
    "FunctionCriterion",
    "Judge",
    "Scores",
    "Weights",
    "blocks",
    "criteria",
    "criterion",
    "register",
]

Scores = dict[Leaf, Numbers]
"""For each group one number a position: the higher, the more it matters."""

BLOCK_ELEMENTS = 1 << 22  # 16 MB as float32


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of a tensor: ``tensor[prefix][start : start + len(values)]``."""

    prefix: tuple[int, ...]
    start: int
    values: npt.NDArray[Any]


class Weights(Protocol):
    """Reads the parameter ``name`` once, piece by piece in storage order."""

    def __call__(self, name: str) -> Iterator[Block]: ...


@dataclass(frozen=True)
class Evidence:
    """What criteria judge by: the structure, its weights, and (by the names in ``needs``) what else was gathered."""

    structure: Structure
    weights: Weights
    gathered: Mapping[str, object] = field(default_factory=dict)

    def array(self, name: str) -> npt.NDArray[Any]:
        """The parameter ``name`` as one array, as it is stored."""
        pieces = [block.values.reshape(-1) for block in self.weights(name)]
        flat = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        return flat.reshape([int(axis.size) for axis in self.structure.tensors[name] or ()])  # type: ignore[arg-type]

    @property
    def calibration(self) -> Calibration:
        """What runs through the program on calibration inputs.

        Raises:
            UsageError: there are none.
        """
        found = self.gathered.get("calibration")
        if found is None:
            raise UsageError("the criterion needs calibration inputs: give --calib PATH, or calibration=... in Python")
        return found  # type: ignore[return-value]

    @property
    def gradients(self) -> Gradients:
        """The gradients of a loss on calibration inputs.

        Raises:
            UsageError: there are none, as for any ONNX model.
        """
        found = self.gathered.get("gradients")
        if found is None:
            raise UsageError("the criterion needs gradients: use it on a PyTorch module, with calibration inputs")
        return found  # type: ignore[return-value]


class Criterion(Protocol):
    """Tells how much each position of each group matters.

    ``needs`` names what must be in :attr:`Evidence.gathered`: nothing, ``"calibration"`` (activations on inputs) or
    ``"gradients"``.
    """

    @property
    def name(self) -> str: ...

    @property
    def needs(self) -> frozenset[str]: ...

    def score(self, evidence: Evidence) -> Scores: ...


FUNCTION = "function"
"""What a criterion is called that has no name of its own."""

Judge: TypeAlias = Callable[[Evidence], Mapping[Any, npt.ArrayLike]]
"""A criterion of one's own: for each group (as it is, by its leaf, or by its name) one number a position."""


@dataclass(frozen=True, slots=True)
class FunctionCriterion:
    """What a function says, once it has been checked."""

    function: Judge
    name: str = FUNCTION
    needs: frozenset[str] = frozenset()

    def score(self, evidence: Evidence) -> Scores:
        """Ask the function.

        Raises:
            UsageError: it gives no mapping, leaves a group out, or not one finite number for each position.
        """
        given = self.function(evidence)
        if not isinstance(given, Mapping):
            raise self._wrong(f"gave a {type(given).__name__}: return a dict with one array for each group")
        scores: Scores = {}
        for group in evidence.structure.groups:
            key = next((key for key in (group.leaf, group.name, group) if key in given), None)
            if key is None:
                raise self._wrong(f"says nothing about group {group.name}: give {group.size} numbers for it")
            try:
                values = np.asarray(given[key], np.float64)
            except (TypeError, ValueError):
                raise self._wrong(f"gave no numbers for group {group.name}: give {group.size} of them") from None
            if values.shape != (group.size,):
                raise self._wrong(f"gave shape {values.shape} for group {group.name}: give ({group.size},)")
            if not np.isfinite(values).all():
                raise self._wrong(f"gave NaN or infinity for group {group.name}: give finite numbers")
            scores[group.leaf] = values
        return scores

    def _wrong(self, problem: str) -> UsageError:
        return UsageError(f"criterion {getattr(self.function, '__name__', 'function')}() {problem}")


_REGISTRY: dict[str, Callable[[int], Criterion]] = {}


def register(name: str, make: Callable[[int], Criterion]) -> None:
    """Make a criterion known by name; ``make`` gets the seed.

    Raises:
        ValueError: the name is taken.
    """
    if name in _REGISTRY:
        raise ValueError(f"criterion {name} is registered twice")
    _REGISTRY[name] = make


def criteria() -> Mapping[str, Callable[[int], Criterion]]:
    """All criteria by name, read-only."""
    return MappingProxyType(_REGISTRY)


def criterion(name: str | Judge | Criterion, seed: int = 0) -> Criterion:
    """The criterion called ``name``, such as ``l2`` or, with options, ``l2:reduction=max``; or a function as one.

    Raises:
        UsageError: there is none, or it has no such option.
    """
    if callable(name):
        return FunctionCriterion(name)
    if not isinstance(name, str):
        if hasattr(name, "score"):
            return name
        raise UsageError(f"criterion: {name!r} is neither a name nor a function of the evidence")
    name, _, options = name.partition(":")
    if name == FUNCTION:
        raise UsageError("criterion 'function' is one of your own: give it in Python, as prune(criterion=...)")
    if name not in _REGISTRY:
        raise UsageError(f"no criterion is called '{name}'; there are: {', '.join(sorted(_REGISTRY))}")
    made = _REGISTRY[name](seed)
    return with_options(made, options, f"criterion '{name}'") if options else made


def blocks(array: npt.NDArray[Any], limit: int = BLOCK_ELEMENTS) -> Iterator[Block]:
    """An array as consecutive blocks of at most about ``limit`` elements.

    >>> [(b.prefix, b.start, b.values.shape) for b in blocks(np.zeros((2, 3, 4)), limit=8)]
    [((0,), 0, (2, 4)), ((0,), 2, (1, 4)), ((1,), 0, (2, 4)), ((1,), 2, (1, 4))]
    """
    for prefix, start, stop in block_bounds(array.shape, limit):
        yield Block(prefix, start, array[prefix][start:stop] if array.ndim else array.reshape(1))


def block_bounds(shape: tuple[int, ...], limit: int = BLOCK_ELEMENTS) -> Iterator[tuple[tuple[int, ...], int, int]]:
    """How to cut a tensor of ``shape`` into blocks: leading indices, start and stop of the dimension after them."""
    depth, rows = 0, shape or (1,)
    inner = int(np.prod(rows[1:], dtype=np.int64))
    while inner > limit and depth + 1 < len(rows):
        depth += 1
        inner //= rows[depth]
    step = max(1, limit // max(inner, 1))
    for prefix in np.ndindex(*rows[:depth]):
        for start in range(0, rows[depth], step):
            yield prefix, start, min(start + step, rows[depth])
