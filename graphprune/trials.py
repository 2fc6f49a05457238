"""How much of each group goes, by measured curves or by scores alone: both are tried, and the nearer one is taken.

Curves say what scores cannot, how a whole network takes a cut; but those of few inputs are noisy, and a cut that
follows them fits the inputs that they were measured on. So a part of the calibration inputs is held out, curves are
measured on the rest, the network is pruned and compensated both ways on that rest, and the outputs on what was held out
decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from graphprune import passes
from graphprune.calibration.data import Batches
from graphprune.calibration.observe import Calibration
from graphprune.calibration.remembered import Remembered
from graphprune.clock import Clock, Progress
from graphprune.errors import TargetError
from graphprune.frontends.program import Host
from graphprune.measuring import WORST, curves_of, loss_between
from graphprune.passes.prune import Prune

__all__ = ["held_out", "with_curves"]

HELD = 0.25
"""The share of the batches that is held out."""

Steps = Callable[[Prune], Sequence[passes.Pass]]


def with_curves(
    host: Host,
    asked: Prune,
    steps: Steps,
    data: Mapping[str, Any],
    *,
    criterion: Any,
    seed: int,
    dims: Mapping[str, int] | None,
    progress: Progress | None,
) -> tuple[Prune, tuple[str, ...]]:
    """``asked`` with measured curves where they help, and notes; ``data`` has the calibration inputs as they were read.

    ``host`` is the program as :func:`graphprune.measuring.host_of` reads it, ``steps`` all that is done for a way to
    prune. With a single batch, which leaves nothing to hold out, and for a latency, whose rounds take long, curves are
    used untried.

    Raises:
        GraphpruneError: as :func:`graphprune.measuring.sensitivity`.
    """
    clock = Clock(progress)
    asked.check(host, dims)
    batches: Batches = data["calibration"]
    parts = None if asked.latency else held_out(batches, seed)
    known = batches if parts is None else parts[0]
    curves = curves_of(host, known, criterion=criterion, seed=seed, dims=dims, progress=progress)
    measured = replace(asked, curves=curves)
    if parts is None:
        return measured, ()
    runs = Remembered(Calibration(host, parts[1].feeds))

    def loss(way: Prune) -> float:
        context = passes.Context(
            reports=[("canonicalize", passes.Report(False))],
            data={**data, "calibration": known},
            dims=dims,
            clock=clock,
        )
        slim = host.clone()
        if way.round_to == "auto":  # which takes a stopwatch, and matters to time alone
            way = replace(way, round_to=1)
        try:
            passes.run_passes(slim, list(steps(way)), context)
        except TargetError:  # the other way may reach it
            return WORST
        return loss_between(host, runs, slim, parts[1])

    clock.say("try: shares by curves, and by scores alone")
    by_curves, by_scores = loss(measured), loss(asked)
    note = (
        f"shares of groups by {'measured curves' if by_curves <= by_scores else 'scores alone'}: tried on "
        f"{parts[1].samples} held-out samples, outputs are {by_curves:.3g} from the dense ones by curves, "
        f"{by_scores:.3g} by scores"
    )
    return measured if by_curves <= by_scores else asked, (note,)


def held_out(batches: Batches, seed: int = 0) -> tuple[Batches, Batches] | None:
    """What remains of ``batches`` and what is held out, drawn by ``seed``; None of a single batch."""
    if len(batches) < 2:
        return None
    order = np.random.default_rng(seed).permutation(len(batches)).tolist()
    count = max(1, round(HELD * len(batches)))
    return batches.part(sorted(order[count:])), batches.part(sorted(order[:count]))
