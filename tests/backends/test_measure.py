"""Measurements: what the intervals cover, what is called a difference, and in which order things run."""

from __future__ import annotations

import collections
import functools
import itertools
import math
import os

import numpy as np
import pytest

from graphprune.backends.machine import machine, pinned, processors, processors_for
from graphprune.backends.measure import (
    Comparison,
    Measurement,
    Timing,
    compare_times,
    interleaved,
    joined,
    measured,
)
from graphprune.errors import UsageError


def noisy(generator: np.random.Generator, turns: int, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """Times of two things in turns: noise that lasts and is in both, noise of their own, and outliers."""
    shared = np.zeros(turns)
    for turn in range(1, turns):
        shared[turn] = 0.6 * shared[turn - 1] + generator.standard_normal()
    own = generator.standard_normal((2, turns))
    before, after = np.exp(0.05 * shared + 0.05 * own) * (1 + 5 * (generator.random((2, turns)) < 0.05))
    return before, after / ratio


@pytest.mark.parametrize("turns", [10, 30])
def test_intervals_cover_the_truth_and_see_it(turns: int) -> None:
    generator = np.random.default_rng(turns)
    found = [compare_times(*noisy(generator, turns, 1.3)) for _ in range(100)]
    # 95 % are promised; of 100 draws fewer than 88 would come in one case of two hundred.
    assert sum(each.low <= 1.3 <= each.high for each in found) >= 88
    assert sum(each.verdict == "faster" for each in found) > 75
    same = [compare_times(*noisy(generator, turns, 1.0)).verdict for _ in range(100)]
    assert same.count("no difference shown") >= 88


def test_the_same_times_have_the_same_interval() -> None:
    before, after = noisy(np.random.default_rng(3), 30, 1.5)
    assert compare_times(before, after) == compare_times(before, after)
    there, back = compare_times(before, after), compare_times(after, before)
    assert there.verdict == "faster"
    assert back.verdict == "slower"
    assert there.text.startswith("faster by 1.")
    assert back.text.startswith("slower by 1.")


def test_few_runs_show_nothing() -> None:
    slow, fast = np.full(5, 2.0), np.full(5, 1.0)
    assert compare_times(slow, fast).verdict == "no difference shown"
    assert compare_times(np.full(6, 2.0), np.full(6, 1.0)).verdict == "faster"
    assert Timing("x", slow).interval == (0, math.inf)
    assert Timing("x", slow).to_dict()["interval_ms"] is None


def test_the_words_of_a_comparison() -> None:
    assert Comparison(1.62, 1.55, 1.70).text == "faster by 1.62x, 95 % interval 1.55-1.70"
    assert Comparison(0.5, 0.4, 0.8).text == "slower by 2.00x, 95 % interval 1.25-2.50"
    assert Comparison(1.1, 0.9, 1.2).text.startswith("no difference shown")
    assert Comparison(1.1, 0.9, 1.2).to_dict()["verdict"] == "no difference shown"


@pytest.mark.parametrize(("runs", "low", "high"), [(6, 1, 6), (10, 2, 9), (30, 10, 21), (100, 40, 61)])
def test_the_interval_of_a_median_is_that_of_the_sign_test(runs: int, low: int, high: int) -> None:
    times = np.random.default_rng(0).permutation(np.arange(1.0, runs + 1))
    assert Timing("x", times).interval == (low, high)
    below = sum(math.comb(runs, count) for count in range(low)) / 2**runs
    assert 2 * below <= 0.05 < 2 * (below + math.comb(runs, low) / 2**runs)


def test_many_runs_do_not_overflow() -> None:
    low, high = Timing("x", np.arange(5000.0)).interval
    assert 2400 < low < 2500 < high < 2600


def test_turns_alternate() -> None:
    order: list[str] = []
    times = interleaved([lambda: order.append("a"), lambda: order.append("b")], warmup=1, repeats=3)
    turns = ["".join(order[start : start + 2]) for start in range(0, 8, 2)]
    assert turns[0] == "ab"  # the warm-up
    assert sorted(turns[1:3]) == ["ab", "ba"]
    assert turns[3] in ("ab", "ba")
    assert times.shape == (3, 2)
    assert (times > 0).all()


@pytest.mark.parametrize("names", ["ab", "abc", "abcde"])
def test_each_follows_each_equally_often(names: str) -> None:
    order: list[str] = []
    interleaved([functools.partial(order.append, name) for name in names], warmup=0, repeats=1000 * len(names))
    pairs = collections.Counter(itertools.pairwise(order))
    others = [pairs[pair] for pair in itertools.permutations(names, 2)]
    assert max(others) < 1.25 * min(others)
    itself = [pairs[name, name] for name in names]
    assert max(itself) < 1.25 * min(itself)
    with pytest.raises(UsageError, match="at least one run"):
        interleaved([], repeats=0)


def test_circumstances_are_stated() -> None:
    found = measured(["a", "b"], [lambda: None, lambda: None], repeats=6, threads=2, pinned=[0, 1])
    assert found.circumstances.startswith("threads: 2, pinned to processor 0, 1; ")
    assert found.comparison(0).text == "no difference shown (1.00x, 95 % interval 1.00-1.00)"
    assert found.to_dict() == {
        "threads": 2,
        "pinned": [0, 1],
        "loads": 1,
        "inputs": None,
        "machine": machine(),
        "device": None,
    }
    free = measured(["a"], [lambda: None], repeats=1)
    assert free.circumstances.startswith("threads: chosen by the runtime, not pinned")


def several(generator: np.random.Generator, loads: int, turns: int, ratio: float) -> Measurement:
    """Times of two things whose speed depends on where their memory lies, and changes with each load."""
    parts = []
    for _ in range(loads):
        before, after = noisy(generator, turns, ratio)
        places = np.exp(0.08 * generator.standard_normal(2))
        parts.append(Measurement((Timing("a", before * places[0]), Timing("b", after * places[1]))))
    return joined(parts)


def test_intervals_of_several_loads_cover_the_truth() -> None:
    generator = np.random.default_rng(5)
    found = [several(generator, 8, 6, 1.1).comparison(1) for _ in range(100)]
    # Few blocks make a bootstrap's intervals too narrow by some: 87 % here.
    assert sum(each.low <= 1.1 <= each.high for each in found) >= 78
    # With the turns as blocks they would speak of this placement alone.
    alone = [compare_times(*(timing.times for timing in several(generator, 8, 6, 1.1).timings)) for _ in range(100)]
    narrower = np.mean([each.high - each.low for each in alone])
    assert narrower < np.mean([each.high - each.low for each in found])


def test_loads_are_told() -> None:
    found = several(np.random.default_rng(0), 7, 4, 2.0)
    assert (found.loads, found.timings[0].runs) == (7, 28)
    assert ", loaded 7 times; " in found.circumstances
    assert found.only(1).timings == (found.timings[1],)
    assert several(np.random.default_rng(0), 3, 10, 2.0).comparison(1).verdict == "no difference shown"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins nothing")
def test_pinning_ends() -> None:
    before = processors()
    with pinned(1) as chosen:
        assert processors() == chosen == processors_for(1)
        assert len(chosen) == 1
    assert processors() == before
    with pinned(None) as chosen:
        assert (chosen, processors()) == ([], before)
    with pytest.raises(UsageError, match="at least 1, not 0"), pinned(0):
        pass


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins nothing")
def test_where_pinning_is_forbidden_nothing_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(process: int, chosen: list[int]) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    with pinned(1) as chosen:
        assert chosen == []
