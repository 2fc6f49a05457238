"""``graphprune compile MODEL -o DIR``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphprune.commands.calibration_options import Calib, CalibBatch, CalibLimit, Preprocess, calibration_of
from graphprune.commands.options import Debug, Dims, Json, Quiet, Rpc, Seed, Threads, parse_dims
from graphprune.commands.sources import AnyModel, Input, given
from graphprune.commands.terminal import Terminal
from graphprune.errors import UsageError
from graphprune.text import scaled

if TYPE_CHECKING:
    from graphprune.backends.base import Executable
    from graphprune.backends.measure import Measurement

__all__ = ["NAME", "command"]

NAME = "compile"

FLAGS = {
    "onnxruntime": {
        "precision": "--precision",
        "format": "--format",
        "optimize": "--optimize",
        "level": "--level",
        "calibration": "--calib",
    },
    "tvm": {"tune": "--tune", "database": "--database", "processor": "--processor", "rpc": "--rpc"},
}
"""What only one of graphprune's own backends has."""


def command(
    model: AnyModel,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="The folder to write; an artifact that is there is replaced.",
            show_default=False,
        ),
    ] = None,
    backend: Annotated[
        str, typer.Option("--backend", metavar="NAME", help="The runtime; see `graphprune backends`.")
    ] = "ort",
    target: Annotated[str, typer.Option("--target", metavar="NAME", help="Where it will run.")] = "cpu",
    precision: Annotated[
        str, typer.Option("--precision", metavar="NAME", help="fp32, fp16, int8-dynamic or int8-static.")
    ] = "fp32",
    form: Annotated[
        str, typer.Option("--format", metavar="NAME", help="onnx, or ort for mobile and reduced builds.")
    ] = "onnx",
    optimize: Annotated[
        str | None,
        typer.Option(
            "--optimize",
            metavar="LEVEL",
            help="How far the stored graph is rewritten: none, basic or extended; the target decides by default.",
            show_default=False,
        ),
    ] = None,
    level: Annotated[
        str,
        typer.Option("--level", metavar="LEVEL", help="How far it is rewritten on loading: none to all."),
    ] = "all",
    threads: Threads = None,
    tune: Annotated[
        int | None,
        typer.Option(
            "--tune",
            metavar="TRIALS",
            min=1,
            help="With TVM: find schedules by measuring so many of them.",
            show_default=False,
        ),
    ] = None,
    database: Annotated[
        Path | None,
        typer.Option(
            "--database",
            metavar="DIR",
            help="Where --tune keeps what it measured, to use it again; in the user's cache by default.",
            show_default=False,
        ),
    ] = None,
    processor: Annotated[
        str | None,
        typer.Option(
            "--processor",
            metavar="NAME",
            help="With TVM: what to make code for, as LLVM names it (cortex-a72), or sm_80.",
            show_default=False,
        ),
    ] = None,
    rpc: Rpc = None,
    inputs: Input = None,
    calib: Calib = None,
    calib_limit: CalibLimit = None,
    calib_batch: CalibBatch = 16,
    preprocess: Preprocess = None,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Measure the latency and write it to the manifest.")
    ] = True,
    seed: Seed = 0,
    dims: Dims = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Compile a model for where it will run, into a folder that runs without graphprune."""
    if output is None:
        raise UsageError("where to? Give --output DIR")
    from graphprune.backends.artifact import check_folder, read_manifest
    from graphprune.backends.race import measure_alone
    from graphprune.backends.registry import usable

    check_folder(output)
    terminal = Terminal(json, quiet)
    sizes = parse_dims(dims)
    found = usable(backend)
    stated: dict[str, Any] = {
        "threads": threads,
        "precision": precision if precision != "fp32" else None,
        "format": form if form != "onnx" else None,
        "optimize": optimize,
        "level": level if level != "all" else None,
        "calibration": calibration_of(calib, calib_limit, calib_batch, preprocess),
        "tune": tune,
        "database": database,
        "processor": processor,
        "rpc": rpc,
        "dims": sizes,
    }
    options = {name: value for name, value in stated.items() if value is not None}
    for own, flags in FLAGS.items():
        if own != found.name and found.name in FLAGS and (others := flags.keys() & options.keys()):
            raise UsageError(f"{flags[min(others)]} is for --backend {own}, and {found.name} has no such option")
    source = given(model, inputs, seed)
    program: Any = source.model
    if source.torch:
        from graphprune.frontends.torch_program import capture

        program = capture(source.model, source.args, source.kwargs)
    with terminal.progress() as progress:
        progress("compiling")
        if found.name == "tvm":
            options["progress"] = progress
        executable = found.compile(program, target, seed=seed, **options)
        measurement = None
        if measure and not executable.obstacle:
            progress("measuring")
            measurement = measure_alone(executable, dims=sizes, seed=seed)
        progress("writing")
        executable.save(output, measurement)
        code = read_manifest(output).document.get("code_bytes")
    document = {
        "status": "compiled",
        "output": str(output),
        "backend": executable.backend,
        "target": executable.target,
        "precision": precision,
        "bytes": executable.stored_bytes(),
        "code_bytes": code,
        "inputs": [spec.to_dict() for spec in executable.inputs],
        "outputs": [spec.to_dict() for spec in executable.outputs],
        "latency": None if measurement is None else {**measurement.timings[0].to_dict(), **measurement.to_dict()},
        "notes": list(executable.notes),
        "obstacle": executable.obstacle or None,
    }
    terminal.answer(document, lambda: _show(terminal, executable, measurement, code, output))


def _show(
    terminal: Terminal, executable: Executable, measurement: Measurement | None, code: int | None, output: Path
) -> None:
    size = scaled(executable.stored_bytes(), "B") + (f", {scaled(code, 'B')} of it machine code" if code else "")
    terminal.print(f"compiled for {executable.backend} on {executable.target}: {size}")
    if measurement is not None:
        (timing,) = measurement.timings
        low, high = timing.interval
        terminal.print(f"{timing.median * 1e3:.3f} ms, 95 % interval {low * 1e3:.3f}-{high * 1e3:.3f}")
        terminal.print(measurement.circumstances)
    if executable.obstacle:
        terminal.print(f"not measured: {executable.obstacle}")
    for note in executable.notes:
        terminal.print(f"note: {note}")
    terminal.print(f"{executable.name} -> {output}")
