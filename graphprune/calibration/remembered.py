"""A program whose outputs are computed once and remembered, where they are few."""

from __future__ import annotations

from collections.abc import Iterator

from graphprune.calibration.fidelity import Array, Runs

__all__ = ["Remembered"]

KEPT = 1 << 30
"""Bytes of outputs that are remembered; more are computed again each time."""


class Remembered:
    """The outputs of ``runs``, to compare others with again and again."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._kept: list[list[Array]] | None = None

    def outputs(self) -> Iterator[list[Array]]:
        """The outputs, batch by batch."""
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[list[Array]] = []
        size = 0
        for outputs in self._runs.outputs():
            size += sum(value.nbytes for value in outputs)
            if size <= KEPT:
                kept.append(outputs)
            yield outputs
        self._kept = kept if size <= KEPT else None
