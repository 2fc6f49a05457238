"""The whole way in one call, for deployment scripts: prune, prove, compile, measure, and write what runs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir

from graphprune import api
from graphprune.backends.artifact import check_folder
from graphprune.backends.base import Executable
from graphprune.backends.gate import AGAIN, require_faster
from graphprune.backends.machine import pinned
from graphprune.backends.measure import Comparison, Measurement
from graphprune.backends.race import common_inputs, compiled, in_turns, require_here
from graphprune.backends.registry import usable
from graphprune.clock import Clock, Progress
from graphprune.errors import GraphpruneError, UsageError
from graphprune.frontends.onnx_file import load
from graphprune.frontends.program import is_torch
from graphprune.result import PruneResult

__all__ = ["Optimized", "optimize"]

BUDGETS = ("ratio", "macs", "params", "bytes", "peak", "latency")
TURNS = 30


@dataclass(frozen=True)
class Optimized:
    """What came of :func:`optimize`.

    ``result`` is that of pruning, ``executable`` the compiled slim model, ``measurement`` the times of the dense model
    (compiled as it is, in single precision) and of that executable, in turns, ``comparison`` how much faster it is,
    ``artifact`` the folder that was written, and ``notes`` what else to know.
    """

    result: PruneResult
    executable: Executable
    measurement: Measurement
    comparison: Comparison
    artifact: Path | None = None
    notes: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        dense, slim = self.measurement.timings
        return {
            "status": "optimized",
            "prune": self.result.to_dict(),
            "backend": self.executable.backend,
            "target": self.executable.target,
            "bytes": self.executable.stored_bytes(),
            "dense": dense.to_dict(),
            "slim": slim.to_dict(),
            "comparison": self.comparison.to_dict(),
            **self.measurement.to_dict(),
            "notes": list(self.notes),
            "artifact": None if self.artifact is None else str(self.artifact),
            "seconds": {stage: round(spent, 4) for stage, spent in self.seconds.items()},
        }


def optimize(
    model: Any,
    args: tuple[Any, ...] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    budget: str | float | Mapping[str, str | float] = "50%",
    target: str = "cpu",
    backend: str = "onnxruntime",
    output: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    rpc: str | None = None,
    precision: str = "fp32",
    compile_options: Mapping[str, Any] | None = None,
    calibration: Any = None,
    dims: Mapping[str, int] | None = None,
    seed: int = 0,
    allow_slower: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Optimized:
    """Prune ``model`` for where it will run, prove it, compile it, and show that it is faster.

    Args:
        model: an ONNX model as :func:`graphprune.prune` takes it, or a module, which is exported first.
        args: of a module, the tuple of its example inputs.
        kwargs: of a module, its example keyword inputs.
        budget: the latency to keep, ``"50%"`` or ``"8ms"``, or another budget by name: ``{"macs": "50%"}``. A latency
            is met in single precision; what another ``precision`` brings comes on top, and a note says how much.
        target: where it will run, one of the backend's targets.
        backend: the runtime.
        output: the folder of the artifact; nothing is written without.
        threads: of the runtime; one a core by default.
        rpc: ``HOST:PORT`` of TVM's RPC server on the device that it will run on; with ``backend="tvm"``.
        precision: of the compiled model; ``int8-static`` takes its ranges from ``calibration``.
        compile_options: further options of the backend's ``compile``.
        calibration: inputs, for pruning and for integers.
        dims: sizes of symbolic dimensions.
        seed: of everything random.
        allow_slower: keep what is not shown to be faster.
        progress: called with the name of each stage as it begins.
        options: others of :func:`graphprune.prune`.

    Raises:
        GraphpruneError: as :func:`graphprune.prune`; and SlowerError where the compiled slim model is not shown to be
            faster than the dense one. Nothing is written then.
    """
    if output is not None:
        check_folder(output)
    chosen: dict[str, Any] = dict(budget) if isinstance(budget, Mapping) else {"latency": budget}
    for name in chosen:
        if name not in BUDGETS:
            raise UsageError(f"there is no budget '{name}'; there are: {', '.join(BUDGETS)}")
    for name in options:
        if name in BUDGETS:
            raise UsageError(f"{name}: what to keep goes into the budget, as budget={{'{name}': {options[name]!r}}}")
        if name == "gate":
            raise UsageError(
                "gate is no option of optimize: it always measures; allow_slower=True keeps what is slower"
            )
    clock = Clock(progress)
    runtime = usable(backend)
    wanted = {"threads": threads, "seed": seed, "dims": dims, **(compile_options or {})}
    if rpc is not None:
        wanted["rpc"] = rpc
    if precision != "fp32":  # which not every backend has an option for
        wanted["precision"] = precision
    if precision == "int8-static":
        wanted["calibration"] = calibration
    with tempfile.TemporaryDirectory() as folder:
        source = _exported(model, args, kwargs, Path(folder), clock)
        with clock("prune"):
            result = api.prune(
                source,
                **chosen,
                backend=backend,
                target=target,
                threads=threads,
                rpc=wanted.get("rpc"),
                calibration=calibration,
                dims=dims,
                seed=seed,
                gate=False,
                progress=progress,
                **options,
            )
        assert isinstance(result.model, ir.Model)
        dense = load(source)
        with pinned(threads) as processors:
            with clock("compile"):
                alike = {name: wanted.get(name) for name in ("threads", "dims", "rpc")}
                first = compiled(runtime, dense, target, **alike)
                require_here(first)
                second = runtime.compile(result.model, target, **wanted)
            feeds, _ = common_inputs([first, second], None, dims, seed)
            with clock("measure"):
                for turns in (TURNS, AGAIN * TURNS):
                    found = in_turns(
                        [first, second],
                        feeds,
                        repeats=turns,
                        threads=threads,
                        pinned=processors,
                        rpc=wanted.get("rpc"),
                    )
                    comparison = found.comparison(1)
                    if comparison.verdict != "no difference shown":
                        break
    if not allow_slower:
        try:
            require_faster(comparison, "the slim model", "the dense one")
        except GraphpruneError as error:
            error.details = {**result.to_dict(), **error.details, "status": "refused"}
            raise
    notes = [*result.notes, *second.notes]
    if precision != "fp32" and "latency" in chosen:
        before, after = (each.median for each in found.timings)
        notes.append(
            f"the latency {chosen['latency']} was met in single precision; {precision} takes {after * 1e3:.3g} ms, "
            f"{after / before:.1%} of the dense model's {before * 1e3:.3g} ms"
        )
    artifact = None
    if output is not None:
        with clock("write"):
            artifact = second.save(output, found.only(1))
    return Optimized(result, second, found, comparison, artifact, tuple(notes), clock.seconds)


def _exported(model: Any, args: Any, kwargs: Mapping[str, Any] | None, folder: Path, clock: Clock) -> Any:
    """The ONNX model of a module, in ``folder``; anything else as it is."""
    if not is_torch(model):
        if args is not None or kwargs:
            raise UsageError("an ONNX model takes no example inputs")
        return model
    from graphprune.storage import to_onnx

    with clock("export"):
        return to_onnx(model, args, kwargs, folder / "model.onnx")
