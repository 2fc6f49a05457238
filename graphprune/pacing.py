"""Finds the cut that has the latency that was asked for: choose by the tables, measure, correct, and choose again.

Tables of single operators miss what a runtime makes of whole graphs (fusion, memory layouts, caches), so what they
predict is right in its ratios rather than in milliseconds. Each round chooses a cut for a *predicted* latency, cuts,
compiles and measures it beside the dense program, and a line through the pairs of predicted and measured latency so far
(and that of the dense program) says which predicted latency to ask for next. Pairs near the target weigh most, and all
of them count, so that the noise of one measurement does not lead astray; what seems near enough is measured twice. A
budget is something not to exceed, so the slowest cut that keeps to it within the tolerance is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from graphprune.budget import Amount
from graphprune.errors import TargetError, UsageError
from graphprune.pace import Pace
from graphprune.selection import Selection

__all__ = ["ROUNDS", "TOLERANCE", "pace"]

TOLERANCE = 0.05
"""How far from the target a measured latency may be, relative to it."""
NEAR = 0.5
"""The part of the tolerance within which no better cut is looked for; the rest is for what measuring gets wrong."""
ROUNDS = 6
"""Cuts that are measured at most."""
WIDER = (1.15, 1.3, 1.5)
"""Where no cut is predicted to be faster and none is fast enough: tables may be wrong about which one is the fastest,
so cuts that are predicted to take so many times as long are measured before the latency is called out of reach."""


@dataclass(frozen=True, slots=True)
class _Try:
    """A cut: its predicted nanoseconds, and what was measured in the terms of the target."""

    selection: Selection
    predicted: int
    dense: float
    slim: float
    measured: float


def pace(
    target: Amount,
    choose: Callable[[int], tuple[Selection, int]],
    measure: Callable[[Selection], tuple[float, float]],
    whole: int,
    alone: Callable[[], float],
    *,
    rounds: int = ROUNDS,
    tolerance: float = TOLERANCE,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Selection, Pace]:
    """The cut whose measured latency comes nearest to ``target`` without exceeding it, and how that went.

    Args:
        target: a share of the dense program's latency, or a time.
        choose: the best cut that is predicted to take so many nanoseconds at most, or the most that can be cut where
            that is not enough; and what is predicted for it.
        measure: the seconds of the dense program and of a cut one, measured in turns.
        whole: the nanoseconds that are predicted for the dense program.
        alone: the seconds of the dense program; only measured where the target is a time.
        rounds: how many cuts are measured at most.
        tolerance: how far from the target is near enough, relative to it.
        say: told about each round.

    Raises:
        TargetError: no cut is fast enough; says how far it got.
        UsageError: the dense program takes no more than that already.
    """
    tries: list[_Try] = []
    scale = 1.0  # measured seconds of the dense program, where the target is a time
    wanted = target.value if target.relative else target.value / 1e9
    if not target.relative and (dense := alone()) <= wanted:
        raise UsageError(f"latency {target} is no less than the dense model's, {dense * 1e3:.3g} ms: ask for less")
    limit = round(whole * (wanted if target.relative else wanted / dense))
    wider = iter(WIDER)
    while len(tries) < rounds:
        selection, predicted = choose(max(limit, 1))
        if any(done.predicted == predicted for done in tries):
            met = any(each.measured <= wanted * (1 + tolerance) for each in tries)
            factor = None if met else next(wider, None)
            if factor is None:
                break
            limit = round(factor * min(each.predicted for each in tries))
            if limit >= whole:
                break
            continue
        dense, slim = measure(selection)
        if abs((slim / dense if target.relative else slim) / wanted - 1) <= tolerance:  # seen twice, since noise lies
            again = measure(selection)
            dense, slim = (dense + again[0]) / 2, (slim + again[1]) / 2
        scale = 1.0 if target.relative else dense
        found = _Try(selection, predicted, dense, slim, slim / dense if target.relative else slim)
        tries.append(found)
        say(f"round {len(tries)}: {slim * 1e3:.3g} ms of {dense * 1e3:.3g} ms, asked {target}")
        if abs(found.measured / wanted - 1) <= NEAR * tolerance:
            break
        limit = _next(tries, wanted, whole, scale)
    limits = (wanted * (1 + NEAR * tolerance), wanted * (1 + tolerance))
    fast = next(filter(None, ([each for each in tries if each.measured <= limit] for limit in limits)), [])
    history = tuple((each.predicted / whole, each.slim / each.dense) for each in tries)
    best = max(fast, key=lambda each: each.predicted) if fast else min(tries, key=lambda each: each.measured)
    near = best.measured >= wanted * (1 - tolerance)
    outcome = Pace(str(target), best.dense, best.slim, (whole / 1e9, best.predicted / 1e9), history, near)
    if not fast:
        raise TargetError(
            f"latency {target} is out of reach: {best.slim * 1e3:.3g} ms ({outcome.share:.1%} of the dense model's "
            f"{best.dense * 1e3:.3g} ms) is the least that was measured in {len(tries)} "
            f"round{'' if len(tries) == 1 else 's'}; ask for more, or relax the constraints (--round-to, --max-ratio)",
            {"latency": outcome.to_dict()},
        )
    return best.selection, outcome


def _next(tries: list[_Try], wanted: float, whole: int, scale: float) -> int:
    """The predicted nanoseconds to ask for, by a line through the dense program and all tries, near ones above all."""
    told = np.array([whole, *(each.predicted for each in tries)], np.float64) / whole
    seen = np.array([scale, *(each.measured for each in tries)]) / wanted
    weights = 1 / (np.abs(seen - 1) + TOLERANCE) ** 2
    center, height = np.average(told, weights=weights), np.average(seen, weights=weights)
    spread = float(np.sum(weights * (told - center) ** 2))
    slope = float(np.sum(weights * (told - center) * (seen - height))) / spread if spread else 0.0
    # No further than what was measured on both sides allows, with some room for noise.
    low = max(told[seen <= 1], default=0.0) * (1 - TOLERANCE)
    high = min(told[seen > 1], default=1.0) * (1 + TOLERANCE)
    asked = center + (1 - height) / slope if slope > 0 else (low + high) / 2
    return round(whole * (min(max(asked, low), high) if low < high else asked))
