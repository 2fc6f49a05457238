"""How long things take, and whether one is faster than another, told apart from noise.

A busy machine slows down everything that runs at that time, so what is compared runs in turns, there and back: A B,
B A. Times are not normal and have outliers, so medians are compared. The interval of their ratio is a bootstrap over
*turns* (both times of a turn are drawn together, since the same noise is in them), in blocks of neighbouring turns,
because noise lasts: the circular block bootstrap of Politis and Romano (1992), with blocks of the cube root of the
turns. Where things were loaded several times, which places their memory anew, each load is one block.

>>> times = np.array([[2.0, 1.0]] * 20) + np.linspace(0, 0.1, 40).reshape(20, 2)
>>> compare_times(times[:, 0], times[:, 1]).text
'faster by 1.95x, 95 % interval 1.92-1.98'
>>> compare_times(times[:, 0], times[:, 0]).text
'no difference shown (1.00x, 95 % interval 1.00-1.00)'
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from graphprune.backends.machine import machine
from graphprune.errors import UsageError
from graphprune.text import shortened

__all__ = ["Comparison", "Measurement", "Timing", "compare_times", "interleaved", "joined", "measured", "spelled"]

LEVEL = 0.95
RESAMPLES = 2000
LEAST = 6
"""Fewer turns than this show nothing: the extremes of five have a chance of 1/16 to leave out the median."""

Times = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Timing:
    """The times of one thing, in seconds."""

    name: str
    times: Times = field(repr=False)

    @property
    def runs(self) -> int:
        """How many times there are."""
        return len(self.times)

    @property
    def median(self) -> float:
        """The median."""
        return float(np.median(self.times))

    @property
    def minimum(self) -> float:
        """The shortest time."""
        return float(np.min(self.times))

    @property
    def spread(self) -> float:
        """The distance between the quartiles."""
        low, high = np.percentile(self.times, [25, 75])
        return float(high - low)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the median, from order statistics: infinite on both sides of fewer than six runs."""
        return _median_interval(self.times)

    def to_dict(self) -> dict[str, Any]:
        """As JSON types, in milliseconds; an interval that has no end is null."""
        low, high = self.interval
        return {
            "median_ms": self.median * 1e3,
            "spread_ms": self.spread * 1e3,
            "minimum_ms": self.minimum * 1e3,
            "interval_ms": [low * 1e3, high * 1e3] if self.runs >= LEAST else None,
            "runs": self.runs,
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """How many times faster the second of two things is than the first, and the 95 % interval of that."""

    ratio: float
    low: float
    high: float

    @property
    def shows(self) -> bool:
        """Whether there were enough runs and loads for an interval."""
        return bool(np.isfinite(self.high))

    @property
    def verdict(self) -> str:
        """``faster``, ``slower`` or ``no difference shown``, of the second."""
        if self.low > 1:
            return "faster"
        return "slower" if self.high < 1 else "no difference shown"

    @property
    def text(self) -> str:
        """The verdict with its figures."""
        if not self.shows:
            return f"no difference shown ({self.ratio:.2f}x; fewer than {LEAST} runs, or several loads, show nothing)"
        if self.verdict == "no difference shown":
            return f"{self.verdict} ({self.ratio:.2f}x, 95 % interval {self.low:.2f}-{self.high:.2f})"
        if self.verdict == "faster":
            return f"faster by {self.ratio:.2f}x, 95 % interval {self.low:.2f}-{self.high:.2f}"
        return f"slower by {1 / self.ratio:.2f}x, 95 % interval {1 / self.high:.2f}-{1 / self.low:.2f}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        low, high = (self.low, self.high) if self.shows else (None, None)
        return {"ratio": self.ratio, "low": low, "high": high, "verdict": self.verdict, "text": self.text}


@dataclass(frozen=True, slots=True)
class Measurement:
    """The timings of things that ran in turns, and the circumstances.

    ``threads`` is None where the runtime chose their number, ``pinned`` the processors that the work was kept on,
    ``loads`` how often everything was loaded, with as many turns each time, ``inputs`` the shapes of what each ran on,
    by name, where that is known, and ``device`` the address of what they ran on, where it is not this machine.
    """

    timings: tuple[Timing, ...]
    threads: int | None = None
    pinned: tuple[int, ...] = ()
    machine: dict[str, Any] = field(default_factory=machine)
    loads: int = 1
    inputs: tuple[Mapping[str, tuple[int, ...]], ...] = ()
    device: str | None = None

    def comparison(self, index: int, base: int = 0) -> Comparison:
        """How much faster the thing at ``index`` is than the one at ``base``.

        Raises:
            UsageError: they ran on different inputs.
        """
        if not self.comparable(index, base):
            ours, theirs = spelled(self.inputs[index]), spelled(self.inputs[base])
            raise UsageError(f"{ours} and {theirs} are different work, so that times compare nothing: give --dims")
        return compare_times(self.timings[base].times, self.timings[index].times, loads=self.loads)

    def comparable(self, index: int, base: int = 0) -> bool:
        """Whether the thing at ``index`` ran on inputs like those of the one at ``base``."""
        return not self.inputs or self.inputs[index] == self.inputs[base]

    @property
    def alike(self) -> bool:
        """Whether all ran on inputs like those of the first."""
        return all(self.comparable(index) for index in range(len(self.timings)))

    def only(self, index: int) -> Measurement:
        """What belongs to the thing at ``index``."""
        return replace(self, timings=(self.timings[index],), inputs=self.inputs[index : index + 1])

    @property
    def circumstances(self) -> str:
        """One line about how it was measured."""
        threads = "threads: chosen by the runtime" if self.threads is None else f"threads: {self.threads}"
        where = f"pinned to processor {', '.join(map(str, self.pinned))}" if self.pinned else "not pinned"
        loads = f", loaded {self.loads} times" if self.loads > 1 else ""
        ran = f", on {spelled(self.inputs[0])}" if self.inputs and self.alike else ""
        if self.device is not None:
            return f"{threads}{loads}{ran}; the device at {self.device}"
        return f"{threads}, {where}{loads}{ran}; {self.machine['processor']}, {self.machine['processors']} processors"

    def to_dict(self) -> dict[str, Any]:
        """The circumstances as JSON types."""
        common = self.inputs[0] if self.inputs and self.alike else {}
        return {
            "threads": self.threads,
            "pinned": list(self.pinned),
            "loads": self.loads,
            "inputs": {name: list(shape) for name, shape in common.items()} if common else None,
            "machine": self.machine if self.device is None else None,
            "device": self.device,
        }


def spelled(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Inputs in words.

    >>> spelled({"x": (1, 3, 8, 8), "step": ()})
    'x 1x3x8x8, step scalar'
    """
    return ", ".join(
        shortened([f"{name} {'x'.join(map(str, shape)) or 'scalar'}" for name, shape in shapes.items()], 3)
    )


def interleaved(runs: Sequence[Callable[[], object]], *, warmup: int = 5, repeats: int = 30) -> Times:
    """The times of ``runs`` in seconds, ``repeats`` rows of one column each.

    Every other turn goes backwards, in an order that each pair of turns draws anew: each follows each of the others,
    and itself, about equally often, since whatever ran last is still in the caches.

    Raises :class:`UsageError` for a number of runs that makes no sense.
    """
    if repeats < 1 or warmup < 0:
        raise UsageError(f"a measurement needs at least one run and no negative warm-up, not {repeats} and {warmup}")
    for _ in range(warmup):
        for run in runs:
            run()
    times = np.empty((repeats, len(runs)))
    generator, order = np.random.default_rng(0), list(range(len(runs)))
    for turn in range(repeats):
        order = order[::-1] if turn % 2 else generator.permutation(len(runs)).tolist()
        for index in order:
            start = time.perf_counter()
            runs[index]()
            times[turn, index] = time.perf_counter() - start
    return times


def measured(
    names: Sequence[str],
    runs: Sequence[Callable[[], object]],
    *,
    warmup: int = 5,
    repeats: int = 30,
    threads: int | None = None,
    pinned: Sequence[int] = (),
) -> Measurement:
    """The measurement of ``runs``, called ``names``; ``threads`` and ``pinned`` are written down as they are."""
    times = interleaved(runs, warmup=warmup, repeats=repeats)
    timings = tuple(Timing(name, times[:, index].copy()) for index, name in enumerate(names))
    return Measurement(timings, threads, tuple(pinned))


def joined(parts: Sequence[Measurement]) -> Measurement:
    """The measurement of the same things that were loaded anew for each of ``parts``, which have equally many turns."""
    timings = (
        Timing(timing.name, np.concatenate([part.timings[index].times for part in parts]))
        for index, timing in enumerate(parts[0].timings)
    )
    return replace(parts[0], timings=tuple(timings), loads=len(parts))


def compare_times(before: Times, after: Times, seed: int = 0, loads: int = 1) -> Comparison:
    """How many times faster ``after`` is; both have one time a turn, in the same order, equally many for each load.

    Fewer than six turns, or than six loads where there are several, have an interval without end, which shows no
    difference.
    """
    ratio = float(np.median(before) / np.median(after))
    turns = len(before)
    if turns < LEAST or 1 < loads < LEAST:
        return Comparison(ratio, 0.0, float("inf"))
    generator = np.random.default_rng(seed)
    if loads > 1:
        length = turns // loads
        starts = length * generator.integers(0, loads, (RESAMPLES, loads))
    else:
        length = max(1, round(turns ** (1 / 3)))
        starts = generator.integers(0, turns, (RESAMPLES, -(-turns // length)))
    drawn = ((starts[:, :, None] + np.arange(length)) % turns).reshape(RESAMPLES, -1)[:, :turns]
    ratios = np.median(before[drawn], axis=1) / np.median(after[drawn], axis=1)
    low, high = np.quantile(ratios, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Comparison(ratio, float(low), float(high))


def _median_interval(times: Times) -> tuple[float, float]:
    """The narrowest pair of order statistics, equally far from the ends, around the median with 95 % certainty.

    The number of times below the median is binomial with one half, whatever the times' distribution is.
    """
    runs = len(times)
    if runs < LEAST:
        return 0.0, float("inf")
    # Logarithms, since two to the power of a few thousand is no float.
    logs = np.cumsum(np.concatenate(([0.0], np.log(np.arange(1, runs + 1)))))
    chances = np.exp(logs[runs] - logs - logs[::-1] - runs * np.log(2))
    below = np.cumsum(chances)
    rank = int(np.searchsorted(below, (1 - LEVEL) / 2, side="right"))  # 1-based: P(fewer than rank below) <= 2.5 %
    rank = max(rank, 1)
    ordered = np.sort(times)
    return float(ordered[rank - 1]), float(ordered[runs - rank])
