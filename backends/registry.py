"""Backends by name: those of graphprune, and those that other packages offer. Nothing is imported before it is used.

>>> sorted(names())[0], backend("ort").name
('onnxruntime', 'onnxruntime')
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from graphprune.backends.artifact import read_manifest
from graphprune.backends.base import Availability, Backend, Executable, Target
from graphprune.errors import UsageError

__all__ = ["GROUP", "SHORT", "Listed", "backend", "listed", "load", "names", "usable"]

GROUP = "graphprune.backends"
"""The group of entry points under which other packages offer backends."""

BUILT_IN = {
    "onnxruntime": "graphprune.backends.onnxruntime.backend:OnnxRuntime",
    "tvm": "graphprune.backends.tvm.backend:Tvm",
}
SHORT = {"ort": "onnxruntime"}
"""What people call a backend, and its name."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A backend in a list: where it comes from, whether it can be used, and what it can compile for."""

    name: str
    origin: str
    availability: Availability
    targets: tuple[Target, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        state = self.availability
        return {
            "name": self.name,
            "origin": self.origin,
            "available": state.ok,
            "version": state.version,
            "reason": state.reason,
            "remedy": state.remedy,
            "targets": [
                {"name": target.name, "available": target.available, "remedy": target.remedy} for target in self.targets
            ],
        }


def names() -> tuple[str, ...]:
    """The names of all backends, those of graphprune first."""
    return (*BUILT_IN, *_offered())


def backend(name: str) -> Backend:
    """The backend of that name (``ort`` is short for ``onnxruntime``); it may lack its runtime.

    Raises:
        UsageError: there is none, or the package that offers it does not import.
    """
    name = SHORT.get(name, name)
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        return _made(name, getattr(import_module(module), attribute), "graphprune")
    offered = _offered()
    if name not in offered:
        raise UsageError(f"there is no backend '{name}'; there are: {', '.join(names())}")
    entry = offered[name]
    try:
        maker = entry.load()
    except Exception as error:  # an import runs whatever the package holds
        raise UsageError(f"backend '{name}' of {_origin(entry)} does not import ({_first_line(error)})") from error
    return _made(name, maker, _origin(entry))


def usable(name: str) -> Backend:
    """The backend of that name, whose runtime is there.

    Raises:
        UsageError: there is none, or its runtime is missing; says what to install.
    """
    found = backend(name)
    state = found.available()
    if not state.ok:
        raise UsageError(f"backend '{found.name}' cannot be used, {state.text}")
    return found


def listed() -> Iterator[Listed]:
    """All backends and what they need; one that is broken is listed with the reason."""
    offered = _offered()
    for name in names():
        origin = _origin(offered[name]) if name in offered else "graphprune"
        try:
            found = backend(name)
            state = found.available()
            yield Listed(name, origin, state, found.targets())
        except Exception as error:  # a list of what works must not fail with what does not
            yield Listed(name, origin, Availability(False, reason=_first_line(error)))


def load(folder: str | os.PathLike[str], **options: Any) -> Executable:
    """The executable in an artifact, whichever backend made it.

    Raises:
        ModelError: the folder is no artifact, or is damaged.
        UsageError: the backend is missing, or the artifact needs something that is not here.
    """
    return usable(read_manifest(folder).backend).load(folder, **options)


def _offered() -> dict[str, EntryPoint]:
    """What other packages offer; they cannot take the place of graphprune's own."""
    found = sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value))
    return {entry.name: entry for entry in reversed(found) if entry.name not in BUILT_IN and entry.name not in SHORT}


def _made(name: str, maker: Any, origin: str) -> Backend:
    try:
        found = maker()
    except Exception as error:  # another package's code
        raise UsageError(f"backend '{name}' of {origin} cannot be made ({_first_line(error)})") from error
    if not isinstance(found, Backend):
        raise UsageError(f"backend '{name}' of {origin} is a {type(found).__name__}, which is no Backend")
    return found


def _origin(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.value


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
