"""``graphprune bench MODEL [OTHER ...]``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphprune.commands.options import Debug, Dims, Json, Quiet, Rpc, Seed, Threads, parse_dims
from graphprune.commands.terminal import Terminal
from graphprune.errors import SlowerError, UsageError
from graphprune.text import scaled

if TYPE_CHECKING:
    from graphprune.backends.measure import Comparison
    from graphprune.backends.race import Race

__all__ = ["NAME", "command"]

NAME = "bench"


def command(
    models: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL", help="ONNX files, and folders of `graphprune compile`.", show_default=False),
    ],
    repeats: Annotated[int, typer.Option("--repeats", metavar="N", min=1, help="Measured runs of each model.")] = 30,
    warmup: Annotated[int, typer.Option("--warmup", metavar="N", min=0, help="Runs before measuring.")] = 5,
    loads: Annotated[
        int,
        typer.Option(
            "--loads",
            metavar="N",
            min=1,
            help="How often models are loaded anew, which places their memory elsewhere; they share the runs.",
        ),
    ] = 6,
    threads: Threads = None,
    pin: Annotated[
        bool,
        typer.Option("--pin/--no-pin", help="With --threads, keep the work on as many processors as it has threads."),
    ] = True,
    backend: Annotated[
        str, typer.Option("--backend", metavar="NAME", help="The runtime of ONNX files; see `graphprune backends`.")
    ] = "ort",
    target: Annotated[str, typer.Option("--target", metavar="NAME", help="Where ONNX files run.")] = "cpu",
    provider: Annotated[
        list[str] | None,
        typer.Option("--provider", metavar="NAME", help="Execution providers of ONNX Runtime; the CPU by default."),
    ] = None,
    rpc: Rpc = None,
    gate: Annotated[
        bool, typer.Option("--gate", help="Exit with 6 unless every other model is shown to be faster than the first.")
    ] = False,
    seed: Seed = 0,
    dims: Dims = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure how long models take, in turns and on the same inputs."""
    if gate and len(models) < 2:
        raise UsageError("--gate compares others with the first model: give at least two")
    from graphprune.backends.race import race

    terminal = Terminal(json, quiet)
    options: dict[str, Any] = {"providers": provider or None, "rpc": rpc}
    with terminal.progress() as progress:
        progress("measuring")
        found = race(
            models,
            backend=backend,
            target=target,
            warmup=warmup,
            repeats=repeats,
            loads=loads,
            threads=threads,
            pin=pin,
            dims=parse_dims(dims),
            seed=seed,
            **options,
        )
    comparisons = [
        found.measurement.comparison(index) if found.measurement.comparable(index) else None
        for index in range(len(models))
    ]
    document = {"status": "measured", "models": _rows(found, comparisons), **found.measurement.to_dict()}
    document["notes"] = list(found.notes)
    if gate and not found.measurement.alike:
        raise UsageError(f"--gate: {found.notes[0]}; give --dims, or compare what has the same inputs")
    if gate:
        from graphprune.backends.gate import require_faster

        for path, comparison in zip(models[1:], comparisons[1:], strict=True):
            assert comparison is not None
            try:
                require_faster(comparison, str(path), str(models[0]))
            except SlowerError as error:
                raise SlowerError(str(error), {**document, **error.details, "status": "refused"}) from None
    terminal.answer(document, lambda: _show(terminal, found, comparisons))


def _rows(found: Race, comparisons: list[Comparison | None]) -> list[dict[str, Any]]:
    """One entry a model; the first is what the others are compared with."""
    return [
        {
            "model": executable.name,
            **timing.to_dict(),
            "bytes": executable.stored_bytes(),
            "speedup": None if comparison is None else comparison.ratio,
            "comparison": comparison.to_dict() if index and comparison is not None else None,
            "inputs": {name: list(shape) for name, shape in found.measurement.inputs[index].items()},
        }
        for index, (executable, timing, comparison) in enumerate(
            zip(found.executables, found.measurement.timings, comparisons, strict=True)
        )
    ]


def _show(terminal: Terminal, found: Race, comparisons: list[Comparison | None]) -> None:
    rows = _rows(found, comparisons)
    terminal.table(
        ("model", "median ms", "spread ms", "size", "speed-up"),
        [
            (
                row["model"],
                f"{row['median_ms']:.3f}",
                f"{row['spread_ms']:.3f}",
                scaled(row["bytes"], "B"),
                "" if row["speedup"] is None else f"{row['speedup']:.2f}x",
            )
            for row in rows
        ],
        right=("median ms", "spread ms", "size", "speed-up"),
    )
    for row, comparison in zip(rows[1:], comparisons[1:], strict=True):
        if comparison is not None:
            terminal.print(f"{row['model']}: {comparison.text}")
    for note in found.notes:
        terminal.print(f"note: {note}")
    runs = rows[0]["runs"]
    terminal.print(f"median of {runs} runs each, in turns; spread is the distance between the quartiles")
    terminal.print(found.measurement.circumstances)
