"""Prunes one model to several budgets, and says what each costs: the Pareto table.

Each slim model is written as soon as it is made, and ``sweep.json`` with it, so that a sweep that was interrupted goes
on where it stopped, and one that is run again with more budgets makes only those. ``sweep.csv`` has the same points for
a spreadsheet, ``sweep.png`` draws them (matplotlib, the extra ``viz``).
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphprune import api
from graphprune.calibration.data import SYNTHETIC, Batches, load_batches
from graphprune.calibration.metrics import Metric, meter
from graphprune.clock import Progress
from graphprune.errors import ModelError, TargetError, UsageError
from graphprune.frontends.program import Host, is_torch
from graphprune.measuring import sensitivity
from graphprune.recipes import recipe_for
from graphprune.sweep_points import AMOUNTS, Point
from graphprune.sweep_store import Store, opened, stored
from graphprune.version import __version__

__all__ = ["Sweep", "sweep"]


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
                    "dims": dict(dims or {}), "version": __version__},
    }  # fmt: skip
    known = [] if fresh else stored(folder, given)
    store = Store(folder, given, seen, known)
    missing = [(kind, amount) for kind, amount in budgets if not store.has(kind, amount)]
    call = {**options, "calibration": inputs, "evaluation": seen, "metric": metric, "seed": seed, "dims": dims}
    if missing:
        call["curves"] = _curves(host, folder, inputs, options, fresh=fresh, seed=seed, dims=dims, progress=progress)
    for kind, amount in missing:
        say(f"{kind} {amount}")
        target = folder / _name(model, kind, amount)
        start = time.perf_counter()
        try:
            result = api.prune(host, output=target, progress=progress, **{**call, kind: amount})
        except TargetError as error:
            store.add(Point(kind, str(amount), "refused", message=str(error)))
        else:
            store.add(Point.of(kind, str(amount), result, time.perf_counter() - start))
    chosen = {(kind, str(amount)) for kind, amount in budgets}
    points = tuple(point for point in store.points if (point.kind, point.amount) in chosen)
    if all(point.status == "refused" for point in points):
        raise TargetError(f"no budget can be reached: {points[0].message}")
    notes = list(dict.fromkeys([*seen.notes, *(inputs.notes if inputs is not None else ())]))
    if evaluation is None and inputs is not None and not seen.synthetic:
        notes.append("measured on the inputs that it was calibrated on; give --eval for data that nothing has seen")
    drawn = None
    if plot:
        from graphprune.sweep_plot import draw

        drawn = draw(folder / "sweep.png", store.points)
        if drawn is None:
            notes.append("no plot: matplotlib is not installed; pip install 'graphprune[viz]'")
    return Sweep(folder, points, store.dense, seen.to_dict(), len(missing), tuple(notes), drawn)


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


def _curves(
    host: Host, folder: Path, inputs: Batches | None, options: Mapping[str, Any], *, fresh: bool, **rest: Any
) -> Any:
    """The sensitivity curves that the recipe wants, measured once for all budgets; None where it wants none."""
    if options.get("curves") is not None or not recipe_for(options.get("recipe"), data=inputs is not None).measured:
        return options.get("curves")
    judge = options.get("criterion") or recipe_for(options.get("recipe"), data=True).criterion
    return sensitivity(host, calibration=inputs, criterion=judge, output=folder / "curves.json", fresh=fresh, **rest)


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as they are compared: what JSON has, and the names of all else."""
    return {
        name: value if isinstance(value, str | int | float | bool | None) else str(getattr(value, "__name__", value))
        for name, value in sorted(options.items())
        if value is not None and value != () and value != {}
    }
