"""A program that TVM has compiled: what it takes, running and timing it here or on its device, and storing it."""

from __future__ import annotations

import inspect
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from graphprune.backends.artifact import write_artifact
from graphprune.backends.base import TensorSpec, check_inputs
from graphprune.backends.machine import machine
from graphprune.backends.measure import Measurement
from graphprune.backends.race import measure_alone, require_here
from graphprune.backends.tvm import loader
from graphprune.backends.tvm.elf import code_bytes
from graphprune.backends.tvm.package import versions
from graphprune.backends.tvm.running import Runner
from graphprune.errors import ModelError
from graphprune.text import first_line

__all__ = ["Library", "TvmExecutable"]


@dataclass(frozen=True)
class Library:
    """The file that was linked, what the manifest says of it, and what keeps it there."""

    path: Path
    model: Mapping[str, Any]
    options: Mapping[str, Any]
    holder: object = None


@dataclass(frozen=True)
class TvmExecutable:
    """See :class:`graphprune.backends.base.Executable`; ``runner`` is None where it cannot run here."""

    name: str
    target: str
    stored: Library
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    runner: Runner | None
    obstacle: str = ""
    threads: int | None = None
    fixed: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    backend: str = "tvm"

    @property
    def device(self) -> str | None:
        """The address of the device that it runs on; None for this machine."""
        return getattr(self.runner, "address", None)

    def __call__(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
        """See the protocol.

        Raises:
            UsageError: the inputs are not those that the program has, or it cannot run here.
            ModelError: it cannot run on them.
        """
        arrays = self._ordered(check_inputs(self, inputs))
        runner = self._runner()
        try:
            found = runner(arrays)
        except Exception as error:  # TVM's errors share no base class
            raise ModelError(f"{self.name}: does not run on the given inputs: {first_line(error)}") from error
        return dict(zip((spec.name for spec in self.outputs), found, strict=True))

    def prepare(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> Callable[[], object]:
        """See the protocol; over RPC a run contains one message there and back."""
        return self._runner().prepare(self._ordered(inputs))

    def measure(
        self, inputs: Mapping[str, np.ndarray[Any, Any]] | None = None, *, warmup: int = 5, repeats: int = 30
    ) -> Measurement:
        """See the protocol."""
        return measure_alone(self, inputs, warmup=warmup, repeats=repeats)

    def stored_bytes(self) -> int:
        """See the protocol."""
        return self.stored.path.stat().st_size

    def save(self, folder: str | os.PathLike[str], measurement: Measurement | None = None) -> Path:
        """See the protocol."""
        return write_artifact(folder, self, self._write, inspect.getsource(loader), measurement)

    def _write(self, folder: Path) -> Mapping[str, Any]:
        shutil.copyfile(self.stored.path, folder / self.stored.path.name)
        return {
            "binary": self.stored.path.name,
            "bytes": self.stored_bytes(),
            "code_bytes": code_bytes(self.stored.path),
            "model": dict(self.stored.model),
            "options": dict(self.stored.options),
            "runtime": versions(),
            "compiled_on": machine(),
        }

    def _runner(self) -> Runner:
        require_here(self)
        assert self.runner is not None
        return self.runner

    def _ordered(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
        return [inputs[spec.name] for spec in self.inputs]
