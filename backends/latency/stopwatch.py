"""The stopwatch of one backend, target and number of threads: what tables predict, and what is measured.

See :class:`graphprune.pace.Stopwatch`, which this is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from graphprune.axes import Leaf
from graphprune.backends.base import Backend, Executable
from graphprune.backends.latency.cliffs import Cliff, cliff_of, fitting, multiple_of
from graphprune.backends.latency.kernels import CONTRACTIONS, Kernel, kernels_of, outside
from graphprune.backends.latency.measuring import Measuring, OperatorTimer, Timer
from graphprune.backends.latency.operators import nothing
from graphprune.backends.latency.store import Store
from graphprune.backends.latency.tables import ALIGNED, Table, Widths, is_joint, widths_reader
from graphprune.backends.machine import machine, pinned
from graphprune.backends.measure import Measurement, measured
from graphprune.backends.race import LOADS, common_inputs, compiled, in_turns, prepared, require_here
from graphprune.backends.registry import usable
from graphprune.clock import Progress
from graphprune.cost import CostModel
from graphprune.errors import UsageError
from graphprune.frontends.program import Host
from graphprune.pace import Prediction, Rounding
from graphprune.structure import Structure
from graphprune.text import counted, shortened

__all__ = ["SECONDS", "LatencyStopwatch", "Race"]

SECONDS = 60.0
"""For measuring operators, where nobody says; what was measured before takes none of it."""
RACE = 2.0
"""Seconds that one race takes, about."""
FEWEST, MOST = 12, 240
"""Turns of a race."""
TURNS = 10
"""Turns of a load, where there is time for more loads: quick programs differ most from load to load."""
SHARE = 0.02
"""The part of the predicted latency below which no cliff of a kind of layer is looked for."""

LEAST_ALIGNED = 4 * ALIGNED
"""Narrower slots have their cliffs in their tables already."""

Race = Callable[[Sequence[ir.Model]], list[float]]


class LatencyStopwatch:
    """Predicts and measures ONNX models on one machine.

    Args:
        backend: the runtime.
        target: where it runs them.
        threads: of one operator.
        seconds: for measuring single operators, all together.
        dims: sizes of symbolic dimensions.
        rpc: the device to measure on, as the backend names it; this machine by default.
        cache: the folder of measured times, that of the user by default.
        progress: told about what is measured.
        timer: takes the time of one operator instead of the backend.
        races: measures whole models instead of the backend.
    """

    def __init__(
        self,
        backend: str = "onnxruntime",
        target: str = "cpu",
        threads: int | None = None,
        *,
        seconds: float = SECONDS,
        dims: Mapping[str, int] | None = None,
        rpc: str | None = None,
        cache: Path | None = None,
        progress: Progress | None = None,
        timer: Timer | None = None,
        races: Race | None = None,
    ) -> None:
        if seconds < 0:
            raise UsageError(f"{seconds:g} seconds for measuring are too few: give 0 or more")
        self.target, self.threads, self.seconds, self.dims, self.rpc = target, threads, seconds, dims, rpc
        self._backend: Backend = usable(backend)
        self._progress, self._races = progress, races
        self._timer = timer or OperatorTimer(self._backend, target, threads, rpc)
        self._open: Executable | None = None
        if rpc is not None:  # no device, or no such option: said at once; and what is open keeps the connection open
            self._open = compiled(self._backend, nothing().model, target, threads=threads, rpc=rpc)
        self._store = Store(self.about(), cache)
        self._measuring: Measuring | None = None
        self._cliffs: dict[tuple[str, str], Cliff] = {}
        self._searched: set[tuple[str, str]] = set()
        self._untimed: tuple[str, ...] = ()

    def about(self) -> dict[str, Any]:
        """What measured times hold for."""
        here = machine()
        place: dict[str, Any] = {name: here[name] for name in ("system", "architecture", "processor", "processors")}
        return {
            **(place if self.rpc is None else {"device": self.rpc}),
            "backend": self._backend.name,
            "version": self._backend.available().version,
            "target": self.target,
            "threads": self.threads,
        }

    @property
    def cliffs(self) -> tuple[Cliff, ...]:
        """What was found out about widths."""
        return tuple(self._cliffs[key] for key in sorted(self._cliffs))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of a prediction should know."""
        found: list[str] = []
        if self._untimed:
            refusal = getattr(self._timer, "refusal", "")
            found.append(
                f"latency tables lack {counted(len(self._untimed), 'operator')} that cannot be measured alone, and "
                f"count their time as constant: {', '.join(shortened(self._untimed, 3))}"
                + (f" ({refusal})" if refusal else "")
            )
        left = 0 if self._measuring is None else self._measuring.left_out
        if left:
            found.append(
                f"latency tables are coarse: {left} points were not measured in {self.seconds:g} s; "
                "the same command goes on, or give --measure-seconds more"
            )
        return tuple(found)

    # -- the protocol ---------------------------------------------------------------------------------------------

    def prediction(self, host: Host, structure: Structure, cost: CostModel) -> Prediction:
        """See the protocol."""
        model = _onnx(host)
        kernels = kernels_of(model, structure, cost)
        with pinned(self.threads):
            found = self._measures(model).tables(kernels, cost)
        known = [(kernel, table) for kernel, table in zip(kernels, found, strict=True) if table is not None]
        missing = [kernel.nodes[0] for kernel, table in zip(kernels, found, strict=True) if table is None]
        missing += outside(model, structure, cost)
        self._untimed = tuple(f"{node.op_type} '{node.name or node.outputs[0].name}'" for node in missing)
        if not known:
            require_here(self._compiled(model))  # says why, where the target or the whole model is the reason
            refusal = getattr(self._timer, "refusal", "")
            raise UsageError(
                "no operator of this model could be measured alone"
                + (f" ({refusal})" if refusal else ", perhaps because all are in bodies of If or Loop")
                + ", so that nothing predicts its latency: give another budget (--macs) with --gate"
            )
        rows = [_Row(kernel, table, self._factors(kernel, cost)) for kernel, table in known]
        return lambda extents: round(1e9 * sum([row.seconds(extents) for row in rows]))

    def rounding(self, host: Host, structure: Structure, cost: CostModel) -> Rounding:
        """See the protocol."""
        model = _onnx(host)
        kernels = kernels_of(model, structure, cost)
        self._search(model, kernels, cost)
        multiples: dict[Leaf, int] = {}
        extents = cost.extents({})
        for slot, group in enumerate(structure.groups):
            found = 1
            for kernel in kernels:
                for dim in (*kernel.result, *(dim for operand in kernel.operands for dim in operand.dims)):
                    for own in dim.slots:
                        cliff = self._cliffs.get((kernel.kind, kernel.role(own)))
                        if cliff is None or slot not in cost.parts(own):
                            continue
                        channels = dim.coefficient * _others(dim.slots, own, extents)
                        found = max(found, multiple_of(channels, cliff.multiple))
            multiples[group.leaf] = fitting(group.size, found)
        return Rounding(multiples, tuple(cliff.text for cliff in self.cliffs))

    def race(self, hosts: Sequence[Host]) -> list[float]:
        """See the protocol."""
        models = [_onnx(host) for host in hosts]
        if self._races is not None:
            return self._races(models)
        return [timing.median for timing in self.measurement(models).timings]

    def measurement(self, models: Sequence[ir.Model]) -> Measurement:
        """All times of a race, for as many turns as take about two seconds."""
        with pinned(self.threads) as processors:
            executables = [self._compiled(model) for model in models]
            several, _ = common_inputs(executables, None, self.dims, 0)
            runs = [prepared(executable, feed) for executable, feed in zip(executables, several, strict=True)]
            once = sum(timing.median for timing in measured(["" for _ in runs], runs, warmup=2, repeats=3).timings)
            turns = round(min(max(RACE / max(once, 1e-9), FEWEST), MOST))
            loads = max(LOADS, turns // TURNS)
            return in_turns(
                executables,
                several,
                warmup=2,
                repeats=turns,
                loads=loads,
                threads=self.threads,
                pinned=processors,
                rpc=self.rpc,
            )

    def _compiled(self, model: ir.Model) -> Executable:
        """A whole model, for the sizes of dimensions that were asked for, as it will be compiled for use."""
        return compiled(self._backend, model, self.target, threads=self.threads, dims=self.dims or None, rpc=self.rpc)

    # -- cliffs ---------------------------------------------------------------------------------------------------

    def _search(self, model: ir.Model, kernels: Sequence[Kernel], cost: CostModel) -> None:
        """Look for cliffs in the heaviest kernel of each kind and role."""
        measuring = self._measures(model)
        with pinned(self.threads):
            times = [measuring.at(kernel, kernel.full, even_if_over=True) or 0.0 for kernel in kernels]
            whole = sum(times)
            shares: dict[tuple[str, str], float] = {}
            heaviest: dict[tuple[str, str], tuple[float, Kernel, int]] = {}
            for kernel, seconds in zip(kernels, times, strict=True):
                if kernel.op not in CONTRACTIONS or is_joint(kernel, cost):
                    continue
                for slot in kernel.slots:
                    key = (kernel.kind, kernel.role(slot))
                    shares[key] = shares.get(key, 0.0) + seconds
                    if key not in heaviest or seconds > heaviest[key][0]:
                        heaviest[key] = (seconds, kernel, slot)
            for key in sorted(heaviest):
                if key in self._searched or shares[key] < SHARE * whole:
                    continue
                self._searched.add(key)
                if self._progress is not None:
                    self._progress(f"cliffs of {key[0]}, {key[1]}")
                _, kernel, slot = heaviest[key]
                found = cliff_of(kernel, slot, measuring.at)
                if found is not None:
                    self._cliffs[key] = found
        measuring.store.save()

    def _factors(self, kernel: Kernel, cost: CostModel) -> tuple[Cliff | None, ...]:
        if is_joint(kernel, cost):
            return (None,) * len(kernel.slots)
        return tuple(self._cliffs.get((kernel.kind, kernel.role(slot))) for slot in kernel.slots)

    def _measures(self, model: ir.Model) -> Measuring:
        if self._measuring is None:
            opsets = model.opset_imports
            self._measuring = Measuring(self._store, self._timer, opsets, self.seconds, self._progress)
        return self._measuring


class _Row:
    """What one kernel adds to a prediction; it is asked for many times, and for few different widths."""

    def __init__(self, kernel: Kernel, table: Table, cliffs: Sequence[Cliff | None]) -> None:
        self._table = table
        self._widths = widths_reader(kernel)
        self._cliffs = [
            None if full < LEAST_ALIGNED else cliff for cliff, full in zip(cliffs, kernel.full, strict=True)
        ]
        self._full = kernel.full
        self._known: dict[Widths, float] = {}

    def seconds(self, extents: Sequence[int]) -> float:
        """The seconds by the table, more where a width is at a cliff."""
        widths = self._widths(extents)
        found = self._known.get(widths)
        if found is None:
            found = self._table.at(widths)
            for cliff, width, full in zip(self._cliffs, widths, self._full, strict=True):
                if cliff is not None and width != full:
                    found *= cliff.factor(width)
            self._known[widths] = found
        return found


def _others(slots: Sequence[int], own: int, extents: Sequence[int]) -> int:
    product = 1
    for slot in slots:
        product *= extents[slot] if slot != own else 1
    return product


def _onnx(host: Host) -> ir.Model:
    """The model to measure.

    Raises:
        UsageError: it is PyTorch's.
    """
    if not isinstance(host, ir.Model):
        raise UsageError("latency is measured of ONNX models: export the module first (graphprune.storage.to_onnx)")
    return host
