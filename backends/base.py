"""What a backend is: it compiles a program for a target, and what comes out runs, is measured, and is stored."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from graphprune.errors import UsageError
from graphprune.sample_inputs import Inputs, InputSpec

if TYPE_CHECKING:
    from graphprune.backends.measure import Measurement

__all__ = ["Availability", "Backend", "Executable", "Target", "TensorSpec", "check_inputs", "input_specs_of"]


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether a backend can be used: the version of its runtime, or the reason why not and the command that helps."""

    ok: bool
    version: str | None = None
    reason: str | None = None
    remedy: str | None = None

    @property
    def text(self) -> str:
        """One line."""
        if self.ok:
            return f"installed ({self.version})" if self.version else "installed"
        return f"{self.reason}: {self.remedy}" if self.remedy else str(self.reason)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a backend can make programs run, whether that works here, and what would make it work if not."""

    name: str
    available: bool
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output of an executable: numpy's name of its type (or what stands for one), and its dimensions.

    A dimension is a size, a symbol, or None.
    """

    name: str
    dtype: str
    dims: tuple[int | str | None, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.dims)}


@runtime_checkable
class Executable(Protocol):
    """A program that was compiled and runs."""

    @property
    def name(self) -> str:
        """What it is called in messages and tables."""
        ...

    @property
    def backend(self) -> str:
        """The name of the backend that made it."""
        ...

    @property
    def target(self) -> str:
        """The name of the target that it runs on."""
        ...

    @property
    def threads(self) -> int | None:
        """How many threads it uses; None where the runtime chooses."""
        ...

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What it must be fed."""
        ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What it computes."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What whoever uses it should know."""
        ...

    @property
    def obstacle(self) -> str:
        """Why it cannot run on this machine, and what would help; nothing where it can."""
        ...

    @property
    def fixed(self) -> Mapping[str, int]:
        """The symbolic dimensions that it was compiled for one size of; its inputs have that size instead."""
        ...

    def __call__(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
        """The outputs by name."""
        ...

    def prepare(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> Callable[[], object]:
        """A function that runs once on ``inputs``, which are where the target reads them; for timing."""
        ...

    def measure(
        self, inputs: Mapping[str, np.ndarray[Any, Any]] | None = None, *, warmup: int = 5, repeats: int = 30
    ) -> Measurement:
        """How long it takes, on random inputs where none are given."""
        ...

    def stored_bytes(self) -> int:
        """The bytes of what is stored of it."""
        ...

    def save(self, folder: str | os.PathLike[str], measurement: Measurement | None = None) -> Path:
        """Write an artifact (:mod:`graphprune.backends.artifact`), whole or not at all; returns the folder."""
        ...


@runtime_checkable
class Backend(Protocol):
    """A runtime that programs are compiled for.

    A package offers one as an entry point of the group ``graphprune.backends`` that names a class or function to call
    without arguments. Importing it must not import the runtime: :meth:`available` tells whether that is there.
    """

    @property
    def name(self) -> str:
        """What it is called on the command line."""
        ...

    def available(self) -> Availability:
        """Whether it can be used, without raising."""
        ...

    def targets(self) -> tuple[Target, ...]:
        """Where programs can run; all it knows, whether they work here or not."""
        ...

    def compile(self, program: Any, target: str, **options: Any) -> Executable:
        """An executable for ``target``.

        Raises :class:`UsageError` for a target or option that there is not, :class:`ModelError` for a program that
        cannot be compiled.
        """
        ...

    def load(self, folder: str | os.PathLike[str], **options: Any) -> Executable:
        """The executable that an artifact of this backend holds."""
        ...


def input_specs_of(executable: Executable) -> list[InputSpec]:
    """The inputs in the form that random inputs are made from."""
    return [InputSpec(spec.name, _numpy(spec.dtype), spec.dims) for spec in executable.inputs]


def check_inputs(executable: Executable, inputs: Mapping[str, np.ndarray[Any, Any]]) -> Inputs:
    """``inputs`` in the types that ``executable`` takes, converted where nothing is lost.

    Raises:
        UsageError: one is missing or not known, has another shape, or would lose something.
    """
    wanted = {spec.name: spec for spec in executable.inputs}
    known = ", ".join(wanted)
    if unknown := sorted(inputs.keys() - wanted.keys()):
        raise UsageError(f"{executable.name} has no input '{unknown[0]}'; it has: {known}")
    if missing := sorted(wanted.keys() - inputs.keys()):
        raise UsageError(f"{executable.name} needs the input '{missing[0]}'; it has: {known}")
    return {name: _fitted(np.asarray(inputs[name]), spec) for name, spec in wanted.items()}


def _fitted(array: np.ndarray[Any, Any], spec: TensorSpec) -> np.ndarray[Any, Any]:
    shape = list(spec.dims)
    fits = array.ndim == len(shape) and all(
        size == dim for size, dim in zip(array.shape, shape, strict=True) if isinstance(dim, int)
    )
    if not fits:
        raise UsageError(f"input '{spec.name}' has shape {list(array.shape)}, which does not fit {shape}")
    dtype = _numpy(spec.dtype)
    if array.dtype == dtype:
        return array
    if np.can_cast(array.dtype, dtype, "safe"):
        return array.astype(dtype)
    with np.errstate(all="ignore"):
        made = array.astype(dtype) if array.dtype.kind in "biuf" and dtype.kind in "biuf" else None
    # A file of numbers is most often float64 or int64; a float is rounded to a narrower one, anything else is exact.
    rounded = array.dtype.kind == dtype.kind == "f"
    if made is None or not (rounded or np.array_equal(made.astype(array.dtype), array)):
        raise UsageError(f"input '{spec.name}' is {array.dtype}, and would lose something as {spec.dtype}")
    return made


def _numpy(dtype: str) -> np.dtype[Any]:
    if dtype == "string":
        return np.dtype(object)
    try:
        return np.dtype(dtype)
    except TypeError:
        import ml_dtypes

        kind: Any = getattr(ml_dtypes, dtype, None)
        if kind is None:
            raise UsageError(f"'{dtype}' is no type of tensors that can be given as arrays") from None
        found: np.dtype[Any] = np.dtype(kind)
        return found
