"""What a choice needs to know of time: how long a cut program would take, which widths suit the machine, and a clock.

Nothing here runs anything: :mod:`graphprune.backends.latency` predicts and measures, and whoever chooses asks it by the
methods of :class:`Stopwatch`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from graphprune.axes import Leaf
from graphprune.cost import CostModel
from graphprune.structure import Structure

if TYPE_CHECKING:
    from graphprune.frontends.program import Host

__all__ = ["STOPWATCH", "Pace", "Prediction", "Rounding", "Stopwatch"]

STOPWATCH = "stopwatch"
"""Where a context's data have the stopwatch."""

Prediction: TypeAlias = Callable[[Sequence[int]], int]
"""The nanoseconds that tables predict for the extents of :meth:`graphprune.cost.CostModel.extents`."""


@dataclass(frozen=True, slots=True)
class Rounding:
    """The multiple that widths of each group should be, and for each kind of layer a line that says why."""

    multiples: Mapping[Leaf, int]
    reasons: tuple[str, ...] = ()


class Stopwatch(Protocol):
    """Predicts from tables, and measures, on one machine, backend and number of threads."""

    def prediction(self, host: Host, structure: Structure, cost: CostModel) -> Prediction:
        """How long ``host`` takes, by how many positions are kept."""
        ...

    def rounding(self, host: Host, structure: Structure, cost: CostModel) -> Rounding:
        """Widths that are not slower than they should be."""
        ...

    def race(self, hosts: Sequence[Host]) -> list[float]:
        """The median seconds of programs that ran in turns, on the same inputs."""
        ...


@dataclass(frozen=True)
class Pace:
    """How fast a cut program was asked to be, and how fast it was measured to be.

    ``dense`` and ``slim`` are the median seconds of the last round that counts, ``predicted`` what the tables said of
    both, ``rounds`` the shares (of the dense program's time) that were predicted and measured, one a round. ``near``
    says that the slim one takes about as long as it may.
    """

    asked: str
    dense: float
    slim: float
    predicted: tuple[float, float]
    rounds: tuple[tuple[float, float], ...] = field(default=())
    near: bool = True

    @property
    def share(self) -> float:
        """What is left of the dense program's time."""
        return self.slim / self.dense

    @property
    def text(self) -> str:
        """One line."""
        rounds = f"{len(self.rounds)} round{'' if len(self.rounds) == 1 else 's'}"
        told = self.predicted[1] / self.predicted[0] if self.predicted[0] else 1.0
        less = "; less than was asked, but no cut that was tried lies nearer (--round-to 1 allows more of them)"
        return (
            f"latency: asked {self.asked}, measured {self.slim * 1e3:.3g} ms of {self.dense * 1e3:.3g} ms "
            f"({self.share:.1%}) after {rounds}; the tables said {told:.1%}"
        ) + ("" if self.near else less)

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "asked": self.asked,
            "dense_ms": self.dense * 1e3,
            "slim_ms": self.slim * 1e3,
            "share": self.share,
            "predicted_ms": [seconds * 1e3 for seconds in self.predicted],
            "rounds": [{"predicted": told, "measured": seen} for told, seen in self.rounds],
        }
