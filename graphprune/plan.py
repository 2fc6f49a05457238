"""Plans: the decision what to keep, as a JSON lockfile that can be read, diffed, reviewed and replayed.

A plan names, for every parameter that is cut, the kept positions of each cut dimension as runs (``"0-3,7"``), and the
model it was made for by its fingerprint.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from graphprune.axes import Leaf
from graphprune.errors import UsageError
from graphprune.selection import Mask, Selection, occurrences
from graphprune.structure import Structure

__all__ = ["Cut", "Plan"]

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Cut:
    """Kept positions of one dimension that had ``size`` of them."""

    size: int
    keep: tuple[int, ...]

    def mask(self) -> Mask:
        """Boolean array of length ``size``."""
        mask = np.zeros(self.size, dtype=np.bool_)
        mask[list(self.keep)] = True
        return mask


@dataclass(frozen=True, slots=True)
class Plan:
    """What to keep of which parameter: ``cuts[tensor][dim]``; the rest of the fields say how it came about.

    ``prepare`` is the pipeline that has to run on the model before it is cut, if any.
    """

    cuts: Mapping[str, Mapping[int, Cut]]
    fingerprint: str = ""
    prepare: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    # -- between plans and selections -----------------------------------------------------------------------------

    @classmethod
    def of(cls, structure: Structure, selection: Selection, **how: Any) -> Plan:
        """The plan that says what ``selection`` does to the parameters of ``structure``."""
        cuts: dict[str, dict[int, Cut]] = {}
        for name in structure.parameters:
            for dim, axis in enumerate(structure.tensors.get(name) or ()):
                if selection.cuts(axis):
                    keep = tuple(np.flatnonzero(selection.mask(axis)).tolist())
                    cuts.setdefault(name, {})[dim] = Cut(int(axis.size), keep)  # type: ignore[arg-type]
        return cls(cuts, **how)

    def selection(self, structure: Structure) -> Selection:
        """The selection that this plan describes on ``structure``.

        Raises:
            UsageError: the plan is for another model, cuts what is pinned, or contradicts itself.
        """
        keep: dict[Leaf, Mask] = {}
        for tensor, dims in self.cuts.items():
            for dim, cut in dims.items():
                self._collect(structure, tensor, dim, cut, keep)
        selection = Selection(structure.space, keep)
        for tensor, dims in self.cuts.items():
            for dim, cut in dims.items():
                if not np.array_equal(selection.mask(structure.axis(tensor, dim)), cut.mask()):
                    raise UsageError(
                        f"plan: kept positions of '{tensor}' dimension {dim} contradict those of coupled tensors"
                    )
        for call in structure.calls:
            for axis, least in call.least:
                if isinstance(kept := selection.count(axis), int) and kept < least:
                    raise UsageError(f"plan: '{call.node}' needs {least} positions of {axis.size}, and {kept} are kept")
        return selection

    @staticmethod
    def _collect(structure: Structure, tensor: str, dim: int, cut: Cut, keep: dict[Leaf, Mask]) -> None:
        try:
            axis = structure.axis(tensor, dim)
        except KeyError:
            raise UsageError(f"plan: the model has no tensor '{tensor}' with a dimension {dim}") from None
        if axis.size != cut.size:
            raise UsageError(
                f"plan: '{tensor}' dimension {dim} has {axis.size} positions where the plan was made for {cut.size}"
            )
        mask = cut.mask()
        for place in occurrences(structure.space, axis):
            if place.leaf.pinned:
                continue
            seen = np.zeros(int(place.leaf.size), dtype=np.bool_)  # type: ignore[arg-type]
            seen[place.position[mask[place.index]]] = True
            keep[place.leaf] = keep[place.leaf] | seen if place.leaf in keep else seen

    def apply(self, model: Any, args: Any = None, kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Carry this plan out on a model or module; see :func:`graphprune.apply`."""
        from graphprune.api import apply  # the one step up: a plan is what users hold in their hands

        return apply(self, model, args, kwargs, **options)

    def then(self, other: Plan) -> Plan:
        """This plan and, on what it leaves, ``other``: one plan for the model that this one was made for."""
        cuts = {tensor: dict(dims) for tensor, dims in self.cuts.items()}
        for tensor, dims in other.cuts.items():
            for dim, cut in dims.items():
                first = cuts.setdefault(tensor, {}).get(dim)
                cuts[tensor][dim] = cut if first is None else Cut(first.size, tuple(first.keep[p] for p in cut.keep))
        return replace(self, cuts=cuts)

    # -- on disk --------------------------------------------------------------------------------------------------

    def to_json(self) -> str:
        """The lockfile's text, one dimension a line, in the model's order."""
        document = {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "prepare": self.prepare,
            "options": dict(self.options),
            "versions": dict(self.versions),
            "cuts": {
                tensor: {str(dim): {"of": cut.size, "keep": _runs(cut.keep)} for dim, cut in dims.items()}
                for tensor, dims in self.cuts.items()
            },
        }
        return json.dumps(document, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str = "plan") -> Plan:
        """Read a lockfile's text.

        Raises:
            UsageError: it is not a plan, or of a format that this version does not know.
        """
        try:
            document = json.loads(text)
            if document["format"] != FORMAT:
                raise UsageError(f"{source}: plan format {document['format']} is not known to this version")
            cuts = {
                str(tensor): {int(dim): _cut(entry) for dim, entry in dims.items()}
                for tensor, dims in document["cuts"].items()
            }
            fingerprint, prepare = str(document["fingerprint"]), str(document.get("prepare", ""))
            return cls(cuts, fingerprint, prepare, dict(document["options"]), dict(document["versions"]))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UsageError(f"{source}: not a plan ({type(error).__name__}: {error})") from None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Plan:
        """Read a lockfile."""
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: the plan cannot be read ({error})") from None

    def __len__(self) -> int:
        return sum(len(dims) for dims in self.cuts.values())


def _runs(positions: Sequence[int]) -> str:
    array = np.asarray(positions)
    if not array.size:
        return ""
    breaks = np.flatnonzero(np.diff(array) != 1)
    starts = array[np.r_[0, breaks + 1]]
    stops = array[np.r_[breaks, len(array) - 1]]
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in zip(starts, stops, strict=True))


def _cut(entry: Mapping[str, Any]) -> Cut:
    size = int(entry["of"])
    keep: list[int] = []
    for run in str(entry["keep"]).split(",") if entry["keep"] else []:
        first, _, last = run.partition("-")
        start, stop = int(first), int(last or first) + 1
        if not (keep[-1] if keep else -1) < start < stop <= size:
            raise ValueError(f"positions {run!r} of {size}")
        keep.extend(range(start, stop))
    return Cut(size, tuple(keep))
