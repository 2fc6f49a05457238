"""The backend: compiles ONNX models for an execution provider of ONNX Runtime."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphprune.backends.artifact import read_manifest
from graphprune.backends.base import Availability, Target
from graphprune.backends.onnxruntime.providers import TARGETS, ProviderInfo, provider_of, targets_of
from graphprune.backends.reading import facts_of, read_model
from graphprune.errors import ModelError, UsageError
from graphprune.frontends.program import is_torch
from graphprune.text import first_line

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphprune.backends.onnxruntime.executable import OrtExecutable
    from graphprune.backends.onnxruntime.sessions import Model, Provider

__all__ = ["FORMATS", "OnnxRuntime", "OrtOptions"]

FORMATS = ("onnx", "ort")
CPU = "CPUExecutionProvider"


@dataclass(frozen=True, slots=True)
class OrtOptions:
    """How a model is compiled.

    Args:
        threads: of one operator; one a core where it is None.
        level: how far ONNX Runtime rewrites the graph when it is loaded (``none``, ``basic``, ``extended``, ``all``).
        optimize: how far the graph that is stored is rewritten already. By default ``extended`` for the CPU in
            ``fp32``, ``basic`` for 8-bit integers, and ``none`` otherwise. ``all`` would store layouts of the
            processor at hand; those are made on loading.
        precision: ``fp32``, ``fp16``, ``int8-dynamic`` or ``int8-static``.
        calibration: inputs for ``int8-static``, as ``load_batches`` takes them.
        format: ``onnx``, or ``ort`` for mobile and reduced builds.
        providers: execution providers instead of that of the target, with options or without.
        dims: sizes of symbolic dimensions by name, for inputs that are made up.
        seed: of everything random.
    """

    threads: int | None = None
    level: str = "all"
    optimize: str | None = None
    precision: str = "fp32"
    calibration: Any = None
    format: str = "onnx"
    providers: Sequence[Provider] | None = None
    dims: Mapping[str, int] | None = None
    seed: int = 0

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> OrtOptions:
        """Options by name.

        Raises:
            UsageError: there is no such option, format or combination.
        """
        if "rpc" in options:
            raise UsageError("--rpc is for devices with a server of TVM's: give --backend tvm")
        known = [field.name for field in fields(cls)]
        if unknown := sorted(options.keys() - set(known)):
            raise UsageError(f"onnxruntime has no option '{unknown[0]}'; it has: {', '.join(known)}")
        made = cls(**options)
        if made.format not in FORMATS:
            raise UsageError(f"there is no format '{made.format}'; there are: {', '.join(FORMATS)}")
        if made.calibration is not None and made.precision != "int8-static":
            raise UsageError(f"calibration inputs are for int8-static, and {made.precision} takes none")
        if made.precision == "fp16" and (made.format == "ort" or made.optimize not in (None, "none")):
            raise UsageError(
                "fp16: a graph that is optimised on a CPU is stored with fp32 arithmetic; "
                "leave the optimisation to loading (--optimize none --format onnx)"
            )
        if made.optimize == "all":
            raise UsageError("optimize: 'all' would store layouts of this processor; give none, basic or extended")
        return made

    def stored_level(self, target: str) -> str:
        """How far the stored graph is rewritten."""
        if self.optimize is not None:
            return self.optimize
        if target != "cpu" or self.precision == "fp16":
            return "none"
        return "extended" if self.precision == "fp32" else "basic"


class OnnxRuntime:
    """See :class:`graphprune.backends.base.Backend`; programs are ONNX models: files, messages or of ``onnx_ir``."""

    name = "onnxruntime"

    def available(self) -> Availability:
        """See the protocol."""
        try:
            import onnxruntime
        except ImportError as error:
            reason = f"onnxruntime does not import ({first_line(error)})"
            return Availability(False, reason=reason, remedy="pip install onnxruntime")
        return Availability(True, version=str(onnxruntime.__version__))

    def targets(self) -> tuple[Target, ...]:
        """See the protocol."""
        return targets_of(_available())

    def compile(self, program: Any, target: str = "cpu", **options: Any) -> OrtExecutable:
        """See the protocol; ``options`` are those of :class:`OrtOptions`."""
        from graphprune.backends.onnxruntime.executable import OrtExecutable, Stored, options_document
        from graphprune.backends.onnxruntime.sessions import check_level, session

        wanted = OrtOptions.of(options)
        check_level(wanted.level)
        providers, device = _providers(target, wanted.providers)
        name = _name(program)
        level = wanted.stored_level(target)
        form = options_document(wanted.threads, wanted.level, providers, wanted.precision, level, wanted.format)
        is_file = isinstance(program, str | os.PathLike)
        if is_file and level == "none" and wanted.precision == "fp32" and wanted.format == "onnx":
            made = session(program, providers, wanted.threads, wanted.level)
            stored = Stored(Path(program), functools.partial(_facts_of_file, program, name), form)
            notes: tuple[str, ...] = ()
        else:
            stored, notes = _stored(program, name, wanted, level, form)
            made = session(stored.path, providers, wanted.threads, wanted.level)
        _check_providers(made, providers)
        return OrtExecutable(name, target, made, stored, wanted.threads, device, notes)

    def load(self, folder: str | os.PathLike[str], **options: Any) -> OrtExecutable:
        """See the protocol; ``threads`` other than None take the place of those that it was compiled for."""
        from graphprune.backends.onnxruntime.executable import OrtExecutable, Stored
        from graphprune.backends.onnxruntime.sessions import LEVELS, session

        manifest = read_manifest(folder)
        manifest.check_files()
        form = manifest.options
        levels = {value: key for key, value in LEVELS.items()}
        try:
            threads = options.get("threads") or form["threads"]
            level = levels[form["graph_optimization_level"]]
            providers = [each if isinstance(each, str) else (each[0], each[1]) for each in form["providers"]]
            notes = tuple(manifest.document["notes"])
            facts = dict(manifest.document["model"])
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise ModelError(f"{folder}: its manifest is damaged ({error!r}); compile the artifact again") from None
        provider_of(manifest.target, _available())  # raises with what to install
        chosen, device = _providers(manifest.target, providers)
        made = session(manifest.binary, chosen, threads, level)
        _check_providers(made, chosen)
        others = tuple(
            manifest.folder / name for name in manifest.files if name not in (manifest.binary.name, "load.py")
        )
        stored = Stored(manifest.binary, lambda: facts, {**form, "threads": threads}, others, manifest)
        return OrtExecutable(os.fspath(folder), manifest.target, made, stored, threads, device, notes)


def _stored(
    program: Model, name: str, wanted: OrtOptions, level: str, form: Mapping[str, Any]
) -> tuple[Any, tuple[str, ...]]:
    """The binary in a folder of its own, which lives as long as what holds it; and notes."""
    import onnx_ir as ir

    from graphprune.backends.onnxruntime.executable import Stored
    from graphprune.backends.onnxruntime.mobile import CONFIG, to_ort_format
    from graphprune.backends.onnxruntime.precision import convert
    from graphprune.backends.onnxruntime.sessions import PROTOBUF_LIMIT, save_optimized, stored_size
    from graphprune.backends.scratch import Scratch

    original = read_model(program, name)
    facts = facts_of(original, name)
    model: ir.Model = original
    notes: tuple[str, ...] = ()
    if wanted.precision != "fp32":
        try:
            converted = convert(original, wanted.precision, wanted.calibration, seed=wanted.seed, dims=wanted.dims)
        except ModelError as error:
            raise ModelError(f"{name}: {error}") from error
        facts = {**facts, "error": converted.error}
        model, notes = ir.from_proto(converted.model), converted.notes
    holder = Scratch()
    folder = holder.path
    path = folder / "model.onnx"
    if stored_size(model) < PROTOBUF_LIMIT // 2:  # else it stays where it is until it is written
        model = ir.external_data.load_to_model(model)
    if level == "none" or wanted.format == "ort":
        large = stored_size(model) >= PROTOBUF_LIMIT
        ir.save(model, path, external_data="model.data" if large else None)
    else:
        save_optimized(model, path, level)
    if wanted.format == "ort":
        (folder / "ort").mkdir()
        path = to_ort_format(path, folder / "ort")
        return Stored(path, lambda: facts, form, (path.with_name(CONFIG),), holder), notes
    data = folder / "model.data"
    return Stored(path, lambda: facts, form, (data,) if data.exists() else (), holder), notes


def _available() -> list[str]:
    import onnxruntime

    return list(onnxruntime.get_available_providers())


def _providers(target: str, given: Sequence[Provider] | None) -> tuple[list[Provider], str | None]:
    """The execution providers of a target, or those that are given, and the device that timing binds tensors on."""
    if given is None:
        info = provider_of(target, _available())
        chosen: list[Provider] = [info.provider] if info.provider == CPU else [info.provider, CPU]
        return chosen, info.device
    if target not in TARGETS:
        provider_of(target, _available())  # raises with the list of targets
    first = _name_of(given[0]) if given else CPU
    known: ProviderInfo | None = next((info for info in TARGETS.values() if info.provider == first), None)
    return list(given), known.device if known is not None else None


def _check_providers(made: Any, wanted: Sequence[Provider]) -> None:
    """Refuse to run on the CPU in silence what was asked for elsewhere.

    Raises:
        UsageError: the first execution provider did not start.
    """
    first = _name_of(wanted[0]) if wanted else CPU
    if first not in made.get_providers():
        raise UsageError(
            f"{first} is in this ONNX Runtime but did not start; are its device, driver and libraries there?"
        )


def _name_of(provider: Provider) -> str:
    return provider if isinstance(provider, str) else provider[0]


def _name(program: Any) -> str:
    if isinstance(program, str | os.PathLike):
        return os.fspath(program)
    if is_torch(program):
        raise UsageError("onnxruntime compiles ONNX models; export the module first (graphprune.storage.to_onnx)")
    if isinstance(program, bytes):
        return "the model"
    graph = getattr(program, "graph", None)
    if graph is None:
        raise UsageError(f"a {type(program).__name__} is no ONNX model: give a file, a ModelProto or an onnx_ir.Model")
    return graph.name or "the model"


def _facts_of_file(path: str | os.PathLike[str], name: str) -> dict[str, Any]:
    return facts_of(read_model(path, name), name)
