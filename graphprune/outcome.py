"""What a run of passes came to: figures before and after, and its decisions as one plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from graphprune.calibration.observe import Calibration
from graphprune.cost import CostModel
from graphprune.frontends.program import Host, Program
from graphprune.ledger import Ceiling, ceiling
from graphprune.passes.base import Context, Pass
from graphprune.passes.pipeline import format_pipeline
from graphprune.plan import Plan
from graphprune.recovered import RECOVERIES
from graphprune.result import GroupCount
from graphprune.version import versions

if TYPE_CHECKING:
    from graphprune.calibration.evaluate import Evaluation

__all__ = ["Figures", "compared", "group_count", "plan_of", "rehearsed"]


@dataclass(frozen=True)
class Figures:
    """What one state of a program counts."""

    params: int
    macs: int
    bytes: int
    peak: int
    groups: int
    ceiling: Ceiling
    undeclared: tuple[str, ...]

    @classmethod
    def of(cls, program: Program, dims: Mapping[str, int] | None) -> Figures:
        """Read and count ``program``."""
        structure = program.read()
        cost = CostModel(structure, program.sizes(dims))
        total = cost.at({}, peak=True)
        undeclared = tuple(sorted(structure.undeclared))
        groups = len(structure.groups)
        return cls(total.params, total.macs, total.bytes, total.peak or 0, groups, ceiling(cost), undeclared)

    def details(self) -> dict[str, object]:
        """The figures of a result that nothing came of."""
        return {
            "params": {"before": self.params, "after": None},
            "macs": {"before": self.macs, "after": None},
            "bytes": {"before": self.bytes, "after": None},
            "peak": {"before": self.peak, "after": None},
            "groups": {"total": self.groups, "cut": 0},
            "ceiling": asdict(self.ceiling),
            "undeclared": self.undeclared,
        }


_HOUSEKEEPING = frozenset({"canonicalize", "eliminate-dead-nodes", "merge-clones", "verify"})
"""Passes that run for every plan, or change nothing that it names."""


def group_count(before: int, context: Context) -> GroupCount:
    """Groups of the step that cut most of them; a pass may divide groups, so that there are more than ``before``."""
    counts = [
        (sum(decision.selection.cuts(group.leaf) for group in decision.structure.groups), decision)
        for decision in context.decisions
        if not decision.estimated
    ]
    cut, decision = max(counts, key=lambda each: each[0], default=(0, None))
    return GroupCount(before if decision is None else len(decision.structure.groups), cut)


def plan_of(context: Context, mark: str, steps: Sequence[Pass]) -> Plan | None:
    """The decisions as one plan; None where the graph or weights were changed too, after the first of them."""
    deciding = {decision.by for decision in context.decisions if decision.reference is None}
    cuts = [decision for decision in context.decisions if not decision.estimated]
    names = [step.name for step in steps]
    first = min((names.index(cut.by) for cut in cuts if cut.reference is None and cut.by in names), default=len(steps))
    changed = {name for name, report in context.reports if report.modified} - deciding - _HOUSEKEEPING
    if any(decision.lossless for decision in context.decisions) or changed & set(names[first:]):
        return None
    options = {"pipeline": format_pipeline(step for step in steps if step.name != "apply")}
    done = context.data.get("done", {})  # passes that chose something, as passes that name what they chose
    assert isinstance(done, dict)
    prepare = format_pipeline(done.get(step, step) for step in steps[:first] if step.name in changed)
    plan = Plan({}, mark, prepare, options, versions())
    for decision in cuts:
        plan = plan.then(Plan.of(decision.structure, decision.selection))
    return plan


def rehearsed(data: Mapping[str, object], dense: Host, seed: int, dims: Mapping[str, int] | None) -> dict[str, object]:
    """``data`` for a context with the evaluation inputs read too; what does not fit is refused before work begins.

    A metric of the library is tried on the dense program's outputs for one batch; a function of the caller's may need
    all of them.

    Raises:
        ModelError, UsageError: as :func:`graphprune.calibration.data.load_batches`; or the labels do not suit the
            metric.
    """
    from graphprune.calibration.data import load_batches
    from graphprune.calibration.evaluate import evaluate

    found, given = dict(data), data.get("evaluation")
    if given is not None:
        found["evaluation"] = load_batches(given, dense, seed=seed, dims=dims)
    batches: Any = found.get("calibration") if given is None else found["evaluation"]
    if isinstance(found.get("metric"), str) and batches is not None:
        first = batches.part([0])
        runs = Calibration(dense, first.feeds)
        evaluate(runs, runs, first, metric=found["metric"])  # type: ignore[arg-type]
    return found


def compared(
    dense: Host, slim: Host, context: Context, names: Sequence[str] = ()
) -> tuple[Evaluation | None, tuple[str, ...]]:
    """The slim program beside the dense one on the data that were given, and what a reader of that must know.

    They are compared on ``context.data["evaluation"]``, or else on the calibration inputs, which
    :func:`rehearsed` has read; None without any.
    """
    given, calibration = context.data.get("evaluation"), context.data.get("calibration")
    if given is None and calibration is None:
        return None, ()
    from graphprune.calibration.evaluate import evaluate

    batches: Any = calibration if given is None else given
    metric: Any = context.data.get("metric")
    runs = [Calibration(host, batches.feeds, progress=context.clock.say) for host in (dense, slim)]
    found = evaluate(
        runs[0], runs[1], batches, metric=metric, origin=runs[0] if _recovers(context) else None, names=names
    )
    notes = [*dict.fromkeys((*getattr(calibration, "notes", ()), *batches.notes))]
    if given is None and not batches.synthetic:
        notes.append(
            "compared on the calibration inputs, which flatters what was chosen on them: give --eval other data"
        )
    return found, tuple(notes)


def _recovers(context: Context) -> bool:
    """Whether a recovery ran, kept or not: towards the dense program, so that the dense one itself stays as it is."""
    return any(context.ran(name) for name in RECOVERIES)
