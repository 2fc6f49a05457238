"""Prunes one model to several budgets, and says what each costs: the Pareto table.

Each slim model is written as soon as it is made, and ``sweep.json`` with it, so that a sweep that was interrupted goes
on where it stopped, and one that is run again with more budgets makes only those. ``sweep.csv`` has the same points for
a spreadsheet, ``sweep.png`` draws them (matplotlib, the extra ``viz``).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from graphprune import api
from graphprune.calibration.data import SYNTHETIC, Batches, load_batches
from graphprune.calibration.evaluate import Evaluation, evaluate
from graphprune.calibration.fidelity import Array, Runs
from graphprune.calibration.metrics import Metric, meter
from graphprune.calibration.observe import Calibration
from graphprune.clock import Progress
from graphprune.errors import ModelError, TargetError, UsageError
from graphprune.frontends.program import Host, is_torch
from graphprune.sweep_points import AMOUNTS, Point
from graphprune.sweep_store import Store, opened, stored
from graphprune.version import __version__

__all__ = ["Origin", "Sweep", "sweep"]

Origin: TypeAlias = Callable[[Host, Batches], Host]
"""Gives the dense model after the recovery that slim models get, from a copy of it and the calibration inputs."""

KEPT = 1 << 30
"""Bytes of the dense model's outputs that are kept rather than computed again for each budget."""


@dataclass(frozen=True)
class Sweep:
    """All points of a sweep, in the order of their budgets, and where they are.

    ``dense`` are the figures of the unpruned model, ``data`` what was measured on, ``made`` how many points this run
    made (the others were there). ``notes`` are what a reader must know.
    """

    folder: Path
    points: tuple[Point, ...]
    dense: Mapping[str, Any]
    data: Mapping[str, Any]
    made: int = 0
    notes: tuple[str, ...] = ()
    plot: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "folder": str(self.folder),
            "dense": dict(self.dense),
            "data": dict(self.data),
            "points": [point.to_dict() for point in self.points],
            "made": self.made,
            "notes": list(self.notes),
            "plot": None if self.plot is None else str(self.plot),
        }


def sweep(
    model: Any,
    args: tuple[Any, ...] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    output: str | os.PathLike[str],
    macs: Sequence[str] = (),
    params: Sequence[str] = (),
    bytes: Sequence[str] = (),
    ratio: Sequence[float] = (),
    calibration: Any = None,
    evaluation: Any = None,
    metric: Metric | None = None,
    origin: Origin | None = None,
    fresh: bool = False,
    plot: bool = True,
    seed: int = 0,
    dims: Mapping[str, int] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Sweep:
    """Prune ``model`` to each of several budgets, write the slim models to the folder ``output``, and compare them.

    Args:
        model: as for :func:`graphprune.prune`; ``args`` and ``kwargs`` are the example inputs of a module.
        args: of a module, the tuple of its example inputs.
        kwargs: of a module, its example keyword inputs.
        output: the folder; made if it is not there.
        macs: budgets, as ``["80%", "60%"]``; ``params``, ``bytes`` or ``ratio`` instead, one of the four.
        params: parameters to end at.
        bytes: bytes of weights to end at.
        ratio: shares of positions to remove.
        calibration: inputs for criteria and compensation that need them (:func:`~.calibration.data.load_batches`).
        evaluation: inputs to measure on; by default those of ``calibration``, and synthetic ones without any.
        metric: a name of :data:`~.calibration.metrics.METRICS`, or a function ``(outputs, targets) -> number``.
        origin: makes the control: the dense model after the same recovery.
        fresh: forget the points that the folder has.
        plot: draw them where matplotlib is installed.
        seed: as for :func:`graphprune.prune`, and of the order in which samples are taken.
        dims: sizes of symbolic dimensions.
        progress: called with the name of each stage as it begins.
        **options: further options of :func:`graphprune.prune`, such as ``criterion``, ``recipe``, ``compensate``.

    Raises:
        UsageError: an option makes no sense, or the folder has points of another model, other data or other options.
        TargetError: no budget can be reached.
        ModelError, VerificationError: as for :func:`graphprune.prune`; points made before that stay.
    """
    budgets = _budgets(macs=macs, params=params, bytes=bytes, ratio=ratio)
    if metric is not None:
        meter(metric)
    folder = _folder(Path(output))
    say = progress or (lambda stage: None)
    say("load")
    host, mark = opened(model, args, kwargs)
    inputs = None if calibration is None else load_batches(calibration, host, seed=seed, dims=dims)
    measured = inputs or SYNTHETIC if evaluation is None else evaluation
    seen = load_batches(measured, host, seed=seed, dims=dims)
    given = {
        "model": mark,
        "calibration": None if inputs is None else inputs.digest(),
        "evaluation": seen.digest(),
        "options": {**_plain(options), "metric": None if metric is None else meter(metric).name, "seed": seed,
                    "dims": dict(dims or {}), "origin": origin is not None, "version": __version__},
    }  # fmt: skip
    known = [] if fresh else stored(folder, given)
    run = _Run(host, inputs, seen, metric, origin, say)
    store = Store(folder, given, seen, known)
    made = 0
    for kind, amount in budgets:
        if store.has(kind, amount):
            continue
        say(f"{kind} {amount}")
        target = folder / _name(model, kind, amount)
        start = time.perf_counter()
        try:
            call = {**options, kind: amount, "seed": seed, "dims": dims}
            if inputs is not None:
                call["calibration"] = inputs
            result = api.prune(host, output=target, progress=progress, **call)
        except TargetError as error:
            store.add(Point(kind, str(amount), "refused", message=str(error)))
        else:
            say(f"{kind} {amount}: measure")
            point = Point.of(kind, str(amount), result, run.evaluation(result.model), time.perf_counter() - start)
            store.add(point)
        made += 1
    chosen = {(kind, str(amount)) for kind, amount in budgets}
    points = tuple(point for point in store.points if (point.kind, point.amount) in chosen)
    if all(point.status == "refused" for point in points):
        raise TargetError(f"no budget can be reached: {points[0].message}")
    notes = [*seen.notes]
    if evaluation is None and inputs is not None and not seen.synthetic:
        notes.append("measured on the inputs that it was calibrated on; give --eval for data that nothing has seen")
    drawn = None
    if plot:
        from graphprune.sweep_plot import draw

        drawn = draw(folder / "sweep.png", store.points)
        if drawn is None:
            notes.append("no plot: matplotlib is not installed; pip install 'graphprune[viz]'")
    return Sweep(folder, points, store.dense, seen.to_dict(), made, tuple(notes), drawn)


class _Run:
    """Compares slim models with the dense one on the same inputs."""

    def __init__(
        self,
        host: Host,
        inputs: Batches | None,
        seen: Batches,
        metric: Metric | None,
        origin: Origin | None,
        say: Callable[[str], None],
    ) -> None:
        self._host, self._inputs, self._seen, self._metric, self._origin = host, inputs, seen, metric, origin
        self._say = say
        self._dense: Runs | None = None
        self._control: Runs | None = None

    def evaluation(self, slim: Host) -> Evaluation:
        """The slim model beside the dense one, and the control, if there is one."""
        if self._dense is None:
            self._dense = _Kept(self._runs(_canonical(self._host)))
            if self._origin is not None:
                recovered = self._origin(_canonical(self._host), self._inputs or self._seen)
                self._control = _Kept(self._runs(recovered))
        return evaluate(
            self._dense,
            self._runs(slim),
            self._seen,
            metric=self._metric,
            origin=self._control,
            names=_output_names(self._host),
        )

    def _runs(self, host: Host) -> Calibration:
        return Calibration(host, self._seen.feeds, progress=self._say)


@dataclass
class _Kept:
    """A program whose outputs are remembered where they are few."""

    runs: Runs
    outputs_: list[list[Array]] | None = None

    def outputs(self) -> Iterator[list[Array]]:
        """The outputs, batch by batch."""
        if self.outputs_ is not None:
            yield from self.outputs_
            return
        kept: list[list[Array]] | None = []
        size = 0
        for outputs in self.runs.outputs():
            size += sum(value.nbytes for value in outputs)
            if kept is not None:
                kept.append(outputs)
            if size > KEPT:
                kept = None
            yield outputs
        self.outputs_ = kept


def _budgets(**given: Sequence[str | float]) -> list[tuple[str, str | float]]:
    kinds = [kind for kind in AMOUNTS if given[kind]]
    if len(kinds) != 1:
        said = f"{kinds[0]} and {kinds[1]} exclude each other" if kinds else "which budgets?"
        raise UsageError(f"{said}: give a list of one of macs, params, bytes and ratio, as --macs 80%,60%,40%")
    amounts = given[kinds[0]]
    return [(kinds[0], amount) for amount in dict.fromkeys([amounts] if isinstance(amounts, str) else amounts)]


def _folder(folder: Path) -> Path:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; a sweep writes a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(f"{folder}: cannot be made ({error.strerror})") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ModelError(f"{folder}: is not writable")
    return folder


def _name(model: Any, kind: str, amount: str | float) -> str:
    """What a slim model is called: a file of ONNX, a folder of a module."""
    torch = is_torch(model)
    stem = Path(model).stem if isinstance(model, str | os.PathLike) else "slim"
    return f"{stem}-{kind}-{str(amount).replace('%', '')}{'' if torch else '.onnx'}"


def _canonical(host: Host) -> Host:
    """A copy that can be run with stops."""
    if is_torch(host):
        return host.clone()
    from graphprune import passes

    copy = host.clone()
    passes.Canonicalize()(copy, passes.Context())
    return copy


def _output_names(host: Host) -> list[str]:
    return [] if is_torch(host) else [value.name or "" for value in host.graph.outputs]  # type: ignore[union-attr]


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as they are compared: what JSON has, and the names of all else."""
    return {
        name: value if isinstance(value, str | int | float | bool | None) else str(getattr(value, "__name__", value))
        for name, value in sorted(options.items())
        if value is not None and value != () and value != {}
    }
