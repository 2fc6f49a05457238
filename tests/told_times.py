"""Times that tests say, in place of those of a machine that other processes share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType

import numpy as np
import pytest

from graphprune.backends.measure import Measurement, Timing


def taking(monkeypatch: pytest.MonkeyPatch, module: ModuleType, *seconds: float) -> None:
    """Let what ``module`` measures take so long, in the order that it is given; each still runs once."""

    def told(
        names: Sequence[str],
        runs: Sequence[Callable[[], object]],
        *,
        repeats: int,
        warmup: int = 0,
        threads: int | None = None,
        pinned: Sequence[int] = (),
    ) -> Measurement:
        for run in runs:
            run()
        timings = [Timing(name, np.full(repeats, each)) for name, each in zip(names, seconds, strict=True)]
        return Measurement(tuple(timings), threads, tuple(pinned))

    monkeypatch.setattr(module, "measured", told)
