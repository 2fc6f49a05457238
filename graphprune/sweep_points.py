"""One budget of a sweep: what came out of it, in figures that a table, a plot and a file have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphprune.result import PruneResult

__all__ = ["AMOUNTS", "Point", "marked"]

AMOUNTS = ("macs", "params", "bytes", "ratio")
"""The kinds of budgets."""


@dataclass(frozen=True)
class Point:
    """A budget (``kind`` and ``amount``), and the slim model that it led to, or why there is none.

    ``file`` is its name in the folder; ``macs``, ``params`` and ``bytes`` are (before, after). ``evaluation`` is as
    :meth:`~graphprune.calibration.evaluate.Evaluation.to_dict` has it. ``pareto`` tells that no other point is both
    smaller and better.
    """

    kind: str
    amount: str
    status: str
    message: str = ""
    file: str | None = None
    macs: tuple[int, int] = (0, 0)
    params: tuple[int, int] = (0, 0)
    bytes: tuple[int, int] = (0, 0)
    verified: bool | None = None
    evaluation: Mapping[str, Any] | None = None
    seconds: float = 0.0
    pareto: bool = False

    @classmethod
    def of(cls, kind: str, amount: str, result: PruneResult, seconds: float) -> Point:
        """The point of a result."""
        return cls(
            kind,
            amount,
            result.status,
            file=None if result.output is None else result.output.name,
            macs=(result.macs.before, result.macs.after),
            params=(result.params.before, result.params.after),
            bytes=(result.bytes.before, result.bytes.after),
            verified=result.verified,
            evaluation=None if result.evaluation is None else result.evaluation.to_dict(),
            seconds=round(seconds, 3),
        )

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Point:
        """The point that :meth:`to_dict` wrote.

        Raises:
            KeyError, TypeError: it did not.
        """
        pairs = {name: tuple(entry[name]) for name in ("macs", "params", "bytes")}
        return cls(**{**entry, **pairs})

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)

    @property
    def cost(self) -> int:
        """What the budget is about, of the slim model: multiply-accumulates, where it is a ratio."""
        size: tuple[int, int] = getattr(self, "macs" if self.kind == "ratio" else self.kind)
        return size[1]

    @property
    def quality(self) -> tuple[str, float, bool] | None:
        """What the point is judged by: name, value, whether more is better.

        The metric, else the agreement with the dense model, else the cosine of their outputs.
        """
        if self.evaluation is None:
            return None
        metric = self.evaluation["metric"]
        if metric is not None:
            return None if metric["slim"] is None else (metric["name"], metric["slim"], metric["higher_is_better"])
        for name in ("agreement", "cosine"):
            if (value := self.likeness(name)) is not None:
                return name, value, True
        return None

    def likeness(self, name: str) -> float | None:
        """A figure of fidelity: the first output's that has it."""
        if self.evaluation is None:
            return None
        values = [own[name] for own in self.evaluation["fidelity"]["outputs"]]
        return next((value for value in values if value is not None), None)

    def dense(self) -> dict[str, Any]:
        """The figures of the model before it was pruned."""
        metric = None if self.evaluation is None else self.evaluation["metric"]
        figures = {"macs": self.macs[0], "params": self.params[0], "bytes": self.bytes[0]}
        return {**figures, "metric": None if metric is None else metric["dense"]}

    def row(self) -> dict[str, Any]:
        """A line of the spreadsheet."""
        metric: Mapping[str, Any] = (self.evaluation or {}).get("metric") or {}
        sizes = {
            f"{name}_{when}": getattr(self, name)[index]
            for name in ("macs", "params", "bytes")
            for index, when in enumerate(("before", "after"))
        }
        return {
            "kind": self.kind,
            "amount": self.amount,
            "status": self.status,
            **sizes,
            **{name: self.likeness(name) for name in ("cosine", "relative_error", "kl", "agreement")},
            "metric": metric.get("name"),
            "metric_dense": metric.get("dense"),
            "metric_slim": metric.get("slim"),
            "metric_origin": metric.get("origin"),
            "pareto": self.pareto,
            "verified": self.verified,
            "seconds": self.seconds,
            "file": self.file,
        }


def marked(points: Sequence[Point]) -> list[Point]:
    """Points with ``pareto`` set where no other is both at most as large and at least as good."""
    return [replace(point, pareto=_is_best(point, points)) for point in points]


def _is_best(point: Point, points: Sequence[Point]) -> bool:
    own = point.quality
    if own is None:
        return False
    for other in points:
        theirs = other.quality
        if other is point or theirs is None or theirs[0] != own[0] or other.kind != point.kind:
            continue
        ahead = theirs[1] - own[1] if own[2] else own[1] - theirs[1]
        if other.cost <= point.cost and ahead >= 0 and (other.cost < point.cost or ahead > 0):
            return False
    return True
