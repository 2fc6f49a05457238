"""Running a program on inputs that stand for its real ones: what it computes inside, how far two programs differ."""

from __future__ import annotations

from graphprune.calibration.observe import Calibration
from graphprune.calibration.steps import Feed, Stop, Values, steps

__all__ = ["Calibration", "Feed", "Stop", "Values", "steps"]
