"""Seconds by stage, and word of which stage has begun for whoever waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Clock", "Progress"]

Progress = Callable[[str], None]
"""Called with the name of each stage as it begins."""


class Clock:
    """Adds up the wall-clock seconds of named stages; stages that lie within another are taken out of it."""

    def __init__(self, progress: Progress | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress
        self._inner: list[float] = []

    def say(self, text: str) -> None:
        """Tell whoever waits how far a stage has come."""
        if self._progress is not None:
            self._progress(text)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time a ``with`` block as ``stage``."""
        if self._progress is not None:
            self._progress(stage)
        self._inner.append(0.0)
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            own = spent - self._inner.pop()
            self.seconds[stage] = self.seconds.get(stage, 0.0) + own
            if self._inner:
                self._inner[-1] += spent
