"""How long the analysis takes: beside Torch-Pruning on the same networks, and against the size of growing graphs.

Needs ``pip install torch-pruning==1.6.1`` and torchvision beside torch. Each network is built in PyTorch and exported
to ONNX, so both tools see the same one. *Analysis* reads the structure and finds all groups; *slicing* rewrites the
graph and evaluates every sliced weight, at ratio 0.5. Torch-Pruning only builds its groups, in a process that is killed
at the limit. The repetitions of both tools alternate. Growing graphs are timed in processor seconds, which other work
on the machine does not disturb; the exponent is the slope of a line through the logarithms.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from machine import header
from rich.console import Console
from rich.table import Table

import graphprune
from graphprune.budget import Budget
from graphprune.choose import choose
from graphprune.frontends.onnx_file import load
from graphprune.frontends.onnx_reader import read
from graphprune.frontends.onnx_slice import slice_model
from graphprune.frontends.onnx_weights import weights_of
from graphprune.models.reference import chain, dense_concat
from graphprune.passes import canonicalize
from graphprune.score import Evidence, criterion

Row = dict[str, Any]
Clock = Callable[[], float]
HERE = Path(__file__).parent
RIVAL = HERE / "torch_networks.py"
NAMES = ("DenseNet-121", "DenseNet-201", "Swin-T", "ShuffleNetV2 x1.0", "Llama-like, 32 layers")
STAGES = ("canonicalize", "analysis", "decide", "slicing")
MODULE_STAGES = ("export", "analysis", "slicing")
GROWING: Mapping[str, tuple[Callable[[int], onnx.ModelProto], tuple[int, ...]]] = {
    "chain": (chain, (100, 200, 400, 800, 1600, 3200)),
    "dense concat": (dense_concat, (50, 100, 200, 400, 800)),
}
QUICK = 10.0
"""Seconds below which Torch-Pruning is run as often as graphprune."""


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--part", choices=["networks", "growth", "all"], default="all")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="networks or growing graphs, a shell pattern")
    parser.add_argument("--limit", type=float, default=180.0, help="seconds that Torch-Pruning gets for one network")
    parser.add_argument("--repeat", type=int, default=5, help="repetitions, of which the median counts")
    parser.add_argument("--results", type=Path, help="write the rows to this file too, as JSON lines")
    return parser.parse_args(argv)


def stages(model: ir.Model, clock: Clock) -> Row:
    """Return the seconds of each stage on a loaded model, and the processor seconds of analysis and slicing."""
    seconds: Row = {"processor": 0.0}

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        start, worked = clock(), time.process_time()
        result = work()
        seconds[stage] = clock() - start
        if stage in ("analysis", "slicing"):
            seconds["processor"] += time.process_time() - worked
        return result

    def analyse() -> Any:
        structure = read(model)
        assert structure.groups is not None
        return structure

    def slice_all() -> None:
        slice_model(model, structure, selection)
        for value in model.graph.initializers.values():
            if isinstance(value.const_value, ir.LazyTensor):
                value.const_value.numpy()

    gc.collect()
    timed("canonicalize", lambda: canonicalize(model))
    structure = timed("analysis", analyse)
    scores = criterion("l1").score(Evidence(structure, weights_of(model)))
    selection = timed("decide", lambda: choose(structure, scores, Budget(ratio=0.5)))
    timed("slicing", slice_all)
    seconds["groups"] = len(structure.groups)
    return seconds


# -- beside Torch-Pruning -----------------------------------------------------------------------------------------


def rival(name: str, limit: float) -> Row:
    """Return what Torch-Pruning does within ``limit`` seconds: ``seconds`` and ``groups``, or its ``failure``."""
    command = [sys.executable, str(RIVAL), name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if not process.stdout.readline():
            return {"failure": last_line(process.communicate()[1])}
        try:
            output, errors = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return {"failure": f"did not finish in {limit:.0f} s", "at_least": limit}
    if process.returncode:
        return {"failure": last_line(errors)}
    found: Row = json.loads(output.splitlines()[-1])
    return found


def last_line(text: str) -> str:
    """Return the last line that is not blank."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no output"


def from_module(name: str) -> Row:
    """Return the seconds of each stage on the PyTorch module itself, in a process of its own."""
    command = [sys.executable, "-W", "ignore", str(RIVAL), name, "--analyse"]
    found: Row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    return found


def compared(name: str, folder: Path, options: argparse.Namespace) -> Row:
    """Measure both tools on one network, in turns."""
    path = folder / "network.onnx"
    subprocess.run([sys.executable, str(RIVAL), name, "--export", str(path)], check=True, capture_output=True)
    ours: list[Row] = []
    theirs: list[Row] = []
    modules: list[Row] = []
    for _ in range(options.repeat):
        model = load(path)
        ours.append(stages(model, time.perf_counter))
        modules.append(from_module(name))
        if not theirs or theirs[0].get("seconds", math.inf) < QUICK:
            theirs.append(rival(name, options.limit))
    row: Row = {"network": name, "nodes": sum(1 for _ in load(path).graph)}
    row.update({stage: statistics.median(run[stage] for run in ours) for stage in STAGES})
    row["total"] = statistics.median(run["analysis"] + run["slicing"] for run in ours)
    row["processor"] = statistics.median(run["processor"] for run in ours)
    row["groups"] = ours[0]["groups"]
    row["rival"] = theirs[0]
    if "seconds" in theirs[0]:
        for key in ("seconds", "processor"):
            row["rival"][key] = statistics.median(run[key] for run in theirs)
    bound = theirs[0].get("seconds", theirs[0].get("at_least"))
    row["ratio"] = None if bound is None else bound / row["total"]
    module = {key: statistics.median(run[key] for run in modules) for key in (*MODULE_STAGES, "processor")}
    module["total"] = statistics.median(run["analysis"] + run["slicing"] for run in modules)
    row["module"] = {**module, "ratio": None if bound is None else bound / module["total"]}
    return row


def networks_table(rows: Sequence[Row]) -> Table:
    """Return the comparison as a table."""
    view = Table(box=None, pad_edge=False, title="seconds, medians; ratio: Torch-Pruning to analysis and slicing")
    total = "analysis + slicing"
    for name in ("network", "nodes", *STAGES, total, "Torch-Pruning", "ratio", "processor: " + total, "T.-P.", "ratio"):
        view.add_column(name, justify="left" if name == "network" else "right", overflow="fold")
    for row in rows:
        theirs = row["rival"]
        ratio = "-" if row["ratio"] is None else f"{'>' if 'at_least' in theirs else ''}{row['ratio']:.0f}"
        found = theirs.get("failure") or f"{theirs['seconds']:.1f}"
        numbers = [f"{row[key]:.3f}" for key in (*STAGES, "total")]
        worked = theirs.get("processor")
        processor = (f"{worked:.1f}", f"{worked / row['processor']:.0f}") if worked else ("-", "-")
        view.add_row(row["network"], str(row["nodes"]), *numbers, found, ratio, f"{row['processor']:.3f}", *processor)
    return view


def modules_table(rows: Sequence[Row]) -> Table:
    """Return the same comparison for the modules, which are not exported to ONNX."""
    title = "the PyTorch modules; seconds, medians; ratio: Torch-Pruning to analysis and slicing"
    view = Table(box=None, pad_edge=False, title=title)
    for name in ("network", "torch.export", "analysis", "slicing", "analysis + slicing", "ratio", "processor", "ratio"):
        view.add_column(name, justify="left" if name == "network" else "right")
    for row in rows:
        own, theirs = row["module"], row["rival"]
        ratio = "-" if own["ratio"] is None else f"{'>' if 'at_least' in theirs else ''}{own['ratio']:.0f}"
        worked = theirs.get("processor")
        numbers = [f"{own[key]:.3f}" for key in (*MODULE_STAGES, "total")]
        processor = (f"{own['processor']:.3f}", f"{worked / own['processor']:.0f}" if worked else "-")
        view.add_row(row["network"], *numbers, ratio, *processor)
    return view


# -- growing graphs -----------------------------------------------------------------------------------------------


def grown(name: str, options: argparse.Namespace) -> Iterator[Row]:
    """Yield the processor seconds of each stage, and of the whole of ``prune``, for each size of a graph."""
    build, sizes = GROWING[name]
    for size in sizes:
        proto = build(size)
        runs = []
        for _ in range(max(1, options.repeat // 2)):
            run = stages(load(proto), time.process_time)
            gc.collect()
            start = time.process_time()
            graphprune.prune(proto, ratio=0.5)
            runs.append({**run, "prune": time.process_time() - start})
        best = {key: min(run[key] for run in runs) for key in (*STAGES, "prune")}
        edges = sum(len(node.input) for node in proto.graph.node)
        yield {"graph": name, "nodes": len(proto.graph.node), "edges": edges, **best}


def exponent(rows: Sequence[Row], key: str, against: str = "nodes") -> float:
    """Return the slope of ``log(row[key])`` over ``log(row[against])`` by least squares."""
    x = [math.log(row[against]) for row in rows]
    y = [math.log(row[key]) for row in rows]
    return statistics.linear_regression(x, y).slope


def growth_table(rows: Sequence[Row]) -> Table:
    """Return processor seconds by size, and below each graph the exponents."""
    view = Table(box=None, pad_edge=False, title="processor seconds, the least of several; prune includes verification")
    columns = (*STAGES, "prune")
    for name in ("graph", "nodes", "edges", *columns):
        view.add_column(name, justify="left" if name == "graph" else "right")
    for graph in dict.fromkeys(row["graph"] for row in rows):
        mine = [row for row in rows if row["graph"] == graph]
        for row in mine:
            view.add_row(graph, str(row["nodes"]), str(row["edges"]), *(f"{row[key]:.3f}" for key in columns))
        if len(mine) > 1:
            view.add_row(f"{graph}: exponent", "", "", *(f"{exponent(mine, key):.2f}" for key in columns))
    return view


# -- all ----------------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    options = arguments(argv)
    console = Console(width=180 if not sys.stdout.isatty() else None)
    about = header(["torch", "torchvision", "torch-pruning", "onnx", "onnx-ir", "onnxruntime", "numpy"])
    records: list[Row] = [{"header": about}]
    for key, text in about.items():
        print(f"{key}: {text}", flush=True)
    if options.part != "growth":
        rows: list[Row] = []
        with tempfile.TemporaryDirectory() as folder:
            for name in NAMES:
                if fnmatch(name, options.only):
                    rows.append(compared(name, Path(folder), options))
                    print(f"{name}: done", file=sys.stderr, flush=True)
        console.print(networks_table(rows))
        console.print(modules_table(rows))
        records += rows
    if options.part != "networks":
        growing = [row for name in GROWING if fnmatch(name, options.only) for row in grown(name, options)]
        console.print(growth_table(growing))
        records += growing
    if options.results:
        options.results.parent.mkdir(parents=True, exist_ok=True)
        options.results.write_text("".join(json.dumps(record) + "\n" for record in records))
    return 0


if __name__ == "__main__":
    sys.exit(main())
