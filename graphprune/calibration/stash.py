"""Arrays by name, of which only so many bytes are in memory: the largest of the others lie in files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Stash", "View", "as_float"]

Array: TypeAlias = npt.NDArray[Any]

SMALL = 1 << 16
"""Bytes up to which an array is not worth a file."""


class Stash(MutableMapping[str, Any]):
    """The values of one batch; what is beyond ``limit`` bytes is written to ``folder``, and read when asked for."""

    def __init__(self, folder: Path, limit: int, given: Mapping[str, Any]) -> None:
        self._folder, self._limit = folder, limit
        self._held: dict[str, Any] = dict(given)
        self._own: dict[str, int] = {}  # bytes of the arrays that are not the caller's, and in memory
        self._count = 0

    def __getitem__(self, name: str) -> Any:
        value = self._held[name]
        return np.load(value) if isinstance(value, Path) else value

    def __setitem__(self, name: str, value: Any) -> None:
        self._held[name] = value
        if isinstance(value, np.ndarray) and value.nbytes > SMALL and not value.dtype.hasobject:
            self._own[name] = value.nbytes
            while sum(self._own.values()) > self._limit:
                self._write(max(self._own, key=self._own.__getitem__))

    def __delitem__(self, name: str) -> None:
        value = self._held.pop(name)
        self._own.pop(name, None)
        if isinstance(value, Path):
            value.unlink()

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def _write(self, name: str) -> None:
        self._count += 1
        path = self._folder / f"{id(self)}-{self._count}.npy"
        np.save(path, self._held[name])
        self._held[name] = path
        del self._own[name]


class View(Mapping[str, Array]):
    """Some values of a stash, floating-point ones in single precision, each read when it is asked for."""

    def __init__(self, values: Mapping[str, Any], names: tuple[str, ...]) -> None:
        self._values, self._names = values, names

    def __getitem__(self, name: str) -> Array:
        if name not in self._names:
            raise KeyError(name)
        return as_float(self._values[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def as_float(array: Array) -> Array:
    """Floating-point numbers in single precision; others as they are."""
    return array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array
