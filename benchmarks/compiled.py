"""What TVM makes of networks on this CPU: whether it computes what ONNX Runtime does, and how fast tuning makes it.

``--part corpus`` compiles each network (those of ``GRAPHPRUNE_CORPUS``, or the ONNX files that are named), and compares
its outputs with those of ONNX Runtime; what TVM cannot read is listed with its operator. ``--part tuned`` compiles a
network as it is and pruned, untuned and tuned with one database, and lets all of them run in turns with ONNX Runtime.
The exit status is 1 if any output differs by more than another order of sums explains.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latency_networks import NETWORKS, dense
from machine import header
from reference import reference

import graphprune
from graphprune.backends.race import race
from graphprune.backends.registry import usable
from graphprune.errors import GraphpruneError
from graphprune.text import scaled

Row = dict[str, Any]
PARTS = ("corpus", "tuned")
TOLERANCE = 1e-3
"""Of the largest number of an output: sums in another order, over some tens of layers."""
TIMES = 4
"""Where an output's numbers are all small differences of large ones: as many times what ONNX Runtime, with and without
optimisation, differs from itself."""


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, help="ONNX files instead of the corpus")
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--network", choices=list(NETWORKS), default="ResNet-18", help="what is tuned")
    parser.add_argument("--trials", type=int, default=640, help="schedules measured for the network as it is")
    parser.add_argument("--again", type=int, default=320, help="schedules measured after pruning")
    parser.add_argument("--keep", default="50%", help="multiply-accumulates that pruning leaves")
    parser.add_argument("--database", type=Path, help="where what was measured is kept; an empty folder by default")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=60, help="turns of the race")
    parser.add_argument("--results", type=Path, help="write the rows to this file too, as JSON lines")
    return parser.parse_args(argv)


def compared(path: Path) -> Row:
    """How far the outputs of one network are from ONNX Runtime's, or why there are none."""
    told = reference(path)
    row: Row = {"network": path.stem, "own": told.own}
    start = time.perf_counter()
    try:
        made = usable("tvm").compile(path, "cpu", threads=1, verify=False, dims=told.dims)
        row["error"] = told.error(made(told.feed))
    except GraphpruneError as error:
        row["refused"] = str(error)
    else:
        row["bytes"] = made.stored_bytes()
    row["seconds"] = time.perf_counter() - start
    row["good"] = row.get("error", 0.0) <= max(TOLERANCE, TIMES * told.own)
    return row


def tuned(options: argparse.Namespace, folder: Path) -> list[Row]:
    """One row a program, of the network as it is and pruned; the ratio is that of the times of a race among all."""
    before = dense(options.network)
    slim = folder / "slim.onnx"
    kept = graphprune.prune(before, slim, macs=options.keep, round_to=16, verify=False).macs
    database = options.database or folder / "database"
    tvm = usable("tvm")
    dims = reference(before).dims
    programs: list[tuple[Row, Any]] = []
    for form, path, trials in (("dense", before, options.trials), ("slim", slim, options.again)):
        programs.append(({"model": form, "runtime": "ONNX Runtime"}, path))
        for tune in (0, trials):
            start = time.perf_counter()
            made = tvm.compile(
                path,
                "cpu",
                threads=options.threads,
                dims=dims,
                progress=lambda text: print(f"  {text}", file=sys.stderr, flush=True),
                **({"tune": tune, "database": database} if tune else {}),
            )
            row: Row = {"model": form, "runtime": f"TVM, {'tuned' if tune else 'not tuned'}", "note": made.notes[0]}
            row["seconds"] = time.perf_counter() - start
            print(f"{form}, {row['runtime']}: {row['seconds']:.0f} s; {'; '.join(made.notes)}", flush=True)
            programs.append((row, made.save(folder / f"{form}-{tune}")))
    found = race([each for _, each in programs], dims=dims, threads=options.threads, pin=True, repeats=options.repeats)
    for place, (row, _) in enumerate(programs):
        row["ms"] = found.measurement.timings[place].median * 1e3
        row["comparison"] = found.measurement.comparison(place).to_dict()
        row["macs"] = kept.before if row["model"] == "dense" else kept.after
    return [row for row, _ in programs]


def corpus_table(rows: Sequence[Row]) -> list[str]:
    """The rows as a table of Markdown, and what was refused after it."""
    lines = ["| network | largest error | ONNX Runtime's own | library | compiled in |", "|---|--:|--:|--:|--:|"]
    done = [row for row in rows if "error" in row]
    for row in done:
        size = scaled(row["bytes"], "B")
        errors = f"{row['error']:.1e} | {row['own']:.1e}"
        lines.append(f"| {row['network']} | {errors} | {size} | {row['seconds']:.0f} s |")
    refused = [f"- {row['network']}: {row['refused'].rpartition('.onnx: ')[2]}" for row in rows if "refused" in row]
    return [*lines, "", f"{len(done)} of {len(rows)} are compiled. Refused:", "", *(refused or ["- none"])]


def tuned_table(rows: Sequence[Row]) -> list[str]:
    """The rows as a table of Markdown."""
    lines = ["| model | MACs | runtime | ms | against the first row | 95 % interval |", "|---|--:|---|--:|--:|--:|"]
    for row in rows:
        found = row["comparison"]
        interval = f"{found['low']:.2f}-{found['high']:.2f}"
        macs = scaled(row["macs"])
        lines.append(
            f"| {row['model']} | {macs} | {row['runtime']} | {row['ms']:.2f} | {found['ratio']:.2f}x | {interval} |"
        )
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    options = arguments(argv)
    for name, text in header(["apache-tvm", "onnxruntime", "numpy"]).items():
        print(f"{name}: {text}", flush=True)
    if options.part == "corpus":
        files = options.files or sorted(Path(os.environ["GRAPHPRUNE_CORPUS"], "onnx").glob("*.onnx"))
        rows = []
        for path in files:
            rows.append(compared(path))
            row = rows[-1]
            said = row.get("refused") or f"{row['error']:.1e}"
            print(f"{row['network']}: {said} ({row['seconds']:.0f} s)", flush=True)
        lines = corpus_table(rows)
    else:
        with tempfile.TemporaryDirectory() as folder:
            rows = tuned(options, Path(folder))
        lines = tuned_table(rows)
    if options.results is not None:
        options.results.parent.mkdir(parents=True, exist_ok=True)
        with options.results.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    print("\n".join(lines))
    return 0 if all(row.get("good", True) for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
