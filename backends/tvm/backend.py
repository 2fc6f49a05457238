"""The backend: compiles ONNX models and exported PyTorch programs with TVM."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphprune.backends.artifact import Manifest, read_manifest, specs
from graphprune.backends.base import Availability, Target
from graphprune.backends.tvm.options import TvmOptions
from graphprune.backends.tvm.package import REMEDY, installed, library, versions
from graphprune.backends.tvm.targets import (
    TARGETS,
    TargetInfo,
    compute_capability,
    description,
    features,
    info_of,
    lacking,
    targets_of,
)
from graphprune.errors import ModelError, UsageError
from graphprune.frontends.program import is_torch

if TYPE_CHECKING:
    from graphprune.backends.tvm.executable import Library, TvmExecutable
    from graphprune.backends.tvm.importing import Imported
    from graphprune.backends.tvm.running import Runner

__all__ = ["Tvm"]


class Tvm:
    """See :class:`graphprune.backends.base.Backend`.

    Programs are ONNX models (files, messages or of ``onnx_ir``) and exported PyTorch programs.
    """

    name = "tvm"

    def available(self) -> Availability:
        """See the protocol; TVM is not imported, which takes seconds."""
        if not installed():
            return Availability(False, reason="tvm is not installed", remedy=REMEDY)
        return Availability(True, version=versions().get("apache-tvm"))

    def targets(self) -> tuple[Target, ...]:
        """See the protocol."""
        found = targets_of()
        return found if installed() else tuple(replace(target, available=False, remedy=REMEDY) for target in found)

    def compile(self, program: Any, target: str = "cpu", **options: Any) -> TvmExecutable:
        """See the protocol; ``options`` are those of :class:`TvmOptions`."""
        from graphprune.backends.tvm.checking import checked
        from graphprune.backends.tvm.executable import TvmExecutable

        wanted = TvmOptions.of(options)
        info = info_of(target)
        described = description(library(), info, wanted.processor, wanted.threads)
        name = _name(program)
        wanted.say("reading")
        imported = _imported(program, name, wanted)
        stored, notes = _compiled(imported, name, info, described, wanted)
        runner, obstacle = _runner(stored.path, info, wanted.threads, wanted.rpc)
        made = TvmExecutable(
            name,
            target,
            stored,
            imported.inputs,
            imported.outputs,
            runner,
            obstacle,
            wanted.threads,
            dict(wanted.dims or {}),
            notes,
        )
        if not wanted.verify or runner is None:
            return made
        wanted.say("comparing with the original")
        return replace(made, notes=(*notes, checked(made, imported, wanted.seed)))

    def load(self, folder: str | os.PathLike[str], **options: Any) -> TvmExecutable:
        """See the protocol.

        ``threads`` other than None take the place of those that it was compiled for; ``rpc`` names the device.
        """
        from graphprune.backends.tvm.executable import Library, TvmExecutable

        manifest = read_manifest(folder)
        manifest.check_files()
        info = info_of(manifest.target)
        form = manifest.options
        try:
            threads = options.get("threads") or form["threads"]
            fixed = dict(form["dims"])
            inputs, outputs = specs(manifest.document["inputs"]), specs(manifest.document["outputs"])
            notes, facts = tuple(manifest.document["notes"]), dict(manifest.document["model"])
            library()
            _check_machine(manifest, options.get("rpc"))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ModelError(f"{folder}: its manifest is damaged ({error!r}); compile the artifact again") from None
        runner, why = _runner(manifest.binary, info, threads, options.get("rpc"))
        stored = Library(manifest.binary, facts, {**form, "threads": threads}, manifest)
        return TvmExecutable(
            os.fspath(folder), manifest.target, stored, inputs, outputs, runner, why, threads, fixed, notes
        )


def _compiled(
    imported: Imported, name: str, info: TargetInfo, target: Any, wanted: TvmOptions
) -> tuple[Library, tuple[str, ...]]:
    """The linked file, in a folder that lives as long as what holds it; and notes."""
    from graphprune.backends.scratch import Scratch
    from graphprune.backends.tvm.building import built, fused, linked, scheduled
    from graphprune.backends.tvm.executable import Library
    from graphprune.backends.tvm.importing import ELSEWHERE, required_dims
    from graphprune.backends.tvm.tuning import tuned
    from graphprune.text import first_line

    open_dims = required_dims(imported.inputs)
    if wanted.tune and open_dims:
        raise UsageError(f"{name}: tuning needs sizes of all dimensions, give --dims {open_dims[0]}=1")
    try:
        wanted.say("fusing operators")
        module = fused(imported.module, target)
        database, tuning = tuned(module, target, info, wanted) if wanted.tune else (None, None)
        wanted.say("generating code")
        executable = built(scheduled(module, target, database), target)
    except (UsageError, ModelError):
        raise
    except ImportError as error:
        raise UsageError(f"TVM needs a package that does not import ({first_line(error)}): {REMEDY}") from error
    except Exception as error:  # TVM's errors share no base class
        sizes = f"give its dimensions sizes (--dims {open_dims[0]}=1), or " if open_dims else ""
        raise ModelError(f"{name}: TVM does not compile it ({first_line(error)}); {sizes}{ELSEWHERE}") from error
    holder = Scratch()
    path, note = linked(executable, info, holder.path)
    form = {
        "device": info.device,
        "threads": wanted.threads,
        "dims": dict(wanted.dims or {}),
        "tvm_target": str(target),
        "features": features(library(), target) if info == TARGETS["cpu"] else [],
        "tuning": tuning.to_dict() if tuning is not None else None,
    }
    notes = (*([tuning.text] if tuning is not None else []), *([note] if note else []))
    if info.kind == "cuda" and wanted.processor is None and compute_capability(library()) is None:
        notes = (*notes, f"made for {info.processor}, since there is no GPU here to ask: name yours with --processor")
    if open_dims:
        notes = (
            *notes,
            f"dimension '{open_dims[0]}' is open, which makes code many times slower: give --dims {open_dims[0]}=1",
        )
    return Library(path, imported.facts, form, holder), notes


def _imported(program: Any, name: str, wanted: TvmOptions) -> Imported:
    if is_torch(program):
        from graphprune.backends.tvm.importing_torch import from_torch

        if wanted.dims:
            raise UsageError(f"{name}: its sizes are those of its export; export it with others instead of --dims")
        return from_torch(program, name)
    from graphprune.backends.tvm.importing import from_onnx

    return from_onnx(program, name, wanted.dims)


def _runner(path: Path, info: TargetInfo, threads: int | None, rpc: str | None) -> tuple[Runner | None, str]:
    """What runs a library, or the reason why nothing here does."""
    from graphprune.backends.tvm.running import Here, Remote, obstacle

    if rpc is not None:
        return Remote(path, info, rpc, threads), ""
    why = obstacle(info, path)
    return (None, why) if why else (Here(path, info, threads), "")


def _check_machine(manifest: Manifest, rpc: str | None) -> None:
    """Refuse code for a processor that this one is not: it would end the process.

    Raises:
        UsageError: it is.
    """
    made: Mapping[str, Any] = manifest.document["compiled_on"]
    if manifest.target != "cpu" or rpc is not None:
        return
    if made["architecture"] != platform.machine():
        raise UsageError(
            f"{manifest.folder}: was compiled for {made['architecture']}; compile it again on this machine"
        )
    if missing := lacking(manifest.options["features"]):
        raise UsageError(
            f"{manifest.folder}: was compiled for a processor with {missing[0]}, which this one lacks; compile it again"
        )


def _name(program: Any) -> str:
    if isinstance(program, str | os.PathLike):
        return os.fspath(program)
    if is_torch(program):
        return type(program).__name__ if not hasattr(program, "source") else type(program.source).__name__
    if isinstance(program, bytes):
        return "the model"
    graph = getattr(program, "graph", None)
    if graph is None:
        raise UsageError(
            f"a {type(program).__name__} is neither an ONNX model (a file, a ModelProto, an onnx_ir.Model) "
            "nor an exported program of PyTorch"
        )
    return graph.name or "the model"
