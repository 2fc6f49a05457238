"""``graphprune run ARTIFACT --input x.npz -o y.npz``."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphprune.commands.options import Debug, Dims, Json, Quiet, Rpc, Seed, check_output, parse_dims
from graphprune.commands.terminal import Terminal
from graphprune.errors import ModelError, UsageError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["NAME", "command"]

NAME = "run"


def command(
    artifact: Annotated[
        Path, typer.Argument(metavar="ARTIFACT", help="What `graphprune compile` wrote.", show_default=False)
    ],
    source: Annotated[
        Path | None,
        typer.Option(
            "--input",
            "-i",
            metavar="NPZ",
            help="Arrays by input name, or an .npy for a single input; random ones without.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="NPZ", help="Where the outputs go, by their names.", show_default=False),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option("--threads", metavar="N", min=1, help="Threads; by default those that it was compiled for."),
    ] = None,
    rpc: Rpc = None,
    seed: Seed = 0,
    dims: Dims = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Run an artifact once."""
    if output is not None:
        if output.suffix != ".npz":
            raise UsageError(f"{output}: outputs are written as an .npz; name one")
        check_output(output, *(() if source is None else (source,)))
    from graphprune.backends.base import input_specs_of
    from graphprune.backends.race import require_here
    from graphprune.backends.registry import load
    from graphprune.sample_inputs import inputs_that_run

    terminal = Terminal(json, quiet)
    executable = load(artifact, threads=threads, rpc=rpc)
    require_here(executable)
    if source is None:
        inputs = inputs_that_run(lambda feed: executable(feed), input_specs_of(executable), seed, parse_dims(dims))
    else:
        if dims:
            raise UsageError("--dims is for inputs that are made up, and there are some: leave --dims or --input out")
        inputs = _read(source, [spec.name for spec in executable.inputs])
    outputs = executable(inputs)
    if output is not None:
        _write(output, outputs)
    described = [_described(name, value) for name, value in outputs.items()]
    document = {
        "status": "ran",
        "artifact": str(artifact),
        "inputs": "random" if source is None else str(source),
        "output": None if output is None else str(output),
        "outputs": described,
    }

    def show() -> None:
        rows = [
            (entry["name"], str(entry["dtype"]), str(entry["shape"]), *_range(outputs[entry["name"]]))
            for entry in described
        ]
        terminal.table(("output", "type", "shape", "least", "largest"), rows, right=("least", "largest"))
        if source is None:
            terminal.print("the inputs were random; give your own with --input")
        if output is not None:
            terminal.print(f"{artifact} -> {output}")

    terminal.answer(document, show)


def _read(path: Path, names: list[str]) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays in a file; pickled ones are not loaded."""
    import numpy as np

    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            if len(names) != 1:
                raise UsageError(f"{path}: a single array, and the model has inputs {', '.join(names)}; give an .npz")
            return {names[0]: found}
        with found:
            return {name: found[name] for name in found.files}
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile):
        raise ModelError(f"{path}: not an .npz or .npy of plain arrays, as numpy.savez and numpy.save write") from None


def _write(path: Path, outputs: dict[str, Any]) -> None:
    """Write arrays by name, whole or not at all; ``np.savez`` cannot write one that is called ``file``."""
    import numpy as np

    from graphprune.frontends.atomic import AtomicFiles

    for name, value in outputs.items():
        if not isinstance(value, np.ndarray) or value.dtype.hasobject:
            raise UsageError(f"output '{name}' is {type(value).__name__}, no array of numbers; leave --output out")
    try:
        with AtomicFiles(path.parent) as files:
            with zipfile.ZipFile(files.open(path.name), "w", zipfile.ZIP_STORED) as archive:
                for name, value in outputs.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, value, allow_pickle=False)
            files.commit()
    except OSError as error:
        raise ModelError(f"{path}: cannot be written ({error.strerror or error})") from error


def _described(name: str, value: Any) -> dict[str, Any]:
    if not hasattr(value, "dtype"):
        return {"name": name, "dtype": type(value).__name__, "shape": None}
    return {"name": name, "dtype": value.dtype.name, "shape": list(value.shape)}


def _range(value: Any) -> tuple[str, str]:
    if not hasattr(value, "dtype") or not value.size or value.dtype.kind not in "iufb":
        return "", ""
    return f"{value.min():.6g}", f"{value.max():.6g}"
