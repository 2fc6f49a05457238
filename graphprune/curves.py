"""Sensitivity curves: what a network loses where so much of a group goes, as it was measured.

They are stored as JSON; :func:`graphprune.measuring.sensitivity` measures them, and an allocation
(:mod:`graphprune.allocate`) is made by them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from graphprune.errors import ModelError, UsageError
from graphprune.frontends.atomic import write_text
from graphprune.score.positions import Numbers
from graphprune.structure import Group, Structure

__all__ = ["Curve", "Curves", "structure_mark"]

FORMAT = "graphprune curves 1"


@dataclass(frozen=True, slots=True)
class Curve:
    """The loss of ``groups`` (sizes by name), cut together: ``loss[k]`` where the share ``removed[k]`` is gone.

    ``removed`` rises; nothing is lost at 0.
    """

    groups: Mapping[str, int]
    removed: tuple[float, ...]
    loss: tuple[float, ...]

    def at(self, shares: Numbers) -> Numbers:
        """The loss at each of ``shares``, interpolated; removing more never loses less."""
        rising = np.maximum.accumulate(np.concatenate([[0.0], np.maximum(self.loss, 0.0)]))
        return np.interp(shares, [0.0, *self.removed], rising)


@dataclass(frozen=True)
class Curves:
    """The curves of a network; ``mark`` names its groups, ``about`` says how they were measured."""

    curves: tuple[Curve, ...]
    mark: str
    about: Mapping[str, Any] = field(default_factory=dict)

    def of(self, groups: Iterable[Group]) -> Curve | None:
        """The curve of groups that are cut together: theirs, or their part of that of more groups; None without one."""
        names = {group.name: group.size for group in groups}
        first = next(iter(names), None)
        for curve in self.curves:
            if first in curve.groups:
                part = sum(names.values()) / sum(curve.groups.values())
                return Curve(names, curve.removed, tuple(part * loss for loss in curve.loss))
        return None

    def check(self, structure: Structure) -> None:
        """Refuse curves of another network, and those whose measurement was interrupted.

        Raises:
            UsageError: they are.
        """
        if not self.about.get("complete", True):
            raise UsageError("these curves are not complete: run the same `graphprune sensitivity` again to go on")
        if self.mark != structure_mark(structure):
            raise UsageError(
                "these curves were measured on a network with other groups: measure them anew with "
                "`graphprune sensitivity`, on the model as it is pruned"
            )

    def __str__(self) -> str:
        return f"{len(self.curves)} curves of {self.mark[:12]}"

    def to_json(self) -> str:
        """Return the text of the file."""
        curves = [asdict(curve) for curve in self.curves]
        return json.dumps({"format": FORMAT, "mark": self.mark, "about": self.about, "curves": curves}, indent=1) + "\n"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file, whole or not at all."""
        write_text(self.to_json(), path)

    @classmethod
    def of_source(cls, source: str | os.PathLike[str] | Curves) -> Curves:
        """Curves, or what a file of that name holds."""
        return source if isinstance(source, Curves) else cls.load(source)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Curves:
        """Read a file.

        Raises:
            ModelError: it cannot be read, or holds something else.
        """
        try:
            document = json.loads(Path(path).read_text())
            if document["format"] != FORMAT:
                raise ValueError(f"format {document['format']!r} instead of {FORMAT!r}")
            curves = tuple(
                Curve(dict(each["groups"]), _numbers(each["removed"]), _numbers(each["loss"]))
                for each in document["curves"]
            )
            return cls(curves, str(document["mark"]), dict(document["about"]))
        except OSError as error:
            raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
        except (KeyError, TypeError, ValueError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else error
            raise ModelError(
                f"{path}: no sensitivity curves ({reason}); `graphprune sensitivity` makes them"
            ) from error


def _numbers(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(map(float, values))


def structure_mark(structure: Structure) -> str:
    """A name for the groups of a program: their names, sizes, roles, and the first dimension that each holds."""
    digest = hashlib.sha256()
    for group in structure.groups:
        digest.update(f"{group.name} {group.size} {group.role} {next(iter(group.slices), '')}\n".encode())
    return digest.hexdigest()
