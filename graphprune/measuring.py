"""Measures how much a network loses where a group is cut: its sensitivity curves.

Each group alone is cut exactly, by several shares of its positions, the worst ones by a criterion; the slim program
runs on the calibration inputs, and its outputs are compared with those of the dense one. That takes one run of the
network for each group and share, and no labels. Parts of one original axis are cut together; so are groups of very few
positions that are of one class, and neighbours of one class where there are more groups than measurements allowed.

What is measured is written group by group, so that a measurement that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from graphprune import passes
from graphprune.budget import Budget
from graphprune.calibration.data import SYNTHETIC, Batches, load_batches
from graphprune.calibration.evaluate import evaluate
from graphprune.calibration.fidelity import Fidelity
from graphprune.calibration.observe import Calibration
from graphprune.calibration.remembered import Remembered
from graphprune.choose import choose
from graphprune.clock import Clock, Progress
from graphprune.constraints import Constraints
from graphprune.cost import CostModel
from graphprune.curves import Curve, Curves, structure_mark
from graphprune.errors import TargetError, UsageError
from graphprune.frontends.program import Host, is_torch, program_of
from graphprune.passes.gather import evidence_for
from graphprune.patterns import Names
from graphprune.score import Scores
from graphprune.score import criterion as criterion_called
from graphprune.score.normalize import classes
from graphprune.structure import Group, Structure

__all__ = [
    "DISTANCES",
    "REMOVED",
    "WORST",
    "bundles",
    "curves_of",
    "host_of",
    "loss_between",
    "loss_of",
    "sensitivity",
]

REMOVED = (0.25, 0.5, 0.75, 0.9)
"""The shares that are measured where nobody says."""

DISTANCES = ("auto", "kl", "cosine", "error")
"""How outputs differ: the divergence of the distributions over classes, 1 - cosine, or the squared relative error (its
share of the outputs' energy); ``auto`` is ``kl`` where an output scores classes, otherwise ``error``."""

MOST = 256
"""How many groups, or bundles of them, are measured at most."""
FEW = 4
"""Positions up to which groups of one class are measured together."""
WORST = 1e9
"""The loss of outputs that are not finite."""


After: TypeAlias = Callable[[Host, passes.Decision], None]
"""Changes a slim program in place, given the cut that made it."""


def sensitivity(
    model: Any,
    args: tuple[Any, ...] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    calibration: Any = None,
    criterion: Any = "l1",
    removed: Sequence[float] = REMOVED,
    distance: str = "auto",
    units: Sequence[str] = (),
    exclude: Sequence[str] = (),
    output: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    most: int = MOST,
    after: str | Callable[[Host], None] | None = None,
    seed: int = 0,
    dims: Mapping[str, int] | None = None,
    progress: Progress | None = None,
    dynamic_shapes: Any = None,
) -> Curves:
    """The sensitivity curves of ``model``, which :func:`graphprune.prune` takes as ``curves``.

    Args:
        model: as for :func:`graphprune.prune`; not modified.
        args: of a module, the tuple of its example inputs.
        kwargs: of a module, its example keyword inputs.
        calibration: inputs to measure on (:func:`~graphprune.calibration.data.load_batches`); synthetic without any.
        criterion: by which the positions of a group are ordered, a name or a function; prune by the same.
        removed: the shares to measure.
        distance: how outputs are compared, one of :data:`DISTANCES`.
        units: roles of the groups to measure; all, if empty.
        exclude: patterns of groups that are not measured, and so not cut by the curves.
        output: a file that holds the curves, written after each group; what it has already is not measured again.
        fresh: forget what the file has.
        most: how many groups, or bundles of them, are measured at most.
        after: what happens to each slim program before it runs, as it will when the network is pruned: passes, such as
            ``"compensate"``, or a function that changes it in place. Curves then say what is lost in spite of that.
        seed: of the criterion, and of the order in which samples are taken.
        dims: sizes of symbolic dimensions.
        progress: called with what is being measured.
        dynamic_shapes: of a module, what ``torch.export.export`` takes under that name.

    Raises:
        UsageError: an option makes no sense, or the file has curves of something else.
        TargetError: there is nothing to cut.
        ModelError: the model, the inputs or the file cannot be read.
    """
    _shares(removed)
    with Clock(progress)("load"):
        host = host_of(model, args, kwargs, dynamic_shapes)
        batches = load_batches(SYNTHETIC if calibration is None else calibration, host, seed=seed, dims=dims)
    return curves_of(
        host,
        batches,
        criterion=criterion,
        removed=removed,
        distance=distance,
        units=units,
        exclude=exclude,
        output=output,
        fresh=fresh,
        most=most,
        after=after,
        seed=seed,
        dims=dims,
        progress=progress,
    )


def curves_of(
    host: Host,
    batches: Batches,
    *,
    criterion: Any = "l1",
    removed: Sequence[float] = REMOVED,
    distance: str = "auto",
    units: Sequence[str] = (),
    exclude: Sequence[str] = (),
    output: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    most: int = MOST,
    after: str | Callable[[Host], None] | None = None,
    seed: int = 0,
    dims: Mapping[str, int] | None = None,
    progress: Progress | None = None,
) -> Curves:
    """The sensitivity curves of a program that was read (:func:`host_of`), as :func:`sensitivity` has them."""
    shares = _shares(removed)
    if distance not in DISTANCES:
        raise UsageError(f"no distance is called '{distance}'; there are: {', '.join(DISTANCES)}")
    judge = criterion_called(criterion, seed)
    clock = Clock(progress)
    program = program_of(host)
    with clock("analyse"):
        structure = program.read()
        cost = CostModel(structure, program.sizes(dims))
        groups = _chosen(structure, units, exclude)
    about = {
        "criterion": judge.name,
        "distance": distance,
        "removed": list(shares),
        "seed": seed,
        "data": batches.to_dict(),
        "after": after if after is None or isinstance(after, str) else getattr(after, "__qualname__", "a function"),
        "key": _key(host, structure, batches),
    }
    kept = None if output is None else Path(output)
    known = () if kept is None or fresh else _known(kept, about)
    context = passes.Context(dims=dims, clock=Clock(progress))
    context.data["calibration"] = batches
    with clock("score"):
        scores = judge.score(evidence_for(judge, host, structure, context, seed))
    then = _passes(after, batches, dims) if isinstance(after, str) else _function(after)
    measured = _Measurement(host, structure, cost, scores, batches, shares, distance, then)
    bundled = bundles(structure, groups, most)
    curves: list[Curve] = []
    for number, bundle in enumerate(bundled, 1):
        names = {group.name: group.size for group in bundle}
        curve = next((curve for curve in known if curve.groups == names), None)
        if curve is None:
            say = _told(clock.say, f"measure {number} of {len(bundled)}: {', '.join(list(names)[:3])}")
            curve = measured.curve(bundle, say)
        curves.append(curve)
        if kept is not None:
            found = Curves(tuple(curves), structure_mark(structure), {**about, "complete": number == len(bundled)})
            found.save(kept)
    return Curves(tuple(curves), structure_mark(structure), {**about, "complete": True})


def bundles(structure: Structure, groups: Sequence[Group], most: int = MOST) -> list[tuple[Group, ...]]:
    """What is measured together, in reading order: at most about ``most`` bundles."""
    kinds = classes(structure)
    pools: dict[int, list[Group]] = {}
    for group in groups:
        pools.setdefault(group.leaf.pool, []).append(group)
    of_kind: dict[object, list[list[Group]]] = {}
    for pool in pools.values():
        few = sum(group.size for group in pool) <= FEW
        of_kind.setdefault((few, frozenset(kinds[group.leaf] for group in pool)), []).append(pool)
    together = max(1, math.ceil(len(pools) / max(most, 1)))
    found: list[tuple[Group, ...]] = []
    for (few, _), alike in of_kind.items():  # type: ignore[misc]
        step = len(alike) if few else together
        for start in range(0, len(alike), step):
            found.append(tuple(group for pool in alike[start : start + step] for group in pool))
    order = {group.name: number for number, group in enumerate(structure.groups)}
    return sorted(found, key=lambda bundle: order[bundle[0].name])


class _Measurement:
    """Cuts groups and compares outputs."""

    def __init__(
        self,
        host: Host,
        structure: Structure,
        cost: CostModel,
        scores: Scores,
        batches: Batches,
        shares: Sequence[float],
        distance: str,
        after: After,
    ) -> None:
        self._host, self._structure, self._cost, self._scores = host, structure, cost, scores
        self._batches, self._shares, self._distance, self._after = batches, shares, distance, after
        self._dense = Remembered(Calibration(host, batches.feeds))

    def curve(self, bundle: Sequence[Group], say: Callable[[str], None]) -> Curve:
        """The losses of one bundle at all shares."""
        size = sum(group.size for group in bundle)
        found: dict[float, float] = {}
        for share in self._shares:
            constraints = Constraints(shares={group.leaf: share for group in bundle})
            selection = choose(self._structure, self._scores, Budget(ratio=0.0), constraints, self._cost)
            gone = sum(int(np.count_nonzero(~selection.mask(group.leaf))) for group in bundle)
            if not gone or gone / size in found:
                continue
            say(f"{gone / size:.0%} removed")
            slim = self._host.clone()
            program_of(slim).write(self._structure, selection)
            cut = passes.Decision("prune", self._host, program_of(slim).clone(), self._structure, selection)
            self._after(slim, cut)
            found[gone / size] = loss_between(self._host, self._dense, slim, self._batches, self._distance)
        names = {group.name: group.size for group in bundle}
        return Curve(names, tuple(found), tuple(found.values()))


def _function(after: Callable[[Host], None] | None) -> After:
    return lambda slim, cut: None if after is None else after(slim)


def _passes(text: str, batches: Batches, dims: Mapping[str, int] | None) -> After:
    """What runs a pipeline as if the cut had been a step of it."""
    steps = passes.parse_pipeline(text)

    def run(slim: Host, cut: passes.Decision) -> None:
        reports = [("canonicalize", passes.Report(False)), ("prune", passes.Report(True))]
        context = passes.Context(reports=reports, dims=dims, decisions=[cut])
        context.data["calibration"] = batches
        passes.run_passes(slim, steps, context)

    return run


def loss_between(
    dense: Host, runs: Calibration | Remembered, slim: Host, batches: Batches, distance: str = "auto"
) -> float:
    """How far the outputs of ``slim`` on ``batches`` are from those of ``dense``, whose runs on them are ``runs``.

    Raises:
        UsageError: no output has such a distance.
    """
    names = [value.name or "" for value in dense.graph.outputs] if isinstance(dense, ir.Model) else []
    found = evaluate(runs, Calibration(slim, batches.feeds), batches, names=names)
    return loss_of(found.fidelity, distance)


def loss_of(found: Fidelity, distance: str = "auto") -> float:
    """How far outputs are apart, by one number, as :data:`DISTANCES` says.

    Raises:
        UsageError: no output has such a distance.
    """
    if any(own.problem for own in found.outputs):
        return WORST
    kl, cosine, error = found.kl, found.cosine, found.relative_error
    if distance in ("auto", "kl") and kl is not None:
        loss = kl
    elif distance == "kl" or cosine is None or error is None:
        raise UsageError(f"distance '{distance}' cannot be had of these outputs: take another one, or auto")
    else:
        loss = 1 - cosine if distance == "cosine" else error**2
    return min(float(loss), WORST) if math.isfinite(loss) else WORST


def _shares(removed: Sequence[float]) -> tuple[float, ...]:
    if not removed or not all(0 < share < 1 for share in removed):
        raise UsageError(f"shares {', '.join(map(str, removed)) or 'of nothing'}: give some, each above 0 and below 1")
    return tuple(sorted(set(map(float, removed))))


def host_of(model: Any, args: Any, kwargs: Any, dynamic_shapes: Any) -> Host:
    """The program as :func:`graphprune.prune` cuts it."""
    if is_torch(model):
        from graphprune.torch_api import program_from

        return program_from(model, args, kwargs, dynamic_shapes).clone()
    from graphprune.frontends.onnx_data import check_finite
    from graphprune.frontends.onnx_file import load

    host = load(model)
    check_finite(host)
    passes.canonicalize(host)
    return host


def _chosen(structure: Structure, units: Sequence[str], exclude: Sequence[str]) -> list[Group]:
    roles = {group.role for group in structure.groups}
    for unit in units:
        if unit not in roles:
            raise UsageError(f"no group has the role '{unit}'; there are: {', '.join(sorted(roles)) or 'none'}")
    names = Names(structure)
    left = {leaf for pattern in exclude for leaf in names.match(pattern)}
    found = [g for g in structure.groups if g.leaf not in left and (not units or g.role in units)]
    if not found:
        raise TargetError("nothing to measure: no group may be cut" + (", all are excluded" if exclude else ""))
    return found


def _key(host: Host, structure: Structure, batches: Batches) -> str:
    """A mark of all that the losses depend on beside the options: groups, weights and inputs."""
    digest = hashlib.sha256(structure_mark(structure).encode())
    weights = program_of(host).weights()
    for name, parameter in structure.parameters.items():
        if parameter.elements and parameter.itemsize:
            for block in weights(name):
                digest.update(np.ascontiguousarray(block.values).tobytes())
    digest.update(batches.digest().encode())
    return digest.hexdigest()


def _known(path: Path, about: Mapping[str, Any]) -> tuple[Curve, ...]:
    """The curves that a file has.

    Raises:
        UsageError: they are of another model, other inputs or other options.
    """
    if not path.exists():
        return ()
    found = Curves.load(path)
    current = json.loads(json.dumps(about))
    other = [name for name in current if name != "data" and found.about.get(name) != current[name]]
    if other:
        said = ", ".join("another model or other inputs" if name == "key" else f"another '{name}'" for name in other)
        raise UsageError(f"{path}: has curves of {said}; name another file, or start over with --fresh (fresh=True)")
    return found.curves


def _told(say: Callable[[str], None], what: str) -> Callable[[str], None]:
    start = time.monotonic()
    return lambda text: say(f"{what}, {text} ({time.monotonic() - start:.0f} s)")
