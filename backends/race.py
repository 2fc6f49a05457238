"""Models and artifacts measured side by side, on the same inputs and in turns."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from graphprune.backends.base import Backend, Executable, input_specs_of
from graphprune.backends.machine import pinned
from graphprune.backends.measure import Measurement, joined, measured, spelled
from graphprune.backends.registry import load, usable
from graphprune.backends.scratch import Scratch
from graphprune.errors import ModelError, UsageError
from graphprune.sample_inputs import TYPICAL, Inputs, inputs_that_run
from graphprune.text import first_line

__all__ = [
    "LOADS",
    "Race",
    "common_inputs",
    "compiled",
    "in_turns",
    "measure_alone",
    "opened",
    "prepared",
    "race",
    "require_here",
]

LOADS = 6
"""How often what is compared is loaded: fewer would give no interval."""
LARGE = 256_000_000
"""Bytes, of all that is compared, beyond which it is loaded once."""


@dataclass(frozen=True)
class Race:
    """What ran, in the order that it was given, how long it took, and what to know of the comparison."""

    executables: tuple[Executable, ...]
    measurement: Measurement
    notes: tuple[str, ...] = ()


def race(
    models: Sequence[Any],
    inputs: Mapping[str, np.ndarray[Any, Any]] | None = None,
    *,
    backend: str = "onnxruntime",
    target: str = "cpu",
    warmup: int = 5,
    repeats: int = 30,
    threads: int | None = None,
    pin: bool = False,
    loads: int = LOADS,
    dims: Mapping[str, int] | None = None,
    seed: int = 0,
    **options: Any,
) -> Race:
    """Measure models (compiled for ``target``) and artifacts (for what they were compiled for) in turns.

    A model is whatever the backend compiles, an artifact the path of its folder.

    Without ``inputs`` random ones are made (one sample, where the batch is open), for the first model whose inputs all
    others take; where there is none, models that do not take those of the first run on their own, and a note says so.
    ``pin`` keeps the work on as many processors as it has ``threads``, where the system allows it. ``loads`` and
    ``repeats`` are those of :func:`in_turns`. ``dims`` sets symbolic dimensions by name; ``options`` are the backend's.

    Raises:
        ModelError: a model does not load or run.
        UsageError: the backend or target is not here, or an option makes no sense.
    """
    with pinned(threads if pin and options.get("rpc") is None else None) as processors:
        executables = tuple(opened(path, backend, target, threads=threads, dims=dims, **options) for path in models)
        for executable in executables:
            require_here(executable)
        used = _threads(executables)
        feeds, notes = common_inputs(executables, inputs, dims, seed)
        measurement = in_turns(
            executables,
            feeds,
            warmup=warmup,
            repeats=repeats,
            loads=loads,
            threads=used,
            pinned=processors,
            rpc=options.get("rpc"),
        )
    if measurement.loads < loads:
        notes += (
            f"all were loaded once: {loads} loads take {2 * loads} runs of each (--repeats), and models of less than "
            f"{LARGE // 1_000_000} MB together",
        )
    return Race(executables, measurement, notes)


def in_turns(
    executables: Sequence[Executable],
    feeds: Sequence[Inputs],
    *,
    warmup: int = 5,
    repeats: int = 30,
    loads: int = LOADS,
    threads: int | None = None,
    pinned: Sequence[int] = (),
    rpc: str | None = None,
) -> Measurement:
    """The times of executables that take turns on their inputs, loaded ``loads`` times in all.

    Where a program's memory lies decides what its caches can hold, which makes the same convolutional network up to a
    tenth faster or slower whenever it is loaded; only the mean over several loads says how fast a program *is*. They
    share the ``repeats``, rounded up to as many for each. There is one load where each had fewer than two runs, and
    where executables are large, since storing and loading them takes longer than measuring.
    """
    if repeats < 2 * loads or sum(executable.stored_bytes() for executable in executables) > LARGE:
        loads = 1
    names = [executable.name for executable in executables]
    circumstances: dict[str, Any] = {"repeats": -(-repeats // max(loads, 1)), "threads": threads, "pinned": pinned}
    about: dict[str, Any] = {"inputs": tuple(map(_shapes, feeds)), "device": _device(executables)}

    def timed(loaded: Sequence[Executable], warmup: int) -> Measurement:
        runs = [executable.prepare(feed) for executable, feed in zip(loaded, feeds, strict=True)]
        return measured(names, runs, warmup=warmup, **circumstances)

    parts = [timed(executables, warmup)]
    if loads > 1:
        scratch = Scratch()
        folders = [executable.save(scratch.path / str(place)) for place, executable in enumerate(executables)]
        for _ in range(1, loads):
            parts.append(timed([load(each, threads=threads, rpc=rpc) for each in folders], min(warmup, 2)))
    return replace(joined(parts), **about)


def opened(model: Any, backend: str, target: str, **options: Any) -> Executable:
    """The executable of an artifact, or of a model that is compiled as it is stored.

    Options that are None are left to the backend.
    """
    if isinstance(model, str | os.PathLike) and Path(model).is_dir():
        return load(model, threads=options.get("threads"), rpc=options.get("rpc"))
    return compiled(usable(backend), model, target, **options)


def compiled(backend: Backend, model: Any, target: str, **options: Any) -> Executable:
    """The executable of a model that is compiled as it is stored; loading it may still rewrite it.

    Options that are None are left to the backend.
    """
    given = {name: value for name, value in options.items() if value is not None}
    return backend.compile(model, target, **({"optimize": "none"} if backend.name == "onnxruntime" else {}), **given)


def prepared(executable: Executable, inputs: Mapping[str, np.ndarray[Any, Any]]) -> Callable[[], object]:
    """What runs once on ``inputs``, and has done so.

    Raises:
        ModelError: the executable does not run on them.
    """
    try:
        run = executable.prepare(inputs)
        run()
    except Exception as error:  # whatever the runtime raises means that it does not take these inputs
        raise ModelError(f"{executable.name}: does not run on the given inputs: {first_line(error)}") from error
    return run


def require_here(executable: Executable) -> None:
    """Refuse what cannot run on this machine.

    Raises:
        UsageError: it cannot; says what would help.
    """
    if executable.obstacle:
        raise UsageError(f"{executable.name} cannot run here: {executable.obstacle}")


def measure_alone(
    executable: Executable,
    inputs: Mapping[str, np.ndarray[Any, Any]] | None = None,
    *,
    warmup: int = 5,
    repeats: int = 30,
    dims: Mapping[str, int] | None = None,
    seed: int = 0,
) -> Measurement:
    """How long one executable takes, on random inputs where none are given.

    It is pinned where it has one thread, which is the caller's; others have been started before.
    """
    require_here(executable)
    feed = _feed(executable, inputs, dims, seed)
    with pinned(1 if executable.threads == 1 and _device([executable]) is None else None) as processors:
        found = measured(
            [executable.name],
            [executable.prepare(feed)],
            warmup=warmup,
            repeats=repeats,
            threads=executable.threads,
            pinned=processors,
        )
    return replace(found, inputs=(_shapes(feed),), device=_device([executable]))


def _shapes(feed: Inputs) -> dict[str, tuple[int, ...]]:
    return {name: tuple(np.shape(value)) for name, value in feed.items()}


def _device(executables: Sequence[Executable]) -> str | None:
    """The address of the device that all of them run on, None for this machine.

    Raises:
        UsageError: they run in different places, so that a comparison would say nothing of them.
    """
    first, *others = [getattr(each, "device", None) for each in executables]  # backends of others may have none
    if any(other != first for other in others):
        raise UsageError("some of these models run here and others on another device: compare what runs in one place")
    return first


def _threads(executables: Sequence[Executable]) -> int | None:
    """How many threads all of them use.

    Raises:
        UsageError: they differ, so that a comparison would say little.
    """
    first = executables[0]
    for other in executables[1:]:
        if other.threads != first.threads:
            ours, theirs = (each.threads or "as many as there are cores" for each in (first, other))
            raise UsageError(f"{first.name} has {ours} and {other.name} has {theirs} threads: give --threads N")
    return first.threads


def common_inputs(
    executables: Sequence[Executable],
    inputs: Mapping[str, np.ndarray[Any, Any]] | None,
    dims: Mapping[str, int] | None,
    seed: int,
) -> tuple[list[Inputs], tuple[str, ...]]:
    """The inputs of each executable, the same ones wherever that is possible, and a note where it is not."""
    if inputs is not None:
        for executable in executables:
            prepared(executable, inputs)
        return [dict(inputs)] * len(executables), ()
    own: list[Inputs] = []
    for executable in executables:
        own.append(_feed(executable, None, dims, seed))
        if all(other is executable or _takes(other, own[-1]) for other in executables):
            return [own[-1]] * len(executables), ()
    pairs = list(zip(executables, own, strict=True))
    found = [own[0] if feed is own[0] or _takes(each, own[0]) else feed for each, feed in pairs]
    told = [
        f"{each.name} ran on {spelled(_shapes(feed))}"
        for each, feed in zip(executables, found, strict=True)
        if feed is not own[0]
    ]
    first = f"{executables[0].name} on {spelled(_shapes(own[0]))}"
    return found, (f"not the same work, and not compared: {'; '.join(told)}; {first}",)


def _takes(executable: Executable, inputs: Inputs) -> bool:
    try:
        prepared(executable, inputs)
    except ModelError:
        return False
    return True


def _feed(
    executable: Executable,
    inputs: Mapping[str, np.ndarray[Any, Any]] | None,
    dims: Mapping[str, int] | None,
    seed: int,
) -> Inputs:
    """``inputs``, which the executable must run on, or random ones."""
    if inputs is not None:
        prepared(executable, inputs)
        return dict(inputs)
    left = {name: size for name, size in (dims or {}).items() if name not in executable.fixed}
    return inputs_that_run(lambda feed: executable.prepare(feed)(), input_specs_of(executable), seed, left, TYPICAL)
