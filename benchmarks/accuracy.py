"""How accurate networks are after pruning, with and without calibration and compensation, beside Torch-Pruning.

Needs ``GRAPHPRUNE_CORPUS`` and Pillow, and for Torch-Pruning torch and ``pip install --no-deps torch-pruning==1.6.1``.
Each row of the table is made in a process of its own and appended to ``--results`` at once, so a run that was stopped
goes on where it was; ``--only NAME`` makes one row, by the name that the table gives it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from accuracy_data import BUILD, corpus
from accuracy_methods import METHODS, PARTS, Case, cases
from accuracy_table import markdown, table
from machine import header
from rich.console import Console

Row = dict[str, Any]
HERE = Path(__file__).parent
PROGRAMS = {
    "finetune": [
        ["accuracy_finetune.py", "--calibrate", "--first-epochs", "30"],
        ["accuracy_finetune.py", "--calibrate", "--network", "vgg16", "--keep", "25"],
    ],
    "memory": [["accuracy_memory.py"]],
}
"""Parts that are programs with options of their own, which append to the same results."""


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--part",
        action="append",
        choices=[*PARTS, *PROGRAMS],
        help="only these (all but finetune and memory by default)",
    )
    parser.add_argument("--only", default="*", metavar="PATTERN", help="only rows whose name matches, as resnet20/50/*")
    parser.add_argument("--seed", type=int, action="append", help="of data and random choices; may be repeated (0)")
    parser.add_argument("--jobs", type=int, default=1, help="rows at a time, one thread each")
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds for one row")
    parser.add_argument("--results", type=Path, default=BUILD / "accuracy.jsonl", help="one row a line, appended to")
    parser.add_argument("--retry", action="store_true", help="do again what failed")
    parser.add_argument("--again", action="store_true", help="do again all that is asked for")
    parser.add_argument("--table", action="store_true", help="only show what the results hold")
    parser.add_argument("--markdown", type=Path, help="write the table into this file, between its two markers")
    return parser.parse_args(argv)


def recorded(path: Path) -> dict[str, Row]:
    """The rows of earlier runs by name; the last one of a name counts."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {row["name"]: row for row in map(json.loads, filter(str.strip, lines))}


def run(case: Case, limit: float) -> Row:
    """Do one row."""
    command = [sys.executable, "-W", "ignore", str(HERE / "accuracy_worker.py"), json.dumps(asdict(case))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    row: Row = {"name": case.name, **asdict(case), "kind": METHODS[case.method].kind}
    start = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=environment, check=False)
    except subprocess.TimeoutExpired:
        return {**row, "status": "failed", "reason": f"did not finish in {limit:.0f} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines or not lines[-1].startswith("{"):
        tail = done.stderr.strip().splitlines()[-1:] or [f"ended with {done.returncode}"]
        return {**row, "status": "failed", "reason": tail[0][:300]}
    found: Row = json.loads(lines[-1])
    if found["status"] == "failed":
        found["trace"] = done.stderr[-2000:]
    return {**row, **found, "wall": round(time.perf_counter() - start, 1)}


def asked(options: argparse.Namespace) -> list[Case]:
    """The rows that the options ask for."""
    parts = [part for part in options.part or PARTS if part in PARTS]
    found = cases(parts, options.seed or [0])
    return [case for case in found if fnmatch(case.name, options.only)]


def pending(options: argparse.Namespace, known: dict[str, Row]) -> Iterable[Case]:
    """What there is to do."""
    for case in asked(options):
        row = known.get(case.name)
        if row is None or options.again or (options.retry and row["status"] in ("failed", "refused")):
            yield case


def written(path: Path, text: str) -> None:
    """Put the table between the two markers of a file; the rest of the file stays."""
    begin, end = "<!-- table: begin -->", "<!-- table: end -->"
    old = path.read_text(encoding="utf-8") if path.exists() else f"{begin}\n{end}\n"
    head, _, rest = old.partition(begin)
    path.write_text(f"{head}{begin}\n\n{text}\n{end}{rest.partition(end)[2]}", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 1 if a row of graphprune failed."""
    options = arguments(argv)
    corpus()
    options.results.parent.mkdir(parents=True, exist_ok=True)
    about = header(["onnxruntime", "numpy", "torch", "torch-pruning"])
    for key, text in about.items():
        print(f"{key}: {text}", flush=True)
    known = recorded(options.results)
    if not options.table:
        for program, *given in (command for part in options.part or () for command in PROGRAMS.get(part, [])):
            command = [sys.executable, str(HERE / program), *given, "--results", str(options.results)]
            subprocess.run(command, check=True)
        known = recorded(options.results)
        with ThreadPoolExecutor(options.jobs) as pool, options.results.open("a") as file:
            work = [pool.submit(run, case, options.limit) for case in pending(options, known)]
            for row in (done.result() for done in as_completed(work)):
                file.write(json.dumps(row) + "\n")
                file.flush()
                known[row["name"]] = row
                said = row.get("figures") or row.get("reason")
                print(f"{row['name']}: {row['status']} {said}"[:150], flush=True)
    wanted = options.part or [*PARTS, *PROGRAMS]
    shown = [row for row in known.values() if row["part"] in wanted and fnmatch(row["name"], options.only)]
    Console(width=160).print(table(shown))
    if options.markdown:
        written(options.markdown, markdown(shown))
    return int(any(row.get("status") == "failed" for row in shown if row.get("kind") != "Torch-Pruning"))


if __name__ == "__main__":
    sys.exit(main())
