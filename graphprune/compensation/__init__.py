"""New weights for what a cut left, found from forward runs alone: layers give again what they gave before the cut."""

from __future__ import annotations

from graphprune.compensation.engine import Method, Options, Outcome, compensate

__all__ = ["Method", "Options", "Outcome", "compensate"]
