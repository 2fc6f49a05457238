"""What a criterion may look at, gathered for the program at hand."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from graphprune.calibration.observe import Calibration
from graphprune.errors import UsageError
from graphprune.frontends.program import Host, program_of
from graphprune.passes.base import Context
from graphprune.score import Criterion, Evidence
from graphprune.structure import Structure

__all__ = ["calibration_of", "evidence_for"]


def calibration_of(host: Host, context: Context) -> Calibration | None:
    """The calibration batches of a run with the program as it is now; None where none were given."""
    batches: Any = context.data.get("calibration")
    if batches is None:
        return None
    return Calibration(
        host,
        getattr(batches, "feeds", batches),
        synthetic=getattr(batches, "synthetic", False),
        source=getattr(batches, "source", ""),
        targets=getattr(batches, "targets", None),
        progress=context.clock.say,
    )


def evidence_for(judge: Criterion, host: Host, structure: Structure, context: Context, seed: int = 0) -> Evidence:
    """The structure, its weights, and what ``judge`` needs besides.

    Raises:
        UsageError: it needs calibration inputs and there are none, or gradients of an ONNX model.
    """
    gathered: dict[str, object] = {}
    calibration = calibration_of(host, context)
    if judge.needs and calibration is None:
        raise UsageError(f"criterion '{judge.name}' needs calibration inputs: give --calib PATH (calibration=...)")
    if calibration is not None:
        gathered["calibration"] = calibration
    if "gradients" in judge.needs:
        if isinstance(host, ir.Model):
            raise UsageError(
                f"criterion '{judge.name}' needs gradients, which an ONNX model does not have: prune the PyTorch module"
            )
        from graphprune.calibration.gradients import Gradients

        assert calibration is not None
        loss: Any = context.data.get("loss")
        found = Gradients.of(calibration, loss, seed=seed, progress=context.clock.say)
        gathered["gradients"] = found
        context.notes.extend(found.notes)
    return Evidence(structure, program_of(host).weights(), gathered)
