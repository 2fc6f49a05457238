"""Where the latency of a call is measured: the stopwatch that its passes find, and the gate at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from graphprune.clock import Progress
from graphprune.errors import SlowerError, UsageError
from graphprune.onnx_api import Gate
from graphprune.pace import STOPWATCH
from graphprune.passes.base import Pass
from graphprune.passes.prune import Prune

if TYPE_CHECKING:
    from graphprune.backends.measure import Comparison

__all__ = ["Clocked"]

DEFAULT = "onnxruntime"


@dataclass(frozen=True)
class Clocked:
    """A backend, a target and threads; ``seconds`` are for measuring operators, ``dims`` sizes of open dimensions.

    ``rpc`` names the device to measure on, where that is another one.
    """

    backend: str
    target: str
    threads: int | None
    dims: Mapping[str, int] | None
    seed: int
    seconds: float | None
    progress: Progress | None
    rpc: str | None = None

    def data(self, steps: Sequence[Pass], gated: bool, settled: bool = False) -> dict[str, object]:
        """The stopwatch for a context, if any of ``steps`` needs it; ``gated`` says that the result must be faster.

        ``settled`` says that the caller has decided against the gate, so that nothing need be measured.

        Raises:
            UsageError: there is no such backend or target, measured or not; or nothing is measured, and there are
                options for that.
        """
        if (self.backend, self.target) != (DEFAULT, "cpu"):
            from graphprune.backends.registry import backend

            known = [target.name for target in backend(self.backend).targets()]
            if self.target not in known:
                raise UsageError(f"{self.backend} has no target '{self.target}'; it has: {', '.join(known)}")
        cuts = [step for step in steps if isinstance(step, Prune)]
        asked = any(step.latency or step.round_to == "auto" for step in cuts)
        if not (asked or gated or settled) and (name := self._unused()):
            raise UsageError(
                f"{name} is for measuring, and nothing is measured: ask for a latency, for widths that suit the "
                "machine (--round-to auto), or for the gate (--gate)"
            )
        if not asked and not (gated and any(step.ratio is not None for step in cuts)):
            return {}
        from graphprune.backends.latency.stopwatch import SECONDS, LatencyStopwatch

        seconds = SECONDS if self.seconds is None else self.seconds
        return {
            STOPWATCH: LatencyStopwatch(
                self.backend,
                self.target,
                self.threads,
                seconds=seconds,
                dims=self.dims,
                rpc=self.rpc,
                progress=self.progress,
            )
        }

    def _unused(self) -> str:
        """An option that says how to measure, if one is given."""
        given = {
            "rpc (--rpc)": self.rpc is not None,
            "measure_seconds (--measure-seconds)": self.seconds is not None,
            f"backend {self.backend} (--backend)": self.backend not in (DEFAULT, "ort"),
            f"target {self.target} (--target)": self.target != "cpu",
        }
        return next((name for name, there in given.items() if there), "")

    def gate(self, allow_slower: bool) -> Gate:
        """What lets only faster models pass; with ``allow_slower`` it measures and lets all pass."""
        from graphprune.backends.gate import faster

        def measured(dense: ir.Model, slim: ir.Model) -> Comparison:
            options: dict[str, Any] = {"backend": self.backend, "target": self.target, "threads": self.threads}
            options |= {"dims": self.dims or None, "rpc": self.rpc}
            try:
                return faster(dense, slim, pin=True, seed=self.seed, allow_slower=allow_slower, **options)
            except SlowerError as error:
                raise SlowerError(f"{error} (--allow-slower); nothing was written", error.details) from None

        return measured
