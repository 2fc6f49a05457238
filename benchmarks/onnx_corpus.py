"""Prune each network from the command line in a process of its own, and check the result independently.

Run ``python benchmarks/onnx_corpus.py`` for the corpus (``GRAPHPRUNE_CORPUS``), ``--light`` for the light networks of
the onnx package, ``--reference`` for ours; ``--against onnxsim`` runs that tool beside it. Rows go to a JSON lines file
as they are done; ``--resume`` keeps the good ones that are there. The exit status is 1 if any row of graphprune is
wrong: not verified, silently unchanged, broken in ONNX Runtime, counted wrong, crashed, or with an operator left
undeclared.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from networks import Network, corpus_networks, light_networks, reference_networks
from rich.console import Console
from rich.table import Table

Row = dict[str, Any]
HERE = Path(__file__).parent
GRAPHPRUNE = (sys.executable, "-c", "import sys; from graphprune.cli import main; sys.exit(main())")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--light", action="store_true", help="the light networks of the onnx package")
    parser.add_argument("--reference", action="store_true", help="our reference networks, full size")
    parser.add_argument("--tiny", action="store_true", help="our reference networks, tiny")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="names to run, as a shell pattern")
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for one network")
    parser.add_argument("--results", type=Path, default=HERE.parent / "build" / "onnx_corpus.jsonl")
    parser.add_argument("--resume", action="store_true", help="run only what the results file lacks or has as wrong")
    parser.add_argument("--against", choices=["onnxsim"], help="run another tool beside graphprune")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave the slim models there")
    parser.add_argument("extra", nargs="*", help="further options of graphprune prune, after --")
    return parser.parse_args(argv)


def chosen(options: argparse.Namespace, folder: Path) -> Iterator[Network]:
    """Yield the networks that the options ask for; the corpus where they ask for none."""
    if options.light:
        yield from light_networks()
    if options.reference or options.tiny:
        yield from reference_networks(folder, tiny=options.tiny)
    if not (options.light or options.reference or options.tiny):
        yield from corpus_networks()


def call(command: Sequence[str], limit: float) -> tuple[int | None, str, str]:
    """Run ``command``; return its exit code (None: out of time), output and errors."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return None, "", f"no result in {limit:.0f} s"
    return done.returncode, done.stdout, done.stderr


def last_line(text: str) -> str:
    """Return the last line that is not blank."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def prune(original: Path, slim: Path, options: argparse.Namespace) -> Row:
    """Run ``graphprune prune`` and return its own report, with ``problem`` set where it broke its contract."""
    command = [*GRAPHPRUNE, "prune", str(original), "-o", str(slim), "--ratio", str(options.ratio), "--json"]
    code, output, errors = call([*command, *options.extra], options.limit)
    try:
        row: Row = json.loads(output)
    except json.JSONDecodeError:
        row = {"status": "refused" if code == 4 else "failed"}
    row.setdefault("reason", "" if row["status"] == "pruned" else last_line(errors))
    row["exit"] = code
    row["problem"] = contract(row, code, slim, errors)
    return row


def contract(row: Row, code: int | None, slim: Path, errors: str) -> str | None:
    """Return how the report contradicts its exit code or its output, or None."""
    if code is None:
        return errors
    if "Traceback" in errors:
        return f"traceback: {last_line(errors)}"
    if row["status"] == "refused":
        if slim.exists():
            return "refused, but left an output"
        return None if code == 4 and row["reason"] else f"refused with exit code {code}, reason {row['reason']!r}"
    if row["status"] != "pruned":
        return f"{row['status']}, exit code {code}: {row.get('reason') or last_line(errors)}"
    if code != 0 or not slim.exists():
        return f"pruned, but exit code {code} and output {'there' if slim.exists() else 'missing'}"
    if row.get("verified") is not True:
        return f"not verified: {row.get('verified')!r}"
    if row.get("undeclared"):
        return f"undeclared operators: {', '.join(map(str, row['undeclared']))}"
    return None


def rival(original: Path, slim: Path, options: argparse.Namespace) -> Row:
    """Run onnxsim's structured pruning."""
    command = [sys.executable, str(HERE / "prune_onnxsim.py"), str(original), str(slim), str(options.ratio)]
    code, _, errors = call(command, options.limit)
    failed = code != 0 or not slim.exists()
    return {
        "status": "failed" if failed else "pruned",
        "exit": code,
        "problem": last_line(errors)[:200] if failed else None,
    }


def check(original: Path, slim: Path, row: Row, limit: float) -> None:
    """Add what ``check_slim`` finds to ``row``."""
    code, output, errors = call([sys.executable, str(HERE / "check_slim.py"), str(original), str(slim)], limit)
    if code != 0:
        row["problem"] = row["problem"] or f"check failed: {last_line(errors)}"
        return
    found = json.loads(output)
    row["check"] = found
    row["problem"] = row["problem"] or found["problem"]
    if found["problem"]:
        return
    if "params" in row:
        counted = found["elements_after"]
        if row["params"]["after"] != counted:
            row["problem"] = row["problem"] or f"reports {row['params']['after']} parameters, the file has {counted}"
        if row["params"]["after"] < row["params"]["before"] and found["sensitive"] and not found["differs"]:
            row["problem"] = row["problem"] or "parameters are gone, yet the outputs are the same to the bit"
    else:
        row["params"] = {"before": found["elements_before"], "after": found["elements_after"]}
        if found["elements_after"] > 0.99 * found["elements_before"]:
            row["status"] = "unchanged"


def measure(network: Network, tool: str, options: argparse.Namespace, folder: Path) -> Row:
    """Prune and check one network."""
    original, slim = network.open(), folder / f"{network.name}.{tool}.slim.onnx"
    start = time.perf_counter()
    row = (prune if tool == "graphprune" else rival)(original, slim, options)
    row["wall"] = round(time.perf_counter() - start, 2)
    row.update(model=network.name, tool=tool, ratio=options.ratio)
    if slim.exists():
        check(original, slim, row, options.limit)
    return row


def down(row: Row, key: str) -> str:
    """Return by how many per cent ``key`` fell."""
    pair = row.get(key)
    if not pair or not pair["before"] or pair["after"] is None:
        return "-"
    return f"{100 * (1 - pair['after'] / pair['before']):.1f}"


def share(value: Any) -> str:
    """Return a ceiling as per cent; one per quantity is joined."""
    if isinstance(value, dict):
        return "/".join(share(part) for part in value.values())
    return f"{100 * value:.1f}" if isinstance(value, (int, float)) else "-"


def table(rows: Sequence[Row]) -> Table:
    """Return the rows as a table."""
    view = Table(box=None, pad_edge=False)
    for name in ("model", "tool", "status", "verified", "params -%", "MACs -%", "ceiling %", "error", "s", "reason"):
        view.add_column(name, justify="right" if name[-1] in "%s" and name != "status" else "left", overflow="fold")
    for row in rows:
        error = row.get("max_error")
        view.add_row(
            row["model"],
            row["tool"],
            "WRONG" if row["problem"] and row["tool"] == "graphprune" else row["status"],
            {True: "yes", False: "NO"}.get(row.get("verified"), "-"),  # type: ignore[arg-type]
            down(row, "params"),
            down(row, "macs"),
            share(row.get("ceiling")),
            f"{error:.1e}" if isinstance(error, float) else "-",
            f"{row['wall']:.1f}",
            (row["problem"] or row.get("reason") or "")[:160],
        )
    return view


def summary(rows: Sequence[Row], tool: str) -> str:
    """Return the counts of one tool in a line."""
    mine = [row for row in rows if row["tool"] == tool]
    wrong = [row for row in mine if row["problem"]]
    good = [row for row in mine if not row["problem"]]
    cut = [row for row in good if row["status"] == "pruned"]
    refused = sum(row["status"] == "refused" for row in good)
    unchanged = sum(row["status"] == "unchanged" for row in good)
    line = f"{tool}: {len(mine)} networks, {len(cut)} pruned"
    if tool == "graphprune":
        line += f" and verified, {refused} refused with a reason"
    return f"{line}, {unchanged} unchanged, {len(wrong)} wrong or failed"


def saved(path: Path, *, resume: bool) -> list[Row]:
    """Return the rows of the results file that have no problem, where ``resume``; leave no others in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text().splitlines() if resume and path.exists() else []
    rows = [row for row in map(json.loads, filter(str.strip, lines)) if not row["problem"]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    options = arguments(argv)
    tools = ["graphprune", *([options.against] if options.against else [])]
    stored = {(row["model"], row["tool"], row["ratio"]): row for row in saved(options.results, resume=options.resume)}
    rows: list[Row] = []
    console = Console(width=180 if not sys.stdout.isatty() else None)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for network in chosen(options, Path(scratch)):
            if not fnmatch(network.name, options.only):
                continue
            for tool in tools:
                key = (network.name, tool, options.ratio)
                row = stored.get(key)
                if row is None:
                    row = measure(network, tool, options, folder)
                    with options.results.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                rows.append(row)
                outcome = f"WRONG: {row['problem']}" if row["problem"] else row["status"]
                print(f"{row['wall']:7.1f} s  {network.name} ({tool}): {outcome}", file=sys.stderr, flush=True)
    console.print(table(rows))
    for tool in tools:
        print(summary(rows, tool))
    return int(not rows or any(row["problem"] for row in rows if row["tool"] == "graphprune"))


if __name__ == "__main__":
    sys.exit(main())
