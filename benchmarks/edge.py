"""Artifacts for aarch64 that were made here, executed on aarch64 and compared with ONNX Runtime here.

``python benchmarks/edge.py --fetch`` puts a Linux for aarch64 (Debian's Python, the wheels of TVM and ONNX Runtime)
into a folder, and says what it fetches; without that nothing is fetched. Then ``python benchmarks/edge.py`` compiles
networks of the corpus (``GRAPHPRUNE_CORPUS``), runs each artifact's own ``load.py`` there, in qemu's user mode
(``apt install qemu-user gcc-aarch64-linux-gnu``) unless this machine is one, and reports the largest difference, sizes
and the peak of memory. The exit status is 1 if any output differs by more than another order of sums explains.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from edge_sysroot import fetch, ready, run
from machine import header
from reference import path_of, reference
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from graphprune.backends.registry import usable
from graphprune.text import scaled

Row = dict[str, Any]
FOLDER = Path(__file__).parent.parent / "build" / "edge"
NETWORKS = ("mnist_cntk_8", "cifar10_resnet20_fp32", "ultraface_slim_320", "imagenet_mobilenetv1_x0.25_fp32")
WIDE = 160
TOLERANCE = 1e-4
"""Of the largest output: sums in another order, over some tens of layers."""

TARGETS = (("tvm", "aarch64"), ("onnxruntime", "cpu"))
"""TVM's library is for aarch64; what ONNX Runtime stores is for every machine."""

LOAD = """
import runpy, sys
sys.argv[:1] = []
runpy.run_path(sys.argv[0], run_name="__main__")
"""
IMPORTS = {"tvm": "import numpy, tvm.runtime.vm", "onnxruntime": "import numpy, onnxruntime"}


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("networks", nargs="*", default=NETWORKS, help="names in the corpus, or ONNX files")
    parser.add_argument("--fetch", action="store_true", help="fetch the system for aarch64 first, about 150 MB")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where that system is")
    parser.add_argument("--results", type=Path, help="write the rows to this file too, as JSON lines")
    return parser.parse_args(argv)


def measured(network: str, folder: Path, idle: dict[str, int]) -> list[Row]:
    """One row a runtime: what the artifact gives on aarch64 against what ONNX Runtime gives here."""
    told = reference(path_of(network))
    rows = []
    for backend, target in TARGETS:
        row: Row = {"network": network, "runtime": backend}
        with tempfile.TemporaryDirectory() as name:
            made = Path(name) / "artifact"
            options: Row = {"dims": told.dims} if backend == "tvm" else {}
            usable(backend).compile(path_of(network), target, threads=1, **options).save(made)
            manifest = json.loads((made / "manifest.json").read_text())
            np.savez(Path(name) / "in.npz", **told.feed)  # type: ignore[arg-type]
            place = [str(made / "load.py"), f"{name}/in.npz", f"{name}/out.npz"]
            status, written, peak = run(folder, LOAD, place)
            row.update(bytes=(made / manifest["binary"]).stat().st_size, code_bytes=manifest.get("code_bytes"))
            row.update(status=status, peak_bytes=peak, idle_bytes=idle[backend])
            if status == 0:
                row["error"] = told.error(np.load(f"{name}/out.npz"))
            else:
                row["said"] = written.strip().splitlines()[-1:] or [""]
        row["good"] = row.get("error", np.inf) <= TOLERANCE
        rows.append(row)
    return rows


def show(rows: Sequence[Row]) -> None:
    """Print the table."""
    columns = ("network", "runtime", "largest error", "code", "file", "peak memory", "of it the network")
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="left" if column in columns[:2] else "right")
    for row in rows:
        table.add_row(
            row["network"],
            row["runtime"],
            f"{row['error']:.1e}" if "error" in row else f"failed: {row['said'][0]}",
            scaled(row["code_bytes"], "B") if row["code_bytes"] is not None else "",
            scaled(row["bytes"], "B"),
            scaled(row["peak_bytes"], "B"),
            scaled(max(0, row["peak_bytes"] - row["idle_bytes"]), "B"),
        )
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    options = arguments(argv)
    if options.fetch:
        fetch(options.folder)
    if not ready(options.folder):
        raise SystemExit(f"{options.folder} holds no system for aarch64: run it with --fetch, which gets 150 MB")
    for name, text in header(["apache-tvm", "onnxruntime", "numpy"]).items():
        print(f"{name}: {text}")
    idle = {backend: run(options.folder, IMPORTS[backend])[2] for backend, _ in TARGETS}
    rows: list[Row] = []
    for network in options.networks:
        for row in measured(network, options.folder, idle):
            rows.append(row)
            if options.results is not None:
                options.results.parent.mkdir(parents=True, exist_ok=True)
                with options.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
    show(rows)
    return 0 if all(row["good"] for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
