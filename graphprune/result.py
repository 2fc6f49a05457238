"""What pruning returns: figures before and after, in the words of the command line's JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from graphprune.cost import Counts
from graphprune.frontends.program import Host
from graphprune.ledger import Ceiling, LedgerEntry
from graphprune.pace import Pace
from graphprune.plan import Plan
from graphprune.structure import Structure

if TYPE_CHECKING:
    from graphprune.backends.measure import Comparison
    from graphprune.calibration.evaluate import Evaluation

__all__ = ["Change", "GroupCount", "Inspection", "PruneResult"]


@dataclass(frozen=True, slots=True)
class Change:
    """A figure before and after."""

    before: int
    after: int


@dataclass(frozen=True, slots=True)
class GroupCount:
    """How many groups there are, and how many lost positions: in the step of the pipeline that cut most of them."""

    total: int
    cut: int


@dataclass(frozen=True)
class PruneResult:
    """The outcome of pruning one model.

    ``params`` counts the elements of weights, ``bytes`` what all initializers take, ``peak`` the
    most bytes of activations that are alive at once (:mod:`graphprune.activations`), ``macs`` multiply-accumulates for
    one sample at typical extents of symbolic dimensions. ``verified`` is None where no proof was asked for;
    ``max_error`` is the largest difference that the proof saw, relative to the scale of the output; ``lossless`` tells
    that nothing but dead weight went, so that the original itself was compared. ``seconds`` are
    wall-clock times by stage. ``evaluation`` compares the slim model with the dense one on data, where there were any.
    ``pace`` says how a latency that was asked for was met, ``speed`` how much faster than the dense model the slim one
    was measured to be, where that was asked.
    """

    status: Literal["pruned", "unchanged"]
    model: Host
    plan: Plan | None
    params: Change
    macs: Change
    bytes: Change
    peak: Change
    groups: GroupCount
    ceiling: Ceiling
    verified: bool | None
    max_error: float | None
    lossless: bool = False
    undeclared: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    output: Path | None = None
    evaluation: Evaluation | None = None
    pace: Pace | None = None
    speed: Comparison | None = None

    @property
    def latency(self) -> dict[str, Any] | None:
        """What was measured of the latency, as JSON types; None where nothing was."""
        if self.pace is None and self.speed is None:
            return None
        found = {} if self.pace is None else self.pace.to_dict()
        return {**found, "comparison": None if self.speed is None else self.speed.to_dict()}

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON types; the model and the plan are left out."""
        error = self.max_error
        return {
            "status": self.status,
            "params": asdict(self.params),
            "macs": asdict(self.macs),
            "bytes": asdict(self.bytes),
            "peak": asdict(self.peak),
            "groups": asdict(self.groups),
            "ceiling": asdict(self.ceiling),
            "verified": self.verified,
            "lossless": self.lossless,
            "max_error": error if error is not None and math.isfinite(error) else None,
            "undeclared": list(self.undeclared),
            "notes": list(self.notes),
            "seconds": {stage: round(spent, 4) for stage, spent in self.seconds.items()},
            "output": None if self.output is None else str(self.output),
            "latency": self.latency,
            "evaluation": None if self.evaluation is None else self.evaluation.to_dict(),
        }


@dataclass(frozen=True)
class Inspection:
    """What is coupled with what, how much can be reached, and which operators lock the rest."""

    structure: Structure
    counts: Counts
    ceiling: Ceiling
    ledger: tuple[LedgerEntry, ...]
