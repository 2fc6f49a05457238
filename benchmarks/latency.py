"""How much faster pruned networks are in ONNX Runtime on this CPU, beside uniform L1 and Torch-Pruning's default.

Needs torch, torchvision, timm and torch-pruning for the networks, ``GRAPHPRUNE_CORPUS`` for those of the corpus, and an
idle machine. Rows are appended to ``--results`` as they are made, so a run that was stopped goes on where it was. All
that is compared in a row ran in turns. ``--network digits --part speed`` tries the program out in seconds.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from accuracy_networks import NETWORKS as TRAINED
from latency_networks import BUILD, NETWORKS, dense, torch_pruned
from latency_table import markdown, plot
from machine import header

import graphprune
from graphprune.backends.measure import Measurement
from graphprune.backends.race import race
from graphprune.backends.registry import usable
from graphprune.errors import TargetError

Row = dict[str, Any]
REAL = tuple(name for name in NETWORKS if name != "digits")
PARTS = ("speed", "asked", "curve", "int8")
ASKED = (80, 65, 50, 35)
REMOVED = (5, 10, 20, 30, 40, 50, 60, 70, 80)
EIGHT_BITS = {"MobileNetV2": ("mobilenetv2", "80%"), "ResNet-20": ("resnet20", "50%"), "ResNet-56": ("resnet56", "50%")}
"""Trained networks, by their names in :mod:`accuracy_networks`, and the multiply-accumulates that are kept."""
METHODS = ("graphprune", "graphprune, no rounding", "uniform L1, no rounding", "Torch-Pruning")
KEEP = 0.5


@dataclass(frozen=True)
class Settings:
    """How much is measured."""

    threads: int
    repeats: int
    loads: int
    seconds: float


def measured(models: Sequence[Any], settings: Settings) -> Measurement:
    """A race of models, the dense one first, on inputs of one sample."""
    return race(models, threads=settings.threads, pin=True, repeats=settings.repeats, loads=settings.loads).measurement


def pruned(path: Path, settings: Settings, **options: Any) -> Any:
    """The result of pruning, without the proof: it takes time and is shown elsewhere."""
    given = {"threads": settings.threads, "measure_seconds": settings.seconds, **options}
    return graphprune.prune(path, verify=False, gate=False, **given)


def speed(network: str, method: str, settings: Settings) -> Row:
    """How fast a network with half of its multiply-accumulates is."""
    if method == "Torch-Pruning":
        files = torch_pruned(network, KEEP)
        if files is None:
            return {"status": "skipped", "reason": "there is no module of this network"}
        before, after = files
        macs = [graphprune.inspect(each).counts.macs for each in files]
        found = measured(files, settings)
    else:
        before = dense(network)
        options: dict[str, Any] = {
            "graphprune": {"round_to": "auto"},
            "graphprune, no rounding": {},
            "uniform L1, no rounding": {"scope": "local"},
        }[method]
        result = pruned(before, settings, macs=f"{KEEP:.0%}", **options)
        macs, after = [result.macs.before, result.macs.after], result.model
        found = measured([before, after], settings)
    return {
        "macs_before": macs[0],
        "macs_after": macs[1],
        "dense_ms": found.timings[0].median * 1e3,
        "slim_ms": found.timings[1].median * 1e3,
        "comparison": found.comparison(1).to_dict(),
        "circumstances": found.circumstances,
    }


def asked(network: str, share: int, settings: Settings) -> Row:
    """What comes of ``--latency``, measured once more in a race of its own."""
    start = time.perf_counter()
    result = pruned(dense(network), settings, latency=f"{share}%")
    seconds = time.perf_counter() - start
    found = measured([dense(network), result.model], settings)
    return {
        "asked": share,
        "share": found.timings[1].median / found.timings[0].median,
        "told": result.pace.share,
        "rounds": len(result.pace.rounds),
        "seconds": seconds,
        "macs_before": result.macs.before,
        "macs_after": result.macs.after,
        "comparison": found.comparison(1).to_dict(),
    }


def curve(network: str, removed: int, settings: Settings) -> Row:
    """How fast a network is at one budget."""
    result = pruned(dense(network), settings, macs=f"{100 - removed}%", round_to="auto")
    found = measured([dense(network), result.model], settings)
    return {
        "removed": removed,
        "macs_before": result.macs.before,
        "macs_after": result.macs.after,
        "comparison": found.comparison(1).to_dict(),
    }


def int8(network: str, settings: Settings) -> Row:
    """Size, latency and fidelity of a trained, slim network in eight bits, beside its float form and the dense network.

    Batches of one are timed; agreement is with the slim float form, on images that nothing was calibrated on.
    """
    name, keep = EIGHT_BITS[network]
    known = TRAINED[name]
    data = known.data(0)
    calibration = {"input": np.concatenate([feed["input"] for feed in data.calibration])}
    result = pruned(known.path, settings, macs=keep, round_to=8, calibration=calibration, recipe="calibrated")
    runtime = usable("ort")
    options: dict[str, Any] = {"threads": settings.threads}
    slim = runtime.compile(result.model, "cpu", **options)
    small = runtime.compile(result.model, "cpu", precision="int8-static", calibration=calibration, **options)
    folder = BUILD / "artifacts"
    folder.mkdir(parents=True, exist_ok=True)
    saved = [form.save(folder / f"{name}-{place}") for place, form in enumerate((slim, small))]
    found = measured([known.path, *saved], settings)
    told = [np.concatenate([next(iter(form(feed).values())) for feed in data.evaluation()]) for form in (slim, small)]
    forms = [{"precision": "fp32, dense", "bytes": known.path.stat().st_size, "ms": found.timings[0].median * 1e3}]
    forms[0].update(data.measure(known.dense(0), told[0]))
    for place, form in enumerate((slim, small), 1):
        row = {"precision": ("fp32", "int8-static")[place - 1], "bytes": form.stored_bytes()}
        row.update(ms=found.timings[place].median * 1e3, comparison=found.comparison(place).to_dict())
        row.update(data.measure(told[place - 1], told[0]))
        forms.append(row)
    return {"macs_before": result.macs.before, "macs_after": result.macs.after, "forms": forms}


def cases(options: argparse.Namespace) -> Iterator[tuple[str, str, str, Callable[[Settings], Row]]]:
    """What there is to do: name, part, network, and how."""
    several: dict[str, tuple[Callable[..., Row], Sequence[Any]]] = {
        "speed": (speed, METHODS),
        "asked": (asked, options.asked or ASKED),
        "curve": (curve, options.removed or REMOVED),
    }
    for part in options.part or PARTS:
        for network in options.network or (EIGHT_BITS if part == "int8" else REAL):
            if part == "int8" and network in EIGHT_BITS:
                yield f"int8/{network}", part, network, functools.partial(int8, network)
            elif part in several and network in NETWORKS:
                work, points = several[part]
                for point in points:
                    yield f"{part}/{network}/{point}", part, network, functools.partial(work, network, point)


def recorded(path: Path) -> dict[str, Row]:
    """The rows of earlier runs by name; the last one of a name counts."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {row["name"]: row for row in map(json.loads, filter(str.strip, lines))}


def written(path: Path, text: str) -> None:
    """Put the tables between the two markers of a file; the rest of the file stays."""
    begin, end = "<!-- latency: begin -->", "<!-- latency: end -->"
    old = path.read_text(encoding="utf-8") if path.exists() else f"{begin}\n{end}\n"
    head, _, rest = old.partition(begin)
    path.write_text(f"{head}{begin}\n\n{text}\n{end}{rest.partition(end)[2]}", encoding="utf-8")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--part", action="append", choices=PARTS, help="only these")
    networks = sorted({*NETWORKS, *EIGHT_BITS})
    parser.add_argument("--network", action="append", choices=networks, help="only these")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="only rows whose name matches")
    parser.add_argument("--asked", type=int, action="append", metavar="PERCENT", help="latencies to ask for")
    parser.add_argument("--removed", type=int, action="append", metavar="PERCENT", help="points of the curve")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=60, help="turns of each race")
    parser.add_argument("--loads", type=int, default=12, help="how often models are loaded anew in each race")
    parser.add_argument("--seconds", type=float, default=300.0, help="for measuring operators, each time")
    parser.add_argument("--results", type=Path, default=BUILD / "latency.jsonl", help="one row a line, appended to")
    parser.add_argument("--again", action="store_true", help="do again what was done, not only what failed")
    parser.add_argument("--table", action="store_true", help="only show what the results hold")
    parser.add_argument("--markdown", type=Path, help="write the tables into this file, between its two markers")
    parser.add_argument("--plot", type=Path, help="draw the curves")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 1 if a row failed."""
    options = arguments(argv)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    for key, text in header(["onnxruntime", "numpy", "torch", "torchvision", "timm", "torch-pruning"]).items():
        print(f"{key}: {text}", flush=True)
    settings = Settings(options.threads, options.repeats, options.loads, options.seconds)
    known = recorded(options.results)
    for name, part, network, work in () if options.table else cases(options):
        done = known.get(name, {}).get("status") in ("done", "skipped", "refused")
        if not fnmatch(name, options.only) or (done and not options.again):
            continue
        row: Row = {"name": name, "part": part, "network": network, "method": name.rpartition("/")[2], "status": "done"}
        start = time.perf_counter()
        try:
            row.update(work(settings))
        except TargetError as error:
            row.update(status="refused", reason=str(error))
        except Exception as error:  # a row that fails is a result; the others are still made
            row.update(status="failed", reason=f"{type(error).__name__}: {error}"[:300])
        row["wall"] = round(time.perf_counter() - start, 1)
        known[name] = row
        with options.results.open("a") as file:
            file.write(json.dumps(row) + "\n")
        said = row.get("comparison", {}).get("text") or row.get("reason") or ""
        print(f"{name}: {row['status']} {said} ({row['wall']} s)", flush=True)
    chosen = options.part or PARTS, options.network or (*REAL, *EIGHT_BITS)
    shown = [row for row in known.values() if row["part"] in chosen[0] and row["network"] in chosen[1]]
    print(markdown(shown))
    if options.markdown:
        written(options.markdown, markdown(shown))
    if options.plot:
        plot(shown, options.plot)
    return int(any(row["status"] == "failed" for row in shown))


if __name__ == "__main__":
    sys.exit(main())
