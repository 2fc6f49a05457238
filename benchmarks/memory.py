"""How much memory it takes to prune a model larger than its weights should make it.

Writes a decoder with external data, prunes it at ratio 0.5 in a process of its own by the command line, and reports
the process' peak of resident memory. A second process runs the same through the Python API and reports the peak of
each stage (Linux resets the peak on request). Both are run with verification and without.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from machine import header
from rich.console import Console
from rich.table import Table

Row = dict[str, Any]
LIMIT = 1.5e9
"""Bytes that the process may take."""
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=3.0, help="size of the weights, in units of 10^9 bytes")
    parser.add_argument("--folder", type=Path, help="where the models go, left there; by default a temporary folder")
    parser.add_argument("--verify", choices=["on", "off", "both"], default="both")
    parser.add_argument("--results", type=Path, help="write the rows to this file too, as JSON lines")
    parser.add_argument("--stages", nargs=3, metavar=("MODEL", "OUT", "VERIFY"), help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def by_command_line(model: Path, slim: Path, verify: bool) -> Row:
    """Prune by the command line; return its report with ``peak`` (bytes) and ``wall`` (seconds)."""
    command = [sys.executable, "-c", "import sys; from graphprune.cli import main; sys.exit(main())", "prune"]
    command += [str(model), "-o", str(slim), "--ratio", "0.5", "--json", *([] if verify else ["--no-verify"])]
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        row: Row = json.load(output)
    return {**row, "exit": process.returncode, "peak": usage.ru_maxrss * 1024, "wall": time.perf_counter() - start}


def peak() -> int:
    """Return the peak of this process' resident memory in bytes since the last call."""
    lines = STATUS.read_text().splitlines()
    found = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    RESET.write_text("5")
    return found * 1024


def by_stage(model: Path, slim: Path, verify: bool) -> dict[str, int]:
    """Prune in this process; return the peak of each stage in bytes."""
    import graphprune

    peaks: dict[str, int] = {}
    stages = ["import"]

    def note(stage: str) -> None:
        peaks[stages[-1]] = max(peaks.get(stages[-1], 0), peak())
        stages.append(stage)

    graphprune.prune(model, slim, ratio=0.5, verify=verify, progress=note)
    note("")
    return peaks


def measured(model: Path, folder: Path, verify: bool) -> Row:
    """Run both processes."""
    slim = folder / "slim.onnx"
    row = by_command_line(model, slim, verify)
    command = [sys.executable, __file__, "--stages", str(model), str(folder / "again.onnx"), str(int(verify))]
    stages = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return {"verify": verify, "stages": stages, **row}


def table(rows: Sequence[Row]) -> Table:
    """Return peaks in MB and seconds, a line for each stage."""
    view = Table(box=None, pad_edge=False, title="peak of resident memory in MB, and seconds")
    view.add_column("stage")
    for row in rows:
        name = "with verification" if row["verify"] else "without"
        view.add_column(f"{name}: MB", justify="right")
        view.add_column("s", justify="right")
    for stage in dict.fromkeys(stage for row in rows for stage in row["stages"]):
        cells = []
        for row in rows:
            megabytes, seconds = row["stages"].get(stage), row["seconds"].get(stage)
            cells += [f"{megabytes / 1e6:.0f}" if megabytes else "-", f"{seconds:.1f}" if seconds is not None else "-"]
        view.add_row(stage, *cells)
    whole = [cell for row in rows for cell in (f"{row['peak'] / 1e6:.0f}", f"{row['wall']:.1f}")]
    view.add_row("command line, whole", *whole)
    return view


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 1 if the memory limit is exceeded or pruning fails."""
    options = arguments(argv)
    if options.stages:
        model, slim, verify = options.stages
        print(json.dumps(by_stage(Path(model), Path(slim), verify == "1")))
        return 0
    from graphprune.models.reference import write_big_llama

    about = header(["onnx", "onnx-ir", "onnxruntime", "numpy"])
    for key, text in about.items():
        print(f"{key}: {text}", flush=True)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        model = folder / "model" / "big.onnx"
        if not model.exists():
            write_big_llama(model, options.gigabytes)
        size = sum(path.stat().st_size for path in model.parent.iterdir())
        print(f"model: {size / 1e9:.2f} GB in {sum(1 for _ in model.parent.iterdir())} files", flush=True)
        for verify in {"on": [True], "off": [False], "both": [False, True]}[options.verify]:
            rows.append(measured(model, folder, verify))
    Console(width=140 if not sys.stdout.isatty() else None).print(table(rows))
    for row in rows:
        before, after = (row["bytes"][key] / 1e9 for key in ("before", "after"))
        fits = "under" if row["peak"] < LIMIT else "OVER"
        print(
            f"{row['status']}, verified: {row['verified']}, {before:.2f} GB to {after:.2f} GB, "
            f"peak {row['peak'] / 1e9:.2f} GB: {fits} {LIMIT / 1e9} GB"
        )
    if options.results:
        options.results.parent.mkdir(parents=True, exist_ok=True)
        options.results.write_text("".join(json.dumps(record) + "\n" for record in [{"header": about}, *rows]))
    return int(any(row["exit"] or row["peak"] >= LIMIT for row in rows))


if __name__ == "__main__":
    sys.exit(main())
