"""Measures the points of tables, the most telling ones first, until they are all there or the time is over.

First each kernel at its full widths, which tells what it has to do with the whole; then grids, finer and finer, the
slowest kernels first. Nothing is measured twice: equal operators share their times, and times are kept in a store.
What calling the runtime takes by itself is measured too, and taken off each time.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from graphprune.backends.base import Backend
from graphprune.backends.latency.kernels import Kernel
from graphprune.backends.latency.operators import NOTHING, Single, nothing, signature, single
from graphprune.backends.latency.store import Store
from graphprune.backends.latency.tables import SHARES, Table, Widths, level_widths, table_of
from graphprune.backends.race import compiled
from graphprune.clock import Progress
from graphprune.cost import CostModel
from graphprune.text import first_line

__all__ = ["Measuring", "OperatorTimer", "Timer"]

Timer = Callable[[Single], float | None]
"""The seconds that a model of one kernel takes; None where it does not run."""

WARM = 2
LEAST, MOST = 5, 50
"""Runs of one operator."""
ENOUGH = 0.03
"""Seconds of runs after which one operator has been measured."""
LEFT = 0.05
"""The part of a measured time that is the operator's at least."""
SAVED = 50
"""Points after which the store is written."""


class OperatorTimer:
    """Compiles and runs; gives the lower quartile of some runs, since noise only adds to a short time.

    ``refusal`` is what the runtime said about the first operator that did not run, and ``rpc`` the device, where it is
    not this machine.
    """

    def __init__(self, backend: Backend, target: str, threads: int | None, rpc: str | None = None) -> None:
        self._compiled = functools.partial(compiled, backend, target=target, threads=threads, rpc=rpc)
        self.refusal = ""

    def __call__(self, model: Single) -> float | None:
        try:
            run = self._compiled(model.model).prepare(model.feeds)
            for _ in range(WARM):
                run()
        except Exception as error:  # whatever a runtime raises means that this operator has no time of its own
            self.refusal = self.refusal or first_line(error)
            return None
        times: list[float] = []
        while len(times) < LEAST or (sum(times) < ENOUGH and len(times) < MOST):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        return float(np.quantile(times, 0.25))


class Measuring:
    """Tables of kernels, measured by ``timer`` where ``store`` has no time yet, for ``seconds`` at most.

    ``left_out`` counts the points that were not measured because the time was over, ``measured`` those that were.
    """

    def __init__(
        self,
        store: Store,
        timer: Timer,
        opsets: Mapping[str, int],
        seconds: float,
        progress: Progress | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store, self.timer, self.opsets, self.seconds = store, timer, dict(opsets), seconds
        self._say, self._clock = progress or (lambda text: None), clock
        self._spent = 0.0
        self._failed: set[str] = set()
        self.measured = self.left_out = 0

    @property
    def over(self) -> bool:
        """Whether the time for measuring is spent."""
        return self._spent >= self.seconds

    def at(self, kernel: Kernel, widths: Widths, even_if_over: bool = False) -> float | None:
        """The seconds of a kernel at ``widths``; None where it does not run, or the time is over."""
        mark = signature(kernel, widths)
        if mark not in self.store.times and self.over and not even_if_over:
            self.left_out += mark not in self._failed
            return None
        found = self._time(mark, lambda: single(kernel, widths, self.opsets))
        if found is None:
            return None
        call = self._time(NOTHING, nothing) or 0.0
        return max(found - call, LEFT * found)

    def _time(self, mark: str, model: Callable[[], Single]) -> float | None:
        """What is stored under ``mark``, measured if it is not there; None where it does not run."""
        if mark in self.store.times or mark in self._failed:
            return self.store.times.get(mark)
        start = self._clock()
        found = self.timer(model())
        self._spent += self._clock() - start
        if found is None:
            self._failed.add(mark)
            return None
        self.measured += 1
        self.store.put(mark, found)
        if self.measured % SAVED == 0:
            self.store.save()
        return found

    def tables(self, kernels: Sequence[Kernel], cost: CostModel) -> list[Table | None]:
        """The tables of kernels; None for one that does not run alone."""
        times: list[dict[Widths, float]] = [{} for _ in kernels]
        full: list[float] = []
        for kernel, own in zip(kernels, times, strict=True):
            found = self.at(kernel, kernel.full, even_if_over=True)
            full.append(found or 0.0)
            if found is not None:
                own[kernel.full] = found
        slowest = sorted(range(len(kernels)), key=lambda index: (-full[index], index))
        for level in range(len(SHARES)):
            for place, index in enumerate(slowest, 1):
                self._say(f"latency of operators: grid {level + 1} of {len(SHARES)}, {place} of {len(kernels)}")
                for point in level_widths(kernels[index], cost, level):
                    if point not in times[index] and kernels[index].full in times[index]:
                        found = self.at(kernels[index], point)
                        if found is not None:
                            times[index][point] = found
        self.store.save()
        return [table_of(kernel, cost, own) for kernel, own in zip(kernels, times, strict=True)]
