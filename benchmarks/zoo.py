"""What pruning does to the networks of torchvision, timm and transformers, with nothing hand-fed.

Needs ``pip install timm transformers`` and torchvision (``--no-deps``) beside torch. Each network is built with random
weights and pruned at one ratio in a process of its own with a time limit; its row is appended to ``--results`` at once,
so a run that was stopped goes on where it was. ``--against torch-pruning`` runs that tool on the same networks.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from machine import header
from rich.console import Console
from rich.table import Table

Row = dict[str, Any]
HERE = Path(__file__).parent
FAMILIES = (
    *(f"torchvision-{kind}" for kind in ("classification", "segmentation", "video", "optical_flow", "detection")),
    "timm",
    "transformers",
)
APART = ("not exportable", "not built")
"""What is counted apart: PyTorch or the library could not make a graph of the network."""


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--family", action="append", choices=FAMILIES, help="only these (all by default)")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="only networks whose name matches")
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for one network")
    parser.add_argument("--jobs", type=int, default=2, help="networks at a time")
    parser.add_argument("--results", type=Path, default=Path("build/zoo.jsonl"), help="one row a line, appended to")
    parser.add_argument("--retry", action="store_true", help="do again what was not pruned and verified")
    parser.add_argument("--against", choices=["torch-pruning"], help="run this tool too, on the same networks")
    parser.add_argument("--table", action="store_true", help="only show what the results hold")
    parser.add_argument("--markdown", type=Path, help="write the tables to this file too")
    return parser.parse_args(argv)


def listed(families: Sequence[str], pattern: str) -> list[tuple[str, str]]:
    """Family and name of each network asked for; libraries are imported in a process of their own."""
    code = "import json, sys, zoo_networks as z; print(json.dumps(list(z.names(json.loads(sys.argv[1])))))"
    command = [sys.executable, "-W", "ignore", "-c", code, json.dumps(list(families))]
    found = subprocess.run(command, cwd=HERE, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    return [(family, name) for family, name in json.loads(found) if fnmatch(name, pattern)]


def recorded(path: Path) -> dict[tuple[str, str, str], Row]:
    """The rows of earlier runs; the last one of a network counts."""
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines if line.strip()]
    return {(row["family"], row["model"], row["tool"]): row for row in rows}


def run(family: str, name: str, tool: str, options: argparse.Namespace) -> Row:
    """Do one network with one tool."""
    command = [sys.executable, "-W", "ignore", str(HERE / "zoo_worker.py"), family, name, "--ratio", str(options.ratio)]
    command += ["--rival"] if tool == "torch-pruning" else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    row: Row = {"family": family, "model": name, "tool": tool}
    start = time.perf_counter()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=options.limit, env=environment, cwd=HERE, check=False
        )
    except subprocess.TimeoutExpired:
        return {
            **row,
            "status": "timeout",
            "reason": f"did not finish in {options.limit:.0f} s",
            "seconds": options.limit,
        }
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines or not lines[-1].startswith("{"):
        tail = done.stderr.strip().splitlines()[-1:] or [f"ended with {done.returncode}"]
        return {**row, "status": "failed", "reason": tail[0][:300], "wall": time.perf_counter() - start}
    found: Row = json.loads(lines[-1])
    if found["status"] == "failed":
        found["trace"] = done.stderr[-2000:]
    return {**row, **found, "wall": time.perf_counter() - start}


def pending(options: argparse.Namespace, known: dict[tuple[str, str, str], Row]) -> Iterator[tuple[str, str, str]]:
    """What there is to do."""
    tools = ["graphprune", *([options.against] if options.against else [])]
    for family, name in listed(options.family or FAMILIES, options.only):
        for tool in tools:
            row = known.get((family, name, tool))
            if row is None or (options.retry and row["status"] != "pruned"):
                yield family, name, tool


def table(rows: Sequence[Row]) -> Table:
    """Return the results as a table."""
    view = Table(box=None, pad_edge=False)
    for column in ("model", "tool", "status", "parameters", "MACs", "error", "s", "way", "reason"):
        view.add_column(column, justify="right" if column in ("parameters", "MACs", "error", "s") else "left")
    for row in sorted(rows, key=lambda row: (row["family"], row["model"], row["tool"])):
        view.add_row(
            row["model"],
            row["tool"],
            row["status"],
            down(row.get("params")),
            down(row.get("macs")),
            "" if row.get("error") is None else f"{row['error']:.0e}",
            "" if row.get("seconds") is None else f"{row['seconds']:.0f}",
            row.get("way", ""),
            (row.get("reason") or "")[:110],
        )
    return view


def markdown(rows: Sequence[Row]) -> str:
    """Return the results as tables of Markdown, a family each."""
    lines: list[str] = []
    for family in FAMILIES:
        mine = sorted((row for row in rows if row["family"] == family), key=lambda row: (row["model"], row["tool"]))
        if not mine:
            continue
        lines += [f"### {family}", "", *(f"{line.partition(', ')[2]}  " for line in summary(mine)), ""]
        lines.append("| network | tool | outcome | parameters down | MACs down | largest error | s | back as | why |")
        lines.append("|---|---|---|--:|--:|--:|--:|---|---|")
        for row in mine:
            error = "" if row.get("error") is None else f"{row['error']:.0e}"
            seconds = "" if row.get("seconds") is None else f"{row['seconds']:.0f}"
            why = " ".join((row.get("reason") or "").split()).replace("|", "/")[:160]
            cells = (row["model"], row["tool"], row["status"], down(row.get("params")), down(row.get("macs")))
            lines.append("| " + " | ".join((*cells, error, seconds, row.get("way", ""), why)) + " |")
        lines.append("")
    return "\n".join(lines)


def down(change: Sequence[int] | None) -> str:
    """By how much a figure fell."""
    return f"{1 - change[1] / change[0]:.1%}" if change and change[0] else ""


def summary(rows: Sequence[Row]) -> Iterator[str]:
    """How many networks of each family came out how."""
    for family in FAMILIES:
        for tool in ("graphprune", "torch-pruning"):
            mine = [row for row in rows if row["family"] == family and row["tool"] == tool]
            if not mine:
                continue
            counts = Counter(row["status"] for row in mine)
            able = len(mine) - sum(counts[status] for status in APART)
            ways = Counter(row["way"] for row in mine if row["status"] == "pruned" and "way" in row)
            said = ", ".join(f"{count} {status}" for status, count in counts.most_common())
            back = f"; back as a module {ways['module']}, as a graph {ways['graph']}" if ways else ""
            yield f"{family}, {tool}: {counts['pruned']} of {able} ({said}){back}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    options = arguments(argv)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    for key, text in header(["torch", "torchvision", "timm", "transformers", "torch-pruning", "numpy"]).items():
        print(f"{key}: {text}", flush=True)
    known = recorded(options.results)
    if not options.table:
        work = list(pending(options, known))
        with ThreadPoolExecutor(options.jobs) as pool, options.results.open("a") as file:
            for row in pool.map(lambda item: run(*item, options), work):
                file.write(json.dumps(row) + "\n")
                file.flush()
                known[row["family"], row["model"], row["tool"]] = row
                print(f"{row['model']} {row['tool']}: {row['status']} {row.get('reason') or ''}"[:150], flush=True)
    wanted = options.family or FAMILIES
    shown = [row for row in known.values() if row["family"] in wanted and fnmatch(row["model"], options.only)]
    Console(width=220).print(table(shown))
    if options.markdown:
        options.markdown.write_text(markdown(shown), encoding="utf-8")
    for line in summary(shown):
        print(line)
    return 0 if all(row["status"] not in ("wrong", "failed") for row in shown if row["tool"] == "graphprune") else 1


if __name__ == "__main__":
    sys.exit(main())
