"""``graphprune bench MODEL [OTHER ...]``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphprune.commands.options import Debug, Dims, Json, Quiet, Seed, parse_dims
from graphprune.commands.terminal import Terminal
from graphprune.text import scaled

if TYPE_CHECKING:
    from graphprune.backends.onnxruntime import Latency

__all__ = ["NAME", "command"]

NAME = "bench"


def command(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL", help="ONNX files.", show_default=False)],
    repeats: Annotated[int, typer.Option("--repeats", metavar="N", min=1, help="Measured runs of each model.")] = 30,
    warmup: Annotated[int, typer.Option("--warmup", metavar="N", min=0, help="Runs before measuring.")] = 5,
    threads: Annotated[
        int | None,
        typer.Option("--threads", metavar="N", min=1, help="Threads of ONNX Runtime; one a core by default."),
    ] = None,
    provider: Annotated[
        list[str] | None,
        typer.Option("--provider", metavar="NAME", help="Execution providers of ONNX Runtime; the CPU by default."),
    ] = None,
    seed: Seed = 0,
    dims: Dims = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure how long models take in ONNX Runtime, in turns and on the same inputs."""
    from graphprune.backends.onnxruntime import compare

    terminal = Terminal(json, quiet)
    with terminal.progress() as progress:
        progress("measuring")
        found = compare(
            models,
            warmup=warmup,
            repeats=repeats,
            threads=threads,
            providers=provider or None,
            dims=parse_dims(dims),
            seed=seed,
        )
    first = found[0]
    rows = [
        {
            "model": latency.model,
            "median_ms": latency.median * 1e3,
            "spread_ms": latency.spread * 1e3,
            "minimum_ms": latency.minimum * 1e3,
            "runs": latency.runs,
            "bytes": latency.bytes,
            "speedup": first.median / latency.median if latency.median else None,
        }
        for latency in found
    ]
    terminal.answer({"status": "measured", "models": rows}, lambda: _show(terminal, found))


def _show(terminal: Terminal, found: tuple[Latency, ...]) -> None:
    first = found[0]
    terminal.table(
        ("model", "median ms", "spread ms", "size", "speed-up"),
        [
            (
                latency.model,
                f"{latency.median * 1e3:.3f}",
                f"{latency.spread * 1e3:.3f}",
                scaled(latency.bytes, "B"),
                f"{first.median / latency.median:.2f}x" if latency.median else "",
            )
            for latency in found
        ],
        right=("median ms", "spread ms", "size", "speed-up"),
    )
    terminal.print(f"median of {first.runs} runs each, in turns; spread is the distance between the quartiles")
