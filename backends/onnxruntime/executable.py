"""A model that ONNX Runtime has loaded: what it takes, running it, timing it on its device, and storing it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime

from graphprune.backends.artifact import write_artifact
from graphprune.backends.base import TensorSpec, check_inputs
from graphprune.backends.machine import machine
from graphprune.backends.measure import Measurement
from graphprune.backends.onnxruntime.sessions import LEVELS, Provider, stored_bytes
from graphprune.errors import ModelError
from graphprune.text import first_line

__all__ = ["OrtExecutable", "Stored", "bound"]

LOADER = '''\
"""Loads and runs what is in this folder with ONNX Runtime alone: python load.py inputs.npz outputs.npz"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime


def load(folder=Path(__file__).parent):
    manifest = json.loads((Path(folder) / "manifest.json").read_text(encoding="utf-8"))
    options, wanted = onnxruntime.SessionOptions(), manifest["options"]
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, wanted["graph_optimization_level"])
    if wanted["threads"]:
        options.intra_op_num_threads, options.inter_op_num_threads = wanted["threads"], 1
    providers = [each if isinstance(each, str) else tuple(each) for each in wanted["providers"]]
    return onnxruntime.InferenceSession(str(Path(folder) / manifest["binary"]), options, providers=providers)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python load.py INPUTS.npz OUTPUTS.npz")
    session = load()
    outputs = session.run(None, dict(np.load(sys.argv[1])))
    np.savez(sys.argv[2], **{spec.name: output for spec, output in zip(session.get_outputs(), outputs)})
'''


@dataclass(frozen=True)
class Stored:
    """The binary that a session was made of, what the manifest says of it, and what keeps the file there."""

    path: Path
    model: Callable[[], Mapping[str, Any]]
    options: Mapping[str, Any]
    beside: tuple[Path, ...] = ()
    holder: object = None


@dataclass(frozen=True)
class OrtExecutable:
    """See :class:`graphprune.backends.base.Executable`; ``session`` is ONNX Runtime's own object."""

    name: str
    target: str
    session: onnxruntime.InferenceSession
    stored: Stored
    threads: int | None = None
    device: str | None = None
    notes: tuple[str, ...] = ()
    backend: str = "onnxruntime"
    obstacle: str = ""
    fixed: Mapping[str, int] = field(default_factory=dict)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """See the protocol."""
        return tuple(map(_spec, self.session.get_inputs()))

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """See the protocol; what is no tensor has ONNX Runtime's words for its type."""
        return tuple(map(_spec, self.session.get_outputs()))

    def __call__(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
        """See the protocol.

        Raises:
            UsageError: the inputs are not those that the model has.
            ModelError: ONNX Runtime cannot run it on them.
        """
        feed = check_inputs(self, inputs)
        try:
            found = self.session.run(None, feed)
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise ModelError(f"{self.name}: does not run on the given inputs: {first_line(error)}") from error
        return dict(zip((output.name for output in self.session.get_outputs()), found, strict=True))

    def prepare(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> Callable[[], object]:
        """See the protocol: on a GPU the inputs are copied there once, and the outputs stay there."""
        feed = dict(inputs)
        if self.device is not None:
            return bound(self.session, feed, self.device)
        return lambda: self.session.run(None, feed)

    def measure(
        self, inputs: Mapping[str, np.ndarray[Any, Any]] | None = None, *, warmup: int = 5, repeats: int = 30
    ) -> Measurement:
        """See the protocol."""
        from graphprune.backends.race import measure_alone

        return measure_alone(self, inputs, warmup=warmup, repeats=repeats)

    def stored_bytes(self) -> int:
        """See the protocol."""
        return stored_bytes(self.stored.path)

    def save(self, folder: str | os.PathLike[str], measurement: Measurement | None = None) -> Path:
        """See the protocol."""
        return write_artifact(folder, self, self._write, LOADER, measurement)

    def _write(self, folder: Path) -> Mapping[str, Any]:
        source = self.stored.path
        binary = f"model{source.suffix or '.onnx'}"
        if self.stored.holder is None and source.suffix != ".ort":
            # A file of the user's: its external data may lie anywhere.
            model = ir.load(source)
            large = any(
                isinstance(value.const_value, ir.ExternalTensor)
                for graph in model.graphs()
                for value in graph.initializers.values()
            )
            ir.save(model, folder / binary, external_data="model.data" if large else None)
        else:
            shutil.copyfile(source, folder / binary)
        for each in self.stored.beside:
            shutil.copyfile(each, folder / each.name)
        return {
            "binary": binary,
            "model": dict(self.stored.model()),
            "options": dict(self.stored.options),
            "compiled_on": machine(),
        }


def bound(
    session: onnxruntime.InferenceSession, feed: Mapping[str, np.ndarray[Any, Any]], device: str
) -> Callable[[], object]:
    """A function that runs ``session`` on inputs that are on ``device`` already, and leaves the outputs there.

    It returns when the device is done.
    """
    binding = session.io_binding()
    for name, array in feed.items():
        value = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), device, 0)
        binding.bind_ortvalue_input(name, value)
    for output in session.get_outputs():
        binding.bind_output(output.name, device)
    binding.synchronize_inputs()

    def run() -> object:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return binding

    return run


def options_document(
    threads: int | None, level: str, providers: Sequence[Provider], precision: str, stored: str, form: str
) -> dict[str, Any]:
    """How a session is made, as the manifest spells it and the loader reads it."""
    return {
        "threads": threads,
        "graph_optimization_level": LEVELS[level],
        "providers": [each if isinstance(each, str) else [each[0], dict(each[1])] for each in providers],
        "precision": precision,
        "optimized": stored,
        "format": form,
    }


def _spec(value: Any) -> TensorSpec:
    text = str(value.type)
    dtype = text
    if text.startswith("tensor(") and text.endswith(")"):
        kind = ir.DataType[text[7:-1].upper()]
        dtype = "string" if kind == ir.DataType.STRING else kind.numpy().name
    dims = tuple((dim if dim >= 0 else None) if isinstance(dim, int) else dim or None for dim in value.shape)
    return TensorSpec(value.name, dtype, dims)
